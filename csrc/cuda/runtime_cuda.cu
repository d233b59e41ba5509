#include <cuda_runtime.h>

#include <mutex>
#include <stdexcept>

#include "device.hpp"
#include "runtime.hpp"

namespace warpmem::cuda {

namespace {

cudaEvent_t native(Event event) { return reinterpret_cast<cudaEvent_t>(event); }

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(int device) : device_(device) {}

  int device() const noexcept override { return device_; }
  int enter() noexcept override {
    int before = device_;
    static_cast<void>(cudaGetDevice(&before));
    if (before != device_) static_cast<void>(cudaSetDevice(device_));
    return before;
  }
  void leave(int before) noexcept override {
    if (before != device_) static_cast<void>(cudaSetDevice(before));
  }

  Status limits(DeviceLimits* out) noexcept override {
    try {
      *out = device_limits(device_);
      return Status::kOk;
    } catch (const std::exception& error) {
      return failed(error.what());
    }
  }
  Status memory(int64_t* free, int64_t* total) noexcept override {
    size_t bytes_free = 0, bytes_total = 0;
    const Status status = say(cudaMemGetInfo(&bytes_free, &bytes_total), "cudaMemGetInfo");
    *free = static_cast<int64_t>(bytes_free);
    *total = static_cast<int64_t>(bytes_total);
    return status;
  }

  Status allocate(void** out, int64_t bytes) noexcept override {
    return say(cudaMalloc(out, static_cast<size_t>(bytes)), "cudaMalloc");
  }
  void release(void* memory) noexcept override { static_cast<void>(cudaFree(memory)); }
  Status allocate_pinned(void** out, int64_t bytes) noexcept override {
    return say(cudaHostAlloc(out, static_cast<size_t>(bytes), cudaHostAllocDefault), "cudaHostAlloc");
  }
  void release_pinned(void* memory) noexcept override { static_cast<void>(cudaFreeHost(memory)); }

  Status copy_in(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream), "copy to the device");
  }
  Status copy_out(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream), "copy from the device");
  }
  Status copy_within(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return say(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream), "copy on the device");
  }
  Status fill(void* to, int value, int64_t bytes, Stream stream) noexcept override {
    return say(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), stream), "cudaMemsetAsync");
  }

  Status create_stream(Stream* out) noexcept override {
    return say(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  void release_stream(Stream stream) noexcept override { static_cast<void>(cudaStreamDestroy(stream)); }
  Status synchronize(Stream stream) noexcept override { return say(cudaStreamSynchronize(stream), "waiting for the device"); }

  Status create_event(Event* out, bool timed) noexcept override {
    cudaEvent_t event = nullptr;
    const Status status =
        say(cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming), "cudaEventCreate");
    *out = reinterpret_cast<Event>(event);
    return status;
  }
  void release_event(Event event) noexcept override { static_cast<void>(cudaEventDestroy(native(event))); }
  Status record(Event event, Stream stream) noexcept override {
    return say(cudaEventRecord(native(event), stream), "cudaEventRecord");
  }
  Status synchronize(Event event) noexcept override { return say(cudaEventSynchronize(native(event)), "waiting for the device"); }
  Status wait(Stream stream, Event event) noexcept override {
    return say(cudaStreamWaitEvent(stream, native(event), 0), "cudaStreamWaitEvent");
  }
  Status elapsed(float* milliseconds, Event from, Event to) noexcept override {
    return say(cudaEventElapsedTime(milliseconds, native(from), native(to)), "cudaEventElapsedTime");
  }

  Status begin_capture(Stream stream) noexcept override {
    return say(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  Status end_capture(Stream stream, Graph* out) noexcept override {
    *out = nullptr;
    cudaGraph_t graph = nullptr;
    const Status ended = say(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    if (ended != Status::kOk) return ended;
    cudaGraphExec_t ready = nullptr;
    const Status status = say(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
    static_cast<void>(cudaGraphDestroy(graph));
    *out = reinterpret_cast<Graph>(ready);
    return status;
  }
  Status replay(Graph graph, Stream stream) noexcept override {
    return say(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream), "cudaGraphLaunch");
  }
  void release_graph(Graph graph) noexcept override {
    static_cast<void>(cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph)));
  }

  std::string error() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return error_;
  }

 private:
  Status say(cudaError_t status, const char* step) noexcept {
    if (status == cudaSuccess) return Status::kOk;
    static_cast<void>(cudaGetLastError());  // one that does not stick is not to be met by the next launch
    failed(std::string(step) + ": " + cudaGetErrorString(status));
    return status == cudaErrorMemoryAllocation ? Status::kNoMemory : Status::kFailed;
  }
  Status failed(std::string text) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    error_ = std::move(text);
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
