// A pool's port for caches on a device, and the port of such a cache for the pool's scan.
#pragma once

#include <pybind11/pybind11.h>

#include "../cpu/pool_view.hpp"
#include "ports.hpp"

namespace warpmem {

inline py::capsule pool_port_capsule(Pool& pool, const py::object& owner) {
  if (pool.books() != nullptr) throw py::value_error("a pool with codebooks is scanned by the host alone; it has no port");
  return port_capsule(pool_port(pool), kPoolPortName, owner);
}

// Null for None.
inline const ScanPort* scan_port_of(const py::object& argument, const Pool& pool) {
  if (argument.is_none()) return nullptr;
  const auto* const port = port_of<ScanPort>(argument, kScanPortName);
  if (port == nullptr) throw py::type_error("device must be the port of a PageCache of this version of warpmem, or None");
  if (port->pool != &pool) throw py::value_error("device must be the port of a PageCache of this pool, not of another");
  if (pool.books() != nullptr) throw py::value_error("a pool with codebooks is scanned by the host alone; device must be None");
  return port;
}

}  // namespace warpmem
