#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {

// Adds the class Kernels to the module.
void bind_kernels(pybind11::module_& m);

}  // namespace warpmem
