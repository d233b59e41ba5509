// Makes the n-th allocation of a thread fail. Replaces operator new, so one file of a test includes it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

thread_local int64_t allocations_left = -1;  // fail when it reaches 0; -1: never
thread_local int64_t allocations_failed = 0;
thread_local bool fail_once = false;  // the one after that succeeds again
thread_local int64_t bytes_asked_for = 0;

// While one of these lives no allocation of the thread fails: what a test's own tools do.
struct Spared {
  const int64_t before = allocations_left;
  Spared() { allocations_left = -1; }
  ~Spared() { allocations_left = before; }
  Spared(const Spared&) = delete;
  Spared& operator=(const Spared&) = delete;
};
#define WARPMEM_FAILING_ALLOCATIONS

// The n-th allocation of this thread fails from now on, and those behind it unless `once`.
struct Failing {
  explicit Failing(int64_t n, bool once = false) {
    allocations_failed = 0;
    fail_once = once;
    allocations_left = n;
  }
  ~Failing() {
    allocations_left = -1;
    fail_once = false;
  }
};

void* allocate(size_t size, size_t alignment) {
  if (allocations_left == 0) {
    ++allocations_failed;
    if (fail_once) allocations_left = -1;
    throw std::bad_alloc();
  }
  if (allocations_left > 0) --allocations_left;
  bytes_asked_for += static_cast<int64_t>(size);
  void* const memory = alignment == 0 ? std::malloc(size != 0 ? size : 1)
                                      : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Not inlined, or the compiler sees malloc behind new and free behind delete and takes the pair for a mistake.
#define WARPMEM_NOINLINE __attribute__((noinline))

WARPMEM_NOINLINE void* operator new(size_t size) { return allocate(size, 0); }
WARPMEM_NOINLINE void* operator new[](size_t size) { return allocate(size, 0); }
WARPMEM_NOINLINE void* operator new(size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<size_t>(alignment));
}
WARPMEM_NOINLINE void* operator new(size_t size, const std::nothrow_t&) noexcept {  // std::stable_sort's
  try {
    return allocate(size, 0);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
WARPMEM_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
WARPMEM_NOINLINE void operator delete[](void* memory) noexcept { std::free(memory); }
WARPMEM_NOINLINE void operator delete(void* memory, size_t) noexcept { std::free(memory); }
WARPMEM_NOINLINE void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
WARPMEM_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
WARPMEM_NOINLINE void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
