#include "device_kmeans.hpp"

#include <memory>
#include <stdexcept>
#include <string>

#include "../cuda/kmeans_train.hpp"
#include "device_array.hpp"
#include "kmeans_call.hpp"

namespace warpmem {

namespace {

int device_of(const py::object& device) { return static_cast<int>(as_int64(device, "device", 0, 1 << 16)); }

// `between` is called with the interpreter's lock; what it raises ends the call.
cuda::TrainSettings settings_of(const py::object& between) {
  cuda::TrainSettings settings;
  if (between.is_none()) return settings;
  if (PyCallable_Check(between.ptr()) == 0) {
    throw py::type_error(std::string("between must be a function or None, not ") + Py_TYPE(between.ptr())->tp_name);
  }
  settings.between = [&between] {
    const py::gil_scoped_acquire acquire;
    between();
  };
  return settings;
}

// Without the interpreter's lock: work(runtime), of which a failure of the device becomes BackendUnavailable.
template <typename Work>
auto on_device(const char* what, int device, const Work& work) {
  try {
    const std::unique_ptr<cuda::Runtime> runtime = cuda::make_runtime(device);
    return work(*runtime);
  } catch (const std::runtime_error& error) {
    throw DeviceError(std::string("the CUDA device did not ") + what + ": " + error.what());
  }
}

py::tuple cluster(const py::object& x, const py::object& k, const py::object& device, const py::object& iterations,
                  const py::object& seed, const py::object& init, const py::object& sample, const py::object& spherical,
                  const py::object& between) {
  const int index_of_device = device_of(device);
  const cuda::TrainSettings settings = settings_of(between);
  const auto train = [&](const float* rows, int64_t n, int64_t dim, const KmeansOptions& options, float* centroids,
                         int32_t* index) {
    return on_device("do k-means", index_of_device, [&](cuda::Runtime& runtime) {
      return cuda::kmeans(runtime, rows, n, dim, options, settings, centroids, index);
    });
  };
  return call_kmeans({x, k, iterations, seed, init, sample, spherical}, train);
}

py::tuple assign(const py::object& x, const py::object& centroids, const py::object& device, const py::object& spherical,
                 const py::object& between) {
  const int index_of_device = device_of(device);
  const cuda::TrainSettings settings = settings_of(between);
  const auto find = [&](const float* rows, int64_t n, int64_t dim, const float* to, int64_t k, bool inner, int32_t* index,
                        double* values) {
    on_device("do k-means", index_of_device,
              [&](cuda::Runtime& runtime) { cuda::kmeans_assign(runtime, rows, n, dim, to, k, inner, settings, index, values); });
  };
  return call_kmeans_assign(x, centroids, spherical, find);
}

py::array_t<float> train_codebooks(const py::object& x, const py::object& pq_dim, const py::object& pq_bits,
                                   const py::object& device, const py::object& iterations, const py::object& seed,
                                   const py::object& between) {
  const int index_of_device = device_of(device);
  const cuda::TrainSettings settings = settings_of(between);
  const auto train = [&](const PqShape& shape, const float* rows, int64_t n, uint64_t from, int64_t rounds, float* codebooks) {
    on_device("train codebooks", index_of_device,
              [&](cuda::Runtime& runtime) { cuda::pq_train(runtime, shape, rows, n, from, rounds, settings, codebooks); });
  };
  return call_pq_train({x, pq_dim, pq_bits, iterations, seed}, train);
}

}  // namespace

void bind_device_kmeans(py::module_& m) {
  const py::int_ zero(0), twenty(20), twenty_five(25);
  const py::bool_ no(false);
  const py::none none;
  m.def("kmeans", &cluster, py::arg("x"), py::arg("k"), py::kw_only(), py::arg("device") = zero, py::arg("iterations") = twenty,
        py::arg("seed") = zero, py::arg("init") = "k-means++", py::arg("sample") = none, py::arg("spherical") = no,
        py::arg("between") = none,
        "(centroids, assignments, objective), the bits of _cpu.Kernels.kmeans. between: called when the device has been used for "
        "some 10 ms and is idle; what it raises ends the call.");
  m.def("kmeans_assign", &assign, py::arg("x"), py::arg("centroids"), py::kw_only(), py::arg("device") = zero,
        py::arg("spherical") = no, py::arg("between") = none,
        "(assignments, canonical distances or dot products), the bits of _cpu.Kernels.kmeans_assign.");
  m.def("pq_train", &train_codebooks, py::arg("x"), py::arg("pq_dim"), py::arg("pq_bits"), py::kw_only(),
        py::arg("device") = zero, py::arg("iterations") = twenty_five, py::arg("seed") = zero, py::arg("between") = none,
        "Codebooks (pq_dim, entries, dsub), the bits of _cpu.Kernels.pq_train.");
}

}  // namespace warpmem
