// Calls of kmeans, kmeans_assign and pq_train from Python, whoever computes them: arguments checked, results made, work done without the interpreter's lock.
#pragma once

#include <string>
#include <utility>

#include "../core/kmeans_loop.hpp"
#include "kernel_arguments.hpp"

namespace warpmem {

struct KmeansArguments {
  const py::object& x;
  const py::object& k;
  const py::object& iterations;
  const py::object& seed;
  const py::object& init;
  const py::object& sample;
  const py::object& spherical;
};

// train(rows, n, dim, options, centroids, index) -> objective. Returns (centroids, index, objective).
template <typename Train>
py::tuple call_kmeans(const KmeansArguments& arguments, const Train& train) {
  const View<float> x(arguments.x, "x", {-1, -1});
  const int64_t n = x.shape(0);
  const int64_t dim = x.shape(1);
  require_rows(n, "x");
  require_dim(dim, "x");
  KmeansOptions options;
  options.k = as_int64(arguments.k, "k", 1, kMaxCentroids);
  options.iterations = as_int64(arguments.iterations, "iterations", 0, kMaxIterations);
  options.seed = static_cast<uint64_t>(as_int64(arguments.seed, "seed", 0));
  options.spherical = flag_of(arguments.spherical, "spherical");
  const std::string start = py::isinstance<py::str>(arguments.init) ? arguments.init.cast<std::string>() : "";
  if (start != "k-means++" && start != "random") throw py::value_error("init must be 'k-means++' or 'random'");
  options.plus_plus = start == "k-means++";
  require_training_rows(n, options.k);
  if (!arguments.sample.is_none()) {
    options.sample = as_int64(arguments.sample, "sample", 1);
    if (options.sample < options.k) {
      throw py::value_error("sample must be at least k, " + std::to_string(options.k) + ", not " +
                            std::to_string(options.sample));
    }
  }
  py::array_t<float> centroids({options.k, dim});
  py::array_t<int32_t> index(n);
  float* const to_centroids = centroids.mutable_data();
  int32_t* const to_index = index.mutable_data();
  double objective = 0.0;
  {
    const py::gil_scoped_release release;
    require_all_finite(x.data(), n, dim, "x");
    objective = train(x.data(), n, dim, options, to_centroids, to_index);
  }
  return py::make_tuple(std::move(centroids), std::move(index), objective);
}

// assign(rows, n, dim, centroids, k, spherical, index, values). Returns (index, values).
template <typename Assign>
py::tuple call_kmeans_assign(const py::object& x_arg, const py::object& centroids_arg, const py::object& spherical_arg,
                             const Assign& assign) {
  const View<float> centroids(centroids_arg, "centroids", {-1, -1});
  const int64_t k = centroids.shape(0);
  const int64_t dim = centroids.shape(1);
  require_dim(dim, "centroids");
  if (k < 1 || k > kMaxCentroids) {
    throw py::value_error("centroids: expected 1 to " + std::to_string(kMaxCentroids) + " rows, not " + std::to_string(k));
  }
  const View<float> x(x_arg, "x", {-1, dim});
  const int64_t n = x.shape(0);
  require_rows(n, "x");
  const bool spherical = flag_of(spherical_arg, "spherical");
  py::array_t<int32_t> index(n);
  py::array_t<double> values(n);
  int32_t* const to_index = index.mutable_data();
  double* const to_values = values.mutable_data();
  {
    const py::gil_scoped_release release;
    require_all_finite(centroids.data(), k, dim, "centroids");
    require_all_finite(x.data(), n, dim, "x");
    assign(x.data(), n, dim, centroids.data(), k, spherical, to_index, to_values);
  }
  return py::make_tuple(std::move(index), std::move(values));
}

struct PqTrainArguments {
  const py::object& x;
  const py::object& pq_dim;
  const py::object& pq_bits;
  const py::object& iterations;
  const py::object& seed;
};

// train(shape, rows, n, seed, iterations, codebooks). Returns the codebooks.
template <typename Train>
py::array_t<float> call_pq_train(const PqTrainArguments& arguments, const Train& train) {
  const View<float> x(arguments.x, "x", {-1, -1});
  const int64_t n = x.shape(0);
  require_rows(n, "x");
  require_dim(x.shape(1), "x");
  PqShape shape;
  shape.pq_dim = as_int64(arguments.pq_dim, "pq_dim", 1, kPqMaxDim);
  shape.bits = bits_of(arguments.pq_bits);
  if (x.shape(1) % shape.pq_dim != 0) {
    throw py::value_error("pq_dim must divide the dimension: " + std::to_string(x.shape(1)) + " dimensions, pq_dim " +
                          std::to_string(shape.pq_dim));
  }
  shape.dsub = x.shape(1) / shape.pq_dim;
  const int64_t iterations = as_int64(arguments.iterations, "iterations", 0, kMaxIterations);
  const auto seed = static_cast<uint64_t>(as_int64(arguments.seed, "seed", 0));
  require_training_rows(n, shape.entries());
  py::array_t<float> codebooks({shape.pq_dim, shape.entries(), shape.dsub});
  float* const to = codebooks.mutable_data();
  {
    const py::gil_scoped_release release;
    require_all_finite(x.data(), n, shape.dim(), "x");
    train(shape, x.data(), n, seed, iterations, to);
  }
  return codebooks;
}

}  // namespace warpmem
