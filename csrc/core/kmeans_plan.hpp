// How the nearest-centroid search and the k-means update run on a device: tiles, chunks, memory. Pure functions of shapes and limits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "device_limits.hpp"
#include "hd.hpp"

namespace warpmem {

constexpr int32_t kNearestThreads = 256;               // 16 x 16, each with kPer x kPer sums
constexpr int32_t kNearestDepth = 16;                  // dimensions of a step
constexpr int32_t kNearestPad = 4;                     // floats behind a line of a tile, which spread its columns over the banks
constexpr int64_t kNearestEntries = int64_t{1} << 22;  // rows times batches of one chunk
constexpr int64_t kNearestCountBytes = 24;             // of rows that screens of a chunk left
constexpr int32_t kUpdateThreads = 128;
constexpr int64_t kUpdateTile = 1024;  // rows that a warp counts

constexpr int32_t kHalvesColumns = 256;   // centroids of a tile of halves
constexpr int32_t kHalvesDepth = 32;      // dimensions of a step
constexpr int32_t kHalvesCandidates = 8;  // of a row, to be compared by their canonical values; with more it is screened again
constexpr int64_t kHalvesEntries = int64_t{1} << 20;  // rows of one chunk
constexpr int64_t kHalvesWork = int64_t{1} << 28;     // multiplications from which on halves pay for their launches
constexpr int64_t kHalvesSettled =
    1024;  // rows with too many candidates that are settled at once; more are screened in float32 first
constexpr int64_t kHalvesMost = int64_t{1} << 20;         // centroids: their tiles are counted in 16 bits
constexpr int64_t kHalvesPass = 2 * 64 * kHalvesColumns;  // bytes of the two steps of centroids in shared memory
constexpr int64_t kHalvesRows = 128;                      // of the largest tile: rounded rows are as many times so many
constexpr int64_t kRoundedBytes = int64_t{256} << 20;     // of rows that are rounded for one search, a chunk after the other
constexpr int64_t kSettleWork = int64_t{1} << 14;         // multiplications of a row, and
constexpr int64_t kSettleCentroids = 64;                  // centroids, beyond which a block settles it, not a warp
constexpr int32_t kRegisterThreads = 64;
constexpr int64_t kRegisterCentroids = 16;              // of a subspace, in the registers of a thread
constexpr int64_t kRegisterEntries = int64_t{1} << 23;  // rows times batches of one chunk

// The screens of kernels/nearest.cuh: float32 sums of 16 * 4 or 16 * 8 rows a block. Of nearest_halves.cuh: tensor products of so many rows a block.
// Of nearest_registers.cuh: a thread a subspace of 4 or 8 dimensions.
enum class NearestScreen { kChosen, kTiles4, kTiles8, kHalves32, kHalves64, kHalves128, kRegisters4, kRegisters8 };

// Batches are independent searches: the subspaces of a product quantiser, or one.
struct NearestPlan {
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t batches = 1;
  NearestScreen screen = NearestScreen::kTiles4;
  int64_t chunk_rows = 0;     // of one set of launches
  int64_t screen_blocks = 0;  // of a whole chunk
  int64_t settle_blocks = 0;
  int64_t few_blocks = 0;    // behind a screen of halves, a warp a row; and
  int64_t again_blocks = 0;  // of the float32 screen behind one of halves
  int64_t shared_bytes = 0;
  bool rounded = false;  // the rows are in halves already
  int64_t workspace_bytes = 0;
};

// Rows of a block: 0 for a screen in registers, whose threads stride over them.
inline int64_t nearest_tile(NearestScreen screen) {
  switch (screen) {
    case NearestScreen::kTiles4:
    case NearestScreen::kHalves64:
      return 64;
    case NearestScreen::kTiles8:
    case NearestScreen::kHalves128:
      return 128;
    case NearestScreen::kHalves32:
      return 32;
    default:
      return 0;
  }
}

// On a multiprocessor, of the screen in registers.
constexpr int64_t register_blocks(int64_t dim) { return dim == 4 ? 6 : 4; }

inline bool nearest_by_halves(NearestScreen screen) {
  return screen == NearestScreen::kHalves32 || screen == NearestScreen::kHalves64 || screen == NearestScreen::kHalves128;
}

WARPMEM_HD inline int64_t halves_dim(int64_t dim) { return (dim + kHalvesDepth - 1) / kHalvesDepth * kHalvesDepth; }
WARPMEM_HD inline int64_t halves_columns(int64_t k) { return (k + kHalvesColumns - 1) / kHalvesColumns * kHalvesColumns; }

// Of tiles: rows and centroids of a step, lengths; `listed`: also where the rows are. Of halves: rows, two steps of centroids, a RoundedRow of each row.
inline int64_t nearest_shared_bytes(NearestScreen screen, int64_t dim, bool listed = false) {
  const int64_t tile = nearest_tile(screen);
  if (nearest_by_halves(screen)) return 2 * tile * halves_dim(dim) + kHalvesPass + 16 * tile;
  if (tile == 0) return 0;
  return 4 * (2 * kNearestDepth * (tile + kNearestPad) + tile) + (listed ? 8 * tile : 0);
}

inline int64_t align_16(int64_t bytes) { return (bytes + 15) / 16 * 16; }

WARPMEM_HD inline int64_t halves_rows(int64_t rows) { return (rows + kHalvesRows - 1) / kHalvesRows * kHalvesRows; }

// What rounding to halves did to a row: the power of two that it was divided by, upper bounds of its length and of what it lost.
struct alignas(16) RoundedRow {
  float up = 0.0f;
  float length = 0.0f;
  float lost = 0.0f;
  float unused = 0.0f;
};
// Rows in halves, and what that did to them.
inline int64_t rounded_bytes(int64_t rows, int64_t dim) {
  return halves_rows(rows) * (2 * halves_dim(dim) + static_cast<int64_t>(sizeof(RoundedRow)));
}

// The largest tile of halves that the device has room for, or, with few rows, one that gives most multiprocessors some; kTiles8 when there is none.
inline NearestScreen choose_halves(int64_t rows, int64_t dim, const DeviceLimits& limits) {
  constexpr NearestScreen kScreens[] = {NearestScreen::kHalves128, NearestScreen::kHalves64, NearestScreen::kHalves32};
  NearestScreen chosen = NearestScreen::kTiles8;
  for (const NearestScreen screen : kScreens) {
    if (nearest_shared_bytes(screen, dim) > limits.shared_per_block) continue;
    const bool first = chosen == NearestScreen::kTiles8;
    if (first || rows <= nearest_tile(screen) * limits.multiprocessors) chosen = screen;
  }
  return chosen;
}

inline NearestScreen choose_nearest(int64_t rows, int64_t dim, int64_t k, int64_t batches, const DeviceLimits& limits) {
  if (batches > 1 && k == kRegisterCentroids && dim == 4) return NearestScreen::kRegisters4;
  if (batches > 1 && k == kRegisterCentroids && dim == 8) return NearestScreen::kRegisters8;
  const bool many =
      batches == 1 && k > 32 && k <= kHalvesMost && dim >= kHalvesDepth && rows > 0 && rows * k >= kHalvesWork / dim;
  if (many) return choose_halves(rows, dim, limits);
  return k > 64 ? NearestScreen::kTiles8 : NearestScreen::kTiles4;
}

// Rows of one chunk of a screen. Of halves, whole numbers of a tile for each multiprocessor where they are rounded for this search alone.
inline int64_t nearest_chunk(NearestScreen screen, int64_t dim, int64_t batches, bool rounded, const DeviceLimits& limits) {
  const int64_t tile = std::max<int64_t>(1, nearest_tile(screen));
  if (nearest_by_halves(screen)) {
    const int64_t busy = kHalvesRows * std::max(1, limits.multiprocessors);
    const int64_t most = kRoundedBytes / (2 * halves_dim(dim)) / busy * busy;
    return rounded ? kHalvesEntries : std::clamp(most, busy, kHalvesEntries);
  }
  const int64_t entries = nearest_tile(screen) == 0 ? kRegisterEntries : kNearestEntries;
  return std::max(tile, entries / batches / tile * tile);
}

// Whether blocks settle doubtful rows, not warps.
inline bool settled_by_blocks(const NearestPlan& plan) { return plan.k > kSettleCentroids && plan.k * plan.dim >= kSettleWork; }

inline int64_t nearest_chunks(const NearestPlan& plan) { return (plan.rows + plan.chunk_rows - 1) / plan.chunk_rows; }

// Workspace: counts of rows of each chunk (kNearestCountBytes), longest centroid of each batch (8), bias of each centroid (4), doubtful rows (8), limits (4). With halves
// also 16 bytes of measures, the centroids (2 bytes an element), rows with a few candidates (8, and 4 each) and with too many (8, limits 4),
// and, unless they are rounded already, the rows (rounded_bytes).
inline NearestPlan plan_nearest(int64_t rows, int64_t dim, int64_t k, int64_t batches, const DeviceLimits& limits,
                                NearestScreen screen = NearestScreen::kChosen, int64_t chunk_rows = 0, bool rounded = false) {
  NearestPlan plan;
  plan.rows = rows;
  plan.dim = dim;
  plan.k = k;
  plan.batches = batches;
  plan.screen = screen == NearestScreen::kChosen ? choose_nearest(rows, dim, k, batches, limits) : screen;
  const bool halves = nearest_by_halves(plan.screen);
  plan.rounded = halves && rounded;
  const int64_t tile = std::max<int64_t>(1, nearest_tile(plan.screen));
  const bool registers = nearest_tile(plan.screen) == 0;
  const int64_t most = nearest_chunk(plan.screen, dim, batches, rounded, limits);
  plan.chunk_rows = std::max<int64_t>(1, std::min(rows, chunk_rows > 0 ? chunk_rows : most));
  plan.shared_bytes = nearest_shared_bytes(plan.screen, dim);
  const int64_t resident = resident_blocks(limits, kNearestThreads, plan.shared_bytes);
  plan.screen_blocks = std::min((plan.chunk_rows + tile - 1) / tile * batches, (halves ? 1 : 64) * resident);
  if (registers) {
    const int64_t work = (plan.chunk_rows * batches + kRegisterThreads - 1) / kRegisterThreads;
    plan.screen_blocks = std::max((batches + kRegisterThreads - 1) / kRegisterThreads,
                                  std::min(work, register_blocks(dim) * limits.multiprocessors));
  }
  const int64_t warps = settled_by_blocks(plan) ? 1 : kNearestThreads / 32;  // rows of a block
  plan.settle_blocks = std::min(resident_blocks(limits, kNearestThreads, 0), (plan.chunk_rows * batches + warps - 1) / warps);
  const int64_t entries = plan.chunk_rows * batches;
  const int64_t bias = halves ? halves_columns(k) : batches * k;
  plan.workspace_bytes = align_16(kNearestCountBytes * std::max<int64_t>(1, nearest_chunks(plan))) + align_16(8 * batches) +
                         align_16(4 * bias) + align_16(8 * entries) + align_16(4 * entries);
  if (halves) {
    plan.few_blocks = std::min(resident_blocks(limits, kNearestThreads, 0), (plan.chunk_rows + 7) / 8);
    plan.again_blocks = std::min(plan.screen_blocks, 2 * int64_t{limits.multiprocessors});
    plan.workspace_bytes += 16 + 2 * halves_columns(k) * halves_dim(dim) + 2 * align_16(8 * entries) + align_16(4 * entries) +
                            align_16(4 * kHalvesCandidates * entries) + (rounded ? 0 : rounded_bytes(plan.chunk_rows, dim));
  }
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
  int64_t rows = 0;     // on the device at a time
  int64_t trained = 0;  // of them; 0: the centroids are given
  int64_t dim = 0;
  int64_t k = 0;
  int64_t piece_rows = 0;  // of one search for the nearest centroid; behind it others may have the device
  bool means = false;      // there are some that are not centroids yet, but still to be brought to unit length
  bool rounded = false;    // the rows are kept in halves, too
  int64_t workspace_bytes = 0;
  int64_t bytes = 0;  // of everything
};

constexpr int64_t kPieceWork =
    int64_t{1} << 35;  // multiplications of a piece: a few milliseconds of an H200's float32, a third of one of its halves
constexpr int64_t kAssignBytes = int64_t{256} << 20;  // of rows that are only assigned, and so need not all be there at a time
constexpr int64_t kKeptHalves =
    int64_t{4} << 30;  // bytes of rows in halves, kept from one round to the next beside the rows; more is rounded each time
constexpr int64_t kTrainAlignment = 256;  // of each array

inline int64_t align_train(int64_t bytes) { return (bytes + kTrainAlignment - 1) / kTrainAlignment * kTrainAlignment; }

// Pieces of about `most` rows, all as long as the others and whole numbers of `unit`, so that none leaves multiprocessors idle; the last is shorter.
inline int64_t even_pieces(int64_t rows, int64_t most, int64_t unit) {
  const int64_t pieces = (rows + most - 1) / most;
  const int64_t each = (rows + pieces - 1) / pieces;
  return (each + unit - 1) / unit * unit;
}

// The search of a piece: halves that are kept are those of the screen that is chosen for all rows.
inline NearestPlan plan_train_nearest(const TrainPlan& plan, int64_t rows, const DeviceLimits& limits) {
  return plan_nearest(rows, plan.dim, plan.k, 1, limits, NearestScreen::kChosen, 0, plan.rounded);
}

// Memory: rows, centroids, means (4 bytes an element), assignments (4), values (8), rows in halves, the workspace of a search or of an update.
inline void size_train(TrainPlan& plan, const DeviceLimits& limits) {
  plan.workspace_bytes = std::max(plan_train_nearest(plan, plan.piece_rows, limits).workspace_bytes,
                                  plan.trained > 0 ? plan_update(plan.trained, plan.dim, plan.k).workspace_bytes : 0);
  plan.bytes = align_train(4 * plan.rows * plan.dim) + (plan.means ? 2 : 1) * align_train(4 * plan.k * plan.dim) +
               align_train(4 * plan.rows) + align_train(8 * plan.rows) +
               (plan.rounded ? align_train(rounded_bytes(plan.rows, plan.dim)) : 0) + align_train(plan.workspace_bytes);
}

// The same steps with the rows rounded for each search: for a device without memory for them in halves, too.
inline TrainPlan without_halves(TrainPlan plan, const DeviceLimits& limits) {
  plan.rounded = false;
  size_train(plan, limits);
  return plan;
}

// rows: to be assigned in the end. trained: how many are trained on; 0: the centroids are given. A piece is no smaller than what keeps the device busy, a tile
// for each multiprocessor: with very many centroids it takes longer than kPieceWork says. `piece_rows` 0: chosen; else no more than these are assigned at a time.
inline TrainPlan plan_train(int64_t rows, int64_t trained, int64_t dim, int64_t k, bool spherical, const DeviceLimits& limits,
                            int64_t piece_rows = 0) {
  TrainPlan plan;
  plan.trained = trained;
  plan.dim = dim;
  plan.k = k;
  plan.means = trained > 0 && spherical;
  const int64_t at_a_time = piece_rows > 0 ? piece_rows : std::max<int64_t>(1, kAssignBytes / (4 * dim));
  plan.rows = std::max(trained, std::min(rows, at_a_time));
  const int64_t busy = nearest_tile(NearestScreen::kTiles8) * std::max(1, limits.multiprocessors);
  const NearestScreen screen = choose_nearest(plan.rows, dim, k, 1, limits);
  const int64_t work = nearest_by_halves(screen) ? 4 * kPieceWork : kPieceWork;
  plan.piece_rows =
      std::min(plan.rows, piece_rows > 0 ? piece_rows : even_pieces(plan.rows, std::max(busy, work / (k * dim)), busy));
  plan.rounded = trained > 0 && nearest_by_halves(screen) && rounded_bytes(plan.rows, dim) <= kKeptHalves &&
                 (plan.piece_rows == plan.rows || plan.piece_rows % kHalvesRows == 0);
  size_train(plan, limits);
  return plan;
}

inline const char* name_of(NearestScreen screen) {
  constexpr const char* kNames[] = {"chosen",
                                    "tiles of 64",
                                    "tiles of 128",
                                    "halves, tiles of 32",
                                    "halves, tiles of 64",
                                    "halves, tiles of 128",
                                    "4 dimensions in registers",
                                    "8 dimensions in registers"};
  return kNames[static_cast<int>(screen)];
}

inline std::string describe(const NearestPlan& plan) {
  char text[240];
  std::snprintf(text, sizeof text, "nearest of %lld centroids: %lld rows in chunks of %lld, %lld batches, %s, %lld blocks",
                static_cast<long long>(plan.k), static_cast<long long>(plan.rows), static_cast<long long>(plan.chunk_rows),
                static_cast<long long>(plan.batches), name_of(plan.screen), static_cast<long long>(plan.screen_blocks));
  return text;
}

}  // namespace warpmem
