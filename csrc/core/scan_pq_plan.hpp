// How a scan of pages with product-quantisation codes runs on a device: tasks, memory, and where a shortlist's places lie. Pure functions of what is asked and
// of the device's limits. An inverted file is such a scan over the lists that a scan of the centroids' list has named.
//
//   codes     tasks of pages and up to four segments: sums of table entries, the best `keep` keys of each segment
//   merge     of each query's parts: its shortlist
//   rescore   canonical scores of the shortlists
//   finish    the k best of them; for kPq storage, also of rows that the shortlist left out and may be among them
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "pq_bound.hpp"
#include "scan_plan.hpp"
#include "select_plan.hpp"

namespace warpmem {

constexpr int32_t kScanPqThreads = 256;
constexpr int32_t kScanPqSegments = 4;     // of a task: a table's word holds an entry of each
constexpr int32_t kScanPqChunkPages = 16;  // 1,024 rows, four a thread
constexpr int64_t kScanPqMaxKeep = 4096;   // rows of a shortlist: k * refine
constexpr int64_t kScanPqMaxPages =
    (int64_t{1} << 26) - 1;  // of one query: a place is a number of 32 bits, and not the last, whose key may be that of no row
constexpr int64_t kScanPqTasksPerBlock = 2;
constexpr int64_t kScanPqHeaderBytes = 384;
constexpr int64_t kScanPqMaskBytes = 8 * kScanPqChunkPages * kScanPqSegments;

// Where a segment's pages stand among those of its query, in the order of list ids.
struct PqPlace {
  uint32_t before = 0;  // pages of the query's segments before this one
  uint32_t segment = 0;
  int64_t first_page = 0;  // of the page table
  int64_t pages = 0;
  int64_t list_id = 0;
};

struct DevicePqShape {
  DeviceScanShape scan;  // queries, k, ranking and rows; storage may be kPq, `codes` does not matter
  int64_t pq_dim = 0;
  int64_t dsub = 0;
  int64_t refine = 10;
};

// What a test may prescribe; 0 leaves the choice to the plan.
struct DevicePqChoice {
  int32_t segments = 0;    // of a task, at most
  int64_t tile_pages = 0;  // of a task, at most
  int64_t blocks = 0;
  int64_t part_bytes = 0;  // for parts; a task that needs more has it
};

struct DevicePqPlan {
  DevicePqShape shape;
  bool fits = true;           // false: the shortlist or the tables are too large, or rows too many, and the scan is the CPU's
  int64_t keep = 0;           // of a shortlist
  int32_t capacity = 0;       // of a queue
  int32_t task_segments = 0;  // of the task with most: 1 or kScanPqSegments at most
  std::vector<DeviceScanTask> tasks;
  ScanParts parts;
  std::vector<uint32_t> segment_shifts;  // by segment: what a page's number in the table needs to be its place, mod 2^32
  std::vector<PqPlace> places;           // of each query, by `before`
  std::vector<uint32_t> query_places;    // (queries + 1)
  int64_t blocks = 0;
  int64_t query_blocks = 0;    // of the launches with a block a query
  int64_t rescore_blocks = 0;  // a warp a row
  int64_t shared_bytes = 0;    // of the tasks
  int64_t table_bytes = 0;     // of the seven arrays in device memory: pack_pq_table
  int64_t workspace_bytes = 0;
};

WARPMEM_HD inline int64_t scan_pq_table_words(int64_t pq_dim) { return pq_pairs(pq_dim) * 32; }

inline int64_t scan_pq_shared_bytes(int64_t segments, int64_t pq_dim, int32_t capacity) {
  return kScanPqHeaderBytes + kScanPqMaskBytes + 4 * scan_pq_table_words(pq_dim) + segments * capacity * 8;
}

// Where each array begins in the table, and at the end how long it is.
struct PqPlanTable {
  int64_t tasks = 0;
  int64_t part_numbers;
  int64_t parts;
  int64_t query_parts;
  int64_t segment_shifts;
  int64_t places;
  int64_t query_places;
  int64_t bytes;

  explicit PqPlanTable(const DevicePqPlan& plan)
      : part_numbers(after(tasks, plan.tasks)),
        parts(after(part_numbers, plan.parts.numbers)),
        query_parts(after(parts, plan.parts.parts)),
        segment_shifts(after(query_parts, plan.parts.query_parts)),
        places(after(segment_shifts, plan.segment_shifts)),
        query_places(after(places, plan.places)),
        bytes(after(query_places, plan.query_places)) {}

 private:
  template <typename T>
  static int64_t after(int64_t begin, const std::vector<T>& array) {
    return begin + scan_align(static_cast<int64_t>(array.size() * sizeof(T)));
  }
};

// Writes the plan's arrays as one piece of plan.table_bytes, to be copied to the device.
inline void pack_pq_table(const DevicePqPlan& plan, void* out) {
  const PqPlanTable table(plan);
  const auto put = [out](int64_t at, const auto& array) {
    if (!array.empty()) std::memcpy(static_cast<unsigned char*>(out) + at, array.data(), array.size() * sizeof array[0]);
  };
  put(table.tasks, plan.tasks);
  put(table.part_numbers, plan.parts.numbers);
  put(table.parts, plan.parts.parts);
  put(table.query_parts, plan.parts.query_parts);
  put(table.segment_shifts, plan.segment_shifts);
  put(table.places, plan.places);
  put(table.query_places, plan.query_places);
}

// In the order in which the launcher takes it.
inline int64_t scan_pq_workspace_bytes(const DevicePqPlan& plan) {
  const int64_t queries = plan.shape.scan.queries;
  const int64_t width = plan.shape.pq_dim * plan.shape.dsub;
  const int64_t entries = plan.shape.pq_dim * 16;
  const auto rounds = static_cast<int64_t>(plan.parts.rounds.size());
  int64_t bytes = scan_align(4 * rounds) + scan_align(8 * queries);  // counters, floors
  bytes +=
      scan_align(4 * queries * width) + scan_align(8 * queries) + scan_align(4 * queries * entries);  // queries, sizes, tables
  bytes += scan_align(queries * scan_pq_table_words(plan.shape.pq_dim));                              // quantised tables
  bytes += scan_align(queries * static_cast<int64_t>(sizeof(PqTable)));
  bytes += scan_align(8 * plan.parts.items) + scan_align(8 * queries * plan.keep);  // keys of parts, shortlists
  bytes += scan_align(queries * plan.keep * static_cast<int64_t>(sizeof(Candidate)));
  bytes += scan_align(queries * plan.shape.scan.k * static_cast<int64_t>(sizeof(Candidate)));
  return bytes;
}

// The pages of each query's segments, in the order of list ids and within a list in that of the call. False when they are too many.
inline bool number_places(const std::vector<DeviceList>& lists, const uint32_t* segment_queries, int64_t n_segments,
                          DevicePqPlan* plan) {
  const auto n_queries = static_cast<size_t>(plan->shape.scan.queries);
  std::vector<size_t> by_id(lists.size());
  std::iota(by_id.begin(), by_id.end(), size_t{0});
  std::sort(by_id.begin(), by_id.end(), [&](size_t a, size_t b) { return lists[a].list_id < lists[b].list_id; });
  plan->segment_shifts.assign(static_cast<size_t>(n_segments), 0);
  plan->query_places.assign(n_queries + 1, 0);
  std::vector<int64_t> pages(n_queries, 0);
  const auto each = [&](const auto& body) {
    for (const size_t l : by_id) {
      for (int64_t at = 0; at < lists[l].segments; ++at) {
        const auto segment = static_cast<size_t>(lists[l].first_segment + at);
        body(lists[l], segment, segment_queries[segment]);
      }
    }
  };
  each([&](const DeviceList& list, size_t segment, uint32_t query) {
    plan->segment_shifts[segment] = static_cast<uint32_t>(pages[query] - list.first_page);
    pages[query] += list.pages;
    ++plan->query_places[query + size_t{1}];
  });
  for (size_t q = 1; q <= n_queries; ++q) plan->query_places[q] += plan->query_places[q - 1];
  std::vector<uint32_t> next(plan->query_places.begin(), plan->query_places.end() - 1);
  plan->places.resize(plan->query_places[n_queries]);
  each([&](const DeviceList& list, size_t segment, uint32_t query) {
    const uint32_t before = plan->segment_shifts[segment] + static_cast<uint32_t>(list.first_page);
    plan->places[next[query]++] = PqPlace{before, static_cast<uint32_t>(segment), list.first_page, list.pages, list.list_id};
  });
  return std::all_of(pages.begin(), pages.end(), [](int64_t n) { return n <= kScanPqMaxPages; });
}

// segment_queries: the query of each segment, in the order of the device's segments, which within a list is that of the call.
inline DevicePqPlan plan_device_scan_pq(const DevicePqShape& shape, const std::vector<DeviceList>& lists,
                                        const uint32_t* segment_queries, const DeviceLimits& limits,
                                        const DevicePqChoice& choice = {}) {
  DevicePqPlan plan;
  plan.shape = shape;
  plan.keep = shape.scan.k * shape.refine;
  plan.fits = plan.keep <= kScanPqMaxKeep && shape.pq_dim <= kPqPageSubspaces;
  plan.keep = std::min(plan.keep, kScanPqMaxKeep);
  plan.capacity = select_power_of_two(plan.keep + kScanPqThreads * kSelectUnroll);
  int64_t n_segments = 0;
  int64_t widest = 1;
  for (const DeviceList& list : lists) {
    n_segments = std::max(n_segments, list.first_segment + list.segments);
    if (list.pages > 0) widest = std::max(widest, list.segments);
  }
  int64_t most = choice.segments > 0 ? choice.segments : kScanPqSegments;
  while (most > 1 && scan_pq_shared_bytes(most, shape.pq_dim, plan.capacity) > limits.shared_per_block) --most;
  plan.task_segments = static_cast<int32_t>(std::min(most, widest));
  plan.shared_bytes = scan_pq_shared_bytes(plan.task_segments, shape.pq_dim, plan.capacity);
  plan.fits = plan.fits && plan.shared_bytes <= limits.shared_per_block;
  plan.fits = number_places(lists, segment_queries, n_segments, &plan) && plan.fits;

  int64_t work = 0;
  for (const DeviceList& list : lists) work += list.pages * ((list.segments + most - 1) / most);
  const int64_t resident = resident_blocks(limits, kScanPqThreads, plan.shared_bytes);
  int64_t tile = std::max(kTilePages, work / (resident * kScanPqTasksPerBlock) / kTilePages * kTilePages);
  if (choice.tile_pages > 0) tile = choice.tile_pages;
  for (const DeviceList& list : lists) {
    const int64_t runs = (list.segments + most - 1) / most;
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t begin = list.segments * run / runs;
      const int64_t end = list.segments * (run + 1) / runs;
      for (int64_t page = 0; page < list.pages; page += tile) {
        const int64_t pages = std::min(tile, list.pages - page);
        plan.tasks.push_back(DeviceScanTask{list.list_id, list.first_page + page, static_cast<int32_t>(pages),
                                            static_cast<int32_t>(end - begin), static_cast<int32_t>(list.first_segment + begin),
                                            0});
      }
    }
  }
  std::stable_sort(plan.tasks.begin(), plan.tasks.end(), [](const DeviceScanTask& a, const DeviceScanTask& b) {
    return int64_t{a.pages} * a.segments > int64_t{b.pages} * b.segments;
  });
  const int64_t most_bytes = choice.part_bytes > 0 ? choice.part_bytes : kScanPartBytes;
  plan.parts = number_parts(&plan.tasks, shape.scan.queries, plan.keep, most_bytes / 8, segment_queries);
  plan.blocks = std::min(resident, static_cast<int64_t>(plan.tasks.size()));
  if (choice.blocks > 0 && !plan.tasks.empty()) plan.blocks = choice.blocks;
  plan.query_blocks = std::min<int64_t>(shape.scan.queries, 8 * int64_t{limits.multiprocessors});
  plan.rescore_blocks =
      std::clamp<int64_t>((shape.scan.queries * plan.keep + 7) / 8, 1, 8 * resident_blocks(limits, kScanPqThreads, 0));
  plan.table_bytes = PqPlanTable(plan).bytes;
  plan.workspace_bytes = scan_pq_workspace_bytes(plan);
  return plan;
}

inline std::string describe(const DevicePqPlan& plan) {
  char text[240];
  std::snprintf(
      text, sizeof text,
      "pq scan of %lld queries, k %lld, refine %lld, %lld subspaces of 4 bits; %zu tasks of at most %d segments, %lld blocks, "
      "%lld bytes shared; %zu parts, at most %lld keys in each of %zu rounds",
      static_cast<long long>(plan.shape.scan.queries), static_cast<long long>(plan.shape.scan.k),
      static_cast<long long>(plan.shape.refine), static_cast<long long>(plan.shape.pq_dim), plan.tasks.size(), plan.task_segments,
      static_cast<long long>(plan.blocks), static_cast<long long>(plan.shared_bytes), plan.parts.parts.size(),
      static_cast<long long>(plan.parts.items), plan.parts.rounds.size());
  return text;
}

}  // namespace warpmem
