// Where the tasks of a scan leave what they find: a part for each task and segment of it, as large as what it may hold. A pure function of the tasks.
//
//   items of a round   | part | part   | part of one slot | ...     min(k, rows of its task) places each
//   rounds             tasks, then the merge, which joins their parts to what it had found before; then the next tasks, in the same memory
//
// One round nearly always. Many lists, each with rows for a whole result, would take 16 bytes for each of k times lists; rounds keep that below a limit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "scan_tables.hpp"

namespace warpmem {

struct ScanRound {
  int64_t first_task = 0;
  int64_t tasks = 0;  // 0 where there is nothing to scan
};

struct ScanParts {
  std::vector<uint32_t> numbers;      // by task and segment of the task: which part is theirs
  std::vector<DeviceScanPart> parts;  // a round's together, of these a query's
  std::vector<uint32_t> query_parts;  // (rounds, queries + 1): where each query's begin
  std::vector<ScanRound> rounds;      // at least one
  int64_t items = 0;                  // of the round with most
};

inline int64_t part_items(const DeviceScanTask& task, int64_t keep) { return std::min(keep, int64_t{task.pages} * kPageRows); }

// Numbers the parts of tasks in the order in which they run. keep: places that a part needs at most. most: of a round, unless one task needs more.
// segment_queries: the query of each segment.
inline ScanParts number_parts(std::vector<DeviceScanTask>* tasks, int64_t queries, int64_t keep, int64_t most,
                              const uint32_t* segment_queries) {
  ScanParts out;
  out.rounds.emplace_back();
  int64_t items = 0;
  size_t segments = 0;
  for (size_t t = 0; t < tasks->size(); ++t) {
    DeviceScanTask& task = (*tasks)[t];
    const int64_t needed = part_items(task, keep) * task.segments;
    if (items > 0 && items + needed > most) {
      out.rounds.push_back(ScanRound{static_cast<int64_t>(t), 0});
      items = 0;
    }
    ++out.rounds.back().tasks;
    items += needed;
    out.items = std::max(out.items, items);
    task.first_part = static_cast<int32_t>(segments);
    segments += static_cast<size_t>(task.segments);
  }
  out.numbers.resize(segments);
  out.parts.resize(segments);
  std::vector<uint32_t> next(static_cast<size_t>(queries) + 1);
  uint32_t before = 0;  // parts of earlier rounds
  for (const ScanRound& round : out.rounds) {
    const auto each = [&](const auto& body) {
      for (int64_t t = round.first_task; t < round.first_task + round.tasks; ++t) {
        const DeviceScanTask& task = (*tasks)[static_cast<size_t>(t)];
        for (int32_t at = 0; at < task.segments; ++at) body(t, task, at, task.first_segment + at);
      }
    };
    std::fill(next.begin(), next.end(), 0u);
    each([&](int64_t, const DeviceScanTask&, int32_t, int32_t segment) { ++next[segment_queries[segment] + size_t{1}]; });
    next[0] = before;
    for (size_t q = 1; q < next.size(); ++q) next[q] += next[q - 1];
    before = next.back();
    out.query_parts.insert(out.query_parts.end(), next.begin(), next.end());
    uint32_t item = 0;
    each([&](int64_t t, const DeviceScanTask& task, int32_t at, int32_t segment) {
      const uint32_t part = next[segment_queries[segment]]++;
      const auto room = static_cast<uint32_t>(part_items(task, keep));
      out.numbers[static_cast<size_t>(task.first_part + at)] = part;
      out.parts[part] = DeviceScanPart{static_cast<uint32_t>(t), static_cast<uint32_t>(segment), item, room};
      item += room;
    });
  }
  return out;
}

}  // namespace warpmem
