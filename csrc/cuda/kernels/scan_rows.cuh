// What the scan's kernels are given, and what they read of a page's rows: the canonical similarity of one row by a warp, lane j the accumulator j
// (canonical.cuh), and whether a row passes a filter, by one lane.
#pragma once

#include <cmath>

#include "../../core/scan_plan.hpp"
#include "canonical.cuh"

namespace warpmem::cuda {

struct ScanParams {
  const DevicePage* pages;
  const float* queries;  // (n_queries, dim)
  const DeviceScanTask* tasks;
  const uint32_t* part_numbers;
  const DeviceScanPart* parts;
  const DeviceSegment* segments;
  const DeviceFilter* filters;
  const Term* terms;
  const int64_t* values;
  int64_t dim;
  int64_t padded;
  int64_t n_columns;
  Storage storage;
  bool l2;
  bool screened;
  Ranking ranking;
  ExtraTerms extra;
  double min_similarity;
  float least;  // not above min_similarity
  int32_t k;
  const int8_t* codes;           // (n_queries, padded); screened
  const ScanQueryBound* bounds;  // (n_queries); screened
  uint32_t* next;                // of the tasks of this launch
  int64_t first_task;
  int64_t n_tasks;
  uint32_t* floors;    // by query: 0, or float_to_key of a score
  ScanItem* items;     // of the round's parts
  uint32_t* counts;    // by part
  uint64_t* counters;  // null, or rows seen and rows rescored
};

WARPMEM_DEVICE const int64_t* page_column(const ConstPage& page, int64_t c) {
  return reinterpret_cast<const int64_t*>(page.columns + c * page.stride);
}
WARPMEM_DEVICE uint32_t page_ordinal(const ScanParams& p, const ConstPage& page, int32_t slot) {
  return load_readonly(reinterpret_cast<const uint32_t*>(page_column(page, p.n_columns + 1)) + slot);
}
WARPMEM_DEVICE int64_t page_row_id(const ScanParams& p, const ConstPage& page, int32_t slot) {
  return load_readonly(page_column(page, p.n_columns) + slot);
}

// Canonical similarity ---------------------------------------------------------------------------------------------------------------------------

// Element i of a stored row, exactly.
struct F32Row {
  const float* row;
  WARPMEM_DEVICE float operator[](int64_t i) const { return load_readonly(row + i); }
};
struct F16Row {
  const uint16_t* row;
  WARPMEM_DEVICE float operator[](int64_t i) const { return half_to_float(load_readonly(row + i)); }
};
struct CodedRow {
  const unsigned char* coarse;
  const unsigned char* fine;
  int64_t padded;
  int32_t slot;
  float scale;
  WARPMEM_DEVICE float operator[](int64_t i) const {
    const int64_t line = i / kLineElements;
    const auto j = static_cast<int32_t>(i % kLineElements);
    const uint32_t high = load_readonly(coarse + coarse_offset(slot, line) + j % 4);
    const uint32_t low = load_readonly(fine + fine_offset(slot, line, padded) + j % 4);
    const uint32_t code = j < 4 ? (high << 4 & 0xf0u) | (low & 15u) : (high & 0xf0u) | low >> 4;
    return scale * static_cast<float>(static_cast<int32_t>(code) - kCodeBias);
  }
};

struct ScaledRow {
  float scale;
  const int8_t* codes;
  WARPMEM_DEVICE float operator[](int64_t i) const { return scale * static_cast<float>(load_readonly(codes + i)); }
};
struct DecodedRow {
  PqView pq;
  const unsigned char* plane;
  int64_t slot;
  WARPMEM_DEVICE float operator[](int64_t i) const { return pq_page_element(pq, plane, slot, i); }
};

template <typename Row>
WARPMEM_DEVICE float row_similarity(const Row& row, const float* query, int64_t dim, bool l2) {
  double sum = 0.0;
  if (l2) {
    WARPMEM_UNROLL_BY(4)
    for (int64_t i = lane_index(); i < dim; i += kLanes) {
      const double difference = static_cast<double>(load_readonly(query + i)) - static_cast<double>(row[i]);
      sum += difference * difference;
    }
    return 0.0f - static_cast<float>(warp_fold(sum));
  }
  WARPMEM_UNROLL_BY(4)
  for (int64_t i = lane_index(); i < dim; i += kLanes)
    sum += static_cast<double>(row[i]) * static_cast<double>(load_readonly(query + i));
  return static_cast<float>(warp_fold(sum));
}

// The same value in all lanes of the warp.
WARPMEM_DEVICE float canonical_similarity(const ScanParams& p, const ConstPage& page, int32_t slot, const float* query) {
  if (p.storage == Storage::kF32)
    return row_similarity(F32Row{reinterpret_cast<const float*>(page.rows) + slot * p.padded}, query, p.dim, p.l2);
  if (p.storage == Storage::kF16)
    return row_similarity(F16Row{reinterpret_cast<const uint16_t*>(page.rows) + slot * p.padded}, query, p.dim, p.l2);
  const int64_t at = coarse_offset(slot, p.padded / kLineElements + kScale);
  const float scale = load_readonly(reinterpret_cast<const float*>(page.coarse + at));
  return row_similarity(CodedRow{page.coarse, page.fine, p.padded, slot, scale}, query, p.dim, p.l2);
}

// The same of a page with product-quantisation codes.
WARPMEM_DEVICE float coded_similarity(const ScanParams& p, const PqView& pq, const ConstPage& page, int32_t slot,
                                      const float* query) {
  if (p.storage == Storage::kPq) return row_similarity(DecodedRow{pq, page.coarse, slot}, query, p.dim, p.l2);
  if (p.storage == Storage::kInt8) {
    const unsigned char* const from = page.rows + slot * (p.padded + static_cast<int64_t>(sizeof(float)));
    const float scale = load_readonly(reinterpret_cast<const float*>(from));
    return row_similarity(ScaledRow{scale, reinterpret_cast<const int8_t*>(from + sizeof scale)}, query, p.dim, p.l2);
  }
  return canonical_similarity(p, page, slot, query);
}

// Filters ----------------------------------------------------------------------------------------------------------------------------------------

// Whether the row in `slot` passes. The stack is a word: its lowest bit is the uppermost truth value.
WARPMEM_DEVICE bool passes_filter(const ScanParams& p, const DeviceFilter& filter, const ConstPage& page, int32_t slot) {
  uint64_t stack = ~uint64_t{0};  // true below the bottom, so that at the end all that is left can be tested at once
  for (int32_t t = filter.terms_begin; t < filter.terms_end; ++t) {
    const Term term = p.terms[t];
    if (term.op == kNot) {
      stack ^= 1;
    } else if (term.op == kAnd) {
      stack = ((stack >> 1) & (stack | ~uint64_t{1})) | uint64_t{1} << 63;
    } else if (term.op == kOr) {
      stack = (stack >> 1) | (stack & 1) | uint64_t{1} << 63;
    } else {
      const bool truth = matches(term, p.values + filter.values_begin, load_readonly(page_column(page, term.column) + slot));
      stack = stack << 1 | static_cast<uint64_t>(truth);
    }
  }
  if (stack != ~uint64_t{0}) return false;
  return filter.bitmap == nullptr || in_bitmap(filter.bitmap, filter.bitmap_words, page_row_id(p, page, slot));
}

}  // namespace warpmem::cuda
