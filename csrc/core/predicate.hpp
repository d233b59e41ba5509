// Filters tested inside the scan: terms over the int64 columns, and a bitmap over row ids.
//
// Terms are a program for a stack of truth values: a test pushes one, AND and OR join the upper two, NOT turns the uppermost around, and what is left
// must all hold. Without the three it is a plain conjunction. The scan holds a page's 64 values in one word, so that an operation is one instruction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hd.hpp"
#include "page.hpp"

namespace warpmem {

enum TermOp : int32_t {
  kRange = 0,       // lo <= v <= hi
  kMembership = 1,  // v is one of values[lo .. hi), sorted ascending
  kAnd = 2,
  kOr = 3,
  kNot = 4,
};

constexpr int kMaxDepth = 64;  // of the stack

struct Term {
  int32_t column;
  int32_t op;
  int64_t lo;
  int64_t hi;
};

// What rows must satisfy. Terms and membership values lie in the request's common arrays; a term's lo and hi count from the filter's first value.
struct Filter {
  size_t terms_begin = 0;
  size_t terms_end = 0;
  size_t values_begin = 0;
  size_t values_end = 0;
  bool joined = false;               // whether AND, OR or NOT is among the terms
  const uint64_t* bitmap = nullptr;  // null: every row
  int64_t bitmap_words = 0;
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

// Joins what stands on the stack by kAnd, kOr or kNot and returns the new depth. Bits outside `mask` are of no interest.
WARPMEM_HD inline int join_terms(int32_t op, uint64_t* stack, int depth, uint64_t mask) {
  if (op == kNot) {
    stack[depth - 1] = mask & ~stack[depth - 1];
    return depth;
  }
  const uint64_t upper = stack[--depth];
  stack[depth - 1] = op == kAnd ? stack[depth - 1] & upper : stack[depth - 1] | upper;
  return depth;
}

// The depth of the stack behind an operation that met it at `depth`; -1 when too little stands on it, or too much would.
WARPMEM_HD inline int depth_after(int32_t op, int depth) {
  if (op == kNot) return depth < 1 ? -1 : depth;
  if (op == kAnd || op == kOr) return depth < 2 ? -1 : depth - 1;
  return depth == kMaxDepth ? -1 : depth + 1;
}

// What a term or a program says of all rows of a page, by what their columns lie between.
enum Verdict : int { kNone = 0, kSome = 1, kAll = 2 };

WARPMEM_HD inline Verdict judge_term(const Term& term, const int64_t* values, int64_t lo, int64_t hi) {
  if (term.op == kRange) {
    if (hi < term.lo || term.hi < lo) return kNone;
    return term.lo <= lo && hi <= term.hi ? kAll : kSome;
  }
  if (term.lo == term.hi || hi < values[term.lo] || values[term.hi - 1] < lo) return kNone;
  if (lo < hi) return kSome;
  return is_member(values, term.lo, term.hi, lo) ? kAll : kNone;
}

// Joins verdicts as join_terms joins words.
WARPMEM_HD inline int join_verdicts(int32_t op, int8_t* stack, int depth) {
  if (op == kNot) {
    stack[depth - 1] = static_cast<int8_t>(kAll - stack[depth - 1]);
    return depth;
  }
  const int8_t upper = stack[--depth];
  if (op == kAnd ? upper < stack[depth - 1] : upper > stack[depth - 1]) stack[depth - 1] = upper;
  return depth;
}

WARPMEM_HD inline uint64_t filter_bitmap(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask) {
  uint64_t keep = 0;
  for (int i = 0; i < kPageRows; ++i) {
    if (((mask >> i) & 1u) != 0 && in_bitmap(words, n_words, row_ids[i])) keep |= uint64_t{1} << i;
  }
  return keep;
}

}  // namespace warpmem
