// The SIMT emulator: what csrc/cuda/kernels/intrinsics.cuh declares for a device, as host functions, so that the same kernels run under g++ with
// sanitizers. The engine is simt_block.hpp; the contracts of these functions are in intrinsics.cuh.
//
// Beyond executing, it reports (simt::Error): divergent barriers, collectives whose lanes do not all arrive, shuffles from lanes outside the mask,
// indexes outside a Shared array, misaligned copies and dynamic shared memory that was not asked for. Asynchronous copies spoil what they write from
// their beginning on and are made only when they are waited for, so that reading too early shows. run_twice() runs with two fills of shared memory and
// two thread orders: a kernel that reads what it did not write, or relies on an order, gives two results. The first time at a place in the tests, and
// every 32nd, the first run also reports races in shared memory (simt_races.hpp), which takes a few times as long.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../csrc/core/fp16.hpp"
#include "simt_block.hpp"

#define WARPMEM_DEVICE inline
#define WARPMEM_UNROLL
#define WARPMEM_NO_UNROLL
#define WARPMEM_UNROLL_BY(turns)
#define WARPMEM_KERNEL(threads) [[maybe_unused]] static void
#define WARPMEM_KERNEL_OF(threads, blocks) [[maybe_unused]] static void
#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace warpmem::cuda {

using simt::Machine;
using simt::Op;

constexpr int kWarpSize = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

// Places -----------------------------------------------------------------------------------------------------------------------------------------
SIMT_SMALL int thread_index() { return Machine::get().thread_index(); }
SIMT_SMALL int block_threads() { return Machine::get().threads(); }
SIMT_SMALL int64_t block_index() { return Machine::get().block_index(); }
SIMT_SMALL int64_t grid_blocks() { return Machine::get().blocks(); }
SIMT_SMALL int lane_index() { return Machine::get().lane(); }
SIMT_SMALL int warp_index() { return Machine::get().thread_index() / kWarpSize; }

// Collectives of a warp --------------------------------------------------------------------------------------------------------------------------
namespace detail {

template <typename T>
SIMT_SMALL uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
SIMT_SMALL T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
SIMT_ENGINE T shuffle(T value, int source, uint32_t mask, const char* file, int line) {
  Machine& m = Machine::get();
  const simt::Site site{file, line};
  if ((mask >> (source & 31) & 1) == 0) m.outside(site, source & 31, mask);
  return from_bits<T>(
      m.collective(Op::kShuffle, mask, site, to_bits(value), static_cast<uint64_t>(source & 31), [&]() SIMT_ENGINE {
        simt::Thread* const lanes = m.lanes();
        for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
          simt::Thread& t = lanes[__builtin_ctz(rest)];
          t.out = lanes[t.more].in;
        }
      }));
}

// All lanes of the mask get f(all operands so far, next operand, its lane).
template <typename F>
SIMT_ENGINE uint64_t fold(Op op, uint32_t mask, uint64_t in, const char* file, int line, uint64_t start, const F& f) {
  Machine& m = Machine::get();
  return m.collective(op, mask, simt::Site{file, line}, in, 0, [&]() SIMT_ENGINE {
    simt::Thread* const lanes = m.lanes();
    uint64_t total = start;
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      total = f(total, lanes[lane].in, lane);
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) lanes[__builtin_ctz(rest)].out = total;
  });
}

}  // namespace detail

template <typename T>
SIMT_SMALL T shuffle(T value, int source, uint32_t mask = kFullMask, SIMT_SITE) {
  return detail::shuffle(value, source, mask, file, line);
}
template <typename T>
SIMT_SMALL T shuffle_xor(T value, int lanes, uint32_t mask = kFullMask, SIMT_SITE) {
  return detail::shuffle(value, lane_index() ^ lanes, mask, file, line);
}
template <typename T>
SIMT_SMALL T shuffle_up(T value, int delta, uint32_t mask = kFullMask, SIMT_SITE) {
  return detail::shuffle(value, lane_index() < delta ? lane_index() : lane_index() - delta, mask, file, line);
}
template <typename T>
SIMT_SMALL T shuffle_down(T value, int delta, uint32_t mask = kFullMask, SIMT_SITE) {
  return detail::shuffle(value, lane_index() + delta > 31 ? lane_index() : lane_index() + delta, mask, file, line);
}

SIMT_SMALL uint32_t ballot(bool predicate, uint32_t mask = kFullMask, SIMT_SITE) {
  return static_cast<uint32_t>(detail::fold(Op::kBallot, mask, predicate ? 1 : 0, file, line, 0,
                                            [](uint64_t all, uint64_t one, int lane) SIMT_ENGINE { return all | one << lane; }));
}
SIMT_SMALL bool any_lane(bool predicate, uint32_t mask = kFullMask, SIMT_SITE) {
  return ballot(predicate, mask, file, line) != 0;
}
SIMT_SMALL bool all_lanes(bool predicate, uint32_t mask = kFullMask, SIMT_SITE) {
  return ballot(predicate, mask, file, line) == mask;
}

SIMT_ENGINE inline uint32_t match_any(uint32_t value, uint32_t mask = kFullMask, SIMT_SITE) {
  Machine& m = Machine::get();
  return static_cast<uint32_t>(m.collective(Op::kMatch, mask, simt::Site{file, line}, value, 0, [&]() SIMT_ENGINE {
    simt::Thread* const lanes = m.lanes();
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      simt::Thread& t = lanes[__builtin_ctz(rest)];
      t.out = 0;
      for (uint32_t others = mask; others != 0; others &= others - 1) {
        const int other = __builtin_ctz(others);
        t.out |= uint64_t{lanes[other].in == t.in} << other;
      }
    }
  }));
}

SIMT_SMALL uint32_t reduce_add(uint32_t value, uint32_t mask = kFullMask, SIMT_SITE) {
  return static_cast<uint32_t>(detail::fold(Op::kReduce, mask, value, file, line, 0,
                                            [](uint64_t all, uint64_t one, int) SIMT_ENGINE { return all + one; }));
}
SIMT_SMALL uint32_t reduce_max(uint32_t value, uint32_t mask = kFullMask, SIMT_SITE) {
  return static_cast<uint32_t>(detail::fold(Op::kReduce, mask, value, file, line, 0,
                                            [](uint64_t all, uint64_t one, int) SIMT_ENGINE { return all < one ? one : all; }));
}
SIMT_SMALL uint32_t reduce_min(uint32_t value, uint32_t mask = kFullMask, SIMT_SITE) {
  return static_cast<uint32_t>(detail::fold(Op::kReduce, mask, value, file, line, UINT64_MAX,
                                            [](uint64_t all, uint64_t one, int) SIMT_ENGINE { return all < one ? all : one; }));
}

SIMT_SMALL void sync_warp(uint32_t mask = kFullMask, SIMT_SITE) {
  Machine::get().collective(Op::kSyncWarp, mask, simt::Site{file, line}, 0, 0, []() SIMT_ENGINE {});
}

// Barriers and fences ----------------------------------------------------------------------------------------------------------------------------
SIMT_SMALL void sync_threads(SIMT_SITE) { Machine::get().barrier(false, simt::Site{file, line}); }
SIMT_SMALL int sync_threads_count(bool predicate, SIMT_SITE) { return Machine::get().barrier(predicate, simt::Site{file, line}); }
SIMT_SMALL bool sync_threads_or(bool predicate, SIMT_SITE) {
  return Machine::get().barrier(predicate, simt::Site{file, line}) != 0;
}
inline void fence_block() {}
inline void fence_device() {}

// Bits -------------------------------------------------------------------------------------------------------------------------------------------
SIMT_SMALL int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
SIMT_SMALL int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }
SIMT_SMALL int highest_bit(uint32_t bits) { return 31 - __builtin_clz(bits); }

// Atomics ----------------------------------------------------------------------------------------------------------------------------------------
namespace detail {
SIMT_SMALL void note_atomic(const void* to) {
  Machine& m = Machine::get();
  if (m.watches()) m.races().atomic(to);
}
}  // namespace detail

template <typename T>
T atomic_add(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomic_min(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = value < old ? value : old;
  return old;
}
template <typename T>
T atomic_max(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = old < value ? value : old;
  return old;
}
template <typename T>
T atomic_or(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = old | value;
  return old;
}
template <typename T>
T atomic_and(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = old & value;
  return old;
}
template <typename T>
T atomic_exchange(T* to, T value) {
  detail::note_atomic(to);
  const T old = *to;
  *to = value;
  return old;
}
template <typename T>
T atomic_cas(T* to, T expected, T value) {
  detail::note_atomic(to);
  const T old = *to;
  if (old == expected) *to = value;
  return old;
}

// Memory -----------------------------------------------------------------------------------------------------------------------------------------
template <typename T>
T load_readonly(const T* from) {
  return *from;
}
template <typename T>
T load_volatile(const T* from) {
  return *from;
}

struct alignas(16) Bytes16 {
  uint32_t word[4];
};

inline Bytes16 load_16(const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) Machine::get().fail("a load of 16 bytes from a misaligned address");
  Bytes16 out;
  std::memcpy(&out, from, 16);
  return out;
}

template <typename T>
class Shared {
 public:
  SIMT_SMALL Shared(T* data, int64_t count) : data_(data), count_(count) {}
  SIMT_SMALL T& operator[](int64_t i) const {
    Machine& m = Machine::get();
    if (static_cast<uint64_t>(i) >= static_cast<uint64_t>(count_)) m.beyond(i, count_, sizeof(T));
    if (m.watches()) m.races().touch(data_ + i, sizeof(T));
    return data_[i];
  }

 private:
  T* data_;
  int64_t count_;
};

template <typename T>
SIMT_ENGINE Shared<T> shared_array(int64_t offset, int64_t count) {
  Machine& m = Machine::get();
  const auto size = static_cast<int64_t>(sizeof(T));
  if (offset < 0 || count < 0 || offset + count * size > m.shared_bytes()) {
    m.fail("shared memory: bytes %lld to %lld of the %lld that the launch asked for", static_cast<long long>(offset),
           static_cast<long long>(offset + count * size), static_cast<long long>(m.shared_bytes()));
  }
  if (offset % static_cast<int64_t>(alignof(T)) != 0) {
    m.fail("shared memory: offset %lld is not aligned to %zu bytes", static_cast<long long>(offset), alignof(T));
  }
  return Shared<T>(reinterpret_cast<T*>(m.shared() + offset), count);
}

inline void copy_async_16(void* shared_to, const void* from) {
  Machine& m = Machine::get();
  if (reinterpret_cast<uintptr_t>(shared_to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    m.fail("an asynchronous copy of 16 bytes with a misaligned address");
  const unsigned char* const to = static_cast<unsigned char*>(shared_to);
  if (to < m.shared() || to + 16 > m.shared() + m.shared_bytes()) m.fail("an asynchronous copy to outside the shared memory");
  // It may arrive from now on until the wait: whoever still reads what was there, or reads it already, finds neither.
  if (m.watches()) m.races().write(shared_to, 16);
  std::memset(shared_to, m.settings.fill, 16);
  m.copies().push_back({shared_to, from});
}
inline void copy_async_commit() { Machine::get().copy_groups().push_back(Machine::get().copies().size()); }

template <int kGroupsLeft>
void copy_async_wait() {
  Machine& m = Machine::get();
  std::vector<size_t>& groups = m.copy_groups();
  if (groups.size() <= kGroupsLeft) return;
  const size_t done_groups = groups.size() - kGroupsLeft;
  const size_t done = groups[done_groups - 1];
  for (size_t i = 0; i < done; ++i) {
    if (m.watches()) m.races().write(m.copies()[i].to, 16);
    std::memcpy(m.copies()[i].to, m.copies()[i].from, 16);
  }
  m.copies().erase(m.copies().begin(), m.copies().begin() + static_cast<int64_t>(done));
  groups.erase(groups.begin(), groups.begin() + static_cast<int64_t>(done_groups));
  for (size_t& end : groups) end -= done;
}

// Arithmetic -------------------------------------------------------------------------------------------------------------------------------------
SIMT_SMALL float fma_or_not(float a, float b, float c) { return a * b + c; }

inline uint32_t half_bits(float value) { return float_to_half(value); }
inline float half_value(uint32_t half) { return half_to_float(static_cast<uint16_t>(half)); }

inline int32_t dp4a(uint32_t a, uint32_t b, int32_t c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}
inline uint32_t dp4a_unsigned(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255u) * (b >> i & 255u);
  return c;
}

}  // namespace warpmem::cuda

#include "simt_mma.hpp"

namespace simt {

// Calls run() under two fills of shared memory and two orders of threads and blocks. run() returns whatever the kernel wrote, comparable by ==, having
// poisoned its own outputs and workspace with `fill`. Throws Error when the two differ.
template <typename Run>
auto run_twice(const Run& run) {
  Machine& machine = Machine::get();
  const Settings before = machine.settings;
  static int times = 0;
  machine.settings = Settings{0x00, false, times++ % 32 == 0};
  const auto first = run(machine.settings.fill);
  machine.settings = Settings{0xff, true, false};
  const auto second = run(machine.settings.fill);
  machine.settings = before;
  if (!(first == second))
    throw Error("two runs differ: the kernel reads what it did not write, or depends on the order of threads");
  return first;
}

}  // namespace simt
