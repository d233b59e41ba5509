// The exact scan: segments of queries over snapshots of lists -> the k best rows of each query by final score.
//
//   scan.cpp       groups segments by list; widens and quantises the queries, plans, runs the tasks, merges
//   scan_task.*    one task: filters -> screen (an upper bound of each row's similarity from int8 codes) -> canonical rescoring of the rows whose bound
//                  on the final score reaches the k-th best -> selection
//   scan_device.cpp  lists that a device answers for, beside those that the host scans
//   scan_filter.cpp  what a task knows of its rows besides their codes: filters, and what ranking adds to their scores
//
// The screen never decides: a row is left out only when its bound proves that it cannot be among the k best. Results have the bits that they have
// without it.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/pool_view.hpp"
#include "../core/predicate.hpp"
#include "../core/score.hpp"
#include "kernels.hpp"
#include "pool.hpp"
#include "workers.hpp"

namespace warpmem {

struct PqQueries;  // pq_queries.hpp

// What is added to the final scores of rows, by row id; nothing to those of others.
struct Added {
  const float* values = nullptr;
  int64_t n = 0;

  float of(int64_t row_id) const noexcept { return row_id >= 0 && row_id < n ? values[row_id] : 0.0f; }
};

// One query over one list.
struct Segment {
  uint32_t query = 0;
  uint32_t group = 0;
  uint32_t filter = 0;
  Added added;
};

struct ScanRequest {
  const float* queries = nullptr;  // (n_queries, dim)
  int64_t n_queries = 0;
  int64_t k = 0;
  int64_t refine = 10;  // in a pool with codebooks: refine * k rows of each query are rescored
  // In a pool with codebooks and rows, where the score is the similarity: the k best in any order. Three quarters of them are those that the codes rank
  // first, with infinite scores; the others the best by canonical score of those that follow, up to 3/2 k.
  bool unordered = false;
  PqQueries* prepared = nullptr;  // what an earlier scan of the same queries has left, or this one is to leave
  double min_similarity = 0.0;
  Ranking ranking;
  // By segment; there can be a hundred for each of a thousand queries. Groups and filters may be empty: they are 0 then.
  std::vector<uint32_t> segment_queries;
  std::vector<uint32_t> segment_groups;
  std::vector<uint32_t> segment_filters;
  std::vector<Added> segment_added;  // or empty. Of finite numbers; not for a pool with codebooks
  std::vector<Filter> filters;
  std::vector<Term> terms;
  std::vector<int64_t> values;

  Segment segment(uint32_t s) const noexcept {
    return Segment{segment_queries[s], segment_groups.empty() ? 0 : segment_groups[s],
                   segment_filters.empty() ? 0 : segment_filters[s], segment_added.empty() ? Added{} : segment_added[s]};
  }
};

// The segments of one list together, in the order of the call.
struct SegmentGroups {
  std::vector<int64_t> list_ids;  // distinct, in order of first appearance
  std::vector<size_t> begin;      // of each list's segments in `order`, and the end of the last
  std::vector<uint32_t> order;    // indexes of segments
};

// list_ids: of each of n < 2^31 segments, each read once. Takes time in proportion to their number.
SegmentGroups group_segments(const int64_t* list_ids, size_t n);

// The same of list ids that are distinct.
SegmentGroups ungrouped_segments(const int64_t* list_ids, size_t n);

// Row-major (n_queries, k), filled by scan() to the last entry: -inf and -1 behind the rows found.
struct ScanOutput {
  float* scores = nullptr;
  float* similarities = nullptr;
  int64_t* list_ids = nullptr;
  int64_t* row_ids = nullptr;
  int32_t* counts = nullptr;  // (n_queries)
  uint32_t* groups =
      nullptr;  // null, or what else the order of results depends on, so that results of two pools can be joined; 0 behind the rows
  uint32_t* ordinals = nullptr;  // likewise

  // That of the queries from `first` on.
  ScanOutput from(int64_t first, int64_t k) const noexcept {
    ScanOutput part = *this;
    part.scores += first * k;
    part.similarities += first * k;
    part.list_ids += first * k;
    part.row_ids += first * k;
    part.counts += first;
    if (groups != nullptr) part.groups += first * k;
    if (ordinals != nullptr) part.ordinals += first * k;
    return part;
  }
};

// What a scan did.
struct ScanCounters {
  int64_t rows_seen = 0;  // rows that were screened or scored, by query; rows that the filters refused at once are not among them
  int64_t rows_rescored = 0;  // of these, rows whose canonical similarity was computed
  int64_t tiles = 0;
  int32_t threads = 1;
  bool screened = false;
  int64_t device_lists = 0;    // that a device answered for, whose rows are among those above
  bool device_failed = false;  // a device had taken lists and could not answer: the host did

  // Those of another part of the same queries.
  void add(const ScanCounters& part) noexcept {
    rows_seen += part.rows_seen;
    rows_rescored += part.rows_rescored;
    tiles += part.tiles;
    threads = part.threads > threads ? part.threads : threads;
    screened = screened || part.screened;
  }
};

// `heads` holds the snapshot of each list of `groups`, null for an unknown one. Allocates before it writes; throws std::bad_alloc. `workers` may be null.
// Throws IndexFileError, and has written nothing, when a page of a file that it used is damaged.
ScanCounters scan(const Kernels& kernels, const Pool& pool, const ScanRequest& request, const SegmentGroups& groups,
                  const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers = nullptr);

// The same, of which a device does what it can at the same time (core/pool_view.hpp).
ScanCounters scan(const ScanPort& device, const Kernels& kernels, const Pool& pool, const ScanRequest& request,
                  const SegmentGroups& groups, const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers);

}  // namespace warpmem
