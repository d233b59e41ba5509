// Registers warpmem._cuda.kmeans and kmeans_assign: k-means on a device.
#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {
void bind_device_kmeans(pybind11::module_& m);
}
