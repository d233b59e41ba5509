// How product quantisation runs on a device. Pure functions of shapes and limits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "kmeans_plan.hpp"
#include "pq_code.hpp"
#include "select_plan.hpp"

namespace warpmem {

constexpr int32_t kPqThreads = 256;
constexpr int64_t kPqPartRows = 32768;  // shorter parts are not worth a block and its table

// Rows that a block scores in one step: 4 a thread with 8 bits, 8 with 4 bits.
inline int64_t pq_tile_rows(int64_t bits) { return bits == 8 ? 4 * kPqThreads : 8 * kPqThreads; }

struct PqScanPlan {
  int64_t queries = 0;
  int64_t rows = 0;
  int64_t pq_dim = 0;
  int64_t bits = 8;
  int64_t k = 0;
  int64_t parts = 1;  // of the rows
  int64_t part_rows = 0;
  int64_t chunk = 0;     // 8 bits: subspaces whose tables are in shared memory at a time
  int32_t capacity = 0;  // of the queue
  int64_t blocks = 0;
  int64_t shared_bytes = 0;
  bool fits = true;    // false: 4 bits, and the tables of a query and the queue do not fit together; the scan is the CPU's then
  SelectStage second;  // blocks = 0: not needed
  int64_t workspace_bytes = 0;
};

// Behind the counters and the queue: 8 bits, the tables of a chunk; 4 bits, the quantised table and the lowest entry of each subspace.
inline int64_t pq_table_bytes(int64_t bits, int64_t subspaces) {
  return bits == 8 ? subspaces * 1024 : subspaces * 16 + subspaces * 4;
}

// `parts` and `chunk` prescribe, 0 leaves the choice. Workspace: keys (8 bytes) of parts, floors (8) and scales (16) of queries.
inline PqScanPlan plan_pq_scan(int64_t queries, int64_t rows, int64_t pq_dim, int64_t bits, int64_t k, const DeviceLimits& limits,
                               int64_t parts = 0, int64_t chunk = 0) {
  PqScanPlan plan;
  plan.queries = queries;
  plan.rows = rows;
  plan.pq_dim = pq_dim;
  plan.bits = bits;
  plan.k = k;
  plan.capacity = select_power_of_two(k + kPqThreads * kSelectUnroll);
  const int64_t fixed = kSelectHeaderBytes + plan.capacity * 8;
  plan.chunk = pq_dim;
  if (bits == 8) {
    plan.chunk = std::min(pq_dim, (limits.shared_per_block - fixed) / 1024);
    if (chunk > 0) plan.chunk = std::min(plan.chunk, chunk);
  }
  plan.shared_bytes = fixed + pq_table_bytes(bits, plan.chunk);
  plan.fits = plan.shared_bytes <= limits.shared_per_block;
  const int64_t resident = resident_blocks(limits, kPqThreads, plan.shared_bytes);
  const int64_t tile = pq_tile_rows(bits);
  plan.parts = std::clamp<int64_t>(2 * resident / std::max<int64_t>(queries, 1), 1, std::max<int64_t>(1, rows / kPqPartRows));
  if (parts > 0) plan.parts = parts;
  plan.part_rows = std::max<int64_t>(1, (rows + plan.parts * tile - 1) / (plan.parts * tile)) * tile;
  plan.parts = std::max<int64_t>(1, (rows + plan.part_rows - 1) / plan.part_rows);
  plan.blocks = std::min(queries * plan.parts, 16 * resident);
  plan.workspace_bytes = align_16(8 * queries) + align_16(16 * queries);
  if (plan.parts > 1) {
    plan.second = plan_select_stage(queries, plan.parts * k, k, false, limits, false, {});
    plan.workspace_bytes += align_16(8 * queries * plan.parts * k);
  }
  return plan;
}

inline std::string describe(const PqScanPlan& plan) {
  char text[200];
  std::snprintf(text, sizeof text,
                "pq scan of %lld rows, %lld codes of %lld bits: %lld parts of %lld, %lld blocks, %lld tables at a time",
                static_cast<long long>(plan.rows), static_cast<long long>(plan.pq_dim), static_cast<long long>(plan.bits),
                static_cast<long long>(plan.parts), static_cast<long long>(plan.part_rows), static_cast<long long>(plan.blocks),
                static_cast<long long>(plan.chunk));
  return text;
}

// A scan whose k * refine best rows are scored again by what is stored of them.
struct PqRefinePlan {
  PqScanPlan scan;  // of the shortlists
  int64_t k = 0;
  int64_t rescore_blocks = 0;
  SelectStage best;  // the k best of a shortlist
  bool fits = true;  // false: the scan does not, or a shortlist is longer than kSelectMaxK; the CPU does it then
  int64_t workspace_bytes = 0;
};

// Workspace: that of the scan; of the shortlists, scores (4 bytes), rows (8) and keys (8).
inline PqRefinePlan plan_pq_scan_refined(int64_t queries, int64_t rows, int64_t pq_dim, int64_t bits, int64_t k, int64_t refine,
                                         const DeviceLimits& limits, int64_t parts = 0, int64_t chunk = 0) {
  PqRefinePlan plan;
  plan.k = k;
  plan.fits = refine <= kSelectMaxK / k;
  if (!plan.fits) return plan;
  plan.scan = plan_pq_scan(queries, rows, pq_dim, bits, k * refine, limits, parts, chunk);
  plan.fits = plan.scan.fits;
  const int64_t listed = queries * plan.scan.k;
  plan.rescore_blocks = std::min((listed + kPqThreads / 32 - 1) / (kPqThreads / 32), 16 * resident_blocks(limits, kPqThreads, 0));
  plan.best = plan_select_stage(queries, plan.scan.k, k, false, limits, false, {});
  plan.workspace_bytes = align_16(plan.scan.workspace_bytes) + align_16(4 * listed) + 2 * align_16(8 * listed);
  return plan;
}

inline std::string describe(const PqRefinePlan& plan) {
  if (!plan.fits) return "pq scan with refine: not on the device";
  return describe(plan.scan) + "; " + std::to_string(plan.scan.k) + " rows a query rescored by " +
         std::to_string(plan.rescore_blocks) + " blocks, of which the " + std::to_string(plan.k) + " best are kept";
}

struct PqEncodePlan {
  NearestPlan nearest;
  int64_t bits = 8;
  int64_t workspace_bytes = 0;  // that of the search; with 4 bits also a byte for each code
};

inline PqEncodePlan plan_pq_encode(int64_t rows, int64_t pq_dim, int64_t bits, int64_t dsub, const DeviceLimits& limits) {
  PqEncodePlan plan;
  plan.nearest = plan_nearest(rows, dsub, int64_t{1} << bits, pq_dim, limits);
  plan.bits = bits;
  plan.workspace_bytes = align_16(plan.nearest.workspace_bytes) + (bits == 4 ? align_16(rows * pq_dim) : 0);
  return plan;
}

}  // namespace warpmem
