#include <cuda_runtime.h>

#include <mutex>
#include <new>
#include <stdexcept>

#include "current_device.hpp"
#include "device.hpp"
#include "graph_nodes.hpp"
#include "runtime.hpp"

namespace warpmem::cuda {

namespace {

cudaEvent_t native(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(int device) : device_(device) {}

  int device() const noexcept override { return device_; }
  bool enter() noexcept override {
    const EnterFailure failure = enter_device(device_);
    if (failure.step == nullptr) return true;
    failed(failure.step, "error of the CUDA driver", failure.code);
    return false;
  }
  void leave() noexcept override { leave_device(); }
  bool owns(const void* memory, int* device) noexcept override {
    cudaPointerAttributes known{};
    *device = -1;
    if (Runtime::entered() != this) return false;
    if (cudaPointerGetAttributes(&known, memory) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    if (known.type == cudaMemoryTypeManaged) return true;
    if (known.type == cudaMemoryTypeDevice) *device = known.device;
    return *device == device_;
  }

  Status limits(DeviceLimits* out) noexcept override {
    try {
      *out = device_limits(device_);
      return Status::kOk;
    } catch (const std::exception& error) {
      return failed("device", error.what());
    }
  }
  Status memory(int64_t* free, int64_t* total) noexcept override {
    size_t bytes_free = 0, bytes_total = 0;
    const Status status = say("cudaMemGetInfo", [&] { return cudaMemGetInfo(&bytes_free, &bytes_total); });
    *free = static_cast<int64_t>(bytes_free);
    *total = static_cast<int64_t>(bytes_total);
    return status;
  }

  Status allocate(void** out, int64_t bytes) noexcept override {
    return say("cudaMalloc", [&] { return cudaMalloc(out, static_cast<size_t>(bytes)); });
  }
  void release(void* memory) noexcept override {
    if (Runtime::entered() == this) static_cast<void>(cudaFree(memory));
  }
  Status allocate_pinned(void** out, int64_t bytes) noexcept override {
    return say("cudaHostAlloc", [&] { return cudaHostAlloc(out, static_cast<size_t>(bytes), cudaHostAllocDefault); });
  }
  void release_pinned(void* memory) noexcept override {
    if (Runtime::entered() == this) static_cast<void>(cudaFreeHost(memory));
  }

  Status copy_in(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say("copy to the device",
               [&] { return enqueue_copy(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream); });
  }
  Status copy_out(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say("copy from the device",
               [&] { return enqueue_copy(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream); });
  }
  Status copy_within(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say("copy on the device",
               [&] { return enqueue_copy(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream); });
  }
  Status fill(void* to, int value, int64_t bytes, Stream stream) noexcept override {
    return say("cudaMemsetAsync", [&] { return enqueue_fill(to, value, static_cast<size_t>(bytes), stream); });
  }

  Status create_stream(Stream* out) noexcept override {
    return say("cudaStreamCreate", [&] { return cudaStreamCreateWithFlags(out, cudaStreamNonBlocking); });
  }
  void release_stream(Stream stream) noexcept override {
    if (Runtime::entered() == this) static_cast<void>(cudaStreamDestroy(stream));
  }
  Status synchronize(Stream stream) noexcept override {
    return say("waiting for the device", [&] { return cudaStreamSynchronize(stream); });
  }

  Status create_event(Event* out, bool timed) noexcept override {
    cudaEvent_t event = nullptr;
    const Status status = say(
        "cudaEventCreate", [&] { return cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming); });
    *out = reinterpret_cast<Event>(event);
    return status;
  }
  void release_event(Event event) noexcept override {
    if (Runtime::entered() == this) static_cast<void>(cudaEventDestroy(native(event)));
  }
  Status record(Event event, Stream stream) noexcept override {
    return say("cudaEventRecord", [&] { return cudaEventRecord(native(event), stream); });
  }
  Status synchronize(Event event) noexcept override {
    return say("waiting for the device", [&] { return cudaEventSynchronize(native(event)); });
  }
  Status wait(Stream stream, Event event) noexcept override {
    return say("cudaStreamWaitEvent", [&] { return cudaStreamWaitEvent(stream, native(event), 0); });
  }
  Status elapsed(float* milliseconds, Event from, Event to) noexcept override {
    return say("cudaEventElapsedTime", [&] { return cudaEventElapsedTime(milliseconds, native(from), native(to)); });
  }

  Status begin_capture(Stream stream) noexcept override {
    if (graph_in_making.graph != nullptr) return failed("graph", "the thread is making another");
    cudaGraph_t graph = nullptr;
    const Status status = say("cudaGraphCreate", [&] { return cudaGraphCreate(&graph, 0); });
    if (status == Status::kOk) graph_in_making = GraphInMaking{graph, nullptr, stream};
    return status;
  }
  Status end_capture(Stream stream, Graph* out) noexcept override {
    *out = nullptr;
    if (!makes_graph(stream)) return failed("graph", "none was begun");
    const cudaGraph_t graph = graph_in_making.graph;
    graph_in_making = {};
    cudaGraphExec_t ready = nullptr;
    const Status status = say("cudaGraphInstantiate", [&] { return cudaGraphInstantiate(&ready, graph, 0); });
    static_cast<void>(cudaGraphDestroy(graph));
    if (status == Status::kOk) *out = reinterpret_cast<Graph>(ready);
    return status;
  }
  Status replay(Graph graph, Stream stream) noexcept override {
    return say("cudaGraphLaunch", [&] { return cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream); });
  }
  void release_graph(Graph graph) noexcept override {
    if (Runtime::entered() == this) static_cast<void>(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph)));
  }

  std::string error() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return error_;
  }

 private:
  template <typename Call>
  Status say(const char* step, const Call& call) noexcept {
    if (Runtime::entered() != this) return Status::kFailed;  // enter() said why
    const cudaError_t status = call();
    if (status == cudaSuccess) return Status::kOk;
    static_cast<void>(cudaGetLastError());  // one that does not stick is not to be met by the next launch
    failed(step, cudaGetErrorString(status));
    return status == cudaErrorMemoryAllocation ? Status::kNoMemory : Status::kFailed;
  }
  Status failed(const char* step, const char* what, int code = 0) noexcept {
    try {
      std::string text = std::string(step) + ": " + what + (code != 0 ? " " + std::to_string(code) : "");
      const std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::move(text);
    } catch (const std::bad_alloc&) {  // the one before stays
    }
    return Status::kFailed;
  }

  const int device_;
  mutable std::mutex mutex_;
  std::string error_;
};

}  // namespace

std::unique_ptr<Runtime> make_runtime(int device) {
  const int count = device_count();
  if (device < 0 || device >= count) {
    throw std::runtime_error("there is no CUDA device " + std::to_string(device) + "; " + std::to_string(count) + " can be used");
  }
  return std::make_unique<CudaRuntime>(device);
}

}  // namespace warpmem::cuda
