// Product quantisation on a device. No CUDA header is needed to include this. All pointers are to device memory; results are those of cpu/pq, bit for
// bit. Every function enqueues its work on `stream` and returns; std::runtime_error when a launch fails.
#pragma once

#include <cstdint>

#include "../core/pq_plan.hpp"
#include "../core/rescoring.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

struct PqBooks {
  const float* codebooks = nullptr;  // (pq_dim, 1 << bits, dsub), finite
  int64_t pq_dim = 1;
  int64_t bits = 8;  // 4 or 8
  int64_t dsub = 1;
};

// rows (n, pq_dim * dsub), finite -> packed codes (n, pq_code_size). The workspace is aligned to 16 bytes.
void pq_encode(const PqEncodePlan& plan, const PqBooks& books, const float* rows, uint8_t* codes, void* workspace, Stream stream);

// packed codes -> rows (n, pq_dim * dsub)
void pq_decode(const PqBooks& books, const uint8_t* codes, int64_t n, float* rows, Stream stream);

// packed (n, pq_code_size) -> interleaved blocks of 32 rows; rows behind the last are 0
void pq_interleave(int64_t pq_dim, int64_t bits, const uint8_t* packed, int64_t n, uint8_t* blocks, Stream stream);

// queries (n, pq_dim * dsub) -> luts (n, pq_dim, 1 << bits): canonical dot products, or with `l2` negated canonical squared distances
void pq_lut(const PqBooks& books, const float* queries, int64_t n, bool l2, float* luts, Stream stream);

// codes: interleaved blocks, aligned to 4 bytes. luts (queries, pq_dim, 1 << bits), finite. values and indexes (queries, k), behind the rows -inf and
// -1. The workspace is aligned to 16 bytes. Throws std::runtime_error also when !plan.fits.
void pq_scan(const PqScanPlan& plan, const uint8_t* codes, const float* luts, float* values, int64_t* indexes, void* workspace,
             Stream stream);

// The same, and the k best by canonical similarity of what it found. Pointers of `rescoring` are to device memory, rows aligned to 4 bytes. Throws
// std::runtime_error also when !plan.fits.
void pq_scan_refined(const PqRefinePlan& plan, const uint8_t* codes, const float* luts, const Rescoring& rescoring, float* values,
                     int64_t* indexes, void* workspace, Stream stream);

}  // namespace warpmem::cuda
