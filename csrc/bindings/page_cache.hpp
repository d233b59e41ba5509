// Registers warpmem._cuda.PageCache: a cache of a pool's lists on a device, and the scan over it.
#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {
void bind_page_cache(pybind11::module_& m);
}
