#include "kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../core/score.hpp"
#include "fork.hpp"

namespace warpmem {
namespace {

constexpr int64_t kPieceRows = 1024;
constexpr int64_t kForkWork = 1 << 20;  // multiplications; less is not worth another thread

int64_t useful_threads(int64_t threads, int64_t work) { return std::min(threads, std::max<int64_t>(1, work / kForkWork)); }

// The first `count` entries of a random permutation of 0..n-1, by the swaps of Fisher and Yates.
std::vector<int64_t> draw(SplitMix64& random, int64_t n, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = 0; i < count; ++i)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i + random.below(n - i))]);
  order.resize(static_cast<size_t>(count));
  return order;
}

// Training state over the rows that are trained on.
struct Training {
  const OpKernels& ops;
  const float* rows;
  int64_t n;
  int64_t dim;
  const KmeansOptions& options;
  float* centroids;
  std::vector<int32_t> index, previous;
  std::vector<double> sums;
  std::vector<int64_t> counts;
  std::vector<double> values;

  float* centroid(int64_t c) const { return centroids + c * dim; }
  const float* row(int64_t i) const { return rows + i * dim; }

  void place(int64_t c, const float* from) const {
    std::copy(from, from + dim, centroid(c));
    if (options.spherical) normalize_row(from, dim, centroid(c));
  }

  // Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007: a row is drawn with probability proportional to its squared
  // distance to the nearest centroid so far. When all distances are 0 it is drawn uniformly.
  void plus_plus(SplitMix64& random) {
    values.assign(static_cast<size_t>(n), std::numeric_limits<double>::infinity());
    std::vector<double> running(static_cast<size_t>(n));
    int64_t chosen = random.below(n);
    for (int64_t c = 0; c < options.k; ++c) {
      place(c, row(chosen));
      if (c + 1 == options.k) break;
      const float* const from = row(chosen);
      fork_pieces(n, kPieceRows, useful_threads(options.threads, n * dim), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const double d = ops.nearest->squared_distance(row(i), from, dim);
          if (d < values[static_cast<size_t>(i)]) values[static_cast<size_t>(i)] = d;
        }
      });
      double total = 0.0;
      for (size_t i = 0; i < values.size(); ++i) running[i] = total += values[i];
      if (!(total > 0.0)) {
        chosen = random.below(n);
        continue;
      }
      const double target = random.uniform() * total;
      chosen = std::upper_bound(running.begin(), running.end(), target) - running.begin();
      if (chosen == n) {  // target was rounded up to total
        for (chosen = n - 1; values[static_cast<size_t>(chosen)] == 0.0;) --chosen;
      }
    }
  }

  void assign(double* to) {
    kmeans_assign(ops, rows, n, dim, centroids, options.k, options.spherical, options.threads, index.data(), to);
  }

  // Means in float64: each cluster's rows are added in their order, whoever adds them, because a thread owns whole clusters.
  void update() {
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(counts.begin(), counts.end(), int64_t{0});
    const int64_t threads = useful_threads(options.threads, n * dim);
    const int64_t piece = (options.k + threads - 1) / threads;
    fork_pieces(options.k, piece, threads, [&](int64_t first, int64_t last) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t c = index[static_cast<size_t>(i)];
        if (c < first || c >= last) continue;
        double* const sum = sums.data() + c * dim;
        const float* const x = row(i);
        for (int64_t j = 0; j < dim; ++j) sum[j] += static_cast<double>(x[j]);
        ++counts[static_cast<size_t>(c)];
      }
    });
    std::vector<float> mean(static_cast<size_t>(dim));
    for (int64_t c = 0; c < options.k; ++c) {
      const int64_t count = counts[static_cast<size_t>(c)];
      if (count == 0) continue;
      const double* const sum = sums.data() + c * dim;
      for (int64_t j = 0; j < dim; ++j) mean[static_cast<size_t>(j)] = static_cast<float>(sum[j] / static_cast<double>(count));
      if (options.spherical) {
        normalize_row(mean.data(), dim, centroid(c));  // a mean of length 0 says nothing: the centroid stays
      } else {
        std::copy(mean.begin(), mean.end(), centroid(c));
      }
    }
  }

  // Empty clusters, in order, take the rows worst served by their centroids (ties: smaller row); a row at distance 0 is none. `values` are those of
  // the last assignment. Returns whether a centroid was moved.
  bool reseed() {
    std::vector<int64_t> empty;
    for (int64_t c = 0; c < options.k; ++c) {
      if (counts[static_cast<size_t>(c)] == 0) empty.push_back(c);
    }
    if (empty.empty()) return false;
    std::vector<int64_t> worst(static_cast<size_t>(n));
    std::iota(worst.begin(), worst.end(), int64_t{0});
    const auto before = [this](int64_t a, int64_t b) {
      const double x = values[static_cast<size_t>(a)];
      const double y = values[static_cast<size_t>(b)];
      if (x != y) return options.spherical ? x < y : x > y;
      return a < b;
    };
    std::partial_sort(worst.begin(), worst.begin() + static_cast<int64_t>(empty.size()), worst.end(), before);
    bool moved = false;
    for (size_t e = 0; e < empty.size(); ++e) {
      if (!options.spherical && values[static_cast<size_t>(worst[e])] == 0.0) break;
      place(empty[e], row(worst[e]));
      moved = true;
    }
    return moved;
  }

  bool has_empty() {
    std::fill(counts.begin(), counts.end(), int64_t{0});
    for (const int32_t c : index) ++counts[static_cast<size_t>(c)];
    return std::find(counts.begin(), counts.end(), int64_t{0}) != counts.end();
  }

  void run(SplitMix64& random) {
    index.resize(static_cast<size_t>(n));
    values.resize(static_cast<size_t>(n));
    sums.resize(static_cast<size_t>(options.k * dim));
    counts.resize(static_cast<size_t>(options.k));
    if (options.plus_plus) {
      plus_plus(random);
    } else {
      const std::vector<int64_t> chosen = draw(random, n, options.k);
      for (int64_t c = 0; c < options.k; ++c) place(c, row(chosen[static_cast<size_t>(c)]));
    }
    bool moved = true;
    for (int64_t iteration = 0; iteration < options.iterations; ++iteration) {
      assign(nullptr);
      if (!moved && index == previous) break;
      // The distances are those to the centroids of this assignment, so they are taken before the update.
      const bool empty = has_empty();
      if (empty) {
        const Nearest measure(ops, centroids, options.k, dim, options.spherical);
        fork_pieces(n, kPieceRows, useful_threads(options.threads, n * dim), [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i)
            values[static_cast<size_t>(i)] = measure.value(row(i), index[static_cast<size_t>(i)]);
        });
      }
      update();
      moved = empty && reseed();
      previous = index;
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
  Training training{ops, rows, n, dim, options, centroids, {}, {}, {}, {}, {}};
  if (options.sample > 0 && options.sample < n) {
    std::vector<int64_t> chosen = draw(random, n, options.sample);
    std::sort(chosen.begin(), chosen.end());
    sample.resize(static_cast<size_t>(options.sample * dim));
    for (size_t i = 0; i < chosen.size(); ++i)
      std::copy_n(rows + chosen[i] * dim, dim, sample.data() + static_cast<int64_t>(i) * dim);
    training.rows = sample.data();
    training.n = options.sample;
  }
  training.run(random);
  std::vector<double> values(static_cast<size_t>(n));
  kmeans_assign(ops, rows, n, dim, centroids, options.k, options.spherical, options.threads, index, values.data());
  double objective = 0.0;
  for (const double v : values) objective += v;
  return objective;
}

}  // namespace warpmem
