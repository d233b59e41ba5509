// Launching, for the launchers (*.cu): the same call starts a kernel on a stream or, under g++, in the emulator.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/intrinsics.cuh"
#include "launch_record.hpp"
#include "stream.hpp"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace warpmem::cuda {

struct Grid {
  int64_t blocks = 1;
  int32_t threads = 32;
  int64_t shared_bytes = 0;
};

constexpr int64_t kMaxBlocks = 0x7fffffff;

// True: it was recorded, and is not to be made.
template <typename Params>
bool record_launch(void (*kernel)(Params), const Grid& grid, const Params& params) {
  if (launch_record == nullptr) return false;
  append_bytes(launch_record, kernel);
  append_bytes(launch_record, grid.blocks);
  append_bytes(launch_record, grid.threads);
  append_bytes(launch_record, grid.shared_bytes);
  append_bytes(launch_record, params);
  return true;
}
inline bool record_fill(void* to, int value, int64_t bytes) {
  if (launch_record == nullptr) return false;
  append_bytes(launch_record, to);
  append_bytes(launch_record, value);
  append_bytes(launch_record, bytes);
  return true;
}

#if defined(__CUDACC__)

inline void check_launch(cudaError_t status, const char* name) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // it is reported here, not by the next launch of this thread
  throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

// Lets a kernel use so much shared memory. The driver keeps one number for a kernel and device, which threads that launch at the same time share: it is only
// ever raised.
inline void allow_shared(const void* kernel, int64_t bytes, const char* name) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int64_t> allowed;
  int device = 0;
  check_launch(cudaGetDevice(&device), name);
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& known = allowed[{device, kernel}];
  if (bytes <= known) return;
  check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name);
  known = bytes;
}

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (record_launch(kernel, grid, params)) return;
  if (grid.shared_bytes > 48 * 1024) allow_shared(reinterpret_cast<const void*>(kernel), grid.shared_bytes, name);
  cudaGetLastError();  // what an earlier call left behind is not this launch's
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), static_cast<size_t>(grid.shared_bytes),
           stream>>>(params);
  check_launch(cudaGetLastError(), name);
}

inline void fill_bytes(void* to, int value, int64_t bytes, Stream stream) {
  if (record_fill(to, value, bytes)) return;
  check_launch(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), stream), "cudaMemsetAsync");
}

#else

// In the emulator a launch is made at once, by one host thread at a time. Where streams are more than names (tests/cpp/fake_device.hpp), `before_launch`
// makes what was enqueued before it, or, on a stream that is captured, takes the launch and returns true.
inline bool (*before_launch)(Stream, const std::function<void()>& work) = nullptr;
inline std::mutex emulator_mutex;

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (grid.blocks > kMaxBlocks) throw std::runtime_error(std::string(name) + ": too many blocks");
  if (record_launch(kernel, grid, params)) return;
  const auto work = [=] {
    const std::lock_guard<std::mutex> lock(emulator_mutex);
    simt::Machine::get().launch(name, grid.blocks, grid.threads, grid.shared_bytes, [&] { kernel(params); });
  };
  if (before_launch == nullptr || !before_launch(stream, work)) work();
}

inline void fill_bytes(void* to, int value, int64_t bytes, Stream stream) {
  if (record_fill(to, value, bytes)) return;
  const auto work = [=] { std::memset(to, value, static_cast<size_t>(bytes)); };
  if (before_launch == nullptr || !before_launch(stream, work)) work();
}

#endif

}  // namespace warpmem::cuda
