// How a scan is cut into tasks: a pure function of what is to be scanned, so that it can be tested and printed without running anything.
//
// Segments of one list form a group: a page that lies in cache serves all queries of the group. A task is a run of pages of one list for at most
// kPlanQueries of its queries. One thread takes whole lists; several take pieces of at least a tile, the longest first, so that one list of a million
// rows and two thousand lists of a hundred are shared alike.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "page.hpp"

namespace warpmem {

constexpr int64_t kTilePages = 32;    // 2,048 rows
constexpr int64_t kPlanQueries = 64;  // whose state stays in cache beside a page
constexpr int64_t kThreadElements = int64_t{1}
                                    << 22;  // rows * padded dimension * queries below which a thread is not worth waking
constexpr int64_t kTasksPerThread = 8;

struct ScanGroup {
  int64_t pages = 0;
  int64_t queries = 0;
};

struct ScanTask {
  int32_t group = 0;
  int64_t page_begin = 0;
  int64_t page_end = 0;
  int64_t query_begin = 0;  // within the group
  int64_t query_end = 0;
};

struct ScanPlan {
  std::vector<ScanTask> tasks;
  int32_t threads = 1;
  int64_t tiles = 0;  // of kTilePages pages for at most kPlanQueries queries
};

inline ScanPlan plan_scan(const std::vector<ScanGroup>& groups, int64_t padded, int32_t max_threads) {
  ScanPlan plan;
  plan.tasks.reserve(groups.size());  // one of each, or more
  int64_t total = 0;                  // pages * queries
  for (const ScanGroup& group : groups) total += group.pages * group.queries;
  const int64_t worth = total * kPageRows * padded / kThreadElements;
  plan.threads = static_cast<int32_t>(std::clamp<int64_t>(worth, 1, max_threads));
  const int64_t piece = std::max<int64_t>(1, total / (plan.threads * kTasksPerThread));
  for (size_t g = 0; g < groups.size(); ++g) {
    for (int64_t begin = 0; begin < groups[g].queries; begin += kPlanQueries) {
      const int64_t end = std::min(groups[g].queries, begin + kPlanQueries);
      int64_t step = groups[g].pages;
      if (plan.threads > 1) step = std::max(kTilePages, piece / (end - begin) / kTilePages * kTilePages);
      for (int64_t page = 0; page < groups[g].pages; page += step) {
        plan.tasks.push_back(ScanTask{static_cast<int32_t>(g), page, std::min(groups[g].pages, page + step), begin, end});
      }
      plan.tiles += (groups[g].pages + kTilePages - 1) / kTilePages;
    }
  }
  if (plan.threads > 1) {
    std::stable_sort(plan.tasks.begin(), plan.tasks.end(), [](const ScanTask& a, const ScanTask& b) {
      return (a.page_end - a.page_begin) * (a.query_end - a.query_begin) >
             (b.page_end - b.page_begin) * (b.query_end - b.query_begin);
    });
  }
  return plan;
}

}  // namespace warpmem
