// A page: 64 rows of one partition, in four pieces of memory. What every scan streams, what filters read and what only rescoring reads lie apart, so
// that each can be contiguous with the same piece of the next page (see csrc/cpu/arena.hpp). Within the head that holds for each column: it is touched by
// the scans that test or rank by it, and 512 bytes out of every page are read at a third of the rate of a long run.
//
//   coarse  with a screen or int8 storage: core/int8.hpp. With codebooks: the codes of core/pq_code.hpp instead. Else empty
//   fine    with a screen or int8 storage, without codebooks; else empty
//   head      columns   int64   [n_columns][64]    one column is 64 neighbours, so a test walks memory in order
//             row ids   int64   [64]                columns, row ids and ordinals lie PageMemory::stride bytes apart
//             ordinals  uint32  [64]
//   rows    float32 or float16 [64][padded_dim], padded with zeros to a multiple of 32; empty for int8 storage without codebooks, whose rows are its codes.
//           int8 with codebooks: [64] of a float32 scale and padded_dim codes. pq: empty, a row is what its codes stand for
//
// Which of the 64 slots hold a live row is not said here: the owner keeps a validity word, so that removing a row never writes into a page.
#pragma once

#include <cstdint>
#include <cstring>

#include "fp16.hpp"
#include "hd.hpp"
#include "int8.hpp"
#include "pq_code.hpp"
#include "score.hpp"

namespace warpmem {

constexpr int kPageRows = 64;
constexpr int64_t kColumnBytes = kPageRows * static_cast<int64_t>(sizeof(int64_t));  // of one column of a page

enum class Storage : int32_t { kF32, kF16, kInt8, kPq };

struct PageMemory {
  unsigned char* coarse = nullptr;
  unsigned char* fine = nullptr;
  unsigned char* columns = nullptr;
  unsigned char* rows = nullptr;
  int64_t stride = kColumnBytes;  // from one column to the next
};

struct ConstPage {
  const unsigned char* coarse = nullptr;
  const unsigned char* fine = nullptr;
  const unsigned char* columns = nullptr;
  const unsigned char* rows = nullptr;
  int64_t stride = kColumnBytes;  // from one column to the next

  ConstPage() = default;
  WARPMEM_HD ConstPage(const PageMemory& page)
      : coarse(page.coarse), fine(page.fine), columns(page.columns), rows(page.rows), stride(page.stride) {}
};

struct PageLayout {
  int64_t dim = 0;
  int64_t padded = 0;
  int64_t n_columns = 0;
  Storage storage = Storage::kF32;
  PqView pq;
  bool has_codes = false;    // of int8
  int64_t coarse_bytes = 0;  // of a page; each of the four is a multiple of 64
  int64_t fine_bytes = 0;
  int64_t head_bytes = 0;  // ordinals take the room of a column, half of which stays empty
  int64_t rows_bytes = 0;
  int64_t bytes = 0;  // the sum

  PageLayout() = default;
  WARPMEM_HD PageLayout(int64_t dim_, int64_t n_columns_, Storage storage_ = Storage::kF32, bool screen = false, PqView pq_ = {})
      : dim(dim_),
        padded(padded_dim(dim_)),
        n_columns(n_columns_),
        storage(storage_),
        pq(pq_),
        has_codes(pq_.pq_dim == 0 && (screen || storage_ == Storage::kInt8)),
        coarse_bytes(has_codes ? coarse_plane_bytes(padded) : pq_plane_bytes(pq_.pq_dim)),
        fine_bytes(has_codes ? fine_plane_bytes(padded) : 0),
        head_bytes((n_columns + 2) * kColumnBytes),
        rows_bytes(kPageRows * row_bytes()),
        bytes(coarse_bytes + fine_bytes + head_bytes + rows_bytes) {}

  WARPMEM_HD int64_t row_bytes() const {
    if (storage == Storage::kInt8) return pq.pq_dim > 0 ? padded + static_cast<int64_t>(sizeof(float)) : 0;
    return padded * (storage == Storage::kF32 ? 4 : storage == Storage::kF16 ? 2 : 0);
  }

  WARPMEM_HD const float* row(const ConstPage& page, int slot) const {
    return reinterpret_cast<const float*>(page.rows) + slot * padded;
  }
  WARPMEM_HD const uint16_t* half_row(const ConstPage& page, int slot) const {
    return reinterpret_cast<const uint16_t*>(page.rows) + slot * padded;
  }
  WARPMEM_HD float coarse_bound(const ConstPage& page, BoundPart part, int slot) const {
    float value;
    memcpy(&value, page.coarse + coarse_offset(slot, padded / kLineElements + part), sizeof value);
    return value;
  }
  WARPMEM_HD const int64_t* column(const ConstPage& page, int64_t c) const {
    return reinterpret_cast<const int64_t*>(page.columns + c * page.stride);
  }
  WARPMEM_HD const int64_t* row_ids(const ConstPage& page) const { return column(page, n_columns); }
  WARPMEM_HD const uint32_t* ordinals(const ConstPage& page) const {
    return reinterpret_cast<const uint32_t*>(column(page, n_columns + 1));
  }
  WARPMEM_HD float* row(const PageMemory& page, int slot) const { return const_cast<float*>(row(ConstPage(page), slot)); }
  WARPMEM_HD uint16_t* half_row(const PageMemory& page, int slot) const {
    return const_cast<uint16_t*>(half_row(ConstPage(page), slot));
  }
  WARPMEM_HD int64_t* column(const PageMemory& page, int64_t c) const { return const_cast<int64_t*>(column(ConstPage(page), c)); }
  WARPMEM_HD int64_t* row_ids(const PageMemory& page) const { return column(page, n_columns); }
  WARPMEM_HD uint32_t* ordinals(const PageMemory& page) const { return const_cast<uint32_t*>(ordinals(ConstPage(page))); }

  // Writes one row: `vector` has dim elements, `columns` n_columns.
  WARPMEM_HD void pack(const PageMemory& page, int slot, int64_t row_id, uint32_t ordinal, const int64_t* columns,
                       const float* vector) const {
    if (storage == Storage::kF32) {
      float* const to = row(page, slot);
      memcpy(to, vector, static_cast<size_t>(dim) * sizeof(float));
      for (int64_t i = dim; i < padded; ++i) to[i] = 0.0f;
    } else if (storage == Storage::kF16) {
      uint16_t* const to = half_row(page, slot);
      for (int64_t i = 0; i < dim; ++i) to[i] = float_to_half(vector[i]);
      for (int64_t i = dim; i < padded; ++i) to[i] = 0;
    }
    if (has_codes) pack_codes(page, slot, vector);
    if (pq.pq_dim > 0) pack_pq(page, slot, vector);
    for (int64_t c = 0; c < n_columns; ++c) column(page, c)[slot] = columns[c];
    row_ids(page)[slot] = row_id;
    ordinals(page)[slot] = ordinal;
  }

  // Elements first .. first + 31 of a stored row, exactly.
  WARPMEM_HD void load(const ConstPage& page, int slot, int64_t first, float* out) const {
    if (storage == Storage::kF32) {
      memcpy(out, row(page, slot) + first, kLanes * sizeof(float));
    } else if (storage == Storage::kF16) {
      const uint16_t* const from = half_row(page, slot) + first;
      for (int j = 0; j < kLanes; ++j) out[j] = half_to_float(from[j]);
    } else if (storage == Storage::kPq) {
      for (int j = 0; j < kLanes; ++j) out[j] = pq_page_element(pq, page.coarse, slot, first + j);
    } else if (pq.pq_dim > 0) {
      const unsigned char* const from = page.rows + slot * row_bytes();
      float scale;
      memcpy(&scale, from, sizeof scale);
      const auto* const codes = reinterpret_cast<const int8_t*>(from + sizeof scale) + first;
      for (int j = 0; j < kLanes; ++j) out[j] = scale * static_cast<float>(codes[j]);
    } else {
      const float scale = coarse_bound(page, kScale, slot);
      for (int j = 0; j < kLanes; j += kLineElements) {
        const int64_t line = (first + j) / kLineElements;
        unsigned char codes[kLineElements];
        join_codes(page.coarse + coarse_offset(slot, line), page.fine + fine_offset(slot, line, padded), codes);
        for (int i = 0; i < kLineElements; ++i) out[j + i] = scale * static_cast<float>(static_cast<int>(codes[i]) - kCodeBias);
      }
    }
  }

  // The stored row: what pack was given, up to the precision of the storage.
  WARPMEM_HD void unpack_vector(const ConstPage& page, int slot, float* vector) const {
    for (int64_t first = 0; first < padded; first += kLanes) {
      float part[kLanes];
      load(page, slot, first, part);
      const int64_t left = dim - first;
      memcpy(vector + first, part, static_cast<size_t>(left < kLanes ? left : kLanes) * sizeof(float));
    }
  }

  // Reads one row back.
  WARPMEM_HD void unpack(const ConstPage& page, int slot, int64_t* row_id, uint32_t* ordinal, int64_t* columns,
                         float* vector) const {
    unpack_vector(page, slot, vector);
    for (int64_t c = 0; c < n_columns; ++c) columns[c] = column(page, c)[slot];
    *row_id = row_ids(page)[slot];
    *ordinal = ordinals(page)[slot];
  }

  // Moves one row to a slot of another page of the same layout.
  WARPMEM_HD void copy_row(const ConstPage& from, int from_slot, const PageMemory& to, int to_slot) const {
    if (row_bytes() > 0)
      memcpy(to.rows + to_slot * row_bytes(), from.rows + from_slot * row_bytes(), static_cast<size_t>(row_bytes()));
    if (has_codes) {
      for (int64_t line = 0; line < padded / kLineElements + kCoarseParts; ++line) {  // codes, then bounds
        memcpy(to.coarse + coarse_offset(to_slot, line), from.coarse + coarse_offset(from_slot, line), 4);
      }
      for (int64_t line = 0; line < padded / kLineElements + kFineParts; ++line) {
        memcpy(to.fine + fine_offset(to_slot, line, padded), from.fine + fine_offset(from_slot, line, padded), 4);
      }
    }
    for (int64_t line = 0; line < pq_pairs(pq.pq_dim); ++line)
      to.coarse[line * 64 + to_slot] = from.coarse[line * 64 + from_slot];
    for (int64_t c = 0; c < n_columns; ++c) column(to, c)[to_slot] = column(from, c)[from_slot];
    row_ids(to)[to_slot] = row_ids(from)[from_slot];
    ordinals(to)[to_slot] = ordinals(from)[from_slot];
  }

 private:
  // The codes and bounds of the row in `slot`. They describe the stored row: for float16 the rounded one (already in the page), for int8 the codes
  // themselves.
  WARPMEM_HD void pack_codes(const PageMemory& page, int slot, const float* vector) const {
    float part[kLanes];
    float largest[kLanes] = {};  // by lane, so that a compiler sees independent chains, here and below
    for (int64_t first = 0; first < padded; first += kLanes) {
      source(page, slot, first, vector, part);
      for (int j = 0; j < kLanes; ++j) largest[j] = fabsf(part[j]) > largest[j] ? fabsf(part[j]) : largest[j];
    }
    for (int j = 1; j < kLanes; ++j) largest[0] = largest[j] > largest[0] ? largest[j] : largest[0];
    const float scale = scale_of(largest[0]);
    const float inverse = inverse_of(scale);
    double squares[kLanes] = {};
    float errors[kLanes] = {};
    float coarse_errors[kLanes] = {};
    for (int64_t first = 0; first < padded; first += kLanes) {
      source(page, slot, first, vector, part);
      float code[kLanes];
      int32_t biased[kLanes];
      unsigned char codes[kLanes];
      for (int j = 0; j < kLanes; ++j) code[j] = code_of(part[j], inverse);
      for (int j = 0; j < kLanes; ++j) biased[j] = static_cast<int32_t>(code[j]) + kCodeBias;
      for (int j = 0; j < kLanes; ++j) codes[j] = static_cast<unsigned char>(biased[j]);
      if (storage == Storage::kInt8) {
        for (int j = 0; j < kLanes; ++j) part[j] = code[j] * scale;
      }
      for (int j = 0; j < kLanes; ++j) {
        const float error = part[j] - code[j] * scale;
        errors[j] += error * error;
      }
      for (int j = 0; j < kLanes; ++j) {
        const float error = part[j] - static_cast<float>((biased[j] & 0xf0) - kCoarseBias) * scale;
        coarse_errors[j] += error * error;
      }
      for (int j = 0; j < kLanes; ++j) squares[j] += static_cast<double>(part[j]) * static_cast<double>(part[j]);
      for (int j = 0; j < kLanes; j += kLineElements) {
        const int64_t line = (first + j) / kLineElements;
        split_codes(codes + j, page.coarse + coarse_offset(slot, line), page.fine + fine_offset(slot, line, padded));
      }
    }
    double error = 0.0;
    double coarse_error = 0.0;
    for (int j = 0; j < kLanes; ++j) {
      error += static_cast<double>(errors[j]);
      coarse_error += static_cast<double>(coarse_errors[j]);
    }
    const RowBound bound = bound_row(scale, fold_lanes(squares), coarse_error, error);
    const float parts[kCoarseParts] = {bound.scale, bound.coarse_error, bound.norm, bound.square};
    for (int p = 0; p < kCoarseParts; ++p) {
      memcpy(page.coarse + coarse_offset(slot, padded / kLineElements + p), &parts[p], sizeof parts[p]);
    }
    memcpy(page.fine + fine_offset(slot, padded / kLineElements + kError, padded), &bound.error, sizeof bound.error);
  }

  // The pq codes of a row, and for int8 storage the row. The codes are those of the vector as it was given.
  WARPMEM_HD void pack_pq(const PageMemory& page, int slot, const float* vector) const {
    if (storage == Storage::kInt8) {
      float largest = 0.0f;
      for (int64_t i = 0; i < dim; ++i) largest = fabsf(vector[i]) > largest ? fabsf(vector[i]) : largest;
      const float scale = scale_of(largest);
      const float inverse = inverse_of(scale);
      unsigned char* const to = page.rows + slot * row_bytes();
      memcpy(to, &scale, sizeof scale);
      auto* const codes = reinterpret_cast<int8_t*>(to + sizeof scale);
      for (int64_t i = 0; i < dim; ++i) codes[i] = static_cast<int8_t>(code_of(vector[i], inverse));
      for (int64_t i = dim; i < padded; ++i) codes[i] = 0;
    }
    for (int64_t s = 0; s < pq.pq_dim; s += 2) {  // a row may end inside a piece: zeros stand behind it
      unsigned code = 0;
      for (int64_t half = 0; half < 2 && s + half < pq.pq_dim; ++half) {
        float piece[kPqMaxPiece];
        const float* const from = pq_piece(vector, dim, (s + half) * pq.dsub, pq.dsub, piece);
        code |= static_cast<unsigned>(pq_nearest(pq.books + (s + half) * pq.dsub * 16, from, pq.dsub)) << (4 * half);
      }
      page.coarse[s / 2 * 64 + slot] = static_cast<unsigned char>(code);
    }
  }

  WARPMEM_HD void source(const ConstPage& page, int slot, int64_t first, const float* vector, float* out) const {
    if (storage != Storage::kInt8) {
      load(page, slot, first, out);
      return;
    }
    for (int j = 0; j < kLanes; ++j) out[j] = first + j < dim ? vector[first + j] : 0.0f;
  }
};

}  // namespace warpmem
