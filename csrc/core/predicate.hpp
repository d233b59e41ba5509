// Filters tested inside the scan: a conjunction of terms over the int64 columns, and a bitmap over row ids.
#pragma once

#include <cstdint>

#include "hd.hpp"
#include "page.hpp"

namespace warpmem {

enum TermOp : int32_t {
  kRange = 0,       // lo <= v <= hi
  kMembership = 1,  // v is one of values[lo .. hi), sorted ascending
};

struct Term {
  int32_t column;
  int32_t op;
  int64_t lo;
  int64_t hi;
};

WARPMEM_HD inline bool is_member(const int64_t* values, int64_t lo, int64_t hi, int64_t v) {
  while (lo < hi) {
    const int64_t middle = lo + (hi - lo) / 2;
    if (values[middle] < v) {
      lo = middle + 1;
    } else if (values[middle] > v) {
      hi = middle;
    } else {
      return true;
    }
  }
  return false;
}

WARPMEM_HD inline bool matches(const Term& term, const int64_t* values, int64_t v) {
  return term.op == kRange ? term.lo <= v && v <= term.hi : is_member(values, term.lo, term.hi, v);
}

// Bit `row_id` of the bitmap. A row id outside its words does not match.
WARPMEM_HD inline bool in_bitmap(const uint64_t* words, int64_t n_words, int64_t row_id) {
  if (row_id < 0 || row_id / 64 >= n_words) return false;
  return ((words[row_id / 64] >> (row_id % 64)) & 1u) != 0;
}

// The subset of `mask` (bit = slot of the page) that satisfies the term.
WARPMEM_HD inline uint64_t filter_term(const Term& term, const int64_t* values, const int64_t* column, uint64_t mask) {
  uint64_t keep = 0;
  if (term.op == kRange) {  // branch-free over all slots; what an empty slot holds is masked away
    for (int i = 0; i < kPageRows; ++i) {
      keep |= static_cast<uint64_t>(static_cast<unsigned>(term.lo <= column[i]) & static_cast<unsigned>(column[i] <= term.hi))
              << i;
    }
    return keep & mask;
  }
  for (int i = 0; i < kPageRows; ++i) {
    if (((mask >> i) & 1u) != 0 && is_member(values, term.lo, term.hi, column[i])) keep |= uint64_t{1} << i;
  }
  return keep;
}

WARPMEM_HD inline uint64_t filter_bitmap(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask) {
  uint64_t keep = 0;
  for (int i = 0; i < kPageRows; ++i) {
    if (((mask >> i) & 1u) != 0 && in_bitmap(words, n_words, row_ids[i])) keep |= uint64_t{1} << i;
  }
  return keep;
}

}  // namespace warpmem
