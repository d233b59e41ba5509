// Rows and centroids in halves, as the screen of nearest_halves.cuh reads them, and what rounding took from them.
//
//   centroids   a warp a centroid, all divided by one power of two: [tile of 256][step of 32 dimensions][centroid][32]
//   rows        a warp two rows, 8 apart, each divided by its own: [16 rows][step][2][lane] in units of 16 bytes, each the four operands of a lane for one
//               product. Rows that are searched again and again, by k-means, are rounded once.
//
// No shared memory.
#pragma once

#include "nearest.cuh"

namespace warpmem::cuda {

struct HalvesParams {
  NearestParams nearest;  // one batch; bias (halves_columns(k)); n_listed, listed and listed_limits are many's
  uint32_t* halves;       // (tiles, steps, 256, 16): pairs
  uint64_t* roughest;     // bits of the largest distance of a centroid from its halves; 0 at the start
  Bytes16* rows;          // (halves_rows(n) / 16, steps, 2, 32)
  RoundedRow* measures;   // (halves_rows(n))
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
WARPMEM_DEVICE uint32_t half_pair(float first, float second, float down, float& squared, float& lost) {
  const float values[2] = {first * down, second * down};
  uint32_t pair = 0;
  WARPMEM_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t half = half_bits(values[i]);
    const float rest = values[i] - half_value(half);
    squared = fma_or_not(values[i], values[i], squared);
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
    const float* const centroid = from.centroids + c * from.dim;
    float squared = 0.0f;
    float lost = 0.0f;
    for (int64_t d = 2 * lane_index(); d < dim; d += 2 * kWarpSize) {
      const int64_t step = c / kHalvesColumns * (dim / kHalvesDepth) + d / kHalvesDepth;
      p.halves[(step * kHalvesColumns + c % kHalvesColumns) * (kHalvesDepth / 2) + d % kHalvesDepth / 2] =
          half_pair(d < own ? centroid[d] : 0.0f, d + 1 < own ? centroid[d + 1] : 0.0f, scale.down, squared, lost);
    }
    lost = warp_sum(lost);
    if (lane_index() != 0) continue;
    if (c < from.k) {
      atomic_max(p.roughest, double_bits(upper_length(lost, scale.up)));
    } else {
      from.bias[c] = -kLargestFloat;  // never a candidate; -inf would be no number once its low bits are others
    }
  }
}

// Elements d ... d + 3 of a row; zeros from `own` on.
WARPMEM_DEVICE void load_four(float (&to)[4], const float* row, int64_t d, int64_t own, bool aligned) {
  if (aligned && d + 4 <= own) {
    const Bytes16 four = load_16(row + d);
    memcpy(to, four.word, 16);
    return;
  }
  WARPMEM_UNROLL
  for (int i = 0; i < 4; ++i) to[i] = d + i < own ? load_readonly(row + d + i) : 0.0f;
}

WARPMEM_DEVICE uint32_t larger_magnitude(uint32_t largest, const float (&x)[4]) {
  WARPMEM_UNROLL
  for (int i = 0; i < 4; ++i) largest = magnitude_bits(x[i]) > largest ? magnitude_bits(x[i]) : largest;
  return largest;
}

// A warp rows r and r + 8 of a group of 16, of which its lanes have four neighbouring elements at a time: a unit of the screen. Rows of up to 768 elements
// are read once.
WARPMEM_KERNEL_OF(kNearestThreads, 2)
nearest_round_rows_kernel(HalvesParams params) {
  constexpr int kKept = 6;              // fours of each row that a lane keeps
  constexpr int kTurn = 4 * kWarpSize;  // elements of all lanes
  const NearestParams& p = params.nearest;
  const int warps = block_threads() / kWarpSize;
  const int64_t dim = halves_dim(p.dim);
  const bool aligned = reinterpret_cast<uintptr_t>(p.rows) % 16 == 0 && p.row_stride % 4 == 0;
  for (int64_t at = block_index() * warps + warp_index(); at < halves_rows(p.n) / 2; at += grid_blocks() * warps) {
    const int64_t first = at / 8 * 16 + at % 8;
    const float* rows[2];
    int64_t own[2];
    WARPMEM_UNROLL
    for (int h = 0; h < 2; ++h) {
      const bool there = first + 8 * h < p.n;
      rows[h] = p.rows + (there ? first + 8 * h : 0) * p.row_stride;
      own[h] = there ? p.dim : 0;
    }
    float kept[kKept][2][4];
    uint32_t largest[2] = {0, 0};
    WARPMEM_UNROLL
    for (int turn = 0; turn < kKept; ++turn) {
      WARPMEM_UNROLL
      for (int h = 0; h < 2; ++h) load_four(kept[turn][h], rows[h], turn * kTurn + 4 * lane_index(), own[h], aligned);
    }
    WARPMEM_UNROLL
    for (int turn = 0; turn < kKept; ++turn) {
      WARPMEM_UNROLL
      for (int h = 0; h < 2; ++h) largest[h] = larger_magnitude(largest[h], kept[turn][h]);
    }
    for (int64_t d = kKept * kTurn + 4 * lane_index(); d < p.dim; d += kTurn) {
      float four[2][4];
      WARPMEM_UNROLL
      for (int h = 0; h < 2; ++h) {
        load_four(four[h], rows[h], d, own[h], aligned);
        largest[h] = larger_magnitude(largest[h], four[h]);
      }
    }
    HalfScale scale[2];
    float squared[2] = {0.0f, 0.0f};
    float lost[2] = {0.0f, 0.0f};
    WARPMEM_UNROLL
    for (int h = 0; h < 2; ++h) scale[h] = half_scale(reduce_max(largest[h]));
    const auto store = [&](int64_t d, const float (&x)[2][4]) {
      Bytes16 unit;
      WARPMEM_UNROLL
      for (int i = 0; i < 4; ++i)
        unit.word[i] = half_pair(x[i % 2][i / 2 * 2], x[i % 2][i / 2 * 2 + 1], scale[i % 2].down, squared[i % 2], lost[i % 2]);
      const int64_t step = first / 16 * (dim / kHalvesDepth) + d / kHalvesDepth;
      params.rows[(step * 2 + d % 8 / 4) * kWarpSize + first % 8 * 4 + d / 8 % 4] = unit;
    };
    WARPMEM_UNROLL
    for (int turn = 0; turn < kKept; ++turn) {
      const int64_t d = turn * kTurn + 4 * lane_index();
      if (d < dim) store(d, kept[turn]);
    }
    for (int64_t d = kKept * kTurn + 4 * lane_index(); d < dim; d += kTurn) {
      float four[2][4];
      WARPMEM_UNROLL
      for (int h = 0; h < 2; ++h) load_four(four[h], rows[h], d, own[h], aligned);
      store(d, four);
    }
    WARPMEM_UNROLL
    for (int h = 0; h < 2; ++h) {
      squared[h] = warp_sum(squared[h]);
      lost[h] = warp_sum(lost[h]);
      if (lane_index() != 0) continue;
      const auto not_below = [](double x) { return nextafterf(static_cast<float>(x), INFINITY); };
      params.measures[first + 8 * h] = RoundedRow{scale[h].up, not_below(upper_length(squared[h], scale[h].up)),
                                                  not_below(upper_length(lost[h], scale[h].up)), 0.0f};
    }
  }
}

}  // namespace warpmem::cuda
