// A device that is not there: host memory, streams that do nothing until somebody waits for them, and faults at will. For everything in csrc/cuda that is
// not a kernel; kernels run in the emulator (simt.hpp), and launch.cuh asks before_launch() first.
//
// Work is put off as long as the contract allows: an operation is made when its stream or an event behind it is waited for, or a kernel is launched behind
// it. A copy from pinned memory reads it then, one from other memory at once. So a missing wait shows as memory with the poison of a fresh allocation, and
// memory that is used again too early as wrong bytes.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cuda/runtime.hpp"

namespace fake {

using warpmem::cuda::Event;
using warpmem::cuda::Status;
using warpmem::cuda::Stream;

constexpr unsigned char kPoison = 0xab;

#if defined(WARPMEM_FAILING_ALLOCATIONS)  // failing_allocations.hpp, included before: the device's own never fail
using ::Spared;
#else
struct Spared {
  Spared() {}
};
#endif

// What devices have in common, and how they are told to fail.
class Device {
 public:
  static Device& get() {
    static Device device;
    return device;
  }

  // Faults ---------------------------------------------------------------------------------------------------------------------------------------
  int64_t capacity = INT64_MAX;     // bytes of device memory
  int64_t fail_allocation = -1;     // so many more succeed, then one is refused; -1: none is
  int64_t fail_from = -1;           // so many more calls succeed, then none does; -1: all do
  bool no_pinned = false;           // no pinned memory
  int64_t refuse_enter = -1;        // so many more enter the device, then one cannot; -1: all can
  bool no_capture = false;          // captures end with an error
  int64_t calls = 0;                // that could have failed
  int64_t sent = 0;                 // bytes of copies to the device
  int64_t strangers = 0;            // calls by threads that had not entered, though they could have
  std::function<void()> on_call;    // before every call, without any lock of the device
  int64_t allocated = 0, most = 0;  // bytes of device memory
  int64_t written = 0;              // pieces of device or pinned memory that were given back with what had been written there

  void heal() {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    capacity = INT64_MAX;
    fail_allocation = fail_from = -1;
    no_pinned = no_capture = false;
    refuse_enter = -1;
  }

  // All device memory there is, by address.
  std::map<unsigned char*, int64_t> memory;
  std::map<unsigned char*, int64_t> pinned;
  std::recursive_mutex mutex;

  struct Queue {
    std::deque<std::function<void()>> operations;
    uint64_t enqueued = 0;
    uint64_t done = 0;
  };
  std::map<Stream, Queue> streams;
  std::map<Stream, std::vector<std::function<void()>>> captures;  // on the way
  int64_t graphs = 0;                                             // that there are

  void run(Stream stream, uint64_t until) {
    Queue& queue = streams[stream];
    while (queue.done < until && !queue.operations.empty()) {
      const std::function<void()> operation = std::move(queue.operations.front());
      queue.operations.pop_front();
      ++queue.done;
      operation();
    }
  }
  void run_all(Stream stream) {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    run(stream, UINT64_MAX);
  }
  void put(Stream stream, std::function<void()> operation) {
    const auto captured = captures.find(stream);
    if (captured != captures.end()) return captured->second.push_back(std::move(operation));
    Queue& queue = streams[stream];
    queue.operations.push_back(std::move(operation));
    ++queue.enqueued;
  }

  // False when the call is to fail.
  bool works() {
    ++calls;
    if (fail_from < 0) return true;
    if (fail_from == 0) return false;
    --fail_from;
    return true;
  }

  void give_back(std::map<unsigned char*, int64_t>& from, void* at) {
    for (auto& stream : streams) run(stream.first, UINT64_MAX);
    const auto found = from.find(static_cast<unsigned char*>(at));
    if (&from == &memory) allocated -= found->second;
    const auto writes = [](unsigned char byte) { return byte != 0 && byte != kPoison; };
    written += std::any_of(found->first, found->first + found->second, writes) ? 1 : 0;
    from.erase(found);
    ::operator delete(at, std::align_val_t{256});
  }

  bool is_pinned(const void* at) const {
    const auto* const byte = static_cast<const unsigned char*>(at);
    auto found = pinned.upper_bound(const_cast<unsigned char*>(byte));
    return found != pinned.begin() && byte < (--found)->first + found->second;
  }
  // A copy or fill outside an allocation ends the test.
  void require_device(const void* at, int64_t bytes) const {
    const auto* const byte = static_cast<const unsigned char*>(at);
    auto found = memory.upper_bound(const_cast<unsigned char*>(byte));
    if (found != memory.begin() && byte + bytes <= (--found)->first + found->second) return;
    std::abort();
  }
};

// launch.cuh's: true when the stream is captured, and `work` is kept.
inline bool before_launch(Stream stream, const std::function<void()>& work) {
  Device& device = Device::get();
  {
    const std::lock_guard<std::recursive_mutex> lock(device.mutex);
    const auto found = device.captures.find(stream);
    if (found != device.captures.end()) {
      found->second.push_back(work);
      return true;
    }
  }
  device.run_all(stream);
  return false;
}

class FakeRuntime : public warpmem::cuda::Runtime {
 public:
  explicit FakeRuntime(int device = 0) : number_(device) {}

  int device() const noexcept override { return number_; }
  bool enter() noexcept override {
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    return device_.refuse_enter < 0 || device_.refuse_enter-- > 0;
  }
  void leave() noexcept override {}
  bool owns(const void* memory, int* device) noexcept override {
    bool there = false;
    *device = -1;
    if (!begins()) return false;
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    const auto* const byte = static_cast<const unsigned char*>(memory);
    auto found = device_.memory.upper_bound(const_cast<unsigned char*>(byte));
    there = found != device_.memory.begin() && byte < (--found)->first + found->second;
    if (there) *device = number_;
    return there;
  }

  Status limits(warpmem::DeviceLimits* out) noexcept override {
    return call([&] {
      *out = warpmem::DeviceLimits{2, 2048, 166912, 167936};  // of two multiprocessors, so that emulated launches are small
    });
  }
  Status memory(int64_t* free, int64_t* total) noexcept override {
    return call([&] {
      *total = std::min<int64_t>(device_.capacity, int64_t{8} << 30);
      *free = *total - device_.allocated;
    });
  }

  Status allocate(void** out, int64_t bytes) noexcept override {
    if (!begins()) return Status::kFailed;
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    if (!device_.works()) return Status::kFailed;
    if (device_.fail_allocation == 0 || device_.allocated + bytes > device_.capacity) {
      if (device_.fail_allocation == 0) device_.fail_allocation = -1;
      return Status::kNoMemory;
    }
    if (device_.fail_allocation > 0) --device_.fail_allocation;
    *out = make(bytes);
    device_.memory[static_cast<unsigned char*>(*out)] = bytes;
    device_.allocated += bytes;
    device_.most = std::max(device_.most, device_.allocated);
    return Status::kOk;
  }
  void release(void* memory) noexcept override {  // also by who has not entered, where the real one leaks
    begins();
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    device_.give_back(device_.memory, memory);
  }
  Status allocate_pinned(void** out, int64_t bytes) noexcept override {
    if (!begins()) return Status::kFailed;
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    if (!device_.works()) return Status::kFailed;
    if (device_.no_pinned) return Status::kNoMemory;
    *out = make(bytes);
    device_.pinned[static_cast<unsigned char*>(*out)] = bytes;
    return Status::kOk;
  }
  void release_pinned(void* memory) noexcept override {
    begins();
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    device_.give_back(device_.pinned, memory);
  }

  Status copy_in(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return call([&] {
      device_.require_device(to, bytes);
      device_.sent += bytes;
      if (device_.is_pinned(from)) {
        device_.put(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
        return;
      }
      const auto* const bytes_of = static_cast<const unsigned char*>(from);
      device_.put(stream, [to, image = std::vector<unsigned char>(bytes_of, bytes_of + bytes)] {
        std::memcpy(to, image.data(), image.size());
      });
    });
  }
  Status copy_out(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return call([&] {
      device_.require_device(from, bytes);
      device_.put(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
    });
  }
  Status copy_within(void* to, const void* from, int64_t bytes, Stream stream) noexcept override {
    return call([&] {
      device_.require_device(to, bytes);
      device_.require_device(from, bytes);
      device_.put(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
    });
  }
  Status fill(void* to, int value, int64_t bytes, Stream stream) noexcept override {
    return call([&] {
      device_.require_device(to, bytes);
      device_.put(stream, [=] { std::memset(to, value, static_cast<size_t>(bytes)); });
    });
  }

  Status create_stream(Stream* out) noexcept override {
    return call([&] {
      *out = reinterpret_cast<Stream>(new char);
      device_.streams[*out];
    });
  }
  void release_stream(Stream stream) noexcept override {
    begins();
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    device_.run(stream, UINT64_MAX);
    device_.streams.erase(stream);
    delete reinterpret_cast<char*>(stream);
  }
  Status synchronize(Stream stream) noexcept override {
    return call([&] { device_.run(stream, UINT64_MAX); });
  }

  Status create_event(Event* out, bool) noexcept override {
    return call([&] { *out = reinterpret_cast<Event>(new Mark); });
  }
  void release_event(Event event) noexcept override {
    begins();
    delete reinterpret_cast<Mark*>(event);
  }
  Status record(Event event, Stream stream) noexcept override {
    return call([&] { *reinterpret_cast<Mark*>(event) = Mark{stream, device_.streams[stream].enqueued}; });
  }
  Status synchronize(Event event) noexcept override {
    return call([&] {
      const Mark mark = *reinterpret_cast<Mark*>(event);
      device_.run(mark.stream, mark.at);
    });
  }
  Status wait(Stream stream, Event event) noexcept override {
    return call([&] {
      const Mark mark = *reinterpret_cast<Mark*>(event);
      device_.put(stream, [this, mark] {
        if (device_.streams.count(mark.stream) != 0) device_.run(mark.stream, mark.at);
      });
    });
  }
  Status elapsed(float* milliseconds, Event, Event) noexcept override {
    return call([&] { *milliseconds = 0.25f; });
  }

  Status begin_capture(Stream stream) noexcept override {
    return call([&] { device_.captures[stream]; });
  }
  Status end_capture(Stream stream, warpmem::cuda::Graph* out) noexcept override {
    *out = nullptr;
    if (!begins()) return Status::kFailed;
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    const std::vector<std::function<void()>> work = std::move(device_.captures[stream]);
    device_.captures.erase(stream);
    if (!device_.works() || device_.no_capture) return Status::kFailed;
    *out = reinterpret_cast<warpmem::cuda::Graph>(new std::vector<std::function<void()>>(work));
    ++device_.graphs;
    return Status::kOk;
  }
  Status replay(warpmem::cuda::Graph graph, Stream stream) noexcept override {
    return call([&] {
      for (const auto& work : *reinterpret_cast<std::vector<std::function<void()>>*>(graph)) device_.put(stream, work);
    });
  }
  void release_graph(warpmem::cuda::Graph graph) noexcept override {
    begins();
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    delete reinterpret_cast<std::vector<std::function<void()>>*>(graph);
    --device_.graphs;
  }

  std::string error() const override { return "the fake device was told to fail"; }

 private:
  struct Mark {
    Stream stream = nullptr;
    uint64_t at = 0;
  };

  // False: the thread has not entered. Then it is a stranger, or was refused.
  bool begins() noexcept {
    const Spared spared;
    if (device_.on_call) device_.on_call();
    if (entered() == this) return true;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    ++device_.strangers;
    return false;
  }
  template <typename Work>
  Status call(const Work& work) noexcept {
    if (!begins()) return Status::kFailed;
    const Spared spared;
    const std::lock_guard<std::recursive_mutex> lock(device_.mutex);
    if (!device_.works()) return Status::kFailed;
    work();
    return Status::kOk;
  }
  static void* make(int64_t bytes) {
    void* const out = ::operator new(static_cast<size_t>(bytes), std::align_val_t{256});
    std::memset(out, kPoison, static_cast<size_t>(bytes));
    return out;
  }

  Device& device_ = Device::get();
  const int number_;
};

}  // namespace fake
