// Arrays in device memory, in and out of Python: DLPack (dmlc/dlpack, version 0 of the struct, which every library still takes) and version 3 of
// `__cuda_array_interface__`. Nothing here knows which library an array comes from. The device is never called with the interpreter's lock.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../cuda/runtime.hpp"

namespace warpmem {

namespace py = pybind11;

// A device that does not answer becomes BackendUnavailable.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A device that has less memory than this needs, and is well otherwise.
struct DeviceFull : DeviceError {
  using DeviceError::DeviceError;
};
// An array that is not what it says of itself becomes InputError: the caller's mistake, of which the device knows nothing.
struct ArrayError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
void register_device_errors();

// Someone's float32 array (rows, columns), C-contiguous, in the memory of a device, and held as long as this lives.
class ForeignArray {
 public:
  // What the array says of itself; its owner may be told to make it ready for `stream`. Throws TypeError, ValueError, ArrayError.
  ForeignArray(const py::object& object, const char* name, int device, cuda::Stream stream);
  ForeignArray(const ForeignArray&) = delete;
  ForeignArray& operator=(const ForeignArray&) = delete;

  // Whether an object says that it is an array on a device.
  static bool matches(const py::object& object);

  // To be called once, without the interpreter's lock, before the array is read: asks the driver whether its memory is the device's, and makes `stream` wait
  // for the owner's. Throws ArrayError, DeviceError.
  void ready(cuda::Runtime& runtime, cuda::Stream stream) const;

  const void* data() const noexcept { return data_; }
  int64_t bytes() const noexcept { return rows_ * columns_ * static_cast<int64_t>(sizeof(float)); }
  int64_t rows() const noexcept { return rows_; }
  int64_t columns() const noexcept { return columns_; }

 private:
  void from_dlpack(const py::object& object, const char* name, int device, cuda::Stream stream);
  void from_interface(const py::object& object, const char* name);

  py::object kept_;
  const std::string name_;
  std::shared_ptr<void> managed_;  // of DLPack; deleted with the last copy, also when the constructor throws
  const void* data_ = nullptr;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  bool waits_ = false;             // for what the owner has yet to do
  cuda::Stream theirs_ = nullptr;  // on this stream
};

// Memory of a device that arrays share.
struct DeviceMemory {
  // Without the interpreter's lock; throws DeviceError, DeviceFull.
  DeviceMemory(std::shared_ptr<cuda::Runtime> runtime, int64_t bytes);
  ~DeviceMemory();  // with it or without
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  std::shared_ptr<cuda::Runtime> runtime;
  void* data = nullptr;
};

// An array of ours in device memory.
struct DeviceArray {
  std::shared_ptr<DeviceMemory> memory;
  void* data = nullptr;
  std::vector<int64_t> shape;
  py::dtype dtype;
};

void bind_device_array(py::module_& m);

// Copies NumPy arrays, C-contiguous, to one piece of device memory, where they are when this returns. Throws DeviceError, DeviceFull.
py::list to_device(const std::shared_ptr<cuda::Runtime>& runtime, const py::object& arrays);

}  // namespace warpmem
