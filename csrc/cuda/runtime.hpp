// The few things that host code asks of a device, so that everything but the kernels can be run and broken in tests: runtime_cuda.cu asks CUDA,
// tests/cpp/fake_device.hpp pretends.
//
// Nothing throws. kNoMemory leaves the device as it was and may pass; after kFailed the device is not to be relied upon (CUDA's own errors mostly stick:
// every later call fails too). What is enqueued runs in the order of its stream; memory that is copied from or to must stay until then.
// Threads: any, each having entered (Entered, below). Where a thread could not, every call fails that it makes, and what it releases stays: nothing ever
// happens on another device. No call is made under a lock for which others wait who ask nothing of the device, nor under the interpreter's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "../core/device_limits.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

enum class Status { kOk, kNoMemory, kFailed };

struct EventOf;  // a device's event, opaque
using Event = EventOf*;
struct GraphOf;  // work of a stream that can be enqueued again, opaque
using Graph = GraphOf*;

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual int device() const noexcept = 0;
  // Makes this device the calling thread's, until leave(), and changes nothing else. False, and there is nothing to leave, when it could not.
  virtual bool enter() noexcept = 0;
  virtual void leave() noexcept = 0;

  // Whether an address is in this device's memory, or in memory that is managed for all. Else `device` is the number of the one that it belongs to, or -1: it is
  // none of a device's that the driver knows. No failure: to ask about a wrong address harms nobody.
  virtual bool owns(const void* memory, int* device) noexcept = 0;

  virtual Status limits(DeviceLimits* out) noexcept = 0;
  virtual Status memory(int64_t* free, int64_t* total) noexcept = 0;

  // Aligned to 256 bytes, with any content.
  virtual Status allocate(void** out, int64_t bytes) noexcept = 0;
  virtual void release(void* memory) noexcept = 0;  // may wait for the device
  // Host memory that the device reads and writes while the host goes on, at the address it has for the host.
  virtual Status allocate_pinned(void** out, int64_t bytes) noexcept = 0;
  virtual void release_pinned(void* memory) noexcept = 0;

  // Enqueued on `stream`. From memory that is not pinned copy_in may read before it returns.
  virtual Status copy_in(void* to, const void* from, int64_t bytes, Stream stream) noexcept = 0;
  virtual Status copy_out(void* to, const void* from, int64_t bytes, Stream stream) noexcept = 0;
  virtual Status copy_within(void* to, const void* from, int64_t bytes, Stream stream) noexcept = 0;
  virtual Status fill(void* to, int value, int64_t bytes, Stream stream) noexcept = 0;

  // Streams do not wait for the default stream, nor it for them.
  virtual Status create_stream(Stream* out) noexcept = 0;
  virtual void release_stream(Stream stream) noexcept = 0;
  virtual Status synchronize(Stream stream) noexcept = 0;  // waits until all that was enqueued is done

  virtual Status create_event(Event* out, bool timed) noexcept = 0;
  virtual void release_event(Event event) noexcept = 0;  // who waits for it already goes on waiting
  virtual Status record(Event event, Stream stream) noexcept = 0;
  virtual Status synchronize(Event event) noexcept = 0;
  virtual Status wait(Stream stream, Event event) noexcept = 0;  // what is enqueued from now on, until the event has happened
  virtual Status elapsed(float* milliseconds, Event from, Event to) noexcept = 0;

  // Between the two the calling thread's copies, fills and launches on the stream are not made but kept, with their addresses and parameters as they are then.
  // end_capture gives null when it fails; the stream is as before in either case, and no other thread notices. A graph may be released while it runs.
  virtual Status begin_capture(Stream stream) noexcept = 0;
  virtual Status end_capture(Stream stream, Graph* out) noexcept = 0;
  virtual Status replay(Graph graph, Stream stream) noexcept = 0;  // enqueued
  virtual void release_graph(Graph graph) noexcept = 0;

  // The text of the last failure, of whatever thread.
  virtual std::string error() const = 0;

 protected:
  friend class Entered;
  // The one whose device the calling thread has entered.
  static const Runtime*& entered() noexcept {
    static thread_local const Runtime* current = nullptr;
    return current;
  }
};

// The real one; throws std::runtime_error where there is no such device.
std::unique_ptr<Runtime> make_runtime(int device);

// The device is the thread's while this lives, or none is.
class Entered {
 public:
  explicit Entered(Runtime& runtime) noexcept : runtime_(runtime), before_(Runtime::entered()), well_(runtime.enter()) {
    Runtime::entered() = well_ ? &runtime : nullptr;
  }
  ~Entered() {
    if (well_) runtime_.leave();
    Runtime::entered() = before_;
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  Runtime& runtime_;
  const Runtime* const before_;
  const bool well_;
};

}  // namespace warpmem::cuda
