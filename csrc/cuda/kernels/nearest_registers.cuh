// The nearest of 16 centroids in each of many subspaces of few dimensions: what product quantisation to 4 bits asks of every row.
//
//   A thread keeps the 16 centroids of one subspace in registers and strides over rows. Neighbouring threads have neighbouring subspaces, so a warp
//   reads rows in whole lines:
//
//      row r, subspaces 0 1 2 ... b - 1 | row r + 1, subspaces 0 1 2 ...          thread i: subspace i % b, rows i / b, i / b + threads / b, ...
//
//   The float32 screen is that of nearest.cuh: rows whose best two scores lie closer than the bound go to the list of `settle`. A score's low four bits
//   say which centroid's it is, so that the best two are three instructions a score; the bound covers those bits.
//
// No shared memory. 16 kDim + 16 registers of centroids; the next two rows are on their way while two are computed. Shapes: core/kmeans_plan.hpp.
#pragma once

#include "nearest.cuh"

namespace warpmem::cuda {

template <int kDim>
WARPMEM_DEVICE void load_piece(float (&piece)[kDim], const float* from, bool aligned) {
  if (aligned) {
    WARPMEM_UNROLL
    for (int d = 0; d < kDim; d += 4) {
      const Bytes16 four = load_16(from + d);
      memcpy(piece + d, four.word, 16);
    }
  } else {
    WARPMEM_UNROLL
    for (int d = 0; d < kDim; ++d) piece[d] = load_readonly(from + d);
  }
}

template <int kDim>
[[maybe_unused]] constexpr int kRegisterBlocks = static_cast<int>(register_blocks(kDim));

template <int kDim>
WARPMEM_KERNEL_OF(kRegisterThreads, kRegisterBlocks<kDim>)
nearest_registers_kernel(NearestParams p) {
  constexpr int kCentroids = static_cast<int>(kRegisterCentroids);
  const int64_t apart = grid_blocks() * kRegisterThreads / p.batches;  // rows in a stride of all threads
  const int64_t place = block_index() * kRegisterThreads + thread_index();
  if (place >= apart * p.batches) return;
  const int64_t batch = place % p.batches;
  static_assert(kRegisterThreads == 4 * 16);
  const uint32_t keep = ~static_cast<uint32_t>(block_threads() / 4 - 1);  // ~15
  const bool aligned = reinterpret_cast<uintptr_t>(p.rows) % 16 == 0 && p.row_stride % 4 == 0 && p.batch_step % 4 == 0;
  float centroids[kCentroids][kDim];
  float offsets[kCentroids];
  WARPMEM_UNROLL
  for (int c = 0; c < kCentroids; ++c) {
    WARPMEM_UNROLL
    for (int d = 0; d < kDim; ++d) centroids[c][d] = load_readonly(p.centroids + (batch * kCentroids + c) * kDim + d);
    offsets[c] = load_readonly(p.bias + batch * kCentroids + c);
  }
  const double longest = bits_double(load_readonly(p.longest + batch));
  // nearest_margin with lengths squared, 2 |x|^2 + 2 |y|^2 for all its products: no root for the many rows that are clear.
  const float factor = 2.1f * (static_cast<float>(kDim + 8) * 5.97e-08f + kBitsOfScore);
  const auto furthest = static_cast<float>(longest * longest * 1.01);
  const auto n = static_cast<int32_t>(p.n);  // of a chunk: far below 2^31
  const auto rows_apart = static_cast<int32_t>(apart);
  // Places move along with the rows: to multiply for each of them would take a tenth of all instructions.
  const float* from = p.rows + batch * p.batch_step + place / p.batches * p.row_stride;
  int64_t to = place / p.batches * p.out_row + batch * p.out_batch;
  const int64_t from_step = apart * p.row_stride;
  const int64_t to_step = apart * p.out_row;
  const auto load = [&](float (&piece)[kDim], int32_t row) {
    if (row < n) load_piece(piece, from, aligned);
    from += from_step;
  };
  const auto take = [&](const float (&x)[kDim], int32_t row) {
    float squared = 0.0f;
    WARPMEM_UNROLL
    for (int d = 0; d < kDim; ++d) squared = fma_or_not(x[d], x[d], squared);
    float best = -INFINITY;
    float second = -INFINITY;
    WARPMEM_UNROLL
    for (int c = 0; c < kCentroids; ++c) {
      float score = offsets[c];
      WARPMEM_UNROLL
      for (int d = 0; d < kDim; ++d) score = fma_or_not(x[d], centroids[c][d], score);
      score = numbered(score, keep, static_cast<uint32_t>(c));
      second = fmaxf(second, fminf(best, score));
      best = fmaxf(best, score);
    }
    write_centroid(p, to, static_cast<int32_t>(float_bits(best) & 15u));
    to += to_step;
    if (best - second > factor * 2.0f * (squared * 1.01f + furthest) + 1e-36f) return;
    const double length = sqrt(static_cast<double>(squared)) * 1.01 + 1e-18;
    float limit = -INFINITY;
    if (length < kNearestLongest && longest < kNearestLongest) {
      // The bits of scores that are no normal numbers weigh up to 15 * 2^-149 each, which nearest_margin does not know.
      const double margin = nearest_margin(length, longest, kDim) + 2.02 * kBitsOfScore * (length + longest) * longest + 1e-43;
      if (static_cast<double>(best) - static_cast<double>(second) > margin) return;
      limit = nextafterf(static_cast<float>(static_cast<double>(best) - margin), -INFINITY);
    }
    const uint64_t at = atomic_add(p.n_doubtful, uint64_t{1});
    p.doubtful[at] = batch * p.n + row;
    p.limits[at] = limit;
  };
  float next[2][kDim] = {};
  const auto first = static_cast<int32_t>(place / p.batches);
  load(next[0], first);
  load(next[1], first + rows_apart);
  for (int32_t row = first; row < n; row += 2 * rows_apart) {
    float x[2][kDim];
    WARPMEM_UNROLL
    for (int i = 0; i < 2; ++i) {
      WARPMEM_UNROLL
      for (int d = 0; d < kDim; ++d) x[i][d] = next[i][d];
    }
    load(next[0], row + 2 * rows_apart);
    load(next[1], row + 3 * rows_apart);
    take(x[0], row);
    if (row + rows_apart < n) take(x[1], row + rows_apart);
  }
}

}  // namespace warpmem::cuda
