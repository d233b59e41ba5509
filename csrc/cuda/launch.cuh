// Launching, for the launchers (*.cu): the same call starts a kernel on a stream or, under g++, in the emulator.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/intrinsics.cuh"
#include "stream.hpp"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <mutex>
#endif

namespace warpmem::cuda {

struct Grid {
  int64_t blocks = 1;
  int32_t threads = 32;
  int64_t shared_bytes = 0;
};

constexpr int64_t kMaxBlocks = 0x7fffffff;

#if defined(__CUDACC__)

inline void check_launch(cudaError_t status, const char* name) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (grid.shared_bytes > 48 * 1024) {  // more must be asked for
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)),
                 name);
  }
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), static_cast<size_t>(grid.shared_bytes),
           stream>>>(params);
  check_launch(cudaGetLastError(), name);
}

inline void fill_bytes(void* to, int value, int64_t bytes, Stream stream) {
  check_launch(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), stream), "cudaMemsetAsync");
}

#else

// In the emulator a launch is made at once, by one host thread at a time. Where streams are more than names (tests/cpp/fake_device.hpp), `before_launch`
// makes what was enqueued before it.
inline void (*before_launch)(Stream) = nullptr;
inline std::mutex emulator_mutex;

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (grid.blocks > kMaxBlocks) throw std::runtime_error(std::string(name) + ": too many blocks");
  if (before_launch != nullptr) before_launch(stream);
  const std::lock_guard<std::mutex> lock(emulator_mutex);
  simt::Machine::get().launch(name, grid.blocks, grid.threads, grid.shared_bytes, [&] { kernel(params); });
}

inline void fill_bytes(void* to, int value, int64_t bytes, Stream stream) {
  if (before_launch != nullptr) before_launch(stream);
  std::memset(to, value, static_cast<size_t>(bytes));
}

#endif

}  // namespace warpmem::cuda
