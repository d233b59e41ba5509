// The scan of pages with product-quantisation codes on a device. No CUDA header is needed to include this. All pointers are to device memory.
#pragma once

#include <cstdint>

#include "../core/scan_pq_plan.hpp"
#include "scan.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

// A pool's codebooks in the layouts of cpu/pq_books.hpp: entries from `dim` on are 0.
struct PqPoolBooks {
  const float* codebooks = nullptr;  // [pq_dim][16][dsub]
  const float* beside = nullptr;     // [pq_dim][dsub][16]; kPq storage alone
  const float* largest = nullptr;    // (pq_dim * dsub): magnitude of an entry, by element
};

// scan: as for scan(); `table` is that of pack_pq_table, the workspace plan.workspace_bytes, and counters (3) or null: rows that passed the filters, by query;
// rows that were rescored; queries of kPq storage for which more than the shortlist was looked at.
// Results are those of cpu/scan_pq, bit for bit. Throws std::runtime_error when a launch fails, or !plan.fits.
void scan_pq(const DevicePqPlan& plan, const PqPoolBooks& books, const ScanArguments& scan, Stream stream);

}  // namespace warpmem::cuda
