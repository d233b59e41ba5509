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

#include "graph_nodes.hpp"
#endif

namespace warpmem::cuda {

struct Grid {
  int64_t blocks = 1;
  int32_t threads = 32;
  int64_t shared_bytes = 0;
};

constexpr int64_t kMaxBlocks = 0x7fffffff;
constexpr int64_t kAlwaysShared = 48 * 1024;  // bytes; more is allowed kernel by kernel

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

inline int launching_device(const char* name) {
  int device = 0;
  check_launch(cudaGetDevice(&device), name);
  return device;
}

inline void set_shared_limit(const void* kernel, int64_t bytes, const char* name) {
  check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), name);
}

#else

// In the emulator a launch is made at once, by one host thread at a time. Where streams are more than names (tests/cpp/fake_device.hpp), `before_launch`
// makes what was enqueued before it, or, on a stream that is captured, takes the launch and returns true.
inline bool (*before_launch)(Stream, const std::function<void()>& work) = nullptr;
inline std::mutex emulator_mutex;
inline std::map<const void*, int64_t> emulated_limits;  // as the driver has them: the number it was told last

inline int launching_device(const char*) { return 0; }

inline void set_shared_limit(const void* kernel, int64_t bytes, const char*) {
  const std::lock_guard<std::mutex> lock(emulator_mutex);
  emulated_limits[kernel] = bytes;
}

#endif

// Lets a kernel use so much shared memory. The driver keeps one number for a kernel and device, which threads that launch at the same time share: it is only
// ever raised.
inline void allow_shared(const void* kernel, int64_t bytes, const char* name) {
  static std::mutex& mutex = *new std::mutex;  // neither ends with the process: a thread may still be at work then
  static std::map<std::pair<int, const void*>, int64_t>& allowed = *new std::map<std::pair<int, const void*>, int64_t>;
  const int device = launching_device(name);
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& known = allowed[{device, kernel}];
  if (bytes <= known) return;
  set_shared_limit(kernel, bytes, name);
  known = bytes;
}

#if defined(__CUDACC__)

template <typename Params>
cudaError_t add_kernel(const void* entry, const Grid& grid, const Params& params) {
  void* arguments[] = {const_cast<Params*>(&params)};  // the node copies it
  cudaKernelNodeParams kernel{};
  kernel.func = const_cast<void*>(entry);
  kernel.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  kernel.blockDim = dim3(static_cast<unsigned>(grid.threads));
  kernel.sharedMemBytes = static_cast<unsigned>(grid.shared_bytes);
  kernel.kernelParams = arguments;
  return add_node([&](cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n) {
    return cudaGraphAddKernelNode(node, graph, before, n, &kernel);
  });
}

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (record_launch(kernel, grid, params)) return;
  const void* const entry = reinterpret_cast<const void*>(kernel);
  if (grid.shared_bytes > kAlwaysShared) allow_shared(entry, grid.shared_bytes, name);
  if (makes_graph(stream)) return check_launch(add_kernel(entry, grid, params), name);
  cudaGetLastError();  // what an earlier call left behind is not this launch's
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), static_cast<size_t>(grid.shared_bytes),
           stream>>>(params);
  check_launch(cudaGetLastError(), name);
}

inline void fill_bytes(void* to, int value, int64_t bytes, Stream stream) {
  if (record_fill(to, value, bytes)) return;
  check_launch(enqueue_fill(to, value, static_cast<size_t>(bytes), stream), "cudaMemsetAsync");
}

#else

template <typename Params>
void launch(const char* name, void (*kernel)(Params), const Grid& grid, Stream stream, const Params& params) {
  if (grid.blocks > kMaxBlocks) throw std::runtime_error(std::string(name) + ": too many blocks");
  if (record_launch(kernel, grid, params)) return;
  const void* const entry = reinterpret_cast<const void*>(kernel);
  if (grid.shared_bytes > kAlwaysShared) allow_shared(entry, grid.shared_bytes, name);
  const auto work = [=] {
    const std::lock_guard<std::mutex> lock(emulator_mutex);
    if (grid.shared_bytes > kAlwaysShared && grid.shared_bytes > emulated_limits[entry]) {
      throw std::runtime_error(std::string(name) + ": more shared memory than the kernel is allowed");
    }
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
