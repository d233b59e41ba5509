// The exact scan: segments of queries over snapshots of lists -> the k best rows of each query by final score.
//
//   scan.cpp       widens and quantises the queries, groups segments by list, plans, runs the tasks, merges
//   scan_task.*    one task: filters -> screen (an upper bound of each row's similarity from int8 codes) -> canonical rescoring of the rows whose bound
//                  on the final score reaches the k-th best -> selection
//
// The screen never decides: a row is left out only when its bound proves that it cannot be among the k best. Results have the bits that they have
// without it.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/predicate.hpp"
#include "../core/score.hpp"
#include "kernels.hpp"
#include "pool.hpp"
#include "workers.hpp"

namespace warpmem {

// One query over one list. Terms and membership values lie in the request's common arrays; a term's lo and hi count from the segment's first value.
struct Segment {
  int64_t query = 0;
  uint32_t group = 0;
  size_t terms_begin = 0;
  size_t terms_end = 0;
  size_t values_begin = 0;
  size_t values_end = 0;
  const uint64_t* bitmap = nullptr;  // null: every row
  int64_t bitmap_words = 0;
};

struct ScanRequest {
  const float* queries = nullptr;  // (n_queries, dim)
  int64_t n_queries = 0;
  int64_t k = 0;
  int64_t refine = 10;  // in a pool with codebooks: refine * k rows of each query are rescored
  double min_similarity = 0.0;
  Ranking ranking;
  std::vector<Segment> segments;
  std::vector<int64_t> list_ids;  // of each segment
  std::vector<Term> terms;
  std::vector<int64_t> values;
};

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
};

// What a scan did.
struct ScanCounters {
  int64_t rows_seen = 0;      // rows that passed the filters, by query
  int64_t rows_rescored = 0;  // of these, rows whose canonical similarity was computed
  int64_t tiles = 0;
  int32_t threads = 1;
  bool screened = false;
};

// `heads` holds the snapshot of each segment's list, null for an unknown one. Allocates before it writes; throws std::bad_alloc. `workers` may be null.
// Throws IndexFileError, and has written nothing, when a page of a file that it used is damaged.
ScanCounters scan(const Kernels& kernels, const Pool& pool, const ScanRequest& request, const std::vector<ListHead>& heads,
                  const ScanOutput& output, Workers* workers = nullptr);

}  // namespace warpmem
