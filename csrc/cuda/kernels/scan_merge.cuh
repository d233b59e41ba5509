// What stands before and behind the tasks of a scan: the queries' codes, and the merge of the tasks' parts.
//
// normalize A warp a query: core/score.hpp's normalize_row. A row without a direction becomes NaN.
// prepare   A warp a query: core/int8.hpp's quantize_query, with sums over lanes instead of in order. The bound's slack of 1e-9 covers that. A query that is
//           too long to be screened gets an infinite bound, which every row passes.
// merge     A block a query, once a round. Its parts are sorted and the query's floor is known, so the wanted items of each part are a prefix, found by
//           bisection. What earlier rounds found is where they left it. Of equal candidates the one of the earlier task comes first. 256
//           parts and then 256 items at a time: items become candidates, are sorted, and merged into the k best in the order of core/keys.hpp's better().
//
//   parts of a query   | k best of a task | k best of another | ...      wanted: | xx---- | x----- | ----- |
//
// Shared memory of the merge: 128 bytes; 256 candidates of 32 bytes; 256 ranks and 256 offsets of 4 bytes.
#pragma once

#include "scan.cuh"

namespace warpmem::cuda {

constexpr int64_t kScanMergeCandidates = 128;
constexpr int64_t kScanMergeRanks = kScanMergeCandidates + kScanThreads * static_cast<int64_t>(sizeof(Candidate));
constexpr int64_t kScanMergeOffsets = kScanMergeRanks + 4 * kScanThreads;
constexpr int64_t kScanMergeShared = kScanMergeOffsets + 4 * kScanThreads;

// normalize ----------------------------------------------------------------------------------------------------------------------------------------

struct ScanNormalizeParams {
  const float* from;  // (n, dim)
  float* to;          // (n, dim)
  int64_t n;
  int64_t dim;
};

WARPMEM_KERNEL(kScanThreads) scan_normalize_kernel(ScanNormalizeParams p) {
  constexpr int kWarps = kScanThreads / kWarpSize;
  for (int64_t row = block_index() * kWarps + warp_index(); row < p.n; row += grid_blocks() * kWarps) {
    const float* const from = p.from + row * p.dim;
    const double squared = warp_dot_f64(from, from, p.dim);
    const bool directed = squared > 0.0 && squared <= 1.7976931348623157e308;
    const double inverse = directed ? 1.0 / sqrt(squared) : 0.0;
    for (int64_t i = lane_index(); i < p.dim; i += kWarpSize)
      p.to[row * p.dim + i] = directed ? static_cast<float>(static_cast<double>(from[i]) * inverse) : NAN;
  }
}

// prepare ------------------------------------------------------------------------------------------------------------------------------------------

struct ScanPrepareParams {
  const float* queries;  // (n, dim)
  int64_t n;
  int64_t dim;
  int64_t padded;
  int8_t* codes;           // (n, padded)
  ScanQueryBound* bounds;  // (n)
};

WARPMEM_KERNEL(kScanThreads) scan_prepare_kernel(ScanPrepareParams p) {
  constexpr int kWarps = kScanThreads / kWarpSize;
  for (int64_t q = block_index() * kWarps + warp_index(); q < p.n; q += grid_blocks() * kWarps) {
    const float* const query = p.queries + q * p.dim;
    int8_t* const codes = p.codes + q * p.padded;
    uint32_t most = 0;  // magnitudes order as their bits do
    for (int64_t i = lane_index(); i < p.dim; i += kWarpSize) {
      const uint32_t key = float_to_key(fabsf(query[i]));
      most = key > most ? key : most;
    }
    const float scale = scale_of(key_to_float(reduce_max(most)));
    const float inverse = inverse_of(scale);
    double squared_error = 0.0;
    double squared_codes = 0.0;
    double squared = 0.0;
    int32_t sum = 0;
    for (int64_t i = lane_index(); i < p.padded; i += kWarpSize) {
      const float value = i < p.dim ? query[i] : 0.0f;
      const double code = code_of(value, inverse);
      const double difference = static_cast<double>(value) - code * static_cast<double>(scale);
      codes[i] = static_cast<int8_t>(code);
      sum += static_cast<int32_t>(code);
      squared_error += difference * difference;
      squared_codes += code * code;
      squared += static_cast<double>(value) * static_cast<double>(value);
    }
    squared_error = warp_fold(squared_error);
    squared_codes = warp_fold(squared_codes);
    squared = warp_fold(squared);
    sum = static_cast<int32_t>(reduce_add(static_cast<uint32_t>(sum)));
    QueryBound bound;
    const bool bounded = bound_query(scale, sum, squared, squared_codes, squared_error, &bound);
    if (lane_index() != 0) continue;
    p.bounds[q] = bounded ? ScanQueryBound{bound.scale, bound.norm, bound.error, bound.square, bound.sum, {0, 0, 0}}
                          : ScanQueryBound{0.0f, INFINITY, INFINITY, 0.0f, 0, {0, 0, 0}};
  }
}

// merge --------------------------------------------------------------------------------------------------------------------------------------------

struct ScanMergeParams {
  ScanParams scan;
  const uint32_t* query_parts;  // (n + 1), of the round
  bool first;                   // round
  int64_t n;                    // queries
  Candidate* best;              // (n, k)
  float* scores;                // (n, k), likewise below
  float* similarities;
  int64_t* list_ids;
  int64_t* row_ids;
  uint32_t* groups;    // may be null
  uint32_t* ordinals;  // may be null
  int32_t* counts;     // (n)
};

WARPMEM_DEVICE Candidate candidate_of(const ScanMergeParams& p, uint32_t part, int64_t i) {
  const DeviceScanPart source = p.scan.parts[part];
  const DeviceScanTask& task = p.scan.tasks[source.task];
  const ScanItem item = p.scan.items[source.first_item + i];
  const ConstPage& page = p.scan.pages[task.first_page + item.row / kPageRows].memory;
  const int64_t row_id = page_row_id(p.scan, page, static_cast<int32_t>(item.row % kPageRows));
  return Candidate{key_to_float(static_cast<uint32_t>(item.key >> 32)),
                   item.similarity,
                   p.scan.segments[source.segment].group,
                   ~static_cast<uint32_t>(item.key),
                   row_id,
                   task.list_id};
}

WARPMEM_KERNEL(kScanThreads) scan_merge_kernel(ScanMergeParams p) {
  const int t = thread_index();
  const Shared<uint32_t> totals = shared_array<uint32_t>(0, 32);
  const Shared<Candidate> next = shared_array<Candidate>(kScanMergeCandidates, kScanThreads);
  const Shared<uint32_t> ranks = shared_array<uint32_t>(kScanMergeRanks, kScanThreads);
  const Shared<uint32_t> before = shared_array<uint32_t>(kScanMergeOffsets, kScanThreads);
  for (int64_t q = block_index(); q < p.n; q += grid_blocks()) {
    Candidate* const best = p.best + q * p.scan.k;
    const uint64_t floor = static_cast<uint64_t>(p.scan.floors[q]) << 32;
    int32_t count = p.first ? 0 : p.counts[q];
    sync_threads();  // it is there until all have read it
    for (uint32_t first = p.query_parts[q]; first < p.query_parts[q + 1]; first += kScanThreads) {
      const uint32_t part = first + static_cast<uint32_t>(t);
      int32_t wanted = 0;
      if (part < p.query_parts[q + 1]) {
        const ScanItem* const items = p.scan.items + p.scan.parts[part].first_item;
        wanted = count_before(static_cast<int32_t>(p.scan.counts[part]), [&](int32_t i) { return items[i].key >= floor; });
      }
      uint32_t total;
      before[t] = sum_before(static_cast<uint32_t>(wanted), totals, &total);
      sync_threads();
      for (uint32_t base = 0; base < total; base += kScanThreads) {
        const auto n = static_cast<int32_t>(total - base < kScanThreads ? total - base : kScanThreads);
        if (t < n) {
          const uint32_t entry = base + static_cast<uint32_t>(t);
          const int32_t from = count_before(kScanThreads, [&](int32_t i) { return before[i] <= entry; }) - 1;
          next[t] = candidate_of(p, first + static_cast<uint32_t>(from), entry - before[from]);
        }
        int32_t size = 1;
        while (size < n) size *= 2;
        if (t >= n && t < size) next[t] = Candidate{-INFINITY, 0.0f, UINT32_MAX, UINT32_MAX, INT64_MAX, INT64_MAX};
        ranks[t] = static_cast<uint32_t>(t);
        sort_block(
            size,
            [&](int32_t i, int32_t j) {
              return warpmem::better(next[j], next[i]) || (!warpmem::better(next[i], next[j]) && ranks[i] > ranks[j]);
            },
            [&](int32_t i, int32_t j) {
              const Candidate other = next[i];
              const uint32_t rank = ranks[i];
              next[i] = next[j];
              ranks[i] = ranks[j];
              next[j] = other;
              ranks[j] = rank;
            });
        count = merge_run<BlockTeam>(
            best, count, p.scan.k, n, [&](int32_t j) -> const Candidate& { return next[j]; },
            [&](int32_t j) -> uint32_t& { return ranks[j]; },
            [](const Candidate& a, const Candidate& b) { return warpmem::better(a, b); });
      }
    }
    for (int32_t rank = t; rank < p.scan.k; rank += kScanThreads) {
      const int64_t at = q * p.scan.k + rank;
      const bool there = rank < count;
      const Candidate found = there ? best[rank] : Candidate{-INFINITY, -INFINITY, 0, 0, -1, -1};
      p.scores[at] = found.score;
      p.similarities[at] = found.similarity;
      p.list_ids[at] = found.list_id;
      p.row_ids[at] = found.row_id;
      if (p.groups != nullptr) p.groups[at] = found.group;
      if (p.ordinals != nullptr) p.ordinals[at] = found.ordinal;
    }
    if (t == 0) p.counts[q] = count;
    sync_threads();
  }
}

}  // namespace warpmem::cuda
