// The nearest centroid of each row, exactly: a float32 screen, then canonical values where it leaves a doubt. The bound is that of cpu/kmeans.hpp,
// so the result is the CPU's bit for bit, whatever the order of the float32 sums.
//
//   measure   a warp a centroid: bias -|y|^2 / 2, longest centroid
//   screen    a block a tile of rows; centroid tiles pass by, `kNearestDepth` dimensions at a time, through shared memory:
//
//                  [depth][tile + pad] rows        thread (ty, tx) of 16 x 16 owns kPer x kPer sums: rows and columns
//                  [depth][tile + pad] centroids   4 t ... 4 t + 3 of each group of 64
//                  [tile] lengths of rows
//
//             Of each row the best and the second score are kept. Rows whose two lie closer than the bound go to a list.
//   settle    a warp a doubtful row, or with many centroids a block, whose warps share them: every centroid whose score reaches the limit is compared by its
//             canonical value, in order
//
// Behind another screen (nearest_halves.cuh) this one takes the rows of a list, if they are many; if they are few, they are settled at once.
// Shared memory of the screen: 4 (2 depth (tile + pad) + tile) bytes, 8 tile more with a list; tile = 16 kPer. Of settling by blocks: 16 bytes a warp. Values and shapes: core/kmeans_plan.hpp.
#pragma once

#include <cmath>

#include "../../core/kmeans_plan.hpp"
#include "canonical.cuh"

namespace warpmem::cuda {

struct NearestParams {
  const float* rows;  // of batch b: rows + b * batch_step, row i at i * row_stride, dim elements
  int64_t row_stride;
  int64_t batch_step;
  int64_t n;
  int64_t batches;
  const float* centroids;  // (batches, k, dim)
  int64_t k;
  int64_t dim;
  bool inner;         // largest dot product, not smallest distance
  int32_t* index;     // one of these two is not null: element i * out_row + b * out_batch
  uint8_t* codes;     //
  int64_t out_row;    //
  int64_t out_batch;  //
  float* bias;        // (batches, k)
  uint64_t* longest;  // (batches), bits of a float64 that is not negative; 0 at the start
  uint32_t* largest;  // null, or bits of the largest magnitude of an element of a centroid; 0 at the start
  uint64_t* n_doubtful;
  int64_t* doubtful;         // (batches * n): batch * n + row
  float* limits;             // of the doubtful
  const uint64_t* n_listed;  // null, or the rows of another screen's list (of one batch)
  const int64_t* listed;
  const float* listed_limits;
};

constexpr float kBitsOfScore = 1.9073486328125e-06f;  // 2^-19: 15 units in the last place of a score, or less of a larger one
constexpr float kLargestFloat = 3.4028234663852886e+38f;
constexpr double kNearestLongest = 1e18;  // beyond this a float32 square may overflow, and every centroid is compared canonically

WARPMEM_DEVICE uint64_t double_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
WARPMEM_DEVICE uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
WARPMEM_DEVICE float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
WARPMEM_DEVICE uint32_t magnitude_bits(float value) { return float_bits(value) & 0x7fffffffu; }  // in the order of magnitudes
WARPMEM_DEVICE double bits_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// A score whose low four bits are a number. `keep` is ~15, but not to the compiler, who would make two instructions of it.
WARPMEM_DEVICE float numbered(float score, uint32_t keep, uint32_t number) {
  return bits_float((float_bits(score) & keep) | number);
}

WARPMEM_DEVICE void write_centroid(const NearestParams& p, int64_t at, int64_t centroid) {
  if (p.index != nullptr) {
    p.index[at] = static_cast<int32_t>(centroid);
  } else {
    p.codes[at] = static_cast<uint8_t>(centroid);
  }
}
WARPMEM_DEVICE void write_nearest(const NearestParams& p, int64_t batch, int64_t row, int64_t centroid) {
  write_centroid(p, row * p.out_row + batch * p.out_batch, centroid);
}

WARPMEM_KERNEL(kNearestThreads) nearest_measure_kernel(NearestParams p) {
  const int warps = block_threads() / kWarpSize;
  for (int64_t c = block_index() * warps + warp_index(); c < p.batches * p.k; c += grid_blocks() * warps) {
    const float* const centroid = p.centroids + c * p.dim;
    const double squared = warp_dot_f64(centroid, centroid, p.dim);
    if (p.largest != nullptr) {
      uint32_t largest = 0;
      for (int64_t d = lane_index(); d < p.dim; d += kWarpSize) {
        const uint32_t bits = magnitude_bits(centroid[d]);
        largest = bits > largest ? bits : largest;
      }
      largest = reduce_max(largest);
      if (lane_index() == 0) atomic_max(p.largest, largest);
    }
    if (lane_index() != 0) continue;
    p.bias[c] = p.inner ? 0.0f : static_cast<float>(-0.5 * squared);
    atomic_max(p.longest + c / p.k, double_bits(sqrt(squared) * 1.000001));
  }
}

// Two blocks share a multiprocessor's registers, 128 a thread; where nvcc 13.0 would spill then, one block has them all.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kScreenBlocks = 1;
#else
[[maybe_unused]] constexpr int kScreenBlocks = 2;
#endif

// By how much the screen and the canonical value may err together, doubled: cpu/kmeans.hpp.
WARPMEM_DEVICE double nearest_margin(double length, double longest, int64_t dim) {
  const double terms = static_cast<double>(dim + 4);
  const double single = terms * 5.9604644775390625e-08 / (1.0 - terms * 5.9604644775390625e-08);          // 2^-24
  const double screen = single * (length * longest + longest * longest) + terms * 1.401298464324817e-45;  // 2^-149
  const double canonical =
      static_cast<double>(dim + 8) * 1.1102230246251565e-16 * (length + longest) * (length + longest);  // 2^-53
  return 2.02 * (screen + canonical);
}

template <int kPer, bool kListed>
WARPMEM_KERNEL_OF(kNearestThreads, kScreenBlocks)
nearest_screen_kernel(NearestParams p) {
  constexpr int kTile = 16 * kPer;
  constexpr int kLine = kTile + kNearestPad;
  constexpr int kLinesAtOnce = kNearestThreads / kNearestDepth;
  const Shared<float> x_tile = shared_array<float>(0, kNearestDepth * kLine);
  const Shared<float> y_tile = shared_array<float>(4 * kNearestDepth * kLine, kNearestDepth * kLine);
  const Shared<float> lengths = shared_array<float>(8 * kNearestDepth * kLine, kTile);                               // squared
  const Shared<int64_t> listed = shared_array<int64_t>(8 * kNearestDepth * kLine + 4 * kTile, kListed ? kTile : 0);  // rows
  const int64_t n = kListed ? static_cast<int64_t>(load_readonly(p.n_listed)) : p.n;
  if (kListed && n <= kHalvesSettled) return;
  const int t = thread_index();
  const auto k = static_cast<int32_t>(p.k);  // below 2^31 - kTile, as the dimension
  const auto dim = static_cast<int32_t>(p.dim);
  const int tx = t % 16;
  const int ty = t / 16;
  const int64_t row_tiles = (n + kTile - 1) / kTile;
  for (int64_t unit = block_index(); unit < row_tiles * p.batches; unit += grid_blocks()) {
    const int64_t batch = unit / row_tiles;
    const int64_t first_row = unit % row_tiles * kTile;
    const int rows_here = n - first_row < kTile ? static_cast<int>(n - first_row) : kTile;
    const float* const rows = p.rows + batch * p.batch_step;
    const float* const centroids = p.centroids + batch * p.k * p.dim;
    const float* const bias = p.bias + batch * p.k;
    if constexpr (kListed) {
      if (t < rows_here) listed[t] = load_readonly(p.listed + first_row + t);
      sync_threads();
    }
    for (int r = warp_index(); r < kTile; r += kNearestThreads / kWarpSize) {
      float squared = 0.0f;
      if (r < rows_here) {
        const float* const row = rows + (kListed ? listed[r] : first_row + r) * p.row_stride;
        for (int64_t d = lane_index(); d < p.dim; d += kWarpSize) squared = fma_or_not(row[d], row[d], squared);
      }
      WARPMEM_UNROLL
      for (int lanes = 16; lanes > 0; lanes /= 2) squared += shuffle_xor(squared, lanes);
      if (lane_index() == 0) lengths[r] = squared;
    }

    float best[kPer];
    float second[kPer];
    int32_t index[kPer];
    WARPMEM_UNROLL
    for (int i = 0; i < kPer; ++i) {
      best[i] = second[i] = -INFINITY;
      index[i] = 0;
    }
    for (int32_t first = 0; first < k; first += kTile) {
      float sums[kPer][kPer];
      WARPMEM_UNROLL
      for (int i = 0; i < kPer; ++i) {
        WARPMEM_UNROLL
        for (int j = 0; j < kPer; ++j) sums[i][j] = 0.0f;
      }
      for (int32_t depth = 0; depth < dim; depth += kNearestDepth) {
        sync_threads();  // what was there has been read
        // Thread t brings dimension t % 16 of every sixteenth line; what lies outside is 0.
        const bool inside = t % kNearestDepth < dim - depth;
        const float* x_from = rows + (first_row + t / kNearestDepth) * p.row_stride + depth + t % kNearestDepth;
        const float* y_from = centroids + static_cast<int64_t>(first + t / kNearestDepth) * p.dim + depth + t % kNearestDepth;
        WARPMEM_UNROLL_BY(4)
        for (int line = t / kNearestDepth; line < kTile; line += kLinesAtOnce) {
          const int at = t % kNearestDepth * kLine + line;
          if constexpr (kListed) {
            if (line < rows_here) x_from = rows + listed[line] * p.row_stride + depth + t % kNearestDepth;
          }
          x_tile[at] = inside && line < rows_here ? load_readonly(x_from) : 0.0f;
          y_tile[at] = inside && line < k - first ? load_readonly(y_from) : 0.0f;
          if constexpr (!kListed) x_from += kLinesAtOnce * p.row_stride;
          y_from += kLinesAtOnce * p.dim;
        }
        sync_threads();
        WARPMEM_NO_UNROLL
        for (int d = 0; d < kNearestDepth; ++d) {
          float x[kPer];
          float y[kPer];
          WARPMEM_UNROLL
          for (int i = 0; i < kPer; ++i) {
            x[i] = x_tile[d * kLine + i / 4 * 64 + ty * 4 + i % 4];
            y[i] = y_tile[d * kLine + i / 4 * 64 + tx * 4 + i % 4];
          }
          WARPMEM_UNROLL
          for (int i = 0; i < kPer; ++i) {
            WARPMEM_UNROLL
            for (int j = 0; j < kPer; ++j) sums[i][j] = fma_or_not(x[i], y[j], sums[i][j]);
          }
        }
      }
      WARPMEM_UNROLL
      for (int j = 0; j < kPer; ++j) {
        const int32_t centroid = first + j / 4 * 64 + tx * 4 + j % 4;
        if (centroid >= k) continue;
        const float offset = load_readonly(bias + centroid);
        WARPMEM_UNROLL
        for (int i = 0; i < kPer; ++i) {
          const float score = sums[i][j] + offset;
          if (score > best[i]) {
            second[i] = best[i];
            best[i] = score;
            index[i] = centroid;
          } else if (score > second[i]) {
            second[i] = score;
          }
        }
      }
    }
    // The 16 threads of a row are half a warp. Which of two equal bests wins does not matter: such a row is in doubt.
    WARPMEM_UNROLL
    for (int i = 0; i < kPer; ++i) {
      WARPMEM_UNROLL
      for (int lanes = 8; lanes > 0; lanes /= 2) {
        const float other_best = shuffle_xor(best[i], lanes);
        const float other_second = shuffle_xor(second[i], lanes);
        const int32_t other_index = shuffle_xor(index[i], lanes);
        const bool take = other_best > best[i];
        const float loser = take ? best[i] : other_best;
        const float seconds = other_second > second[i] ? other_second : second[i];
        second[i] = loser > seconds ? loser : seconds;
        best[i] = take ? other_best : best[i];
        index[i] = take ? other_index : index[i];
      }
    }
    if (tx == 0) {
      const double longest = bits_double(p.longest[batch]);
      WARPMEM_UNROLL
      for (int i = 0; i < kPer; ++i) {
        const int line = i / 4 * 64 + ty * 4 + i % 4;
        if (line >= rows_here) continue;
        const int64_t row = kListed ? listed[line] : first_row + line;
        write_nearest(p, batch, row, index[i]);
        // An upper bound of |x|: the float32 sum errs by less than 1 %, and what underflows in it is shorter than 1e-18.
        const double length = sqrt(static_cast<double>(lengths[line])) * 1.01 + 1e-18;
        float limit = -INFINITY;
        if (length < kNearestLongest && longest < kNearestLongest) {
          const double margin = nearest_margin(length, longest, p.dim);
          if (static_cast<double>(best[i]) - static_cast<double>(second[i]) > margin) continue;
          limit = nextafterf(static_cast<float>(static_cast<double>(best[i]) - margin), -INFINITY);
        }
        const uint64_t at = atomic_add(p.n_doubtful, uint64_t{1});
        p.doubtful[at] = batch * p.n + row;
        p.limits[at] = limit;
      }
    }
    sync_threads();  // lengths and rows
  }
}

// Which of the centroids base ... base + 31 (below `end`) reach the limit; what overflowed does. Short rows: a lane a centroid; others: the warp, four at a
// time.
WARPMEM_DEVICE uint32_t settle_candidates(const NearestParams& p, const float* x, int64_t batch, int64_t base, int64_t end,
                                          float limit) {
  constexpr int kAtOnce = 4;
  const float* const centroids = p.centroids + (batch * p.k + base) * p.dim;
  const float* const bias = p.bias + batch * p.k + base;
  const int count = end - base < kWarpSize ? static_cast<int>(end - base) : kWarpSize;
  if (p.dim < kWarpSize) {
    float score = 0.0f;
    const int c = lane_index() < count ? lane_index() : 0;
    for (int64_t d = 0; d < p.dim; ++d) score = fma_or_not(x[d], centroids[c * p.dim + d], score);
    return ballot(lane_index() < count && !(score + bias[c] < limit));
  }
  uint32_t wanted = 0;
  for (int first = 0; first < count; first += kAtOnce) {
    const float* y[kAtOnce];
    float scores[kAtOnce];
    WARPMEM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      y[i] = centroids + (first + i < count ? first + i : first) * p.dim;
      scores[i] = 0.0f;
    }
    WARPMEM_UNROLL_BY(4)
    for (int64_t d = lane_index(); d < p.dim; d += kWarpSize) {
      const float own = load_readonly(x + d);
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) scores[i] = fma_or_not(own, load_readonly(y[i] + d), scores[i]);
    }
    WARPMEM_UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) scores[i] += shuffle_xor(scores[i], lanes);
    }
    WARPMEM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < count && !(scores[i] + bias[first + i] < limit)) wanted |= 1u << (first + i);
    }
  }
  return wanted;
}

template <bool kBlock>
WARPMEM_KERNEL(kNearestThreads)
nearest_settle_kernel(NearestParams p) {
  constexpr int kWarps = kNearestThreads / kWarpSize;
  constexpr int kTogether = kBlock ? kWarps : 1;  // warps that share a row
  const Shared<double> values = shared_array<double>(0, kBlock ? kWarps : 0);
  const Shared<int64_t> indexes = shared_array<int64_t>(kBlock ? 8 * kWarps : 0, kBlock ? kWarps : 0);
  const auto nearer = [&](double a, double b) { return p.inner ? a > b : a < b; };
  const bool listed = p.n_listed != nullptr && load_readonly(p.n_listed) <= static_cast<uint64_t>(kHalvesSettled);
  const auto n = static_cast<int64_t>(load_readonly(listed ? p.n_listed : p.n_doubtful));
  const int64_t share = (p.k + kTogether * kWarpSize - 1) / (kTogether * kWarpSize) * kWarpSize;
  const int64_t begin = kBlock ? warp_index() * share : 0;
  const int64_t end = p.k < begin + share ? p.k : begin + share;
  const int64_t first = kBlock ? block_index() : block_index() * kWarps + warp_index();
  for (int64_t at = first; at < n; at += grid_blocks() * (kWarps / kTogether)) {
    const int64_t entry = listed ? p.listed[at] : p.doubtful[at];
    const int64_t batch = entry / p.n;
    const int64_t row = entry % p.n;
    const float limit = listed ? p.listed_limits[at] : p.limits[at];
    const float* const x = p.rows + batch * p.batch_step + row * p.row_stride;
    int64_t best = -1;
    double best_value = 0.0;
    for (int64_t base = begin; base < end; base += kWarpSize) {
      uint32_t wanted = settle_candidates(p, x, batch, base, end, limit);
      for (; wanted != 0; wanted &= wanted - 1) {
        const int64_t c = base + lowest_bit(wanted);
        const float* const y = p.centroids + (batch * p.k + c) * p.dim;
        const double value = p.inner ? warp_dot_f64(x, y, p.dim) : warp_squared_distance_f64(x, y, p.dim);
        if (best < 0 || nearer(value, best_value)) {
          best = c;
          best_value = value;
        }
      }
    }
    if constexpr (kBlock) {
      if (lane_index() == 0) {
        values[warp_index()] = best_value;
        indexes[warp_index()] = best;
      }
      sync_threads();
      for (int warp = 0; warp < kWarps && thread_index() == 0; ++warp) {
        if (warp == 0 || (indexes[warp] >= 0 && (best < 0 || nearer(values[warp], best_value)))) {
          best = indexes[warp];
          best_value = values[warp];
        }
      }
      sync_threads();  // the next row's
    }
    if (lane_index() == 0 && (!kBlock || warp_index() == 0)) write_nearest(p, batch, row, best);
  }
}

struct NearestValuesParams {
  const float* rows;
  int64_t row_stride;
  int64_t n;
  const float* centroids;
  int64_t dim;
  bool inner;
  const int32_t* index;
  double* values;  // (n): canonical value of each row and its centroid
};

WARPMEM_KERNEL(kNearestThreads) nearest_values_kernel(NearestValuesParams p) {
  const int warps = block_threads() / kWarpSize;
  for (int64_t row = block_index() * warps + warp_index(); row < p.n; row += grid_blocks() * warps) {
    const float* const x = p.rows + row * p.row_stride;
    const float* const y = p.centroids + p.index[row] * p.dim;
    const double value = p.inner ? warp_dot_f64(x, y, p.dim) : warp_squared_distance_f64(x, y, p.dim);
    if (lane_index() == 0) p.values[row] = value;
  }
}

}  // namespace warpmem::cuda
