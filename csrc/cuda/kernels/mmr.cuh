// Maximal marginal relevance: a block chooses k candidates of a problem, one a step (core/mmr.hpp).
//
//   step      nearest[i] = max(nearest[i], x_i . x_last)      direct: a warp four rows, multiplied now; matrix: a thread a candidate, read from `products`
//             choice     = best w r_i - (1 - w) nearest[i]    a thread its candidates i = t, t + 512; then five exchanges; then the warps' bests
//             r[choice]  = -inf                               so that it is as one that is not there
//
//   products  the lower triangle of x_i . x_j by all blocks, a warp a row i and four columns j <= i; written to (i, j) and (j, i), so that a step
//             reads one line. Products commute, bit for bit.
//
//   shared memory   | best of each warp: value, position | nearest f64 (n) | relevance f32 (n) |        kMmrHeaderBytes + 12 n bytes
//
// Limits: n <= 1,024; rows are finite, so no product is an infinity. Plan: core/mmr_plan.hpp.
#pragma once

#include <cmath>

#include "../../core/mmr_plan.hpp"
#include "canonical.cuh"

namespace warpmem::cuda {

struct MmrParams {
  const float* rows;       // (problems, n, dim)
  const float* relevance;  // (problems, n)
  int64_t problems;
  int64_t n;
  int64_t dim;
  int64_t k;
  double weight;
  double* products;  // (problems, n, n); null when they are made on the way
  double* values;    // (problems, k)
  int64_t* indexes;
};

// The canonical products of row `last` with rows first ... first + kMmrRows - 1, those from `end` on left out; by all lanes of a warp.
WARPMEM_DEVICE void warp_products(const float* rows, int64_t dim, int64_t last, int64_t first, int64_t end,
                                  double (&out)[kMmrRows]) {
  const float* const x = rows + last * dim;
  const float* y[kMmrRows];
  WARPMEM_UNROLL
  for (int r = 0; r < kMmrRows; ++r) {
    y[r] = rows + (first + r < end ? first + r : first) * dim;
    out[r] = 0.0;
  }
  WARPMEM_UNROLL_BY(4)
  for (int64_t i = lane_index(); i < dim; i += kLanes) {
    const auto a = static_cast<double>(load_readonly(x + i));
    WARPMEM_UNROLL
    for (int r = 0; r < kMmrRows; ++r) out[r] += a * static_cast<double>(load_readonly(y[r] + i));
  }
  WARPMEM_UNROLL
  for (int r = 0; r < kMmrRows; ++r) out[r] = warp_fold(out[r]);
}

WARPMEM_KERNEL(kMmrThreads) mmr_products_kernel(MmrParams p) {
  const int warps = block_threads() / kWarpSize;
  const int64_t groups = mmr_row_groups(p.n);
  const int64_t total = p.problems * p.n * groups;
  for (int64_t at = block_index() * warps + warp_index(); at < total; at += grid_blocks() * warps) {
    const int64_t problem = at / (p.n * groups);
    const int64_t i = at / groups % p.n;
    const int64_t first = at % groups * kMmrRows;
    if (first > i) continue;
    double found[kMmrRows];
    warp_products(p.rows + problem * p.n * p.dim, p.dim, i, first, i + 1, found);
    double* const to = p.products + problem * p.n * p.n;
    WARPMEM_UNROLL
    for (int r = 0; r < kMmrRows; ++r) {
      if (lane_index() != r || first + r > i) continue;
      to[i * p.n + first + r] = found[r];
      to[(first + r) * p.n + i] = found[r];
    }
  }
}

// The best of all threads' choices, to all threads. Begins with a barrier behind which the last one's reads are over.
WARPMEM_DEVICE MmrChoice block_best(MmrChoice own, const Shared<double>& values, const Shared<int32_t>& positions) {
  WARPMEM_UNROLL
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    const MmrChoice other{shuffle_xor(own.value, lanes), shuffle_xor(own.position, lanes)};
    if (better(other, own)) own = other;
  }
  sync_threads();
  if (lane_index() == 0) {
    values[warp_index()] = own.value;
    positions[warp_index()] = own.position;
  }
  sync_threads();
  for (int w = 0; w < block_threads() / kWarpSize; ++w) {
    const MmrChoice other{values[w], positions[w]};
    if (better(other, own)) own = other;
  }
  return own;
}

template <bool kMatrix>
WARPMEM_KERNEL(kMmrThreads)
mmr_select_kernel(MmrParams p) {
  const int t = thread_index();
  const int warps = block_threads() / kWarpSize;
  const Shared<double> best_values = shared_array<double>(0, warps);
  const Shared<int32_t> best_positions = shared_array<int32_t>(warps * 8, warps);
  const Shared<double> nearest = shared_array<double>(kMmrHeaderBytes, p.n);
  const Shared<float> relevance = shared_array<float>(kMmrHeaderBytes + p.n * 8, p.n);
  for (int64_t problem = block_index(); problem < p.problems; problem += grid_blocks()) {
    const float* const rows = p.rows + problem * p.n * p.dim;
    sync_threads();  // the last problem is over
    for (int64_t i = t; i < p.n; i += block_threads()) {
      relevance[i] = load_readonly(p.relevance + problem * p.n + i);
      nearest[i] = -INFINITY;
    }
    sync_threads();
    MmrChoice last;
    int64_t step = 0;
    for (; step < p.k; ++step) {
      if (step > 0) {
        if constexpr (kMatrix) {
          const double* const line = p.products + (problem * p.n + last.position) * p.n;
          for (int64_t i = t; i < p.n; i += block_threads()) nearest[i] = line[i] > nearest[i] ? line[i] : nearest[i];
        } else {
          for (int64_t first = warp_index() * kMmrRows; first < p.n; first += warps * kMmrRows) {
            double found[kMmrRows];
            warp_products(rows, p.dim, last.position, first, p.n, found);
            WARPMEM_UNROLL
            for (int r = 0; r < kMmrRows; ++r) {
              if (lane_index() == r && first + r < p.n && found[r] > nearest[first + r]) nearest[first + r] = found[r];
            }
          }
          sync_threads();  // other warps wrote what this thread compares
        }
      }
      MmrChoice own;
      for (int64_t i = t; i < p.n; i += block_threads()) {
        const float r = relevance[i];
        if (r == -INFINITY) continue;
        const MmrChoice next{step == 0 ? static_cast<double>(r) : mmr_value(p.weight, r, nearest[i]), static_cast<int32_t>(i)};
        if (better(next, own)) own = next;
      }
      last = block_best(own, best_values, best_positions);
      if (last.position == kMmrNone) break;
      if (t == last.position % block_threads()) {  // which alone reads and writes this relevance
        p.values[problem * p.k + step] = step == 0 ? mmr_first_value(p.weight, relevance[last.position]) : last.value;
        p.indexes[problem * p.k + step] = last.position;
        relevance[last.position] = -INFINITY;
      }
    }
    for (step += t; step < p.k; step += block_threads()) {
      p.values[problem * p.k + step] = -INFINITY;
      p.indexes[problem * p.k + step] = -1;
    }
  }
}

}  // namespace warpmem::cuda
