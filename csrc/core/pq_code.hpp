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
// A page of 64 rows (core/page.hpp) keeps 4-bit codes in lines of 64 bytes, one for each pair of subspaces: byte r of line p belongs to row r alone, its low
// nibble to subspace 2p, its high nibble to 2p + 1 (0 where there is none). So a row is written without touching its neighbours, and the sums of a line
// stand in the order of the rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "hd.hpp"

namespace warpmem {

constexpr int64_t kPqBlockRows = 32;
constexpr int64_t kPqMaxDim = 4096;

// codebooks [pq_dim][1 << bits][dsub]; a row has pq_dim * dsub elements.
struct PqShape {
  int64_t pq_dim = 1;
  int64_t bits = 8;  // 4 or 8
  int64_t dsub = 1;
  int64_t dim() const { return pq_dim * dsub; }
  int64_t entries() const { return int64_t{1} << bits; }
};

WARPMEM_HD inline int64_t pq_code_size(int64_t pq_dim, int64_t pq_bits) { return pq_bits == 8 ? pq_dim : (pq_dim + 1) / 2; }
WARPMEM_HD inline int64_t pq_blocks(int64_t rows) { return (rows + kPqBlockRows - 1) / kPqBlockRows; }
WARPMEM_HD inline int64_t pq_group_bytes(int64_t pq_bits) { return pq_bits == 8 ? 32 : 16; }

WARPMEM_HD inline uint8_t pq_get(const uint8_t* row, int64_t s, int64_t pq_bits) {
  if (pq_bits == 8) return row[s];
  return static_cast<uint8_t>((row[s / 2] >> (4 * (s % 2))) & 15);
}

// The codebooks of a pool's codes: 16 entries of each of pq_dim subspaces, entries side by side, books[pq_dim][dsub][16]. pq_dim = 0: no codes.
struct PqView {
  int64_t pq_dim = 0;
  int64_t dsub = 0;
  const float* books = nullptr;
};

constexpr int64_t kPqPageSubspaces = 256;  // 256 * 255 < 2^16

WARPMEM_HD inline int64_t pq_pairs(int64_t pq_dim) { return (pq_dim + 1) / 2; }
WARPMEM_HD inline int64_t pq_plane_bytes(int64_t pq_dim) { return pq_pairs(pq_dim) * 64; }

WARPMEM_HD inline uint8_t pq_page_get(const uint8_t* plane, int64_t slot, int64_t s) {
  return static_cast<uint8_t>((plane[s / 2 * 64 + slot] >> (4 * (s % 2))) & 15);
}

// The entry of one book [dsub][16] nearest to x: squared distances summed in float32 in the order of the elements, ties to the smaller number. `x` is a
// pointer, or whatever else gives x[i].
template <typename Piece>
WARPMEM_HD inline uint8_t pq_nearest(const float* book, const Piece& x, int64_t dsub) {
  float distance[16] = {};
  for (int64_t i = 0; i < dsub; ++i) {
    for (int c = 0; c < 16; ++c) {
      const float difference = x[i] - book[i * 16 + c];
      distance[c] += difference * difference;
    }
  }
  float least[8];
  for (int c = 0; c < 8; ++c) least[c] = distance[c + 8] < distance[c] ? distance[c + 8] : distance[c];
  for (int c = 0; c < 4; ++c) least[c] = least[c + 4] < least[c] ? least[c + 4] : least[c];
  for (int c = 0; c < 2; ++c) least[c] = least[c + 2] < least[c] ? least[c + 2] : least[c];
  const float best = least[1] < least[0] ? least[1] : least[0];
  int at = 15;
  for (int c = 14; c >= 0; --c) at = distance[c] == best ? c : at;
  return static_cast<uint8_t>(at);
}

constexpr int64_t kPqMaxPiece = 512;  // elements of a subspace

// Elements first .. first + dsub - 1 of a vector of dim elements, in place or, where it ends, copied to `piece` with zeros behind.
WARPMEM_HD inline const float* pq_piece(const float* vector, int64_t dim, int64_t first, int64_t dsub, float* piece) {
  if (first + dsub <= dim) return vector + first;
  for (int64_t i = 0; i < dsub; ++i) piece[i] = first + i < dim ? vector[first + i] : 0.0f;
  return piece;
}

// Element i of the row that the codes stand for.
WARPMEM_HD inline float pq_page_element(const PqView& pq, const uint8_t* plane, int64_t slot, int64_t i) {
  const int64_t s = i / pq.dsub;
  return pq.books[i * 16 + pq_page_get(plane, slot, s)];
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

// The least and the largest of 16 numbers, by halves, so that a compiler compares them side by side.
WARPMEM_HD inline void pq_range(const float* entries, float* low, float* high) {
  float least[8];
  float most[8];
  for (int c = 0; c < 8; ++c) {
    least[c] = entries[c + 8] < entries[c] ? entries[c + 8] : entries[c];
    most[c] = entries[c + 8] > entries[c] ? entries[c + 8] : entries[c];
  }
  for (int width = 4; width > 0; width /= 2) {
    for (int c = 0; c < width; ++c) {
      least[c] = least[c + width] < least[c] ? least[c + width] : least[c];
      most[c] = most[c + width] > most[c] ? most[c + width] : most[c];
    }
  }
  *low = least[0];
  *high = most[0];
}

// Quantises one query's table lut[pq_dim][16]; see the top of this file.
WARPMEM_HD inline void pq_quantize_lut(const float* lut, int64_t pq_dim, uint8_t* quantized, double* scale, double* bias) {
  double widest = 0.0;
  double low_sum = 0.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    float low;
    float high;
    pq_range(lut + s * 16, &low, &high);
    const double width = static_cast<double>(high) - static_cast<double>(low);
    widest = width > widest ? width : widest;
    low_sum += static_cast<double>(low);
  }
  const double step = widest / 255.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    float low;
    float high;
    pq_range(lut + s * 16, &low, &high);
    for (int c = 0; c < 16; ++c) {
      const double above = static_cast<double>(lut[s * 16 + c]) - static_cast<double>(low);
      const double q = step > 0.0 ? above / step + 0.5 : 0.0;
      quantized[s * 16 + c] = static_cast<uint8_t>(static_cast<int32_t>(q));  // not negative, so this is floor
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
