// The ports of core/pool_view.hpp as Python capsules: _cpu makes that of a pool and takes that of a device, _cuda the other way round.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "../core/pool_view.hpp"

namespace warpmem {

namespace py = pybind11;

// A capsule around a port, which keeps `owner`.
template <typename Port>
py::capsule port_capsule(const Port& port, const char* name, py::object owner) {
  struct Held {
    Port port;  // first: the capsule's pointer is its address
    py::object owner;
  };
  return py::capsule(new Held{port, std::move(owner)}, name, [](PyObject* capsule) {
    delete static_cast<Held*>(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
  });
}

// The port in a capsule; null when it is something else, or of another version.
template <typename Port>
const Port* port_of(const py::object& capsule, const char* name) {
  if (PyCapsule_IsValid(capsule.ptr(), name) == 0) return nullptr;
  const auto* const port = static_cast<const Port*>(PyCapsule_GetPointer(capsule.ptr(), name));
  return same_port(*port) ? port : nullptr;
}

}  // namespace warpmem
