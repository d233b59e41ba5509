// Python arguments -> C++ views. Every check of an argument stands here, and none of them prints an argument's content: messages carry names, shapes
// and limits only. That is also why bound functions take py::object throughout: a failed overload resolution of pybind11 would print the values.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>

namespace warpmem {

namespace py = pybind11;

// An integer (anything with __index__) within [lo, hi].
inline int64_t as_int64(PyObject* object, const char* name, int64_t lo = INT64_MIN, int64_t hi = INT64_MAX) {
  int overflow = 0;
  long long value = 0;
  if (PyLong_CheckExact(object)) {
    value = PyLong_AsLongLongAndOverflow(object, &overflow);
  } else {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
    if (!index) {
      PyErr_Clear();
      throw py::type_error(std::string(name) + " must be an integer, not " + Py_TYPE(object)->tp_name);
    }
    value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  }
  if (overflow != 0 || value < lo || value > hi) {
    const std::string got = overflow != 0 ? "a number beyond 64 bits" : std::to_string(value);
    throw py::value_error(std::string(name) + " must be within " + std::to_string(lo) + " and " + std::to_string(hi) + ", not " +
                          got);
  }
  return value;
}

inline int64_t as_int64(const py::object& object, const char* name, int64_t lo = INT64_MIN, int64_t hi = INT64_MAX) {
  return as_int64(object.ptr(), name, lo, hi);
}

inline double as_double(const py::object& object, const char* name) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_OverflowError) != 0) {
      PyErr_Clear();
      throw py::value_error(std::string(name) + " is beyond float64");
    }
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
    PyErr_Clear();
    throw py::type_error(std::string(name) + " must be a number, not " + Py_TYPE(object.ptr())->tp_name);
  }
  return value;
}

inline double as_finite(const py::object& object, const char* name) {
  const double value = as_double(object, name);
  if (!std::isfinite(value)) throw py::value_error(std::string(name) + " must be finite");
  return value;
}

// The members of a sequence, kept alive. A list is copied: reading one member may run code of its type, which could change the list.
class Items {
 public:
  Items(PyObject* object, const char* name) {
    if (PyUnicode_Check(object) || PyBytes_Check(object)) {
      throw py::type_error(std::string(name) + " must be a sequence of items, not " + Py_TYPE(object)->tp_name);
    }
    items_ = py::reinterpret_steal<py::object>(PySequence_Tuple(object));  // a tuple as it is
    if (!items_) {
      PyErr_Clear();
      throw py::type_error(std::string(name) + " must be a sequence, not " + Py_TYPE(object)->tp_name);
    }
  }
  Items(PyObject* object, const char* name, size_t n) : Items(object, name) {
    if (size() != n) {
      throw py::value_error("each of " + std::string(name) + " must have " + std::to_string(n) + " members, not " +
                            std::to_string(size()));
    }
  }
  size_t size() const { return static_cast<size_t>(PyTuple_GET_SIZE(items_.ptr())); }
  PyObject* operator[](size_t i) const { return PyTuple_GET_ITEM(items_.ptr(), static_cast<Py_ssize_t>(i)); }

 private:
  py::object items_;
};

// An array of exactly dtype T, C-contiguous, native byte order. A dimension of -1 in `shape` is free.
template <typename T>
class View {
 public:
  View(PyObject* object, const char* name, std::initializer_list<int64_t> shape) {
    if (!py::isinstance<py::array>(object)) {
      throw py::type_error(std::string(name) + " must be a NumPy array of " + dtype() + ", not " + Py_TYPE(object)->tp_name);
    }
    array_ = py::reinterpret_borrow<py::array>(object);
    if (!py::isinstance<py::array_t<T>>(array_)) {
      throw py::type_error(std::string(name) + " must be " + dtype() + ", not " + py::str(array_.dtype()).cast<std::string>());
    }
    if (array_.ndim() != static_cast<py::ssize_t>(shape.size())) {
      throw py::value_error(std::string(name) + ": expected " + std::to_string(shape.size()) + " axes, not " +
                            std::to_string(array_.ndim()));
    }
    py::ssize_t axis = 0;
    for (const int64_t expected : shape) {
      if (expected >= 0 && array_.shape(axis) != expected) {
        const bool inner = shape.size() == 2 && axis == 1;
        const char* const what = !inner ? " entries" : std::is_floating_point_v<T> ? " dimensions" : " columns";
        throw py::value_error(std::string(name) + ": expected " + std::to_string(expected) + what + ", not " +
                              std::to_string(array_.shape(axis)));
      }
      ++axis;
    }
    if ((array_.flags() & py::array::c_style) == 0) {
      throw py::value_error(std::string(name) + " must be C-contiguous; pass numpy.ascontiguousarray(...)");
    }
    if (reinterpret_cast<uintptr_t>(array_.data()) % alignof(T) != 0) {
      throw py::value_error(std::string(name) + " must be aligned; pass a copy");
    }
  }
  View(const py::object& object, const char* name, std::initializer_list<int64_t> shape) : View(object.ptr(), name, shape) {}

  const T* data() const { return static_cast<const T*>(array_.data()); }
  int64_t shape(int axis) const { return array_.shape(axis); }
  const py::array& array() const { return array_; }

 private:
  static std::string dtype() { return py::str(py::dtype::of<T>()).cast<std::string>(); }

  py::array array_;
};

// Refuses NaN and infinities, naming the first bad row.
inline void require_finite(const float* data, int64_t rows, int64_t dim, const char* name) {
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t bad =
        0;  // an exponent of all ones overflows into the sign bit; in integers, so that the loop has no chain of additions
    for (int64_t i = 0; i < dim; ++i) {
      uint32_t bits;
      memcpy(&bits, data + r * dim + i, sizeof bits);
      bad |= (bits & 0x7f800000u) + 0x00800000u;
    }
    if ((bad >> 31) != 0) throw py::value_error(std::string(name) + ": row " + std::to_string(r) + " holds a NaN or an infinity");
  }
}

}  // namespace warpmem
