// CUDA without CUDA, as far as csrc/cuda/runtime_cuda.cu goes: which contexts a thread has and which were ever made, and calls that fail at will. A call that
// needs a context takes the thread's current one, or makes that of device 0, as CUDA does.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuda.h"

using cudaError_t = int;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;

using cudaGraph_t = struct CUgraph_st*;
using cudaGraphNode_t = struct CUgraphNode_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

#define CUDART_VERSION 13000
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2,
                      cudaErrorStreamCaptureUnsupported = 900;
enum { cudaHostAllocDefault, cudaStreamNonBlocking, cudaEventDefault, cudaEventDisableTiming, cudaEnableDefault };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaMemsetParams {
  void* dst;
  size_t pitch;
  unsigned value, elementSize;
  size_t width, height;
};

// What a graph is made of: work, each piece behind the one before it.
struct CUgraphNode_st {
  cudaGraph_t graph;
  size_t at;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
  std::vector<CUgraphNode_st*> nodes;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace fake_cuda {

struct State {
  std::set<int> contexts;            // devices that have one
  std::map<void*, int> memory;       // and whose it is
  std::map<CUcontext, int> devices;  // of contexts
  std::string fails;                 // the name of a function that does
  cudaError_t code = cudaErrorInvalidValue;
  int capturing = 0;      // streams that are, in whatever mode
  bool captured = false;  // by another thread, in the strictest mode: calls that a graph does not see may not be made
  int graphs = 0;         // that there are, ready or not
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
inline CUstreamCaptureMode& mode() {
  static thread_local CUstreamCaptureMode own = CU_STREAM_CAPTURE_MODE_GLOBAL;
  return own;
}
inline cudaError_t call(const char* name) {
  if (state().fails == name) return state().code;
  current();
  return cudaSuccess;
}
// A call whose effect no graph would see.
inline cudaError_t unseen(const char* name) {
  if (state().captured && mode() == CU_STREAM_CAPTURE_MODE_GLOBAL) return cudaErrorStreamCaptureUnsupported;
  return call(name);
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
inline CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  if (fake_cuda::stack().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  std::swap(*mode, fake_cuda::mode());
  return CUDA_SUCCESS;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** out, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult*) {
  const std::string wanted = name;
  *out = wanted == "cuDeviceGet"                ? reinterpret_cast<void*>(&cuDeviceGet)
         : wanted == "cuDevicePrimaryCtxRetain" ? reinterpret_cast<void*>(&cuDevicePrimaryCtxRetain)
         : wanted == "cuCtxPushCurrent"         ? reinterpret_cast<void*>(&cuCtxPushCurrent)
         : wanted == "cuCtxPopCurrent"          ? reinterpret_cast<void*>(&cuCtxPopCurrent)
                                                : reinterpret_cast<void*>(&cuThreadExchangeStreamCaptureMode);
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
  const cudaError_t status = fake_cuda::unseen("cudaMalloc");
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
  const cudaError_t status = fake_cuda::unseen("cudaHostAlloc");
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
  ++fake_cuda::state().capturing;
  return fake_cuda::call("cudaStreamBeginCapture");
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) {
  --fake_cuda::state().capturing;
  return fake_cuda::call("cudaStreamEndCapture");
}
inline cudaError_t cudaDeviceSynchronize() {
  return fake_cuda::state().capturing > 0 ? cudaErrorStreamCaptureUnsupported : fake_cuda::call("cudaDeviceSynchronize");
}
inline cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  const cudaError_t status = fake_cuda::call("cudaGraphCreate");
  if (status != cudaSuccess) return status;
  *graph = new CUgraph_st;
  ++fake_cuda::state().graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  for (CUgraphNode_st* node : graph->nodes) delete node;
  delete graph;
  --fake_cuda::state().graphs;
  return fake_cuda::call("cudaGraphDestroy");
}

namespace fake_cuda {

inline cudaError_t add_node(const char* name, cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n,
                            std::function<void()> work) {
  const cudaError_t status = call(name);
  if (status != cudaSuccess) return status;
  const bool behind_all = graph->nodes.empty() ? n == 0 : n == 1 && before[0] == graph->nodes.back();
  if (!behind_all) return cudaErrorInvalidValue;
  graph->work.push_back(std::move(work));
  graph->nodes.push_back(*node = new CUgraphNode_st{graph, graph->nodes.size()});
  return cudaSuccess;
}

}  // namespace fake_cuda

inline cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n,
                                            void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return fake_cuda::add_node("cudaGraphAddMemcpyNode1D", node, graph, before, n, [=] { std::memcpy(to, from, bytes); });
}
inline cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n,
                                          const cudaMemsetParams* fill) {
  if (fill->elementSize != 1 || fill->height != 1 || fill->value > 255) return cudaErrorInvalidValue;
  return fake_cuda::add_node("cudaGraphAddMemsetNode", node, graph, before, n,
                             [fill = *fill] { std::memset(fill.dst, static_cast<int>(fill.value), fill.width); });
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  const cudaError_t status = fake_cuda::call("cudaGraphInstantiate");
  if (status != cudaSuccess) return status;
  *out = new CUgraphExec_st{graph->work};
  ++fake_cuda::state().graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  const cudaError_t status = fake_cuda::call("cudaGraphLaunch");
  if (status == cudaSuccess) {
    for (const auto& work : graph->work) work();
  }
  return status;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  --fake_cuda::state().graphs;
  return fake_cuda::call("cudaGraphExecDestroy");
}
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
