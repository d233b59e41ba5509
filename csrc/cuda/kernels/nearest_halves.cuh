// The nearest centroid of each row where tensor products pay: a screen of half precision, then canonical values where it leaves a doubt. Half precision is
// within 2^-11 of an element, and how far a row and a centroid really are from theirs is measured, so the bound is a proven one and few rows are in doubt.
//
//   measure   nearest.cuh's, and the largest element of all centroids
//   round     a warp a centroid: divided by a power of two, rounded, stored as the screen reads it: [tile of 256][step of 32 dimensions][centroid][32]
//   screen    a block a tile of rows, which it rounds into shared memory and keeps; centroids pass by, a step at a time, the next one on its way:
//
//                  [tile / 16][step][2][lane] rows of halves in units of 16 bytes, each the four operands of a lane for one product
//                  [2][256] centroids of 32 halves             [tile] scale     [tile] margin
//
//             8 warps: 2 of rows by 4 of 64 centroids. Lane (g, t) of a warp takes 8 dimensions of a step, from 8 t on, of rows and centroids g, g + 8, ...: two products;
//             which dimension is which does not matter to a sum. Of each row it keeps the best two of its centroids and the third's score.
//             Scores within the margin of the best of all are candidates: one is the result, 2 to 8 go to a list, more (or a third score) to another.
//   few       a warp a row of the first list: its candidates by their canonical values
//   screen, settle of nearest.cuh for the other list
//
// What the products err by: hardware adds up 4, 8 or 16 of them at a time, truncated at 2^-23 of the largest addend; 24 times for 16 dimensions at most, so a score by less than
// (dimensions + 16) 2^-22 |x| |y|. Shared memory: 2 tile dimensions + 32,768 + 8 tile bytes, dimensions a multiple of 32. Values: core/kmeans_plan.hpp.
#pragma once

#include "nearest.cuh"

namespace warpmem::cuda {

struct HalvesParams {
  NearestParams nearest;  // one batch; bias (halves_columns(k)); n_listed, listed and listed_limits are many's
  uint32_t* halves;       // (tiles, steps, 256, 16): pairs
  uint64_t* roughest;     // bits of the largest distance of a centroid from its halves; 0 at the start
  uint64_t* n_few;        // 0 at the start
  int64_t* few_rows;      // (n)
  int32_t* few;           // (n, kHalvesCandidates), -1 behind the last
  uint64_t* n_many;       // 0 at the start
  int64_t* many;          // (n)
  float* many_limits;     // (n)
};

// The power of two, about the largest magnitude, that numbers are divided by: 2^-100 to 2^126, so that its inverse is one too.
struct HalfScale {
  float up;
  float down;
};
WARPMEM_DEVICE HalfScale half_scale(uint32_t largest) {
  uint32_t exponent = largest >> 23;
  exponent = exponent < 27 ? 27 : exponent > 253 ? 253 : exponent;
  return HalfScale{bits_float(exponent << 23), bits_float((254 - exponent) << 23)};
}

// Two elements, scaled, as a pair of halves; adds up the squares of them and of what rounding takes away.
WARPMEM_DEVICE uint32_t half_pair(const float* from, int64_t d, int64_t dim, float down, float& squared, float& lost) {
  uint32_t pair = 0;
  WARPMEM_UNROLL
  for (int i = 0; i < 2; ++i) {
    if (d + i >= dim) continue;
    const float value = from[d + i] * down;
    const uint32_t half = half_bits(value);
    const float rest = value - half_value(half);
    squared = fma_or_not(value, value, squared);
    lost = fma_or_not(rest, rest, lost);
    pair |= half << 16 * i;
  }
  return pair;
}

WARPMEM_DEVICE float warp_sum(float value) {
  WARPMEM_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
  return value;
}

// An upper bound of a length from its float32 square: that sum errs by less than 1 %, and what underflows in it is shorter than 1e-20.
WARPMEM_DEVICE double upper_length(float squared, float up) {
  return (sqrt(static_cast<double>(squared)) * 1.01 + 1e-20) * static_cast<double>(up);
}

WARPMEM_KERNEL(kNearestThreads) nearest_round_kernel(HalvesParams p) {
  const NearestParams& from = p.nearest;
  const int warps = block_threads() / kWarpSize;
  const HalfScale scale = half_scale(load_readonly(from.largest));
  const int64_t dim = halves_dim(from.dim);
  for (int64_t c = block_index() * warps + warp_index(); c < halves_columns(from.k); c += grid_blocks() * warps) {
    const int64_t own = c < from.k ? from.dim : 0;  // behind the last: zeros
    float squared = 0.0f;
    float lost = 0.0f;
    for (int64_t d = 2 * lane_index(); d < dim; d += 2 * kWarpSize) {
      const int64_t step = c / kHalvesColumns * (dim / kHalvesDepth) + d / kHalvesDepth;
      p.halves[(step * kHalvesColumns + c % kHalvesColumns) * (kHalvesDepth / 2) + d % kHalvesDepth / 2] =
          half_pair(from.centroids + c * from.dim, d, own, scale.down, squared, lost);
    }
    lost = warp_sum(lost);
    if (lane_index() != 0) continue;
    if (c < from.k) {
      atomic_max(p.roughest, double_bits(upper_length(lost, scale.up)));
    } else {
      from.bias[c] = -INFINITY;  // never a candidate
    }
  }
}

// By what share of |x| |y| the products' sums may err: see the top of this file.
WARPMEM_DEVICE double halves_sums_error(int64_t dim) {
  return static_cast<double>(halves_dim(dim) + 16) * 2.384185791015625e-07;  // 2^-22
}

// By how much a score may err: nearest.cuh's bound, what rounding takes from row and centroid, the products' sums.
WARPMEM_DEVICE double halves_margin(double length, double lost, double longest, double roughest, int64_t dim) {
  const double sums = halves_sums_error(dim);
  const double rounded = lost * longest + (length + lost) * roughest;
  return nearest_margin(length, longest, dim) +
         2.02 * (rounded + sums * (length + lost) * (longest + roughest) + static_cast<double>(dim) * 1e-43);
}

// What a score must reach to be a candidate of row r.
WARPMEM_DEVICE float halves_limit(const Shared<float>& bests, const Shared<float>& margins, int tile, int r) {
  float best = bests[r];
  WARPMEM_UNROLL
  for (int warp = 1; warp < 4; ++warp) best = bests[warp * tile + r] > best ? bests[warp * tile + r] : best;
  if (margins[r] == INFINITY) return -INFINITY;
  return nextafterf(static_cast<float>(static_cast<double>(best) - static_cast<double>(margins[r])), -INFINITY);
}

WARPMEM_DEVICE void add_candidate(const Shared<uint32_t>& counts, const Shared<int32_t>& candidates, int r, int32_t centroid) {
  const uint32_t at = atomic_add(&counts[r], uint32_t{1});
  if (at < kHalvesCandidates) candidates[r * kHalvesCandidates + at] = centroid;
}

template <int kTile>
WARPMEM_KERNEL(kNearestThreads)
nearest_halves_kernel(HalvesParams params) {
  constexpr int kHeight = kTile / 32;  // products above each other in a warp
  constexpr int kWide = 8;             // and beside each other
  constexpr int kUnits = kHalvesDepth / 8;
  constexpr int kStepUnits = kHalvesColumns * kUnits;
  const NearestParams& p = params.nearest;
  const auto dim = static_cast<int32_t>(halves_dim(p.dim));
  const int line = dim / 8;  // units of a row
  const Shared<Bytes16> x_units = shared_array<Bytes16>(0, static_cast<int64_t>(kTile) * line);
  const Shared<uint32_t> x_pairs = shared_array<uint32_t>(0, static_cast<int64_t>(kTile) * line * 4);
  const int64_t behind_rows = int64_t{2} * kTile * dim;
  const Shared<Bytes16> y_units = shared_array<Bytes16>(behind_rows, 2 * kStepUnits);
  const Shared<float> scales = shared_array<float>(behind_rows + kHalvesPass, kTile);
  const Shared<float> margins = shared_array<float>(behind_rows + kHalvesPass + 4 * kTile, kTile);
  // Where the steps were, in the end: the best score of each row and warp, how many candidates it has, and which.
  const Shared<float> bests = shared_array<float>(behind_rows, 4 * kTile);
  const Shared<uint32_t> counts = shared_array<uint32_t>(behind_rows + 16 * kTile, kTile);
  const Shared<int32_t> candidates = shared_array<int32_t>(behind_rows + 20 * kTile, kHalvesCandidates * kTile);
  const int t = thread_index();
  const int g = lane_index() / 4;
  const int column = lane_index() % 4;
  const int first_line = warp_index() / 4 * 16 * kHeight;  // of the warp's rows
  const int first_column = warp_index() % 4 * 8 * kWide;
  const int steps = dim / kHalvesDepth;
  const auto tiles = static_cast<int32_t>(halves_columns(p.k) / kHalvesColumns);
  const HalfScale y_scale = half_scale(load_readonly(p.largest));
  const double longest = bits_double(load_readonly(p.longest));
  const double roughest = bits_double(load_readonly(params.roughest));

  for (int64_t first_row = block_index() * kTile; first_row < p.n; first_row += grid_blocks() * kTile) {
    const int rows_here = p.n - first_row < kTile ? static_cast<int>(p.n - first_row) : kTile;
    const auto begin = [&](int64_t step, int half) {
      const auto* const from = reinterpret_cast<const unsigned char*>(params.halves) + step * 16 * kStepUnits;
      for (int unit = t; unit < kStepUnits; unit += kNearestThreads)
        copy_async_16(&y_units[half * kStepUnits + unit], from + 16 * unit);
      copy_async_commit();
    };
    begin(0, 0);
    for (int r = warp_index(); r < kTile; r += kNearestThreads / kWarpSize) {
      const float* const row = p.rows + (first_row + (r < rows_here ? r : 0)) * p.row_stride;
      const int64_t own = r < rows_here ? p.dim : 0;
      uint32_t largest = 0;
      for (int64_t d = lane_index(); d < own; d += kWarpSize) {
        const uint32_t bits = magnitude_bits(row[d]);
        largest = bits > largest ? bits : largest;
      }
      const HalfScale scale = half_scale(reduce_max(largest));
      float squared = 0.0f;
      float lost = 0.0f;
      for (int d = 2 * lane_index(); d < dim; d += 2 * kWarpSize)
        x_pairs[(((r / 16 * steps + d / 32) * 2 + d % 8 / 4) * 32 + r % 8 * 4 + d / 8 % 4) * 4 + r % 16 / 8 + d % 4 / 2 * 2] =
            half_pair(row, d, own, scale.down, squared, lost);
      squared = warp_sum(squared);
      lost = warp_sum(lost);
      if (lane_index() != 0) continue;
      const double length = upper_length(squared, scale.up);
      scales[r] = static_cast<float>(static_cast<double>(scale.up) * static_cast<double>(y_scale.up));
      margins[r] =
          length < kNearestLongest && longest < kNearestLongest
              ? nextafterf(static_cast<float>(halves_margin(length, upper_length(lost, scale.up), longest, roughest, p.dim)),
                           INFINITY)
              : INFINITY;
    }

    float best[2 * kHeight];
    float second[2 * kHeight];
    float third[2 * kHeight];
    uint32_t owned[2 * kHeight];  // which of the lane's centroids: the best in the low 16 bits, the second in the high ones
    WARPMEM_UNROLL
    for (int i = 0; i < 2 * kHeight; ++i) {
      best[i] = second[i] = third[i] = -INFINITY;
      owned[i] = 0;
    }
    for (int32_t tile = 0; tile < tiles; ++tile) {
      float sums[kHeight][kWide][4];
      WARPMEM_UNROLL
      for (int i = 0; i < kHeight; ++i) {
        WARPMEM_UNROLL
        for (int j = 0; j < kWide; ++j) sums[i][j][0] = sums[i][j][1] = sums[i][j][2] = sums[i][j][3] = 0.0f;
      }
      WARPMEM_NO_UNROLL
      for (int32_t step = 0; step < steps; ++step) {
        const int64_t at = static_cast<int64_t>(tile) * steps + step;
        copy_async_wait<0>();
        sync_threads();  // this step is there for all, and the one before has been read; at first, so are the rows
        if (at + 1 < static_cast<int64_t>(tiles) * steps) begin(at + 1, static_cast<int>((at + 1) % 2));
        Bytes16 x[kHeight][2];
        WARPMEM_UNROLL
        for (int i = 0; i < kHeight; ++i) {
          WARPMEM_UNROLL
          for (int h = 0; h < 2; ++h) x[i][h] = x_units[((first_line / 16 + i) * steps + step) * 64 + h * 32 + lane_index()];
        }
        const int half = static_cast<int>(at % 2) * kStepUnits;
        WARPMEM_UNROLL
        for (int j = 0; j < kWide; ++j) {
          const Bytes16 y = y_units[half + (first_column + 8 * j + g) * kUnits + column];
          WARPMEM_UNROLL
          for (int i = 0; i < kHeight; ++i) {
            mma_f16(sums[i][j], x[i][0].word, {y.word[0], y.word[1]});
            mma_f16(sums[i][j], x[i][1].word, {y.word[2], y.word[3]});
          }
        }
      }
      WARPMEM_UNROLL
      for (int i = 0; i < 2 * kHeight; ++i) {
        const float scale = scales[first_line + 16 * (i / 2) + 8 * (i % 2) + g];
        WARPMEM_UNROLL
        for (int j = 0; j < 2 * kWide; ++j) {
          const int32_t centroid = tile * kHalvesColumns + first_column + 8 * (j / 2) + 2 * column + j % 2;
          const float score = fma_or_not(sums[i / 2][j / 2][2 * (i % 2) + j % 2], scale, load_readonly(p.bias + centroid));
          const bool first = score > best[i];
          const bool next = score > second[i];
          third[i] = fmaxf(third[i], fminf(second[i], score));
          second[i] = fmaxf(second[i], fminf(best[i], score));
          best[i] = fmaxf(best[i], score);
          const auto own = static_cast<uint32_t>(tile * 2 * kWide + j);
          owned[i] = first ? owned[i] << 16 | own : next ? (owned[i] & 0xffffu) | own << 16 : owned[i];
        }
      }
    }

    sync_threads();  // the last step has been read
    WARPMEM_UNROLL
    for (int i = 0; i < 2 * kHeight; ++i) {
      float highest = best[i];
      WARPMEM_UNROLL
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        const float other = shuffle_xor(highest, lanes);
        highest = other > highest ? other : highest;
      }
      const int r = first_line + 16 * (i / 2) + 8 * (i % 2) + g;
      if (column == 0) bests[warp_index() % 4 * kTile + r] = highest;
    }
    if (t < kTile) counts[t] = 0;
    sync_threads();
    WARPMEM_UNROLL
    for (int i = 0; i < 2 * kHeight; ++i) {
      const int r = first_line + 16 * (i / 2) + 8 * (i % 2) + g;
      const float limit = halves_limit(bests, margins, kTile, r);
      const auto centroid = [&](uint32_t own) {
        const auto j = static_cast<int32_t>(own % (2 * kWide));
        return static_cast<int32_t>(own / (2 * kWide)) * kHalvesColumns + first_column + 8 * (j / 2) + 2 * column + j % 2;
      };
      if (best[i] >= limit) add_candidate(counts, candidates, r, centroid(owned[i] & 0xffffu));
      if (second[i] >= limit) add_candidate(counts, candidates, r, centroid(owned[i] >> 16));
      if (third[i] >= limit) atomic_add(&counts[r], uint32_t{kHalvesCandidates} + 1);
    }
    sync_threads();
    if (t < rows_here) {
      const uint32_t count = counts[t];
      if (count == 1) {
        write_nearest(p, 0, first_row + t, candidates[t * kHalvesCandidates]);
      } else if (count <= kHalvesCandidates) {
        const uint64_t at = atomic_add(params.n_few, uint64_t{1});
        params.few_rows[at] = first_row + t;
        for (uint32_t i = 0; i < kHalvesCandidates; ++i)
          params.few[at * kHalvesCandidates + i] = i < count ? candidates[t * kHalvesCandidates + i] : -1;
      } else {
        const uint64_t at = atomic_add(params.n_many, uint64_t{1});
        params.many[at] = first_row + t;
        params.many_limits[at] = halves_limit(bests, margins, kTile, t);
      }
    }
    sync_threads();  // what lies where the steps will
  }
}

WARPMEM_KERNEL(kNearestThreads) nearest_few_kernel(HalvesParams params) {
  const NearestParams& p = params.nearest;
  const int warps = block_threads() / kWarpSize;
  const auto n = static_cast<int64_t>(load_readonly(params.n_few));
  for (int64_t at = block_index() * warps + warp_index(); at < n; at += grid_blocks() * warps) {
    const int64_t row = params.few_rows[at];
    const float* const x = p.rows + row * p.row_stride;
    int32_t best = -1;
    double best_value = 0.0;
    for (int i = 0; i < kHalvesCandidates; ++i) {
      const int32_t c = params.few[at * kHalvesCandidates + i];
      if (c < 0) break;
      const float* const y = p.centroids + c * p.dim;
      const double value = p.inner ? warp_dot_f64(x, y, p.dim) : warp_squared_distance_f64(x, y, p.dim);
      const bool nearer = p.inner ? value > best_value : value < best_value;
      if (best < 0 || nearer || (value == best_value && c < best)) {
        best = c;
        best_value = value;
      }
    }
    if (lane_index() == 0) write_nearest(p, 0, row, best);
  }
}

}  // namespace warpmem::cuda
