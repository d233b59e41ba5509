// Registers warpmem._cuda.kmeans, kmeans_assign and pq_train: k-means on a device, and codebooks by it.
#pragma once

#include <pybind11/pybind11.h>

namespace warpmem {
void bind_device_kmeans(pybind11::module_& m);
}
