// The update of k-means: means in float64, each cluster's rows added in their order, as cpu/kmeans.cpp adds them.
//
// Rows are first sorted by cluster, stably, by counting:
//
//   count     a warp a tile of 1,024 rows: counts[tile][cluster]; rows of a warp's step that share a cluster find one another by match_any
//   offsets   a thread a cluster, down the tiles: counts become places within the cluster; sizes
//   starts    one block: places of the clusters
//   scatter   as count: order[start + place + rank] = row
//   mean      a thread a dimension of a cluster, row after row: coalesced across dimensions
//   normalize a warp a cluster, when spherical
//
// A cluster without rows keeps its centroid. Memory: core/kmeans_plan.hpp. Limits: n < 2^31 rows, counts of tiles * k numbers.
#pragma once

#include <cmath>

#include "../../core/kmeans_plan.hpp"
#include "canonical.cuh"

namespace warpmem::cuda {

struct UpdateParams {
  const float* rows;  // (n, dim)
  int64_t n;
  int64_t dim;
  int64_t k;
  const int32_t* index;  // (n), each in [0, k)
  float* centroids;      // (k, dim)
  float* means;          // (k, dim): where mean writes; the centroids themselves unless spherical
  int64_t tiles;
  uint32_t* counts;  // (tiles, k); 0 at the start
  int64_t* starts;   // (k)
  int64_t* sizes;    // (k)
  uint32_t* order;   // (n)
};

// What a warp does with each of its rows: f(row, cluster, rank among the rows of this step and cluster, how many they are).
template <typename F>
WARPMEM_DEVICE void each_clustered_row(const UpdateParams& p, int64_t tile, const F& f) {
  const int64_t first = tile * kUpdateTile;
  const int64_t end = p.n < first + kUpdateTile ? p.n : first + kUpdateTile;
  for (int64_t base = first; base < end; base += kWarpSize) {
    const int64_t row = base + lane_index();
    const uint32_t mask = ballot(row < end);
    if (row < end) {
      const int32_t cluster = load_readonly(p.index + row);
      const uint32_t same = match_any(static_cast<uint32_t>(cluster), mask);
      f(row, cluster, count_bits(same & ((1u << lane_index()) - 1)), count_bits(same), mask);
    }
    sync_warp();
  }
}

WARPMEM_KERNEL(kUpdateThreads) kmeans_count_kernel(UpdateParams p) {
  const int warps = block_threads() / kWarpSize;
  for (int64_t tile = block_index() * warps + warp_index(); tile < p.tiles; tile += grid_blocks() * warps) {
    each_clustered_row(p, tile, [&](int64_t, int32_t cluster, int rank, int same, uint32_t) {
      if (rank == 0) atomic_add(&p.counts[tile * p.k + cluster], static_cast<uint32_t>(same));  // which nobody waits for
    });
  }
}

WARPMEM_KERNEL(kUpdateThreads) kmeans_offsets_kernel(UpdateParams p) {
  constexpr int kAtOnce = 16;  // counts that are on their way together
  const int64_t threads = grid_blocks() * block_threads();
  for (int64_t c = block_index() * block_threads() + thread_index(); c < p.k; c += threads) {
    uint32_t running = 0;
    for (int64_t first = 0; first < p.tiles; first += kAtOnce) {
      uint32_t counts[kAtOnce];
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) counts[i] = first + i < p.tiles ? p.counts[(first + i) * p.k + c] : 0;
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i < p.tiles) p.counts[(first + i) * p.k + c] = running;
        running += counts[i];
      }
    }
    p.sizes[c] = running;
  }
}

// One block. Thread t has the clusters [t * each, ...). Shared memory: 8 bytes a thread.
WARPMEM_KERNEL(kUpdateThreads) kmeans_starts_kernel(UpdateParams p) {
  const Shared<int64_t> totals = shared_array<int64_t>(0, block_threads());
  const int64_t each = (p.k + block_threads() - 1) / block_threads();
  const int64_t first = thread_index() * each;
  const int64_t end = p.k < first + each ? p.k : first + each;
  int64_t own = 0;
  for (int64_t c = first; c < end; ++c) own += p.sizes[c];
  totals[thread_index()] = own;
  sync_threads();
  int64_t running = 0;
  for (int t = 0; t < thread_index(); ++t) running += totals[t];
  for (int64_t c = first; c < end; ++c) {
    p.starts[c] = running;
    running += p.sizes[c];
  }
}

WARPMEM_KERNEL(kUpdateThreads) kmeans_scatter_kernel(UpdateParams p) {
  const int warps = block_threads() / kWarpSize;
  for (int64_t tile = block_index() * warps + warp_index(); tile < p.tiles; tile += grid_blocks() * warps) {
    each_clustered_row(p, tile, [&](int64_t row, int32_t cluster, int rank, int same, uint32_t mask) {
      uint32_t* const place = p.counts + tile * p.k + cluster;
      const uint32_t before = *place;
      sync_warp(mask);  // all have read before the first of each cluster counts on
      if (rank == 0) *place = before + static_cast<uint32_t>(same);
      p.order[p.starts[cluster] + before + rank] = static_cast<uint32_t>(row);
    });
  }
}

WARPMEM_KERNEL(kUpdateThreads) kmeans_mean_kernel(UpdateParams p) {
  constexpr int kAtOnce =
      8;  // rows that are on their way together; a sum that begins at +0 is never -0, so adding +0 keeps its bits
  const int64_t slabs = (p.dim + block_threads() - 1) / block_threads();
  for (int64_t unit = block_index(); unit < p.k * slabs; unit += grid_blocks()) {
    const int64_t cluster = unit / slabs;
    const int64_t d = unit % slabs * block_threads() + thread_index();
    const int64_t size = p.sizes[cluster];
    if (d >= p.dim || size == 0) continue;
    const uint32_t* const order = p.order + p.starts[cluster];
    double sum = 0.0;
    for (int64_t first = 0; first < size; first += kAtOnce) {
      float values[kAtOnce];
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        values[i] = 0.0f;
        if (first + i < size) values[i] = load_readonly(p.rows + load_readonly(order + first + i) * p.dim + d);
      }
      WARPMEM_UNROLL
      for (int i = 0; i < kAtOnce; ++i) sum += static_cast<double>(values[i]);
    }
    p.means[cluster * p.dim + d] = static_cast<float>(sum / static_cast<double>(size));
  }
}

// A mean of length 0 says nothing: the centroid stays.
WARPMEM_KERNEL(kUpdateThreads) kmeans_normalize_kernel(UpdateParams p) {
  const int warps = block_threads() / kWarpSize;
  for (int64_t c = block_index() * warps + warp_index(); c < p.k; c += grid_blocks() * warps) {
    if (p.sizes[c] == 0) continue;
    const float* const mean = p.means + c * p.dim;
    const double squared = warp_dot_f64(mean, mean, p.dim);
    if (!(squared > 0.0) || !(squared <= 1.7976931348623157e308)) continue;
    const double inverse = 1.0 / sqrt(squared);
    for (int64_t d = lane_index(); d < p.dim; d += kWarpSize)
      p.centroids[c * p.dim + d] = static_cast<float>(static_cast<double>(mean[d]) * inverse);
  }
}

}  // namespace warpmem::cuda
