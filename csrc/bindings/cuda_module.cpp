// warpmem._cuda: what CUDA devices there are, whether they compute as the host does, caches of pools on them (page_cache.cpp) and k-means (device_kmeans.cpp).
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "../cuda/device.hpp"
#include "device_encode.hpp"
#include "device_kmeans.hpp"
#include "device_select.hpp"
#include "page_cache.hpp"

namespace {

namespace py = pybind11;
using namespace warpmem;

py::object unavailable_reason() {
  std::string reason;
  {
    const py::gil_scoped_release release;
    reason = cuda::unavailable_reason();
  }
  if (reason.empty()) return py::none();
  return py::str(reason);
}

py::list devices() {
  std::vector<cuda::Device> found;
  {
    const py::gil_scoped_release release;
    found = cuda::devices();
  }
  py::list out;
  for (const cuda::Device& device : found) {
    py::dict entry;
    entry["index"] = device.index;
    entry["name"] = device.name;
    entry["capability"] = std::to_string(device.major) + "." + std::to_string(device.minor);
    entry["memory"] = device.memory;
    out.append(entry);
  }
  return out;
}

py::dict self_test(int device) {
  cuda::SelfTest result;
  {
    const py::gil_scoped_release release;
    const int count = cuda::device_count();
    if (device < 0 || device >= count) {
      throw py::value_error("device must be below the number of devices, " + std::to_string(count) + ", not " +
                            std::to_string(device));
    }
    result = cuda::self_test(device);
  }
  py::dict out;
  out["device"] = device;
  out["rows"] = result.rows;
  out["dim"] = result.dim;
  out["mismatches"] = result.mismatches;
  out["passed"] = result.passed();
  py::dict families;
  for (const cuda::FamilyTest& test : result.families) {
    py::dict entry;
    entry["cases"] = test.cases;
    entry["mismatches"] = test.mismatches;
    families[test.family.c_str()] = entry;
  }
  out["families"] = families;
  return out;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() =
      "CUDA side of warpmem: devices, lists of pools on them, k-means, codebooks and codes, select_k. Importing it touches no "
      "device.";
  bind_page_cache(m);
  bind_device_kmeans(m);
  bind_device_encode(m);
  bind_device_select(m);
  const py::call_guard<py::gil_scoped_release> without_lock;  // each may initialise the driver, which takes a while
  m.def("device_count", &cuda::device_count, without_lock, "Number of usable devices; 0 without a driver.");
  m.def("unavailable_reason", &unavailable_reason, "Why there is no device, or None.");
  m.def("devices", &devices, "index, name, capability and memory (bytes) of each device.");
  m.def("driver_version", &cuda::driver_version, without_lock, "1000 * major + 10 * minor; 0 without a driver.");
  m.def("runtime_version", &cuda::runtime_version, without_lock, "1000 * major + 10 * minor of the linked runtime.");
  m.def("self_test", &self_test, py::arg("device"),
        "Compare the canonical scorer and every family of kernels on a device with the host, bit for bit.");
}
