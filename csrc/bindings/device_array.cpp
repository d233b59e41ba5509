#include "device_array.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "arrays.hpp"

namespace warpmem {

namespace {

using cuda::Status;

// --------------------------------------------------------------------------------------------- DLPack's structs

constexpr int32_t kDlCuda = 2;
constexpr int32_t kDlCudaManaged = 13;

struct DlDevice {
  int32_t type;
  int32_t id;
};
struct DlType {
  uint8_t code;  // 0 signed, 1 unsigned, 2 floating-point
  uint8_t bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  int32_t ndim;
  DlType dtype;
  int64_t* shape;
  int64_t* strides;  // elements; null: C-contiguous
  uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};

void require_shape(const char* name, int64_t ndim) {
  if (ndim != 2) throw py::value_error(std::string(name) + ": expected 2 axes, not " + std::to_string(ndim));
}

void require_dense(const char* name, bool dense) {
  if (!dense) throw py::value_error(std::string(name) + " must be C-contiguous");
}

void require_device(const char* name, int64_t got, int device) {
  if (got == device) return;
  throw py::value_error(std::string(name) + " lie on device " + std::to_string(got) + ", but this index uses device " +
                        std::to_string(device));
}

}  // namespace

void register_device_errors() {
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const DeviceError& error) {
      py::set_error(py::module_::import("warpmem.errors").attr("BackendUnavailable"), error.what());
    } catch (const ArrayError& error) {
      py::set_error(py::module_::import("warpmem.errors").attr("InputError"), error.what());
    }
  });
}

// --------------------------------------------------------------------------------------------- arrays of others

bool ForeignArray::matches(const py::object& object) {
  if (py::hasattr(object, "__cuda_array_interface__")) return true;
  if (!py::hasattr(object, "__dlpack__") || !py::hasattr(object, "__dlpack_device__")) return false;
  const auto device = object.attr("__dlpack_device__")().cast<std::pair<int32_t, int32_t>>();
  return device.first == kDlCuda || device.first == kDlCudaManaged;
}

ForeignArray::ForeignArray(const py::object& object, const char* name, int device, cuda::Stream stream)
    : kept_(object), name_(name) {
  if (!matches(object)) {
    throw py::type_error(std::string(name) + " must be an array on a CUDA device, not " + Py_TYPE(object.ptr())->tp_name);
  }
  if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) {
    from_dlpack(object, name, device, stream);
  } else {
    from_interface(object, name);
  }
  int64_t numbers = 0;
  constexpr auto kMost = INT64_MAX / static_cast<int64_t>(sizeof(float));
  if (rows_ < 0 || columns_ < 0 || __builtin_mul_overflow(rows_, columns_, &numbers) || numbers > kMost) {
    throw ArrayError(name_ + ": an array cannot have the shape (" + std::to_string(rows_) + ", " + std::to_string(columns_) +
                     ")");
  }
}

void ForeignArray::ready(cuda::Runtime& runtime, cuda::Stream stream) const {
  const auto first = reinterpret_cast<uintptr_t>(data_);
  for (const uintptr_t at : {first, first + static_cast<uintptr_t>(bytes()) - 1}) {
    int device = -1;
    if (bytes() == 0 || runtime.owns(reinterpret_cast<const void*>(at), &device)) continue;
    if (device >= 0) require_device(name_.c_str(), device, runtime.device());
    throw ArrayError(name_ + ": of the " + std::to_string(bytes()) +
                     " bytes at the array's address not all are memory of device " + std::to_string(runtime.device()));
  }
  if (!waits_) return;
  cuda::Event event = nullptr;
  bool well = runtime.create_event(&event, false) == Status::kOk;
  well = well && runtime.record(event, theirs_) == Status::kOk && runtime.wait(stream, event) == Status::kOk;
  if (event != nullptr) runtime.release_event(event);
  if (!well) throw DeviceError("the CUDA device does not answer: " + runtime.error());
}

void ForeignArray::from_dlpack(const py::object& object, const char* name, int device, cuda::Stream stream) {
  const auto where = object.attr("__dlpack_device__")().cast<std::pair<int32_t, int32_t>>();
  require_device(name, where.second, device);
  const py::object capsule =
      object.attr("__dlpack__")(py::arg("stream") = static_cast<int64_t>(reinterpret_cast<intptr_t>(stream)));
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") == 0) throw py::type_error(std::string(name) + ": __dlpack__ gave no tensor");
  auto* const managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  managed_ = std::shared_ptr<void>(managed, [](void* tensor) {
    auto* const owned = static_cast<DlManaged*>(tensor);
    if (owned->deleter != nullptr) owned->deleter(owned);
  });
  const DlTensor& tensor = managed->tensor;
  if (tensor.dtype.code != 2 || tensor.dtype.bits != 32 || tensor.dtype.lanes != 1) {
    throw py::type_error(std::string(name) + " must be float32");
  }
  require_shape(name, tensor.ndim);
  rows_ = tensor.shape[0];
  columns_ = tensor.shape[1];
  const bool dense =
      tensor.strides == nullptr || ((tensor.strides[1] == 1 || columns_ == 1) && (tensor.strides[0] == columns_ || rows_ <= 1));
  require_dense(name, dense || rows_ * columns_ == 0);
  data_ = static_cast<const unsigned char*>(tensor.data) + tensor.byte_offset;
}

void ForeignArray::from_interface(const py::object& object, const char* name) {
  const auto interface = object.attr("__cuda_array_interface__").cast<py::dict>();
  if (interface["typestr"].cast<std::string>() != "<f4") throw py::type_error(std::string(name) + " must be float32");
  const auto shape = interface["shape"].cast<py::tuple>();
  require_shape(name, static_cast<int64_t>(shape.size()));
  rows_ = shape[0].cast<int64_t>();
  columns_ = shape[1].cast<int64_t>();
  if (interface.contains("strides") && !interface["strides"].is_none()) {
    const auto strides = interface["strides"].cast<std::pair<int64_t, int64_t>>();
    const bool dense = (strides.second == 4 || columns_ == 1) && (strides.first == 4 * columns_ || rows_ <= 1);
    require_dense(name, dense || rows_ * columns_ == 0);
  }
  data_ = reinterpret_cast<const void*>(interface["data"].cast<py::tuple>()[0].cast<uintptr_t>());
  const py::object theirs = interface.contains("stream") ? py::object(interface["stream"]) : py::none();
  if (theirs.is_none()) return;  // ready
  // 1 and 2 are the runtime's own names of the two default streams; 0 could be either, and the protocol forbids it.
  theirs_ = reinterpret_cast<cuda::Stream>(theirs.cast<uintptr_t>());
  if (theirs_ == nullptr) throw ArrayError(name_ + ": the stream of an array must not be 0; 1 is the default stream");
  waits_ = true;
}

// --------------------------------------------------------------------------------------------- arrays of ours

DeviceMemory::DeviceMemory(std::shared_ptr<cuda::Runtime> runtime_, int64_t bytes) : runtime(std::move(runtime_)) {
  const cuda::Entered entered(*runtime);
  const Status status = runtime->allocate(&data, bytes);
  if (status == Status::kNoMemory) {
    throw DeviceFull("the CUDA device has no " + std::to_string(bytes) + " bytes for results: " + runtime->error());
  }
  if (status != Status::kOk) throw DeviceError("the CUDA device does not answer: " + runtime->error());
}

DeviceMemory::~DeviceMemory() {
  if (data == nullptr) return;
  std::optional<py::gil_scoped_release> release;
  if (PyGILState_Check() != 0) release.emplace();
  const cuda::Entered entered(*runtime);
  runtime->release(data);
}

namespace {

// Room for arrays behind one another, each at a multiple of this.
constexpr int64_t kAlignment = 256;
int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Makes copies on a stream of their own and waits for them; without the interpreter's lock. `copy` takes the stream and returns whether all went well.
template <typename Copy>
void copy_and_wait(cuda::Runtime& runtime, const Copy& copy) {
  const cuda::Entered entered(runtime);
  cuda::Stream stream = nullptr;
  bool well = runtime.create_stream(&stream) == Status::kOk;
  well = well && copy(stream);
  well = well && runtime.synchronize(stream) == Status::kOk;
  if (stream != nullptr) runtime.release_stream(stream);
  if (!well) throw DeviceError("the CUDA device does not answer: " + runtime.error());
}

int64_t bytes_of(const DeviceArray& array) {
  int64_t bytes = array.dtype.itemsize();
  for (const int64_t n : array.shape) bytes *= n;
  return bytes;
}

}  // namespace

py::list to_device(const std::shared_ptr<cuda::Runtime>& runtime, const py::object& argument) {
  struct Part {
    const void* from;
    int64_t bytes;
    int64_t at;
  };
  const Items items(argument.ptr(), "arrays");
  std::vector<py::array> arrays;
  std::vector<Part> parts;
  int64_t bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    arrays.push_back(py::array::ensure(items[i], py::array::c_style));
    if (!arrays.back()) throw py::error_already_set();
    parts.push_back(Part{arrays.back().data(), static_cast<int64_t>(arrays.back().nbytes()), bytes});
    bytes += aligned(parts.back().bytes);
  }
  std::shared_ptr<DeviceMemory> memory;
  const auto address = [&](const Part& part) { return static_cast<unsigned char*>(memory->data) + part.at; };
  {
    const py::gil_scoped_release release;
    memory = std::make_shared<DeviceMemory>(runtime, std::max(bytes, kAlignment));
    copy_and_wait(*runtime, [&](cuda::Stream stream) {
      return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
        return part.bytes == 0 || runtime->copy_in(address(part), part.from, part.bytes, stream) == Status::kOk;
      });
    });
  }
  py::list out;
  for (size_t i = 0; i < arrays.size(); ++i) {
    const py::array& array = arrays[i];
    DeviceArray made{memory, address(parts[i]), {array.shape(), array.shape() + array.ndim()}, array.dtype()};
    out.append(py::cast(std::move(made)));
  }
  return out;
}

namespace {

py::dict interface_of(const DeviceArray& array) {
  py::dict out;
  out["shape"] = py::tuple(py::cast(array.shape));
  out["typestr"] = array.dtype.attr("str");
  out["data"] = py::make_tuple(reinterpret_cast<uintptr_t>(array.data), false);
  out["strides"] = py::none();
  out["stream"] = py::none();  // it was waited for
  out["version"] = 3;
  return out;
}

py::capsule dlpack_of(const DeviceArray& array) {
  struct Held {
    DlManaged managed;
    std::shared_ptr<DeviceMemory> memory;
    std::vector<int64_t> shape;
  };
  auto* const held = new Held{{}, array.memory, array.shape};
  DlTensor& tensor = held->managed.tensor;
  tensor.data = array.data;
  tensor.device = DlDevice{kDlCuda, array.memory->runtime->device()};
  tensor.ndim = static_cast<int32_t>(held->shape.size());
  const char kind = array.dtype.kind();
  tensor.dtype = DlType{static_cast<uint8_t>(kind == 'f'   ? 2
                                             : kind == 'u' ? 1
                                                           : 0),
                        static_cast<uint8_t>(8 * array.dtype.itemsize()), 1};
  tensor.shape = held->shape.data();
  held->managed.context = held;
  held->managed.deleter = [](DlManaged* managed) { delete static_cast<Held*>(managed->context); };
  return py::capsule(&held->managed, "dltensor", [](PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;  // somebody has it now
    auto* const managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule, "dltensor"));
    managed->deleter(managed);
  });
}

// The protocol's arguments. The array is ready, so that no stream need wait; what is asked for and cannot be had is a BufferError.
py::capsule dlpack_for(const DeviceArray& array, const py::object& wanted_device, const py::object& wants_copy) {
  cuda::Runtime& runtime = *array.memory->runtime;
  if (!wanted_device.is_none()) {
    const auto wanted = wanted_device.cast<std::pair<int32_t, int32_t>>();
    if (wanted.first != kDlCuda || wanted.second != runtime.device()) {
      throw py::buffer_error("the array lies on device (" + std::to_string(kDlCuda) + ", " + std::to_string(runtime.device()) +
                             ") and is not given to (" + std::to_string(wanted.first) + ", " + std::to_string(wanted.second) +
                             "); to_host() copies it to the host");
    }
  }
  if (wants_copy.is_none() || !wants_copy.cast<bool>()) return dlpack_of(array);
  DeviceArray copy = array;
  {
    const py::gil_scoped_release release;
    const int64_t bytes = bytes_of(array);
    copy.memory = std::make_shared<DeviceMemory>(array.memory->runtime, std::max(bytes, kAlignment));
    copy.data = copy.memory->data;
    copy_and_wait(runtime, [&](cuda::Stream stream) {
      return bytes == 0 || runtime.copy_within(copy.data, array.data, bytes, stream) == Status::kOk;
    });
  }
  return dlpack_of(copy);
}

py::array host_of(const DeviceArray& array) {
  py::array out(array.dtype, array.shape);
  cuda::Runtime& runtime = *array.memory->runtime;
  void* const to = out.mutable_data();
  const auto bytes = static_cast<int64_t>(out.nbytes());
  const py::gil_scoped_release release;
  copy_and_wait(
      runtime, [&](cuda::Stream stream) { return bytes == 0 || runtime.copy_out(to, array.data, bytes, stream) == Status::kOk; });
  return out;
}

}  // namespace

void bind_device_array(py::module_& m) {
  py::class_<DeviceArray>(m, "DeviceArray", "An array in the memory of a CUDA device; ready when it is handed out.")
      .def_property_readonly("shape", [](const DeviceArray& array) { return py::tuple(py::cast(array.shape)); })
      .def_property_readonly("dtype", [](const DeviceArray& array) { return array.dtype; })
      .def_property_readonly("device", [](const DeviceArray& array) { return array.memory->runtime->device(); })
      .def_property_readonly("__cuda_array_interface__", &interface_of)
      .def("__dlpack_device__", [](const DeviceArray& array) { return py::make_tuple(kDlCuda, array.memory->runtime->device()); })
      .def(
          "__dlpack__",
          [](const DeviceArray& array, const py::object&, const py::object&, const py::object& wanted_device,
             const py::object& wants_copy) { return dlpack_for(array, wanted_device, wants_copy); },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
          py::arg("copy") = py::none())
      .def("to_host", &host_of, "A copy as a NumPy array.");
}

}  // namespace warpmem
