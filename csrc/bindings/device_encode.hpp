// Registers warpmem._cuda.Encoder: codes of product quantisation on a device.
#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {
void bind_device_encode(pybind11::module_& m);
}
