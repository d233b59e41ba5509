// A kernel of a device on its own, asked again and again for one shape of rows that lie there: its device, its stream, and who waits for whom.
#pragma once

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "../core/device_limits.hpp"
#include "arrays.hpp"
#include "device_array.hpp"

namespace warpmem {

class DeviceKernel {
 public:
  // With the interpreter's lock. what: for messages, such as "select_k". Throws DeviceError.
  DeviceKernel(const py::object& device, const char* what) : what_(what) {
    const auto index = static_cast<int>(as_int64(device, "device", 0, 1 << 16));
    const py::gil_scoped_release release;
    try {
      runtime_ = cuda::make_runtime(index);
    } catch (const std::runtime_error& error) {
      fail(error.what());
    }
    const cuda::Entered entered(*runtime_);
    if (runtime_->limits(&limits_) != cuda::Status::kOk) fail(runtime_->error());
    if (runtime_->create_stream(&stream_) != cuda::Status::kOk) fail(runtime_->error());
  }
  ~DeviceKernel() {
    const py::gil_scoped_release release;
    const cuda::Entered entered(*runtime_);
    runtime_->release_stream(stream_);
  }
  DeviceKernel(const DeviceKernel&) = delete;
  DeviceKernel& operator=(const DeviceKernel&) = delete;

  const DeviceLimits& limits() const noexcept { return limits_; }
  const std::shared_ptr<cuda::Runtime>& runtime() const noexcept { return runtime_; }

  // Memory for workspace and results. Without the interpreter's lock.
  std::shared_ptr<DeviceMemory> memory(int64_t bytes) const { return std::make_shared<DeviceMemory>(runtime_, bytes); }

  // An array of (rows, columns) on the device. Throws TypeError, ValueError, ArrayError.
  std::unique_ptr<ForeignArray> array(const py::object& object, const char* name, int64_t rows, int64_t columns) const {
    auto found = std::make_unique<ForeignArray>(object, name, runtime_->device(), stream_);
    if (found->rows() != rows || found->columns() != columns) {
      throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(rows) + ", " + std::to_string(columns) +
                            "), not (" + std::to_string(found->rows()) + ", " + std::to_string(found->columns()) + ")");
    }
    return found;
  }

  // enqueue(stream) -> Status launches what reads the array; returns when it is done. Calls of several threads take turns. With the interpreter's lock.
  template <typename Enqueue>
  void run(const ForeignArray& array, const Enqueue& enqueue) {
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    const cuda::Entered entered(*runtime_);
    array.ready(*runtime_, stream_);
    bool well = false;
    try {
      well = enqueue(stream_) == cuda::Status::kOk;
    } catch (const std::runtime_error& error) {  // of a launch, behind others that may read the array still
      static_cast<void>(runtime_->synchronize(stream_));
      fail(error.what());
    }
    if (runtime_->synchronize(stream_) != cuda::Status::kOk || !well) fail(runtime_->error());
  }

  // Copies to the device; returns when they are there. Without the interpreter's lock.
  void copy_in(void* to, const void* from, int64_t bytes) const {
    const cuda::Entered entered(*runtime_);
    const bool copied = runtime_->copy_in(to, from, bytes, stream_) == cuda::Status::kOk;
    if (runtime_->synchronize(stream_) != cuda::Status::kOk || !copied) fail(runtime_->error());
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw DeviceError(std::string("the CUDA device did not do ") + what_ + ": " + reason);
  }

  const char* const what_;
  std::shared_ptr<cuda::Runtime> runtime_;
  DeviceLimits limits_;
  cuda::Stream stream_ = nullptr;
  std::mutex mutex_;
};

}  // namespace warpmem
