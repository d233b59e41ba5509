// Pool.save and open_pool: paths, sections, errors.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../cpu/pool_file.hpp"
#include "arrays.hpp"

namespace warpmem {

// What the library throws about a file, as the exceptions of warpmem.errors.
inline void register_file_errors() {
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const IndexFileError& error) {
      const char* name = "StoreError";
      if (error.kind() == IndexFileError::Kind::kDamaged) name = "IndexCorrupt";
      if (error.kind() == IndexFileError::Kind::kFormat) name = "FormatError";
      if (error.kind() == IndexFileError::Kind::kFull) name = "DiskFull";
      if (error.kind() == IndexFileError::Kind::kRefused) name = "StoreReadOnly";
      const std::string text = error.what();  // paths are bytes, and need not be text
      const auto message = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
      if (message) PyErr_SetObject(py::module_::import("warpmem.errors").attr(name).ptr(), message.ptr());
    }
  });
}

inline std::string path_of(const py::object& path) {
  const auto bytes = py::module_::import("os").attr("fsencode")(path).cast<std::string>();
  if (bytes.find('\0') != std::string::npos) throw py::value_error("path holds a null byte");
  return bytes;
}

// Borrowed bytes under their names.
class SectionBuffers {
 public:
  explicit SectionBuffers(const py::object& argument) {
    if (!py::isinstance<py::dict>(argument)) {
      throw py::type_error(std::string("sections must be a dict, not ") + Py_TYPE(argument.ptr())->tp_name);
    }
    const auto sections = py::reinterpret_borrow<py::dict>(argument);
    buffers_.reserve(sections.size());
    sections_.reserve(sections.size());
    try {
      for (const auto& [name, data] : sections) add(name, data);
    } catch (...) {
      release();
      throw;
    }
  }
  ~SectionBuffers() { release(); }
  SectionBuffers(const SectionBuffers&) = delete;
  SectionBuffers& operator=(const SectionBuffers&) = delete;

  const std::vector<Section>& sections() const noexcept { return sections_; }

 private:
  void add(const py::handle& name, const py::handle& data) {
    if (!py::isinstance<py::str>(name)) {
      throw py::type_error(std::string("names of sections must be strings, not ") + Py_TYPE(name.ptr())->tp_name);
    }
    const auto text = name.cast<std::string>();
    Py_buffer buffer;
    if (PyObject_GetBuffer(data.ptr(), &buffer, PyBUF_SIMPLE) != 0) {
      PyErr_Clear();
      throw py::type_error("section '" + text + "' must be bytes-like and contiguous; it is of type " +
                           Py_TYPE(data.ptr())->tp_name);
    }
    if (!buffer.readonly) {  // its checksum must be that of the bytes that are written
      PyBuffer_Release(&buffer);
      const auto copy = py::reinterpret_steal<py::object>(PyBytes_FromObject(data.ptr()));
      if (!copy || PyObject_GetBuffer(copy.ptr(), &buffer, PyBUF_SIMPLE) != 0) throw py::error_already_set();
    }
    buffers_.push_back(buffer);
    sections_.push_back(Section{text, buffer.buf, static_cast<uint64_t>(buffer.len)});
  }
  void release() noexcept {
    for (Py_buffer& buffer : buffers_) PyBuffer_Release(&buffer);
    buffers_.clear();
  }

  std::vector<Py_buffer> buffers_;
  std::vector<Section> sections_;
};

inline void pool_save(const Pool& pool, const py::object& path_argument, const py::object& sections) {
  const std::string path = path_of(path_argument);
  const SectionBuffers buffers(sections);
  const py::gil_scoped_release release;
  save_pool(pool, path, buffers.sections());
}

constexpr const char* kMappingName = "warpmem.MappedFile";

// name -> uint8 array over the mapping, which stays as long as an array does.
inline py::dict section_arrays(const PoolFile& file) {
  py::dict arrays;
  for (const Section& section : file.sections()) {
    if (file.layout().pq.pq_dim > 0 && section.name == kCodebooksSection) continue;  // the pool's own
    auto keep = std::make_unique<std::shared_ptr<const MappedFile>>(file.mapping());
    const py::capsule owner(keep.get(), kMappingName,
                            [](void* kept) { delete static_cast<std::shared_ptr<const MappedFile>*>(kept); });
    keep.release();
    py::array_t<uint8_t> array(static_cast<py::ssize_t>(section.bytes), static_cast<const uint8_t*>(section.data), owner);
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    arrays[py::str(section.name)] = std::move(array);
  }
  return arrays;
}

inline const char* storage_name(Storage storage) {
  if (storage == Storage::kPq) return "pq";
  return storage == Storage::kF16 ? "f16" : storage == Storage::kInt8 ? "int8" : "f32";
}

// A pool from a section, as section_arrays gave it, that is itself the file of a pool.
template <typename NativePool>
py::tuple open_section(const py::object& section, const py::object& isa, const py::object& threads) {
  const View<uint8_t> bytes(section, "section", {-1});
  const py::object base = bytes.array().base();
  if (!base || PyCapsule_IsValid(base.ptr(), kMappingName) == 0) {
    throw py::value_error("section must be an array that open_pool returned");
  }
  const std::shared_ptr<const MappedFile> whole =
      *static_cast<std::shared_ptr<const MappedFile>*>(PyCapsule_GetPointer(base.ptr(), kMappingName));
  std::optional<PoolFile> file;
  {
    const py::gil_scoped_release release;
    file.emplace(std::make_shared<const MappedFile>(whole, bytes.data(), static_cast<uint64_t>(bytes.shape(0))));
  }
  auto pool = std::make_unique<NativePool>(isa, *file, threads);
  return py::make_tuple(std::move(pool), section_arrays(*file));
}

// (pool, sections). NativePool is made of (isa, file, threads).
template <typename NativePool>
py::tuple open_pool(const py::object& path_argument, const py::object& isa, const py::object& threads) {
  const std::string path = path_of(path_argument);
  std::optional<PoolFile> file;
  {
    const py::gil_scoped_release release;
    file.emplace(path);
  }
  auto pool = std::make_unique<NativePool>(isa, *file, threads);
  return py::make_tuple(std::move(pool), section_arrays(*file));
}

}  // namespace warpmem
