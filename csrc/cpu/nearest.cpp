// The nearest centroid, by a float32 screen and canonical values where it leaves a doubt; the bound is in kmeans.hpp.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/score.hpp"
#include "kmeans.hpp"

namespace warpmem {
namespace {

constexpr int64_t kGroupBlocks = 8;  // packed rows of a group stay in the second cache while the tiles pass them
constexpr double kLongest = 1e18;    // beyond this a float32 square may overflow, and every centroid is compared canonically

double unit_roundoffs(int64_t n, double u) { return static_cast<double>(n) * u / (1.0 - static_cast<double>(n) * u); }

}  // namespace

struct Nearest::Scratch {
  std::vector<float> blocks;
  std::vector<float> squares, best, second, limits, doubtful;
  std::vector<int32_t> index;
  std::vector<int64_t> rows;  // in doubt
  std::vector<float> row_limits;
  std::vector<int64_t> found;
};

Nearest::Nearest(const OpKernels& ops, const float* centroids, int64_t k, int64_t dim, bool inner)
    : kernels_(dim < kShortRow ? *ops.nearest_short : *ops.nearest), centroids_(centroids), k_(k), dim_(dim), inner_(inner) {
  const int64_t width = kernels_.tile_centroids;
  n_tiles_ = (k + width - 1) / width;
  tiles_.assign(static_cast<size_t>(n_tiles_ * width * dim), 0.0f);
  bias_.assign(static_cast<size_t>(n_tiles_ * width), -std::numeric_limits<float>::infinity());
  for (int64_t c = 0; c < k; ++c) {
    const float* const from = centroids + c * dim;
    float* const to = tiles_.data() + c / width * width * dim + c % width;
    for (int64_t i = 0; i < dim; ++i) to[i * width] = from[i];
    const double squared = dot_f64(from, from, dim);
    longest_ = std::max(longest_, std::sqrt(squared) * 1.000001);
    bias_[static_cast<size_t>(c)] = inner ? 0.0f : static_cast<float>(-0.5 * squared);
  }
}

double Nearest::value(const float* row, int64_t centroid) const {
  const float* const to = centroids_ + centroid * dim_;
  return (inner_ ? kernels_.dot : kernels_.squared_distance)(row, to, dim_);
}

int32_t Nearest::exhaustive(const float* row) const {
  int32_t best = 0;
  double best_value = value(row, 0);
  for (int64_t c = 1; c < k_; ++c) {
    const double v = value(row, c);
    if (better(v, best_value)) {
      best_value = v;
      best = static_cast<int32_t>(c);
    }
  }
  return best;
}

// Decides the rows in doubt: the screen names their candidates again, canonical values choose.
void Nearest::settle(Scratch& scratch, const float* rows, int64_t stride, int32_t* index) const {
  const int64_t height = kernels_.block_rows;
  const int64_t n = static_cast<int64_t>(scratch.rows.size());
  scratch.found.resize(static_cast<size_t>(height * n_tiles_ * kernels_.tile_centroids));
  scratch.doubtful.resize(static_cast<size_t>(height * dim_));
  for (int64_t first = 0; first < n; first += height) {
    const int64_t count = std::min(height, n - first);
    std::fill(scratch.limits.begin(), scratch.limits.end(), std::numeric_limits<float>::infinity());
    std::fill(scratch.doubtful.begin(), scratch.doubtful.end(), 0.0f);
    for (int64_t r = 0; r < count; ++r) {
      const float* const row = rows + scratch.rows[static_cast<size_t>(first + r)] * stride;
      for (int64_t i = 0; i < dim_; ++i) scratch.doubtful[static_cast<size_t>(i * height + r)] = row[i];
      scratch.limits[static_cast<size_t>(r)] = scratch.row_limits[static_cast<size_t>(first + r)];
    }
    const int64_t found = kernels_.near(scratch.doubtful.data(), dim_, tiles_.data(), bias_.data(), n_tiles_,
                                        scratch.limits.data(), scratch.found.data());
    double values[64];
    std::fill(values, values + 64, inner_ ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity());
    for (int64_t f = 0; f < found; ++f) {  // centroids of a row come in ascending order
      const int64_t r = scratch.found[static_cast<size_t>(f)] >> 32;
      const int64_t centroid = scratch.found[static_cast<size_t>(f)] & 0xffffffff;
      const int64_t at = scratch.rows[static_cast<size_t>(first + r)];
      const double v = value(rows + at * stride, centroid);
      if (better(v, values[r])) {
        values[r] = v;
        index[at] = static_cast<int32_t>(centroid);
      }
    }
  }
}

void Nearest::find(const float* rows, int64_t n, int64_t stride, int32_t* index) const {
  if (k_ == 1) {
    std::fill(index, index + n, 0);
    return;
  }
  const int64_t height = kernels_.block_rows;
  const int64_t group = kGroupBlocks * height;
  Scratch scratch;
  scratch.blocks.resize(static_cast<size_t>(group * dim_));
  for (std::vector<float>* part : {&scratch.squares, &scratch.best, &scratch.second}) part->resize(static_cast<size_t>(group));
  scratch.limits.resize(static_cast<size_t>(height));
  scratch.index.resize(static_cast<size_t>(group));
  const double single = unit_roundoffs(dim_ + 4, 0x1p-24);
  const double twice = static_cast<double>(dim_ + 8) * 0x1p-53;
  for (int64_t first = 0; first < n; first += group) {
    const int64_t count = std::min(group, n - first);
    const int64_t n_blocks = (count + height - 1) / height;
    for (int64_t b = 0; b < n_blocks; ++b) {
      float* const block = scratch.blocks.data() + b * height * dim_;
      for (int64_t r = 0; r < height; ++r) {
        const int64_t at = first + b * height + r;
        float squared = 0.0f;
        if (at < n) {
          const float* const row = rows + at * stride;
          for (int64_t i = 0; i < dim_; ++i) {
            block[i * height + r] = row[i];
            squared += row[i] * row[i];
          }
        } else {
          for (int64_t i = 0; i < dim_; ++i) block[i * height + r] = 0.0f;
        }
        scratch.squares[static_cast<size_t>(b * height + r)] = squared;
      }
    }
    kernels_.nearest(scratch.blocks.data(), n_blocks, dim_, tiles_.data(), bias_.data(), n_tiles_, scratch.best.data(),
                     scratch.second.data(), scratch.index.data());
    scratch.rows.clear();
    scratch.row_limits.clear();
    for (int64_t r = 0; r < count; ++r) {
      const size_t at = static_cast<size_t>(r);
      // An upper bound of |x|: the float32 sum errs by less than 1 %, and what underflows in it is shorter than 1e-18.
      const double length = std::sqrt(static_cast<double>(scratch.squares[at])) * 1.01 + 1e-18;
      if (!(length < kLongest) || !(longest_ < kLongest)) {
        index[first + r] = exhaustive(rows + (first + r) * stride);
        continue;
      }
      const double screen = single * (length * longest_ + longest_ * longest_) + static_cast<double>(dim_ + 4) * 0x1p-149;
      const double canonical = twice * (length + longest_) * (length + longest_);
      const double margin = 2.02 * (screen + canonical);
      index[first + r] = scratch.index[at];
      if (static_cast<double>(scratch.best[at]) - static_cast<double>(scratch.second[at]) > margin) continue;
      scratch.rows.push_back(first + r);
      const float limit = static_cast<float>(static_cast<double>(scratch.best[at]) - margin);
      scratch.row_limits.push_back(std::nextafter(limit, -std::numeric_limits<float>::infinity()));
    }
    if (!scratch.rows.empty()) settle(scratch, rows, stride, index);
  }
}

}  // namespace warpmem
