#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {

// Adds the class Postings to the module.
void bind_postings(pybind11::module_& m);

}  // namespace warpmem
