// What a planner has to know of a device. Plans are pure functions of shapes and of these numbers, so they can be tested and printed without one.
#pragma once

#include <cstdint>

namespace warpmem {

struct DeviceLimits {
  int32_t multiprocessors = 108;
  int32_t threads_per_multiprocessor = 2048;
  int64_t shared_per_block = 166912;           // bytes of dynamic shared memory a block may ask for
  int64_t shared_per_multiprocessor = 167936;  // bytes, 1 KiB of which each block takes for itself
};

// One device of each architecture (CUDA C++ Programming Guide 13.0, table of technical specifications): A100, H200, B200, RTX 5090.
constexpr DeviceLimits kLimitsSm80{108, 2048, 166912, 167936};
constexpr DeviceLimits kLimitsSm90{132, 2048, 232448, 233472};
constexpr DeviceLimits kLimitsSm100{148, 2048, 232448, 233472};
constexpr DeviceLimits kLimitsSm120{170, 1536, 101376, 102400};

// How many blocks of a kernel a device runs at a time; registers aside, which __launch_bounds__ keeps from being the limit.
inline int64_t resident_blocks(const DeviceLimits& limits, int32_t threads, int64_t shared_bytes) {
  const int64_t by_threads = limits.threads_per_multiprocessor / threads;
  const int64_t by_shared = limits.shared_per_multiprocessor / (shared_bytes + 1024);
  const int64_t each = by_threads < by_shared ? by_threads : by_shared;
  return limits.multiprocessors * (each < 1 ? 1 : each);
}

}  // namespace warpmem
