#include "kmeans.hpp"

#include <algorithm>
#include <vector>

#include "../core/score.hpp"
#include "fork.hpp"

namespace warpmem {
namespace {

constexpr int64_t kPieceRows = 1024;
constexpr int64_t kForkWork = 1 << 20;  // multiplications; less is not worth another thread

int64_t useful_threads(int64_t threads, int64_t work) { return std::min(threads, std::max<int64_t>(1, work / kForkWork)); }

// The steps of core/kmeans_loop.hpp over the rows that are trained on.
struct Training {
  const OpKernels& ops;
  const float* rows;
  int64_t n;
  int64_t dim;
  const KmeansOptions& options;
  float* centroids;
  std::vector<double> sums;

  float* centroid(int64_t c) const { return centroids + c * dim; }
  const float* row(int64_t i) const { return rows + i * dim; }

  void place(int64_t c, int64_t from) const { start_centroid(row(from), dim, options.spherical, centroid(c)); }

  void lower(int64_t chosen, double* values) const {
    const float* const from = row(chosen);
    fork_pieces(n, kPieceRows, useful_threads(options.threads, n * dim), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const double d = ops.nearest->squared_distance(row(i), from, dim);
        if (d < values[i]) values[i] = d;
      }
    });
  }

  void assign(int32_t* index) const {
    kmeans_assign(ops, rows, n, dim, centroids, options.k, options.spherical, options.threads, index, nullptr);
  }

  void measure(const int32_t* index, double* values) const {
    const Nearest nearest(ops, centroids, options.k, dim, options.spherical);
    fork_pieces(n, kPieceRows, useful_threads(options.threads, n * dim), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) values[i] = nearest.value(row(i), index[i]);
    });
  }

  // Means in float64: each cluster's rows are added in their order, whoever adds them, because a thread owns whole clusters.
  void update(const int32_t* index, const int64_t* sizes) {
    sums.assign(static_cast<size_t>(options.k * dim), 0.0);
    const int64_t threads = useful_threads(options.threads, n * dim);
    const int64_t piece = (options.k + threads - 1) / threads;
    fork_pieces(options.k, piece, threads, [&](int64_t first, int64_t last) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t c = index[i];
        if (c < first || c >= last) continue;
        double* const sum = sums.data() + c * dim;
        const float* const x = row(i);
        for (int64_t j = 0; j < dim; ++j) sum[j] += static_cast<double>(x[j]);
      }
    });
    std::vector<float> mean(static_cast<size_t>(dim));
    for (int64_t c = 0; c < options.k; ++c) {
      if (sizes[c] == 0) continue;
      const double* const sum = sums.data() + c * dim;
      for (int64_t j = 0; j < dim; ++j) mean[static_cast<size_t>(j)] = static_cast<float>(sum[j] / static_cast<double>(sizes[c]));
      if (options.spherical) {
        normalize_row(mean.data(), dim, centroid(c));  // a mean of length 0 says nothing: the centroid stays
      } else {
        std::copy(mean.begin(), mean.end(), centroid(c));
      }
    }
  }
};

}  // namespace

void kmeans_assign(const OpKernels& ops, const float* rows, int64_t n, int64_t dim, const float* centroids, int64_t k, bool inner,
                   int64_t threads, int32_t* index, double* values) {
  const Nearest nearest(ops, centroids, k, dim, inner);
  fork_pieces(n, kPieceRows, useful_threads(threads, n * dim * k), [&](int64_t first, int64_t last) {
    nearest.find(rows + first * dim, last - first, dim, index + first);
    if (values == nullptr) return;
    for (int64_t i = first; i < last; ++i) values[i] = nearest.value(rows + i * dim, index[i]);
  });
}

double kmeans(const OpKernels& ops, const float* rows, int64_t n, int64_t dim, const KmeansOptions& options, float* centroids,
              int32_t* index) {
  SplitMix64 random(options.seed);
  std::vector<float> sample;
  Training training{ops, rows, n, dim, options, centroids, {}};
  const std::vector<int64_t> chosen = draw_sample(random, n, options);
  if (!chosen.empty()) {
    sample.resize(static_cast<size_t>(options.sample * dim));
    for (size_t i = 0; i < chosen.size(); ++i)
      std::copy_n(rows + chosen[i] * dim, dim, sample.data() + static_cast<int64_t>(i) * dim);
    training.rows = sample.data();
    training.n = options.sample;
  }
  KmeansLoop<Training>(training, training.n, options).run(random);
  std::vector<double> values(static_cast<size_t>(n));
  kmeans_assign(ops, rows, n, dim, centroids, options.k, options.spherical, options.threads, index, values.data());
  return sum_in_order(values);
}

}  // namespace warpmem
