// Fibers for the SIMT emulator (simt.hpp): stacks of one operating-system thread that hand the processor to one another.
//
// On x86-64 a switch saves what the compiler keeps in registers and exchanges the stack pointer: a few nanoseconds. Elsewhere ucontext does it, with
// a system call for the signal mask. To AddressSanitizer all stacks together are one, on which it is told that the thread is while a kernel runs: telling
// it of every switch takes longer than the switch. Its fake stacks (detect_stack_use_after_return) would have to know more; they are off by default.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// SIMT_UCONTEXT chooses the portable switch on x86-64 too, for its test.
#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

// A function of the emulator itself, whose accesses to its own memory no sanitizer checks: that took much of the time and found nothing in a kernel.
// Memory that a kernel names (by operator[] of Shared, copies, atomics) is touched in functions without this mark.
#define SIMT_ENGINE __attribute__((no_sanitize("address", "undefined")))
// A function of a few instructions, inline at every level of optimisation.
#define SIMT_SMALL inline __attribute__((always_inline)) SIMT_ENGINE
// A function that is rarely called, whose locals are not to enlarge its callers' frames.
#define SIMT_APART __attribute__((noinline, cold))

struct Fiber {
  void* stack_pointer = nullptr;  // where the switch left it
#if defined(SIMT_UCONTEXT)
  ucontext_t context;
#endif
};

#if !defined(SIMT_UCONTEXT)
// Leaves the stack pointer in *save and takes `load`, another fiber's. Inline and without `ret`, so that the processor's stack of return addresses,
// the same in all fibers of a kernel, stays of use. The 128 bytes below the stack pointer may hold data of a function that calls nothing.
inline __attribute__((always_inline)) void switch_stack(void** save, void* load) {
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"
      "pushq %%rbp\n\t"
      "pushq %%rbx\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"
      "movq %%rsp, (%%rdi)\n\t"
      "movq %%rsi, %%rsp\n\t"
      "popq %%rax\n\t"
      "jmpq *%%rax\n"
      "1:\n\t"
      "popq %%rbx\n\t"
      "popq %%rbp\n\t"
      "leaq 128(%%rsp), %%rsp"
      : "+D"(save), "+S"(load)
      :
      : "memory", "cc", "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3",
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
#endif

// Hands the processor from `from`, the running fiber, to `to`. Returns when somebody switches back.
SIMT_SMALL void switch_fiber(Fiber& from, Fiber& to) {
#if defined(SIMT_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  switch_stack(&from.stack_pointer, to.stack_pointer);
#endif
}

SIMT_SMALL void prefetch([[maybe_unused]] const Fiber& fiber) {
#if !defined(SIMT_UCONTEXT)
  __builtin_prefetch(fiber.stack_pointer);
  __builtin_prefetch(static_cast<const char*>(fiber.stack_pointer) + 128);
#endif
}

// Stacks of equal size, each above a page that may not be touched.
class Stacks {
 public:
  // Reserved; only touched pages take memory. 1,024 of them and their pages stay below the 64 MB that AddressSanitizer takes for a stack.
  static constexpr size_t kStackBytes = size_t{56} << 10;

  explicit Stacks(size_t count) : count_(count), guard_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    void* const memory =
        mmap(nullptr, count * (kStackBytes + guard_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
    for (size_t i = 0; i < count; ++i) mprotect(memory_ + i * (kStackBytes + guard_), guard_, PROT_NONE);
  }
  ~Stacks() { munmap(memory_, count_ * (kStackBytes + guard_)); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  // Makes `fiber` one that begins with `entry`, which never returns, on stack i.
  void prepare(size_t i, Fiber& fiber, void (*entry)()) const {
    char* const bottom = memory_ + i * (kStackBytes + guard_) + guard_;
#if defined(SIMT_ASAN)
    __asan_unpoison_memory_region(bottom, kStackBytes);  // frames that were abandoned there
#endif
#if defined(SIMT_UCONTEXT)
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = bottom;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
#else
    // The address that the switch jumps to, and a return address of the entry, so that the stack is aligned as after a call.
    void* frame[2] = {};
    std::memcpy(&frame[0], &entry, sizeof entry);
    char* const top = bottom + kStackBytes - 64 * ((i % 32) + 1);  // not all tops in one set of the cache
    fiber.stack_pointer = top - sizeof frame;
    std::memcpy(fiber.stack_pointer, frame, sizeof frame);
#endif
  }

  // Tells AddressSanitizer that the thread leaves its own stack for these, or comes back.
  void enter() {
#if defined(SIMT_ASAN)
    tell(memory_, count_ * (kStackBytes + guard_), &own_bottom_, &own_bytes_);
#endif
  }
  void leave() {
#if defined(SIMT_ASAN)
    tell(own_bottom_, own_bytes_, nullptr, nullptr);
#endif
  }

 private:
#if defined(SIMT_ASAN)
  static void tell(const void* bottom, size_t bytes, const void** old_bottom, size_t* old_bytes) {
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, bottom, bytes);
    __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_bytes);
  }

  const void* own_bottom_ = nullptr;  // of the thread's own stack
  size_t own_bytes_ = 0;
#endif
  size_t count_;
  size_t guard_;
  char* memory_;
};

}  // namespace simt
