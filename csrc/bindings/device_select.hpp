// Registers warpmem._cuda.Selection: select_k on a device.
#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {
void bind_device_select(pybind11::module_& m);
}
