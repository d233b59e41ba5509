#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {

// Adds the class IdMap to the module.
void bind_id_map(pybind11::module_& m);

}  // namespace warpmem
