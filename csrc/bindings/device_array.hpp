// Arrays in device memory, in and out of Python: DLPack (dmlc/dlpack, version 0 of the struct, which every library still takes) and version 3 of
// `__cuda_array_interface__`. Nothing here knows which library an array comes from.
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
void register_device_errors();

// Someone's float32 array (rows, columns), C-contiguous, in the memory of a device, and held as long as this lives.
class ForeignArray {
 public:
  // The array's owner is told to make it ready for `stream`, or `stream` waits for the owner's. Throws TypeError, ValueError, DeviceError.
  ForeignArray(const py::object& object, const char* name, cuda::Runtime& runtime, cuda::Stream stream);
  ForeignArray(const ForeignArray&) = delete;
  ForeignArray& operator=(const ForeignArray&) = delete;

  // Whether an object says that it is an array on a device.
  static bool matches(const py::object& object);

  const void* data() const noexcept { return data_; }
  int64_t rows() const noexcept { return rows_; }
  int64_t columns() const noexcept { return columns_; }

 private:
  void from_dlpack(const py::object& object, const char* name, int device, cuda::Stream stream);
  void from_interface(const py::object& object, const char* name, cuda::Runtime& runtime, cuda::Stream stream);

  py::object kept_;
  std::shared_ptr<void> managed_;  // of DLPack; deleted with the last copy, also when the constructor throws
  const void* data_ = nullptr;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

// Memory of a device that arrays share.
struct DeviceMemory {
  DeviceMemory(std::shared_ptr<cuda::Runtime> runtime, int64_t bytes);
  ~DeviceMemory();
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

// Copies NumPy arrays, C-contiguous, to one piece of device memory, where they are when this returns. Throws DeviceError.
py::list to_device(const std::shared_ptr<cuda::Runtime>& runtime, const py::object& arrays);

}  // namespace warpmem
