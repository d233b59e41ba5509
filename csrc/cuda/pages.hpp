// Rows in pages of device memory: written, removed, moved. No CUDA header is needed to include this. All pointers are to device memory. Every function
// enqueues its work on `stream` and returns; std::runtime_error when a launch fails.
//
// Who reads meanwhile: a scan that may run beside an append reads the pages through a table of its own, in which the bits of the slots that are written are
// clear; other slots keep their bytes. A scan through this table runs before the append or behind it, in its stream or by an event: that a row's bit is set
// after the row is complete orders the writes, but a kernel's loads may be of what a cache held before, so that to see the bit is not to see the row.
#pragma once

#include <cstdint>

#include "../core/pages_plan.hpp"
#include "../core/scan_tables.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

struct AppendArguments {
  const PageLayout* layout = nullptr;  // in host memory; its codebooks are in device memory
  DevicePage* pages = nullptr;         // the page table
  const int64_t* places = nullptr;     // (n), no two equal, slots without a live row
  const float* vectors = nullptr;      // (n, dim), finite; for f16 below kHalfLimit
  const int64_t* row_ids = nullptr;    // (n)
  const uint32_t* ordinals = nullptr;  // (n)
  const int64_t* columns = nullptr;    // (n, n_columns)
  int64_t n = 0;
};

// Writes n rows with the bytes of PageLayout::pack, then sets their bits in the table.
void pages_append(const AppendArguments& arguments, const DeviceLimits& limits, Stream stream);

// Clears the bits of places (n); `removed`, unless null, is added the number of those that were set.
void pages_remove(DevicePage* pages, const int64_t* places, int64_t n, uint64_t* removed, const DeviceLimits& limits,
                  Stream stream);

struct CompactArguments {
  const PageLayout* layout = nullptr;  // in host memory
  DevicePage* pages = nullptr;         // the page table; pages that are moved to share no memory with others
  const PageMove* moves = nullptr;     // as plan_compact left them
  int64_t* rows = nullptr;             // (moves) receives how many rows each had; may be null
  void* workspace = nullptr;           // plan.workspace_bytes, aligned to 16 bytes
};

// Copies the live rows of each move to its new pages and sets their bits. The old pages stay as they are. A row for which a move has no room is not
// copied; `rows` tells.
void pages_compact(const CompactPlan& plan, const CompactArguments& arguments, Stream stream);

}  // namespace warpmem::cuda
