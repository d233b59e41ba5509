// A page: 64 rows of one partition in one block of memory.
//
//   offset 0            rows      float32 [64][padded_dim]      padded with zeros to a multiple of 32
//   columns_offset      columns   int64   [n_columns][64]       one column is 64 neighbours, so a test walks memory in order
//   row_ids_offset      row ids   int64   [64]
//   ordinals_offset     ordinals  uint32  [64]
//
// Which of the 64 slots hold a live row is not said here: the owner keeps a validity word, so that removing a row never writes into a page.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.hpp"
#include "score.hpp"

namespace warpmem {

constexpr int kPageRows = 64;

struct PageLayout {
  int64_t dim = 0;
  int64_t padded = 0;
  int64_t n_columns = 0;
  int64_t columns_offset = 0;
  int64_t row_ids_offset = 0;
  int64_t ordinals_offset = 0;
  int64_t bytes = 0;  // a multiple of 64

  PageLayout() = default;
  WARPMEM_HD PageLayout(int64_t dim_, int64_t n_columns_)
      : dim(dim_),
        padded(padded_dim(dim_)),
        n_columns(n_columns_),
        columns_offset(kPageRows * padded * static_cast<int64_t>(sizeof(float))),
        row_ids_offset(columns_offset + n_columns * kPageRows * static_cast<int64_t>(sizeof(int64_t))),
        ordinals_offset(row_ids_offset + kPageRows * static_cast<int64_t>(sizeof(int64_t))),
        bytes(ordinals_offset + kPageRows * static_cast<int64_t>(sizeof(uint32_t))) {}

  WARPMEM_HD const float* row(const unsigned char* page, int slot) const {
    return reinterpret_cast<const float*>(page) + slot * padded;
  }
  WARPMEM_HD float* row(unsigned char* page, int slot) const { return reinterpret_cast<float*>(page) + slot * padded; }
  WARPMEM_HD const int64_t* column(const unsigned char* page, int64_t c) const {
    return reinterpret_cast<const int64_t*>(page + columns_offset) + c * kPageRows;
  }
  WARPMEM_HD int64_t* column(unsigned char* page, int64_t c) const {
    return reinterpret_cast<int64_t*>(page + columns_offset) + c * kPageRows;
  }
  WARPMEM_HD const int64_t* row_ids(const unsigned char* page) const {
    return reinterpret_cast<const int64_t*>(page + row_ids_offset);
  }
  WARPMEM_HD int64_t* row_ids(unsigned char* page) const { return reinterpret_cast<int64_t*>(page + row_ids_offset); }
  WARPMEM_HD const uint32_t* ordinals(const unsigned char* page) const {
    return reinterpret_cast<const uint32_t*>(page + ordinals_offset);
  }
  WARPMEM_HD uint32_t* ordinals(unsigned char* page) const { return reinterpret_cast<uint32_t*>(page + ordinals_offset); }

  // Writes one row: `vector` has dim elements, `columns` n_columns.
  WARPMEM_HD void pack(unsigned char* page, int slot, int64_t row_id, uint32_t ordinal, const int64_t* columns,
                       const float* vector) const {
    float* const to = row(page, slot);
    memcpy(to, vector, static_cast<size_t>(dim) * sizeof(float));
    for (int64_t i = dim; i < padded; ++i) to[i] = 0.0f;
    for (int64_t c = 0; c < n_columns; ++c) column(page, c)[slot] = columns[c];
    row_ids(page)[slot] = row_id;
    ordinals(page)[slot] = ordinal;
  }

  // Reads one row back; the inverse of pack.
  WARPMEM_HD void unpack(const unsigned char* page, int slot, int64_t* row_id, uint32_t* ordinal, int64_t* columns,
                         float* vector) const {
    memcpy(vector, row(page, slot), static_cast<size_t>(dim) * sizeof(float));
    for (int64_t c = 0; c < n_columns; ++c) columns[c] = column(page, c)[slot];
    *row_id = row_ids(page)[slot];
    *ordinal = ordinals(page)[slot];
  }

  // Moves one row to a slot of another page of the same layout.
  WARPMEM_HD void copy_row(const unsigned char* from, int from_slot, unsigned char* to, int to_slot) const {
    memcpy(row(to, to_slot), row(from, from_slot), static_cast<size_t>(padded) * sizeof(float));
    for (int64_t c = 0; c < n_columns; ++c) column(to, c)[to_slot] = column(from, c)[from_slot];
    row_ids(to)[to_slot] = row_ids(from)[from_slot];
    ordinals(to)[to_slot] = ordinals(from)[from_slot];
  }
};

}  // namespace warpmem
