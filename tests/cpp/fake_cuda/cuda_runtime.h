// CUDA without CUDA, as far as csrc/cuda/runtime_cuda.cu goes: which contexts a thread has and which were ever made, and calls that fail at will. A call that
// needs a context takes the thread's current one, or makes that of device 0, as CUDA does.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuda.h"

using cudaError_t = int;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

#define CUDART_VERSION 13000
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2;
enum { cudaHostAllocDefault, cudaStreamNonBlocking, cudaEventDefault, cudaEventDisableTiming, cudaEnableDefault };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

namespace fake_cuda {

struct State {
  std::set<int> contexts;            // devices that have one
  std::map<void*, int> memory;       // and whose it is
  std::map<CUcontext, int> devices;  // of contexts
  std::string fails;                 // the name of a function that does
  cudaError_t code = cudaErrorInvalidValue;
};
inline State& state() {
  static State one;
  return one;
}
inline std::vector<CUcontext>& stack() {
  static thread_local std::vector<CUcontext> contexts;
  return contexts;
}
inline CUcontext context(int device) {
  static char contexts[8];
  const auto made = reinterpret_cast<CUcontext>(&contexts[device]);
  state().contexts.insert(device);
  state().devices[made] = device;
  return made;
}
inline int current() {
  if (stack().empty()) stack().push_back(context(0));
  return state().devices[stack().back()];
}
inline cudaError_t call(const char* name) {
  if (state().fails == name) return state().code;
  current();
  return cudaSuccess;
}

}  // namespace fake_cuda

inline CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}
inline CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (fake_cuda::state().fails == "cuDevicePrimaryCtxRetain") return CUDA_ERROR_OUT_OF_MEMORY;
  *context = fake_cuda::context(device);
  return CUDA_SUCCESS;
}
inline CUresult cuCtxPushCurrent(CUcontext context) {
  if (fake_cuda::state().fails == "cuCtxPushCurrent") return CUDA_ERROR_INVALID_CONTEXT;
  fake_cuda::stack().push_back(context);
  return CUDA_SUCCESS;
}
inline CUresult cuCtxPopCurrent(CUcontext* context) {
  *context = fake_cuda::stack().back();
  fake_cuda::stack().pop_back();
  return CUDA_SUCCESS;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** out, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult*) {
  const std::string wanted = name;
  *out = wanted == "cuDeviceGet"                ? reinterpret_cast<void*>(&cuDeviceGet)
         : wanted == "cuDevicePrimaryCtxRetain" ? reinterpret_cast<void*>(&cuDevicePrimaryCtxRetain)
         : wanted == "cuCtxPushCurrent"         ? reinterpret_cast<void*>(&cuCtxPushCurrent)
                                                : reinterpret_cast<void*>(&cuCtxPopCurrent);
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = fake_cuda::stack().empty() ? 0 : fake_cuda::current();
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {  // which makes a context
  if (fake_cuda::state().fails == "cudaSetDevice") return fake_cuda::state().code;
  if (!fake_cuda::stack().empty()) fake_cuda::stack().pop_back();
  fake_cuda::stack().push_back(fake_cuda::context(device));
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "told to fail"; }
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = 1;
  return fake_cuda::call("cudaMemGetInfo");
}
inline cudaError_t cudaMalloc(void** out, size_t bytes) {
  const cudaError_t status = fake_cuda::call("cudaMalloc");
  if (status != cudaSuccess) return status;
  *out = std::malloc(bytes);
  fake_cuda::state().memory[*out] = fake_cuda::current();
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  fake_cuda::state().memory.erase(memory);
  std::free(memory);
  return fake_cuda::call("cudaFree");
}
inline cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  const cudaError_t status = fake_cuda::call("cudaHostAlloc");
  if (status == cudaSuccess) *out = std::malloc(bytes);
  return status;
}
inline cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return fake_cuda::call("cudaFreeHost");
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* memory) {
  const auto found = fake_cuda::state().memory.find(const_cast<void*>(memory));
  const bool there = found != fake_cuda::state().memory.end();
  *out = {there ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, there ? found->second : -2};
  return fake_cuda::call("cudaPointerGetAttributes");
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  const cudaError_t status = fake_cuda::call("cudaMemcpyAsync");
  if (status == cudaSuccess) std::memcpy(to, from, bytes);
  return status;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  const cudaError_t status = fake_cuda::call("cudaMemsetAsync");
  if (status == cudaSuccess && bytes > 0) std::memset(to, value, bytes);
  return status;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) { return fake_cuda::call("cudaStreamCreate"); }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  return fake_cuda::call("cudaStreamBeginCapture");
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return fake_cuda::call("cudaStreamEndCapture"); }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) {
  return fake_cuda::call("cudaGraphInstantiate");
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t) { return fake_cuda::call("cudaGraphDestroy"); }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return fake_cuda::call("cudaGraphLaunch"); }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return fake_cuda::call("cudaGraphExecDestroy"); }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return fake_cuda::call("cudaStreamDestroy"); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return fake_cuda::call("cudaStreamSynchronize"); }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned) { return fake_cuda::call("cudaEventCreate"); }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return fake_cuda::call("cudaEventDestroy"); }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return fake_cuda::call("cudaEventRecord"); }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return fake_cuda::call("cudaEventSynchronize"); }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return fake_cuda::call("cudaStreamWaitEvent"); }
inline cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t, cudaEvent_t) {
  *out = 1.0f;
  return fake_cuda::call("cudaEventElapsedTime");
}
