// How a scan runs on a device: tasks, their shape, blocks, memory. Pure functions of what is asked and of the device's limits.
//
//   shape     segments of a task   for
//   plain     1-8                  pages without planes of codes, or a ranking that does not bound scores: every row is rescored
//   small     1-3                  integer products by dp4a, one page a warp
//   middle    4-64                 by mma, 8 queries a pass, 32 rows a warp
//   large     64-128               by mma, 64 queries a pass
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "device_limits.hpp"
#include "planner.hpp"
#include "scan_parts.hpp"
#include "scan_tables.hpp"
#include "score_bound.hpp"

namespace warpmem {

// Shapes -------------------------------------------------------------------------------------------------------------------------------------------

enum class ScanShape : int32_t { kPlain, kSmall, kMiddle, kLarge };
constexpr int kScanShapes = 4;

inline const char* scan_shape_name(ScanShape shape) {
  constexpr const char* kNames[] = {"plain", "small", "middle", "large"};
  return kNames[static_cast<int>(shape)];
}

constexpr int64_t kDeviceScanMaxK = 4096;
constexpr int32_t kScanThreads = 256;
constexpr int32_t kScanBatch = 256;                             // rows that are rescored before they are selected from
constexpr int32_t kScanQueries[kScanShapes] = {8, 3, 64, 128};  // of a task, at most
constexpr int32_t kScanChunkPages[kScanShapes] = {8, 8, 4, 4};
constexpr int32_t kScanBlocks[kScanShapes] = {3, 3, 2, 1};  // on a multiprocessor; __launch_bounds__ makes registers fit
constexpr int64_t kScanTasksPerBlock = 4;
constexpr int64_t kScanPartBytes = int64_t{1}
                                   << 28;  // for parts, unless a caller has less: beyond it longer tasks, then several rounds

// The dynamic shared memory of a block, in bytes from its start.
struct ScanShared {
  int64_t header = 0;  // counters
  int64_t items;       // ScanItem [kScanBatch], then what goes with them, uint32 each: segment, rank; then rows to rescore
  int64_t item_segments;
  int64_t ranks;
  int64_t entries;
  int64_t masks;    // uint32 [chunk pages][2][queries]: rows that are still in
  int64_t offsets;  // uint32 likewise: how many rows before
  int64_t extras;   // float [chunk pages][64]
  int64_t last;     // by segment: ScanItem, the k-th best
  int64_t bounds;   // ScanQueryBound
  int64_t state;    // uint32 [kScanStates][queries]
  int64_t codes;    // of the queries; what follows depends on the dimension

  constexpr ScanShared(int64_t queries, int64_t chunk_pages)
      : items(128),
        item_segments(items + 16 * kScanBatch),
        ranks(item_segments + 4 * kScanBatch),
        entries(ranks + 4 * kScanBatch),
        masks(entries + 4 * kScanBatch),
        offsets(masks + 8 * chunk_pages * queries),
        extras(offsets + 8 * chunk_pages * queries),
        last(extras + 4 * 64 * chunk_pages),
        bounds(last + 16 * queries),
        state(bounds + 32 * queries),
        codes((state + 4 * 8 * queries + 15) / 16 * 16) {}
};

constexpr ScanShared scan_shared(ScanShape shape) {
  return ScanShared(kScanQueries[static_cast<int>(shape)], kScanChunkPages[static_cast<int>(shape)]);
}

inline int64_t scan_shared_bytes(ScanShape shape, int64_t queries, int64_t padded) {
  const int64_t codes = shape == ScanShape::kPlain ? 0 : shape == ScanShape::kSmall ? queries : (queries + 7) / 8 * 8;
  return scan_shared(shape).codes + codes * padded;
}

// Plans --------------------------------------------------------------------------------------------------------------------------------------------

struct DeviceScanShape {
  int64_t dim = 0;
  int64_t n_columns = 0;
  Storage storage = Storage::kF32;  // not kPq
  bool l2 = false;
  bool codes = false;  // pages have planes of int8 codes
  int64_t queries = 0;
  int64_t k = 1;  // 1 ... kDeviceScanMaxK
  Ranking ranking;
};

// What a test, or a caller with measurements of his own, may prescribe; 0 and negative numbers leave the choice to the plan.
struct DeviceScanChoice {
  int32_t shape = -1;      // a ScanShape; others than kPlain need codes
  int32_t queries = 0;     // of a task, at most
  int64_t tile_pages = 0;  // of a task, at most
  int64_t blocks = 0;
  int64_t part_bytes = 0;  // for parts; a task that needs more has it
};

// The tasks of one shape, one launch in each round that has some.
struct DeviceScanStage {
  ScanShape shape = ScanShape::kPlain;
  int64_t first_task = 0;
  int64_t tasks = 0;    // 0: not needed
  int32_t queries = 0;  // of the task with most
  int64_t blocks = 0;
  int64_t shared_bytes = 0;
};

struct DeviceScanPlan {
  DeviceScanShape shape;
  std::vector<DeviceScanTask> tasks;
  ScanParts parts;
  DeviceScanStage stages[kScanShapes];
  int64_t merge_blocks = 0;
  bool screened = false;
  int64_t table_bytes = 0;  // of the four arrays in device memory: pack_scan_table
  int64_t workspace_bytes = 0;
};

inline int64_t scan_align(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Where each array begins in the table, and at the end how long it is.
struct ScanTable {
  int64_t tasks = 0;
  int64_t part_numbers;
  int64_t parts;
  int64_t query_parts;
  int64_t bytes;

  explicit ScanTable(const DeviceScanPlan& plan)
      : part_numbers(scan_align(static_cast<int64_t>(plan.tasks.size() * sizeof(DeviceScanTask)))),
        parts(part_numbers + scan_align(static_cast<int64_t>(plan.parts.numbers.size() * 4))),
        query_parts(parts + scan_align(static_cast<int64_t>(plan.parts.parts.size() * sizeof(DeviceScanPart)))),
        bytes(query_parts + scan_align(static_cast<int64_t>(plan.parts.query_parts.size() * 4))) {}
};

// Writes the plan's arrays as one piece of plan.table_bytes, to be copied to the device.
inline void pack_scan_table(const DeviceScanPlan& plan, void* out) {
  const ScanTable table(plan);
  const auto put = [out](int64_t at, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(static_cast<unsigned char*>(out) + at, from, bytes);
  };
  put(table.tasks, plan.tasks.data(), plan.tasks.size() * sizeof(DeviceScanTask));
  put(table.part_numbers, plan.parts.numbers.data(), plan.parts.numbers.size() * 4);
  put(table.parts, plan.parts.parts.data(), plan.parts.parts.size() * sizeof(DeviceScanPart));
  put(table.query_parts, plan.parts.query_parts.data(), plan.parts.query_parts.size() * 4);
}

// Workspace of the launches, in the order in which the launcher takes it.
inline int64_t scan_workspace_bytes(const DeviceScanPlan& plan) {
  const auto parts = static_cast<int64_t>(plan.parts.parts.size());
  const auto rounds = static_cast<int64_t>(plan.parts.rounds.size());
  const int64_t padded = padded_dim(plan.shape.dim);
  int64_t bytes = scan_align(4 * kScanShapes * rounds) + scan_align(4 * plan.shape.queries);  // counters, floors
  bytes += scan_align(plan.parts.items * static_cast<int64_t>(sizeof(ScanItem))) + scan_align(4 * parts);
  bytes += scan_align(plan.shape.queries * plan.shape.k * static_cast<int64_t>(sizeof(Candidate)));
  if (plan.screened)
    bytes += scan_align(plan.shape.queries * padded) + plan.shape.queries * static_cast<int64_t>(sizeof(ScanQueryBound));
  return bytes;
}

// The shape of a task with so many segments.
inline ScanShape scan_shape_of(int64_t segments, bool screened) {
  if (!screened) return ScanShape::kPlain;
  return segments <= 3 ? ScanShape::kSmall : segments < 64 ? ScanShape::kMiddle : ScanShape::kLarge;
}

// Segments a task of this shape may have, so that their codes fit in shared memory; 0: none.
inline int64_t scan_task_queries(ScanShape shape, int64_t padded, const DeviceLimits& limits) {
  int64_t queries = kScanQueries[static_cast<int>(shape)];
  const int64_t step = shape == ScanShape::kPlain || shape == ScanShape::kSmall ? 1 : 8;
  while (queries > 0 && scan_shared_bytes(shape, queries, padded) > limits.shared_per_block) queries -= step;
  return queries;
}

// segment_queries: the query of each segment, in the order of the device's segments.
inline DeviceScanPlan plan_device_scan(const DeviceScanShape& shape, const std::vector<DeviceList>& lists,
                                       const uint32_t* segment_queries, const DeviceLimits& limits,
                                       const DeviceScanChoice& choice = {}) {
  DeviceScanPlan plan;
  plan.shape = shape;
  const int64_t padded = padded_dim(shape.dim);
  plan.screened = shape.codes && can_bound(shape.ranking) && choice.shape != static_cast<int32_t>(ScanShape::kPlain);

  // The segments of a list, in runs of nearly equal length, each with its shape.
  struct Run {
    ScanShape shape;
    const DeviceList* list;
    int64_t first_segment;
    int64_t segments;
  };
  std::vector<Run> runs;
  int64_t work[kScanShapes] = {};  // pages of all runs
  int64_t widest[kScanShapes] = {};
  int64_t longest = 1;
  for (const DeviceList& list : lists) {
    if (list.pages == 0 || list.segments == 0) continue;
    longest = std::max(longest, list.pages);
    ScanShape which = choice.shape >= 0 ? static_cast<ScanShape>(choice.shape) : scan_shape_of(list.segments, plan.screened);
    if (!plan.screened) which = ScanShape::kPlain;
    int64_t most = scan_task_queries(which, padded, limits);
    // Rows of very many dimensions: fewer queries fit.
    if (which == ScanShape::kLarge && most < 64 && choice.shape < 0)
      most = scan_task_queries(which = ScanShape::kMiddle, padded, limits);
    if (most < 1 || (which == ScanShape::kMiddle && most < 8 && choice.shape < 0))
      most = scan_task_queries(which = ScanShape::kSmall, padded, limits);
    if (choice.queries > 0) most = std::min<int64_t>(most, choice.queries);
    const int64_t n = (list.segments + most - 1) / most;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t begin = list.segments * i / n;
      const int64_t end = list.segments * (i + 1) / n;
      runs.push_back(Run{which, &list, list.first_segment + begin, end - begin});
      work[static_cast<int>(which)] += list.pages;
      widest[static_cast<int>(which)] = std::max(widest[static_cast<int>(which)], end - begin);
    }
  }

  // Tiles: so short that blocks end together, but all parts no larger than they may be if longer tasks can help.
  const int64_t most_bytes = choice.part_bytes > 0 ? choice.part_bytes : kScanPartBytes;
  int64_t tile[kScanShapes];
  for (int s = 0; s < kScanShapes; ++s) {
    DeviceScanStage& stage = plan.stages[s];
    stage.shape = static_cast<ScanShape>(s);
    stage.queries = static_cast<int32_t>(widest[s]);
    stage.shared_bytes = scan_shared_bytes(stage.shape, widest[s], padded);
    stage.blocks =
        std::min(resident_blocks(limits, kScanThreads, stage.shared_bytes), int64_t{kScanBlocks[s]} * limits.multiprocessors);
    const int64_t chunk = kScanChunkPages[s];
    tile[s] = std::max(chunk, work[s] / (stage.blocks * kScanTasksPerBlock) / chunk * chunk);
    if (choice.tile_pages > 0) tile[s] = choice.tile_pages;
  }
  const auto part_bytes = [&] {
    int64_t bytes = 0;
    for (const Run& run : runs) {
      const int64_t t = tile[static_cast<int>(run.shape)];
      bytes += (run.list->pages + t - 1) / t * run.segments * std::min(shape.k, t * kPageRows) *
               static_cast<int64_t>(sizeof(ScanItem));
    }
    return bytes;
  };
  while (choice.tile_pages <= 0 && *std::max_element(tile, tile + kScanShapes) < longest && part_bytes() > most_bytes) {
    for (int64_t& t : tile) t *= 2;
  }

  for (int s = 0; s < kScanShapes; ++s) {
    DeviceScanStage& stage = plan.stages[s];
    stage.first_task = static_cast<int64_t>(plan.tasks.size());
    for (const Run& run : runs) {
      if (run.shape != stage.shape) continue;
      for (int64_t page = 0; page < run.list->pages; page += tile[s]) {
        const int64_t pages = std::min(tile[s], run.list->pages - page);
        plan.tasks.push_back(DeviceScanTask{run.list->list_id, run.list->first_page + page, static_cast<int32_t>(pages),
                                            static_cast<int32_t>(run.segments), static_cast<int32_t>(run.first_segment), 0});
      }
    }
    std::stable_sort(plan.tasks.begin() + static_cast<std::ptrdiff_t>(stage.first_task), plan.tasks.end(),
                     [](const DeviceScanTask& a, const DeviceScanTask& b) {
                       return int64_t{a.pages} * a.segments > int64_t{b.pages} * b.segments;
                     });
    stage.tasks = static_cast<int64_t>(plan.tasks.size()) - stage.first_task;
    stage.blocks = std::min(stage.blocks, stage.tasks);
    if (choice.blocks > 0 && stage.tasks > 0) stage.blocks = choice.blocks;
  }

  plan.parts =
      number_parts(&plan.tasks, shape.queries, shape.k, most_bytes / static_cast<int64_t>(sizeof(ScanItem)), segment_queries);
  plan.merge_blocks = std::min<int64_t>(shape.queries, 4 * int64_t{limits.multiprocessors});
  plan.table_bytes = ScanTable(plan).bytes;
  plan.workspace_bytes = scan_workspace_bytes(plan);
  return plan;
}

inline std::string describe(const DeviceScanPlan& plan) {
  std::string out = "scan of " + std::to_string(plan.shape.queries) + " queries, k " + std::to_string(plan.shape.k) + ", dim " +
                    std::to_string(plan.shape.dim) + "; " + std::to_string(plan.parts.parts.size()) + " parts, at most " +
                    std::to_string(plan.parts.items) + " items in each of " + std::to_string(plan.parts.rounds.size()) +
                    " rounds, workspace " + std::to_string(plan.workspace_bytes) + " bytes";
  for (const DeviceScanStage& stage : plan.stages) {
    if (stage.tasks == 0) continue;
    char text[200];
    std::snprintf(text, sizeof text, "; %s: %lld tasks of at most %d segments, %lld blocks of %d threads, %lld bytes shared",
                  scan_shape_name(stage.shape), static_cast<long long>(stage.tasks), stage.queries,
                  static_cast<long long>(stage.blocks), kScanThreads, static_cast<long long>(stage.shared_bytes));
    out += text;
  }
  return out;
}

}  // namespace warpmem
