// What a pool is to be, as Python says it.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>

#include "../core/page.hpp"
#include "../cpu/dispatch.hpp"
#include "arrays.hpp"

namespace warpmem {

inline const Kernels* kernels_named(const py::object& isa) {
  if (!py::isinstance<py::str>(isa))
    throw py::type_error(std::string("isa must be a string, not ") + Py_TYPE(isa.ptr())->tp_name);
  const auto name = isa.cast<std::string>();
  const Kernels* const kernels = find_kernels(name);
  if (kernels == nullptr) {
    std::string known = "auto";
    for (const Kernels* table : supported_kernels()) known += std::string(", ") + table->name;
    throw py::value_error("isa '" + name + "' is not supported here; choose one of " + known);
  }
  return kernels;
}

inline std::string one_of(const py::object& argument, const char* name, std::initializer_list<const char*> values) {
  std::string known;
  const bool is_string = py::isinstance<py::str>(argument);
  for (const char* value : values) {
    if (is_string && argument.cast<std::string>() == value) return value;
    known += (known.empty() ? "" : ", ") + std::string(value);
  }
  throw py::value_error(std::string(name) + " must be one of " + known);
}

inline Storage storage_value(const std::string& name) {
  return name == "f16" ? Storage::kF16 : name == "int8" ? Storage::kInt8 : name == "pq" ? Storage::kPq : Storage::kF32;
}

}  // namespace warpmem
