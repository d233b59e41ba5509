// The exact scan on a device. No CUDA header is needed to include this. All pointers are to device memory.
#pragma once

#include <cstdint>

#include "../core/scan_plan.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

struct ScanArguments {
  const DevicePage* pages = nullptr;        // the page table: the plan's lists name slices of it
  const float* queries = nullptr;           // (n_queries, dim), finite
  const void* table = nullptr;              // plan.table_bytes, as pack_scan_table wrote them; aligned to 16 bytes
  const DeviceSegment* segments = nullptr;  // in the order in which the plan saw them
  const DeviceFilter* filters = nullptr;    // what segments name; bitmaps are device memory too
  const Term* terms = nullptr;              // checked by the caller as core/predicate.hpp's depth_after asks
  const int64_t* values = nullptr;          // of membership terms, ascending within a term
  double min_similarity = 0.0;              // rows below are no results

  // Row-major (n_queries, k), filled to the last entry: -inf, 0 and -1 behind the rows found, as cpu/scan.hpp's ScanOutput.
  float* scores = nullptr;
  float* similarities = nullptr;
  int64_t* list_ids = nullptr;
  int64_t* row_ids = nullptr;
  uint32_t* groups = nullptr;    // may be null
  uint32_t* ordinals = nullptr;  // may be null
  int32_t* counts = nullptr;     // (n_queries)
  uint64_t* counters =
      nullptr;  // null, or (2), which are added to: rows that passed the filters, by query, and rows that were rescored

  void* workspace = nullptr;  // plan.workspace_bytes, aligned to 16 bytes; contents do not matter
};

// Enqueues the scan on `stream` and returns. Results are those of cpu/scan, bit for bit. Throws std::runtime_error when a launch fails.
// Pages, tables and queries must stay as they are until the stream is through.
void scan(const DeviceScanPlan& plan, const ScanArguments& arguments, Stream stream);

// Rows (n, dim) to unit length, with the bits of core/score.hpp's normalize_row; those that are all zero or not finite become NaN. Errors as of scan().
void normalize_rows(const float* from, int64_t n, int64_t dim, float* to, const DeviceLimits& limits, Stream stream);

}  // namespace warpmem::cuda
