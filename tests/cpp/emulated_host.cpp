// warpmem._cuda without a device: its own sources, the emulator for kernels, a fake device for everything else. tests/emulated_cuda.py builds and loads it.
// The functions at the end are for tests, which call them by name from the shared object.
#include <Python.h>

#include <atomic>
#include "../../csrc/cuda/cached_list.cpp"
#include "../../csrc/cuda/device.hpp"
#include "../../csrc/cuda/device_heap.cpp"
#include "../../csrc/cuda/kmeans_train.cpp"
#include "../../csrc/cuda/launch.cuh"
#include "../../csrc/cuda/page_cache.cpp"
#include "../../csrc/cuda/page_copies.cpp"
#include "../../csrc/cuda/page_loader.cpp"
#include "../../csrc/cuda/page_room.cpp"
#include "../../csrc/cuda/scan_batch.cpp"
#include "../../csrc/cuda/scan_lane.cpp"
#include "../../csrc/cuda/scan_queue.cpp"
#include "../../csrc/cuda/staging.cpp"
#include "fake_device.hpp"

namespace {

// Calls of the device by a thread that held the interpreter's lock.
std::atomic<int64_t> locked_calls{0};

bool watch_calls() {
  fake::Device::get().on_call = [] {
    if (PyGILState_Check() != 0) ++locked_calls;
  };
  return true;
}

}  // namespace

namespace warpmem::cuda {

int device_count() noexcept { return 1; }
std::string unavailable_reason() { return ""; }
std::vector<Device> devices() { return {Device{0, "emulated", 9, 0, size_t{8} << 30}}; }
int driver_version() noexcept { return 0; }
int runtime_version() noexcept { return 0; }
SelfTest self_test(int) { return SelfTest{}; }

std::unique_ptr<Runtime> make_runtime(int device) {
  if (device != 0) throw std::runtime_error("there is no CUDA device " + std::to_string(device) + "; 1 can be used");
  before_launch = fake::before_launch;
  static const bool watching = watch_calls();
  static_cast<void>(watching);
  return std::make_unique<fake::FakeRuntime>(device);
}

}  // namespace warpmem::cuda

#define EMULATED extern "C" __attribute__((visibility("default")))

EMULATED int64_t emulated_heal() {
  fake::Device::get().heal();
  return 0;
}
EMULATED int64_t emulated_capacity(int64_t bytes) {
  fake::Device::get().capacity = bytes;
  return 0;
}
EMULATED int64_t emulated_fail_allocation(int64_t after) {
  fake::Device::get().fail_allocation = after;
  return 0;
}
EMULATED int64_t emulated_fail_from(int64_t after) {
  fake::Device::get().fail_from = after;
  return 0;
}
EMULATED int64_t emulated_locked_calls() { return locked_calls; }
EMULATED int64_t emulated_strangers() { return fake::Device::get().strangers; }
EMULATED int64_t emulated_forget_strangers(int64_t before) {
  fake::Device::get().strangers = before;
  return 0;
}
EMULATED int64_t emulated_refuse_enter(int64_t after) {
  fake::Device::get().refuse_enter = after;
  return 0;
}
EMULATED int64_t emulated_calls() { return fake::Device::get().calls; }
EMULATED int64_t emulated_allocated() { return fake::Device::get().allocated; }
EMULATED int64_t emulated_written() { return fake::Device::get().written; }
EMULATED int64_t emulated_most(int64_t start_anew) {
  fake::Device& device = fake::Device::get();
  const int64_t most = device.most;
  if (start_anew != 0) device.most = device.allocated;
  return most;
}

// Bytes that a stream has yet to write to device memory.
EMULATED int64_t emulated_write_later(int64_t stream, int64_t to, const unsigned char* bytes, int64_t n) {
  fake::Device& device = fake::Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  auto* const at = reinterpret_cast<unsigned char*>(to);
  device.require_device(at, n);
  device.put(reinterpret_cast<warpmem::cuda::Stream>(stream),
             [at, image = std::vector<unsigned char>(bytes, bytes + n)] { std::copy(image.begin(), image.end(), at); });
  return 0;
}

// Launches of a kernel so far.
EMULATED int64_t emulated_launches(const char* kernel) {
  const std::lock_guard<std::mutex> lock(warpmem::cuda::emulator_mutex);
  const auto& launches = simt::Machine::get().launches;
  const auto found = launches.find(kernel);
  return found == launches.end() ? 0 : found->second;
}

// Whether these bytes stand anywhere in device memory.
EMULATED int64_t emulated_holds(const unsigned char* bytes, int64_t n) {
  fake::Device& device = fake::Device::get();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  for (auto& stream : device.streams) device.run(stream.first, UINT64_MAX);
  for (const auto& [memory, size] : device.memory) {
    if (std::search(memory, memory + size, bytes, bytes + n) != memory + size) return 1;
  }
  return 0;
}
