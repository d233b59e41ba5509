// The training of k-means, written once for every machine that computes its steps: starts, rounds, what becomes of empty clusters, when it ends. For host code;
// whatever a sum's order could change is added up here, or by the machine in the order that is said.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "score.hpp"

namespace warpmem {

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): small, and the same in every language.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // in [0, 1)
  int64_t below(int64_t n) {                                                // in [0, n)
    const int64_t i = static_cast<int64_t>(uniform() * static_cast<double>(n));
    return i < n ? i : n - 1;
  }

 private:
  uint64_t state_;
};

struct KmeansOptions {
  int64_t k = 1;
  int64_t iterations = 20;
  uint64_t seed = 0;
  bool plus_plus = true;  // else k random rows
  bool spherical = false;
  int64_t sample = 0;   // rows to train on, 0 for all
  int64_t threads = 1;  // of the host
};

// How subspace s of a product quantiser with `entries` entries each is trained: from random rows, with a seed of its own.
inline KmeansOptions pq_options(int64_t entries, int64_t s, uint64_t seed, int64_t iterations) {
  KmeansOptions options;
  options.k = entries;
  options.iterations = iterations;
  options.seed = seed + static_cast<uint64_t>(s);
  options.plus_plus = false;
  return options;
}

// The first `count` entries of a random permutation of 0..n-1, by the swaps of Fisher and Yates.
inline std::vector<int64_t> draw_rows(SplitMix64& random, int64_t n, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = 0; i < count; ++i)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i + random.below(n - i))]);
  order.resize(static_cast<size_t>(count));
  return order;
}

// The rows of n to train on, ascending; none where it is all of them.
inline std::vector<int64_t> draw_sample(SplitMix64& random, int64_t n, const KmeansOptions& options) {
  if (options.sample <= 0 || options.sample >= n) return {};
  std::vector<int64_t> chosen = draw_rows(random, n, options.sample);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// A row as a centroid.
inline void start_centroid(const float* row, int64_t dim, bool spherical, float* centroid) {
  std::copy(row, row + dim, centroid);
  if (spherical) normalize_row(row, dim, centroid);
}

inline double sum_in_order(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum;
}

// A machine holds the rows that are trained on and k centroids, and has
//   place(centroid, row)      the centroid becomes start_centroid() of the row
//   lower(row, values)        values[i] = the squared distance of row i to that row, where this is less; not behind an assign()
//   assign(index)             the nearest centroid of each row
//   measure(index, values)    the canonical value of each row and the centroid that the last assign() gave, which `index` holds still
//   update(index, sizes)      of that assignment: the mean of each cluster, its rows added in their order; one without rows keeps its centroid
template <typename Machine>
class KmeansLoop {
 public:
  // n >= options.k rows.
  KmeansLoop(Machine& machine, int64_t n, const KmeansOptions& options) : machine_(machine), n_(n), options_(options) {}

  void run(SplitMix64& random) {
    index_.resize(static_cast<size_t>(n_));
    values_.resize(static_cast<size_t>(n_));
    sizes_.resize(static_cast<size_t>(options_.k));
    if (options_.plus_plus) {
      plus_plus(random);
    } else {
      const std::vector<int64_t> chosen = draw_rows(random, n_, options_.k);
      for (int64_t c = 0; c < options_.k; ++c) machine_.place(c, chosen[static_cast<size_t>(c)]);
    }
    bool moved = true;
    for (int64_t iteration = 0; iteration < options_.iterations; ++iteration) {
      machine_.assign(index_.data());
      if (!moved && index_ == previous_) break;
      // The distances are those to the centroids of this assignment, so they are taken before the update.
      const bool empty = count();
      if (empty) machine_.measure(index_.data(), values_.data());
      machine_.update(index_.data(), sizes_.data());
      moved = empty && reseed();
      previous_ = index_;
    }
  }

 private:
  // Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007: a row is drawn with probability proportional to its squared
  // distance to the nearest centroid so far. When all distances are 0 it is drawn uniformly.
  void plus_plus(SplitMix64& random) {
    values_.assign(static_cast<size_t>(n_), std::numeric_limits<double>::infinity());
    std::vector<double> running(static_cast<size_t>(n_));
    int64_t chosen = random.below(n_);
    for (int64_t c = 0; c < options_.k; ++c) {
      machine_.place(c, chosen);
      if (c + 1 == options_.k) break;
      machine_.lower(chosen, values_.data());
      double total = 0.0;
      for (size_t i = 0; i < values_.size(); ++i) running[i] = total += values_[i];
      if (!(total > 0.0)) {
        chosen = random.below(n_);
        continue;
      }
      const double target = random.uniform() * total;
      chosen = std::upper_bound(running.begin(), running.end(), target) - running.begin();
      if (chosen == n_) {  // target was rounded up to total
        for (chosen = n_ - 1; values_[static_cast<size_t>(chosen)] == 0.0;) --chosen;
      }
    }
  }

  // The rows of each cluster. Returns whether one is empty.
  bool count() {
    std::fill(sizes_.begin(), sizes_.end(), int64_t{0});
    for (const int32_t c : index_) ++sizes_[static_cast<size_t>(c)];
    return std::find(sizes_.begin(), sizes_.end(), int64_t{0}) != sizes_.end();
  }

  // Empty clusters, in order, take the rows worst served by their centroids (ties: smaller row); a row at distance 0 is none. Returns whether a centroid
  // was moved.
  bool reseed() {
    std::vector<int64_t> empty;
    for (int64_t c = 0; c < options_.k; ++c) {
      if (sizes_[static_cast<size_t>(c)] == 0) empty.push_back(c);
    }
    std::vector<int64_t> worst(static_cast<size_t>(n_));
    std::iota(worst.begin(), worst.end(), int64_t{0});
    const auto before = [this](int64_t a, int64_t b) {
      const double x = values_[static_cast<size_t>(a)];
      const double y = values_[static_cast<size_t>(b)];
      if (x != y) return options_.spherical ? x < y : x > y;
      return a < b;
    };
    std::partial_sort(worst.begin(), worst.begin() + static_cast<int64_t>(empty.size()), worst.end(), before);
    bool moved = false;
    for (size_t e = 0; e < empty.size(); ++e) {
      if (!options_.spherical && values_[static_cast<size_t>(worst[e])] == 0.0) break;
      machine_.place(empty[e], worst[e]);
      moved = true;
    }
    return moved;
  }

  Machine& machine_;
  const int64_t n_;
  const KmeansOptions& options_;
  std::vector<int32_t> index_, previous_;
  std::vector<double> values_;
  std::vector<int64_t> sizes_;
};

}  // namespace warpmem
