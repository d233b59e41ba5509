#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {

// Adds open_rows to the module.
void bind_rows(pybind11::module_& m);

}  // namespace warpmem
