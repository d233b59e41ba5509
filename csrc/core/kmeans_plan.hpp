// How the nearest-centroid search and the k-means update run on a device: tiles, chunks, memory. Pure functions of shapes and limits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "device_limits.hpp"

namespace warpmem {

constexpr int32_t kNearestThreads = 256;               // 16 x 16, each with kPer x kPer sums
constexpr int32_t kNearestDepth = 16;                  // dimensions of a step
constexpr int32_t kNearestPad = 4;                     // floats behind a line of a tile, which spread its columns over the banks
constexpr int64_t kNearestEntries = int64_t{1} << 22;  // rows times batches of one chunk
constexpr int32_t kUpdateThreads = 128;
constexpr int64_t kUpdateTile = 1024;  // rows that a warp counts

// Batches are independent searches: the subspaces of a product quantiser, or one.
struct NearestPlan {
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t batches = 1;
  int32_t per = 4;            // sums of a thread in each direction: tiles of 16 * per rows and centroids
  int64_t chunk_rows = 0;     // of one set of launches
  int64_t screen_blocks = 0;  // of a whole chunk
  int64_t settle_blocks = 0;
  int64_t shared_bytes = 0;
  int64_t workspace_bytes = 0;
};

inline int64_t nearest_tile(int32_t per) { return 16 * per; }

inline int64_t nearest_shared_bytes(int32_t per) {
  const int64_t tile = nearest_tile(per);
  return 4 * (2 * kNearestDepth * (tile + kNearestPad) + tile);
}

inline int64_t align_16(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// `per` 0: chosen. Workspace: count of doubtful rows (16 bytes), longest centroid of each batch (8), bias of each centroid (4), doubtful rows (8), limits (4).
inline NearestPlan plan_nearest(int64_t rows, int64_t dim, int64_t k, int64_t batches, const DeviceLimits& limits,
                                int32_t per = 0, int64_t chunk_rows = 0) {
  NearestPlan plan;
  plan.rows = rows;
  plan.dim = dim;
  plan.k = k;
  plan.batches = batches;
  plan.per = per > 0 ? per : k > 64 ? 8 : 4;
  const int64_t tile = nearest_tile(plan.per);
  const int64_t most = std::max(tile, kNearestEntries / batches / tile * tile);
  plan.chunk_rows = std::max<int64_t>(1, std::min(rows, chunk_rows > 0 ? chunk_rows : most));
  plan.shared_bytes = nearest_shared_bytes(plan.per);
  const int64_t resident = resident_blocks(limits, kNearestThreads, plan.shared_bytes);
  plan.screen_blocks = std::min((plan.chunk_rows + tile - 1) / tile * batches, 64 * resident);
  plan.settle_blocks = std::min(resident, (plan.chunk_rows * batches + 7) / 8);
  const int64_t entries = plan.chunk_rows * batches;
  plan.workspace_bytes = 16 + align_16(8 * batches) + align_16(4 * batches * k) + align_16(8 * entries) + align_16(4 * entries);
  return plan;
}

struct UpdatePlan {
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t tiles = 0;
  int64_t workspace_bytes = 0;
};

// Workspace: counts of tiles and clusters (4 bytes each), starts and sizes of clusters (8 each), rows by cluster (4).
inline UpdatePlan plan_update(int64_t rows, int64_t dim, int64_t k) {
  UpdatePlan plan;
  plan.rows = rows;
  plan.dim = dim;
  plan.k = k;
  plan.tiles = (rows + kUpdateTile - 1) / kUpdateTile;
  plan.workspace_bytes = align_16(4 * plan.tiles * k) + 2 * align_16(8 * k) + align_16(4 * rows);
  return plan;
}

// k-means from start to end, or rows assigned to centroids that are given.
struct TrainPlan {
  int64_t rows = 0;  // on the device at a time
  int64_t dim = 0;
  int64_t k = 0;
  int64_t piece_rows = 0;  // of one search for the nearest centroid; behind it others may have the device
  bool means = false;      // there are some that are not centroids yet, but still to be brought to unit length
  int64_t workspace_bytes = 0;
  int64_t bytes = 0;  // of everything
};

constexpr int64_t kPieceWork = int64_t{1} << 35;      // multiplications of a piece: a few milliseconds of an H200's float32
constexpr int64_t kAssignBytes = int64_t{256} << 20;  // of rows that are only assigned, and so need not all be there at a time
constexpr int64_t kTrainAlignment = 256;              // of each array

inline int64_t align_train(int64_t bytes) { return (bytes + kTrainAlignment - 1) / kTrainAlignment * kTrainAlignment; }

// rows: to be assigned in the end. trained: how many are trained on; 0: the centroids are given. A piece is no smaller than what keeps the device busy, a tile
// for each multiprocessor: with very many centroids it takes longer than kPieceWork says. `piece_rows` 0: chosen; else no more than these are assigned at a time.
// Memory: rows, centroids, means (4 bytes an element), assignments (4), values (8), the workspace of a search or of an update.
inline TrainPlan plan_train(int64_t rows, int64_t trained, int64_t dim, int64_t k, bool spherical, const DeviceLimits& limits,
                            int64_t piece_rows = 0) {
  TrainPlan plan;
  plan.dim = dim;
  plan.k = k;
  plan.means = trained > 0 && spherical;
  const int64_t at_a_time = piece_rows > 0 ? piece_rows : std::max<int64_t>(1, kAssignBytes / (4 * dim));
  plan.rows = std::max(trained, std::min(rows, at_a_time));
  const int64_t busy = nearest_tile(8) * std::max(1, limits.multiprocessors);
  plan.piece_rows = std::min(plan.rows, piece_rows > 0 ? piece_rows : std::max(busy, kPieceWork / (k * dim)));
  plan.workspace_bytes = std::max(plan_nearest(plan.piece_rows, dim, k, 1, limits).workspace_bytes,
                                  trained > 0 ? plan_update(trained, dim, k).workspace_bytes : 0);
  plan.bytes = align_train(4 * plan.rows * dim) + (plan.means ? 2 : 1) * align_train(4 * k * dim) + align_train(4 * plan.rows) +
               align_train(8 * plan.rows) + align_train(plan.workspace_bytes);
  return plan;
}

inline std::string describe(const NearestPlan& plan) {
  char text[200];
  std::snprintf(text, sizeof text,
                "nearest of %lld centroids: %lld rows in chunks of %lld, %lld batches, tiles of %lld, %lld blocks",
                static_cast<long long>(plan.k), static_cast<long long>(plan.rows), static_cast<long long>(plan.chunk_rows),
                static_cast<long long>(plan.batches), static_cast<long long>(nearest_tile(plan.per)),
                static_cast<long long>(plan.screen_blocks));
  return text;
}

}  // namespace warpmem
