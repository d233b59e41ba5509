// The nearest centroid of each row where tensor products pay: a screen of half precision, then canonical values where it leaves a doubt. Half precision is
// within 2^-11 of an element, and how far a row and a centroid really are from theirs is measured, so the bound is a proven one and few rows are in doubt.
//
//   measure   nearest.cuh's, and the largest element of all centroids
//   round     nearest_round.cuh: centroids, and rows that have not been before
//   screen    a block a tile of rows, which it keeps in shared memory; centroids pass by, a step at a time, the next one on its way, and with the last of
//             them comes the next tile of rows, a step into the place of each that was read:
//
//                  [tile / 16][step][2][lane] rows         [2][256] a step of centroids, 32 halves each         [tile] what rounding took from the rows
//
//             8 warps: 2 of rows by 4 of 64 centroids. Lane (g, t) of a warp takes 8 dimensions of a step, from 8 t on, of rows and centroids g, g + 8, ...: two products;
//             which dimension is which does not matter to a sum. A score's low four bits say which of the lane's 16 centroids of a tile it is of, so that the
//             best three of 16 are 57 minima and maxima. Of each row a lane keeps its best two and the third's score.
//             Scores within the margin of the best of all are candidates: one is the result, 2 to 8 go to a list, more (or a third score) to another.
//   few       a warp a row of the first list: its candidates by their canonical values
//   screen, settle of nearest.cuh for the other list
//
// What the products err by: hardware adds up 4, 8 or 16 of them at a time, truncated at 2^-23 of the largest addend; 24 times for 16 dimensions at most, so a score by less than
// (dimensions + 16) 2^-22 |x| |y|. Shared memory: 2 tile dimensions + 32,768 + 16 tile bytes, dimensions a multiple of 32; where the step was that was read
// last, in the end what is found of each row: 56 tile bytes. Values: core/kmeans_plan.hpp.
#pragma once

#include "nearest_round.cuh"

namespace warpmem::cuda {

// By what share of |x| |y| the products' sums may err: see the top of this file.
WARPMEM_DEVICE double halves_sums_error(int64_t dim) {
  return static_cast<double>(halves_dim(dim) + 16) * 2.384185791015625e-07;  // 2^-22
}

// By how much a score may err: nearest.cuh's bound, what rounding takes from row and centroid, the products' sums, the low bits.
WARPMEM_DEVICE double halves_margin(double length, double lost, double longest, double roughest, int64_t dim) {
  const double rounded = lost * longest + (length + lost) * roughest;
  return nearest_margin(length, longest, dim) +
         2.02 * (rounded + halves_sums_error(dim) * (length + lost) * (longest + roughest) +
                 kBitsOfScore * (length + longest) * longest + static_cast<double>(dim) * 1e-43);
}

// The three best of some scores.
struct BestThree {
  float first;
  float second;
  float third;
};
// Of two lists. The lesser second is behind both firsts and the other second, so it is not among them.
WARPMEM_DEVICE BestThree join(const BestThree& a, const BestThree& b) {
  const float next = fminf(a.first, b.first);
  const float seconds = fmaxf(a.second, b.second);
  return BestThree{fmaxf(a.first, b.first), fmaxf(next, seconds), fmaxf(fminf(next, seconds), fmaxf(a.third, b.third))};
}

// Of 16 scores, of which none is not a number.
WARPMEM_DEVICE BestThree best_of_16(const float (&scores)[16]) {
  BestThree best[4];
  WARPMEM_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float* const four = scores + 4 * i;
    const float next = fminf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3]));
    const float seconds = fmaxf(fminf(four[0], four[1]), fminf(four[2], four[3]));
    best[i] = BestThree{fmaxf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3])), fmaxf(next, seconds), fminf(next, seconds)};
  }
  return join(join(best[0], best[1]), join(best[2], best[3]));
}

// What a lane knows of a row: its best three scores, and of which tiles the first (low 16 bits) and the second are.
struct LaneBest {
  BestThree scores{-INFINITY, -INFINITY, -INFINITY};
  uint32_t tiles = 0;

  WARPMEM_DEVICE void take(const BestThree& found, uint32_t tile) {
    const uint32_t loser = found.first > scores.first ? tiles & 0xffffu : tile;
    const uint32_t second = found.second > scores.second ? tile : tiles >> 16;
    const bool lost = fminf(found.first, scores.first) > fmaxf(found.second, scores.second);
    tiles = (found.first > scores.first ? tile : tiles & 0xffffu) | (lost ? loser : second) << 16;
    scores = join(found, scores);
  }
};

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
  const int64_t behind_rows = int64_t{2} * kTile * dim;
  const Shared<Bytes16> x_units = shared_array<Bytes16>(0, static_cast<int64_t>(kTile) * (dim / 8));
  const Shared<Bytes16> y_units = shared_array<Bytes16>(behind_rows, 2 * kStepUnits);
  const Shared<RoundedRow> measures = shared_array<RoundedRow>(behind_rows + kHalvesPass, kTile);
  const int t = thread_index();
  const int g = lane_index() / 4;
  const int column = lane_index() % 4;
  const int first_line = warp_index() / 4 * 16 * kHeight;  // of the warp's rows
  const int first_column = warp_index() % 4 * 8 * kWide;
  const int steps = dim / kHalvesDepth;
  const auto tiles = static_cast<int32_t>(halves_columns(p.k) / kHalvesColumns);
  const uint32_t keep = ~static_cast<uint32_t>(block_threads() / 16 - 1);  // ~15
  const auto n = static_cast<int32_t>(p.n);                                // of a chunk: far below 2^31
  const auto apart = static_cast<int32_t>(grid_blocks() * kTile);
  auto first_row = static_cast<int32_t>(block_index() * kTile);
  if (first_row >= n) return;

  const auto bring_centroids = [&](int64_t step, int half) {
    const auto* const from = reinterpret_cast<const unsigned char*>(params.halves) + step * 16 * kStepUnits;
    WARPMEM_UNROLL
    for (int i = 0; i < kStepUnits / kNearestThreads; ++i) {
      const int unit = i * kNearestThreads + t;
      copy_async_16(&y_units[half * kStepUnits + unit], from + 16 * unit);
    }
  };
  const auto bring_rows = [&](int32_t row, int step) {
    for (int unit = t; unit < 4 * kTile; unit += kNearestThreads) {
      const int group = unit / 64;
      copy_async_16(&x_units[(group * steps + step) * 64 + unit % 64],
                    params.rows + (static_cast<int64_t>(row / 16 + group) * steps + step) * 64 + unit % 64);
    }
  };
  const auto bring_measures = [&](int32_t row) {
    if (t < kTile) copy_async_16(&measures[t], params.measures + row + t);
  };
  for (int step = 0; step < steps; ++step) bring_rows(first_row, step);
  bring_measures(first_row);
  bring_centroids(0, 0);
  copy_async_commit();
  copy_async_commit();

  int half = 0;  // where the step lies that is multiplied next
  for (; first_row < n; first_row += apart) {
    const int rows_here = n - first_row < kTile ? n - first_row : kTile;
    const bool more = first_row + apart < n;
    LaneBest best[2 * kHeight];
    for (int32_t tile = 0; tile < tiles; ++tile) {
      float sums[kHeight][kWide][4];
      WARPMEM_UNROLL
      for (int i = 0; i < kHeight; ++i) {
        WARPMEM_UNROLL
        for (int j = 0; j < kWide; ++j) sums[i][j][0] = sums[i][j][1] = sums[i][j][2] = sums[i][j][3] = 0.0f;
      }
      const bool last = tile + 1 == tiles;
      WARPMEM_NO_UNROLL
      for (int32_t step = 0; step < steps; ++step) {
        // Two groups a step: centroids for the next one, then rows, which may take another step. What a few steps later is needed has then come.
        if (steps < 4) {
          copy_async_wait<0>();
        } else {
          copy_async_wait<1>();
        }
        sync_threads();  // this step is there for all, and the one before has been read
        if (!last || step + 1 < steps) {
          bring_centroids(static_cast<int64_t>(tile) * steps + step + 1, 1 - half);
        } else if (more) {
          bring_centroids(0, 1 - half);
        }
        copy_async_commit();
        if (last && more && step > 0) bring_rows(first_row + apart, step - 1);
        copy_async_commit();
        Bytes16 x[kHeight][2];
        WARPMEM_UNROLL
        for (int i = 0; i < kHeight; ++i) {
          WARPMEM_UNROLL
          for (int h = 0; h < 2; ++h) x[i][h] = x_units[((first_line / 16 + i) * steps + step) * 64 + h * 32 + lane_index()];
        }
        WARPMEM_UNROLL
        for (int j = 0; j < kWide; ++j) {
          const Bytes16 y = y_units[half * kStepUnits + (first_column + 8 * j + g) * kUnits + column];
          WARPMEM_UNROLL
          for (int i = 0; i < kHeight; ++i) {
            mma_f16(sums[i][j], x[i][0].word, {y.word[0], y.word[1]});
            mma_f16(sums[i][j], x[i][1].word, {y.word[2], y.word[3]});
          }
        }
        half = 1 - half;
      }
      const float y_up = half_scale(load_readonly(p.largest)).up;
      float bias[2 * kWide];
      WARPMEM_UNROLL
      for (int j = 0; j < 2 * kWide; ++j)
        bias[j] = load_readonly(p.bias + tile * kHalvesColumns + first_column + 8 * (j / 2) + 2 * column + j % 2);
      WARPMEM_UNROLL
      for (int i = 0; i < 2 * kHeight; ++i) {
        const float scale = measures[first_line + 16 * (i / 2) + 8 * (i % 2) + g].up * y_up;
        float scores[2 * kWide];
        WARPMEM_UNROLL
        for (int j = 0; j < 2 * kWide; ++j) {
          const float score = fma_or_not(sums[i / 2][j / 2][2 * (i % 2) + j % 2], scale, bias[j]);
          scores[j] = numbered(score, keep, static_cast<uint32_t>(j));
        }
        best[i].take(best_of_16(scores), static_cast<uint32_t>(tile));
      }
    }

    // Where the last step was: the best score of each row and warp, the margin, how many candidates it has, and which.
    sync_threads();  // it has been read
    const int64_t found = behind_rows + (1 - half) * (kHalvesPass / 2);
    const Shared<float> bests = shared_array<float>(found, 4 * kTile);
    const Shared<float> margins = shared_array<float>(found + 16 * kTile, kTile);
    const Shared<uint32_t> counts = shared_array<uint32_t>(found + 20 * kTile, kTile);
    const Shared<int32_t> candidates = shared_array<int32_t>(found + 24 * kTile, kHalvesCandidates * kTile);
    if (more) bring_rows(first_row + apart, steps - 1);
    WARPMEM_UNROLL
    for (int i = 0; i < 2 * kHeight; ++i) {
      float highest = best[i].scores.first;
      WARPMEM_UNROLL
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        const float other = shuffle_xor(highest, lanes);
        highest = other > highest ? other : highest;
      }
      const int r = first_line + 16 * (i / 2) + 8 * (i % 2) + g;
      if (column == 0) bests[warp_index() % 4 * kTile + r] = highest;
    }
    if (t < kTile) {
      const double longest = bits_double(load_readonly(p.longest));
      const auto length = static_cast<double>(measures[t].length);
      const double margin = halves_margin(length, static_cast<double>(measures[t].lost), longest,
                                          bits_double(load_readonly(params.roughest)), p.dim);
      margins[t] =
          length < kNearestLongest && longest < kNearestLongest ? nextafterf(static_cast<float>(margin), INFINITY) : INFINITY;
      counts[t] = 0;
    }
    sync_threads();
    WARPMEM_UNROLL
    for (int i = 0; i < 2 * kHeight; ++i) {
      const int r = first_line + 16 * (i / 2) + 8 * (i % 2) + g;
      const float limit = halves_limit(bests, margins, kTile, r);
      const auto centroid = [&](float score, uint32_t tile) {
        const auto j = static_cast<int32_t>(float_bits(score) & 15u);
        return static_cast<int32_t>(tile) * kHalvesColumns + first_column + 8 * (j / 2) + 2 * column + j % 2;
      };
      const BestThree& scores = best[i].scores;
      if (scores.first >= limit) add_candidate(counts, candidates, r, centroid(scores.first, best[i].tiles & 0xffffu));
      if (scores.second >= limit) add_candidate(counts, candidates, r, centroid(scores.second, best[i].tiles >> 16));
      if (scores.third >= limit) atomic_add(&counts[r], uint32_t{kHalvesCandidates} + 1);
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
    sync_threads();  // what lies where the steps will, and the measures
    if (more) bring_measures(first_row + apart);
    copy_async_commit();
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
