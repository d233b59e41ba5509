// Product-quantisation codes: `pq_dim` numbers of 4 or 8 bits a row, in two layouts.
//
// Packed, one row after another, `pq_code_size` bytes each:
//   8 bits   byte s = code of subspace s
//   4 bits   byte s/2 = code of subspace s (even, low nibble) and s+1 (odd, high nibble); a last odd nibble is 0
//
// Interleaved, for scans: blocks of 32 rows, in a block one group of bytes a subspace, so that one load brings the codes of many rows:
//   8 bits   [block][subspace][32]   byte j = code of row j
//   4 bits   [block][subspace][16]   byte j = code of row j (low nibble) and row j+16 (high nibble)
// Rows behind the last one have code 0.
//
// The quantised table of a 4-bit scan (one query, subspaces s, entries c), all in float64:
//   low_s = min_c lut[s][c]     bias = low_0 + low_1 + ... in this order     scale = max_s (max_c lut[s][c] - low_s) / 255
//   q[s][c] = floor((lut[s][c] - low_s) / scale + 1/2), 0 when scale is 0     score = (float)(bias + scale * sum_s q[s][code_s])
// Rows are ordered by the integer sum, then by index: exact, and the same wherever it is computed.
#pragma once

#include <cmath>
#include <cstdint>

#include "hd.hpp"

namespace warpmem {

constexpr int64_t kPqBlockRows = 32;
constexpr int64_t kPqMaxDim = 4096;

WARPMEM_HD inline int64_t pq_code_size(int64_t pq_dim, int64_t pq_bits) { return pq_bits == 8 ? pq_dim : (pq_dim + 1) / 2; }
WARPMEM_HD inline int64_t pq_blocks(int64_t rows) { return (rows + kPqBlockRows - 1) / kPqBlockRows; }
WARPMEM_HD inline int64_t pq_group_bytes(int64_t pq_bits) { return pq_bits == 8 ? 32 : 16; }

WARPMEM_HD inline uint8_t pq_get(const uint8_t* row, int64_t s, int64_t pq_bits) {
  if (pq_bits == 8) return row[s];
  return static_cast<uint8_t>((row[s / 2] >> (4 * (s % 2))) & 15);
}

// Writes code `c` of subspace s; for 4 bits the row must be zero there before.
WARPMEM_HD inline void pq_set(uint8_t* row, int64_t s, int64_t pq_bits, uint8_t c) {
  if (pq_bits == 8) {
    row[s] = c;
  } else {
    row[s / 2] = static_cast<uint8_t>(row[s / 2] | (c << (4 * (s % 2))));
  }
}

// Packed rows [first, first + 32) -> one block. `rows` is the number of packed rows from `packed` on; missing ones become 0.
WARPMEM_HD inline void pq_interleave(const uint8_t* packed, int64_t rows, int64_t pq_dim, int64_t pq_bits, uint8_t* block) {
  const int64_t size = pq_code_size(pq_dim, pq_bits);
  const int64_t n = rows < kPqBlockRows ? rows : kPqBlockRows;
  if (pq_bits == 8) {
    for (int64_t s = 0; s < pq_dim; ++s) {
      for (int64_t r = 0; r < kPqBlockRows; ++r) block[s * 32 + r] = r < n ? packed[r * size + s] : uint8_t{0};
    }
    return;
  }
  for (int64_t s = 0; s < pq_dim; s += 2) {
    for (int64_t j = 0; j < 16; ++j) {
      const unsigned front = j < n ? packed[j * size + s / 2] : 0u;
      const unsigned back = j + 16 < n ? packed[(j + 16) * size + s / 2] : 0u;
      block[s * 16 + j] = static_cast<uint8_t>((front & 15u) | (back & 15u) << 4);
      if (s + 1 < pq_dim) block[s * 16 + 16 + j] = static_cast<uint8_t>(front >> 4 | (back & 240u));
    }
  }
}

// Code of row r (0..31) of a block.
WARPMEM_HD inline uint8_t pq_block_get(const uint8_t* block, int64_t r, int64_t s, int64_t pq_bits) {
  if (pq_bits == 8) return block[s * 32 + r];
  return static_cast<uint8_t>((block[s * 16 + r % 16] >> (r < 16 ? 0 : 4)) & 15);
}

// One block -> its first `rows` packed rows; the inverse of pq_interleave.
WARPMEM_HD inline void pq_deinterleave(const uint8_t* block, int64_t rows, int64_t pq_dim, int64_t pq_bits, uint8_t* packed) {
  const int64_t size = pq_code_size(pq_dim, pq_bits);
  const int64_t n = rows < kPqBlockRows ? rows : kPqBlockRows;
  for (int64_t i = 0; i < n * size; ++i) packed[i] = 0;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t s = 0; s < pq_dim; ++s) pq_set(packed + r * size, s, pq_bits, pq_block_get(block, r, s, pq_bits));
  }
}

// Quantises one query's table lut[pq_dim][16]; see the top of this file.
WARPMEM_HD inline void pq_quantize_lut(const float* lut, int64_t pq_dim, uint8_t* quantized, double* scale, double* bias) {
  double widest = 0.0;
  double low_sum = 0.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    float low = lut[s * 16];
    float high = low;
    for (int c = 1; c < 16; ++c) {
      const float v = lut[s * 16 + c];
      low = v < low ? v : low;
      high = v > high ? v : high;
    }
    const double width = static_cast<double>(high) - static_cast<double>(low);
    widest = width > widest ? width : widest;
    low_sum += static_cast<double>(low);
  }
  const double step = widest / 255.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    float low = lut[s * 16];
    for (int c = 1; c < 16; ++c) low = lut[s * 16 + c] < low ? lut[s * 16 + c] : low;
    for (int c = 0; c < 16; ++c) {
      double q = 0.0;
      if (step > 0.0) q = floor((static_cast<double>(lut[s * 16 + c]) - static_cast<double>(low)) / step + 0.5);
      quantized[s * 16 + c] = static_cast<uint8_t>(q);
    }
  }
  *scale = step;
  *bias = low_sum;
}

WARPMEM_HD inline float pq_integer_score(uint32_t sum, double scale, double bias) {
  const double part = scale * static_cast<double>(sum);
  return static_cast<float>(bias + part) + 0.0f;
}

}  // namespace warpmem
