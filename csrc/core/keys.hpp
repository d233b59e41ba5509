// Order-preserving images of floating-point numbers, and the total order of search candidates.
//
// An IEEE 754 number is sign and magnitude, so its bits order like an integer except that negative numbers run backwards. Flipping all bits but
// the sign of a negative number (signed image), or all bits of a negative and the sign of a positive (unsigned image), repairs that.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.hpp"

namespace warpmem {

// a < b  <=>  float_to_key(a) < float_to_key(b) for numbers; -0 orders just below +0.
WARPMEM_HD inline uint32_t float_to_key(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

WARPMEM_HD inline float key_to_float(uint32_t key) {
  const uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Columns are int64; a column of float64 numbers holds this image, so one range test serves both. The map is its own inverse on the bits.
WARPMEM_HD inline int64_t f64_to_key(double value) {
  int64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >= 0 ? bits : bits ^ INT64_MAX;
}

// The least int64, the image of no number but a NaN, stands for a missing value and counts as 0.
WARPMEM_HD inline double key_to_f64(int64_t key) {
  if (key == INT64_MIN) return 0.0;
  const int64_t bits = key >= 0 ? key : key ^ INT64_MAX;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// One row that may enter a result.
struct Candidate {
  float score;
  float similarity;
  uint32_t group;    // rank of the scope in the call
  uint32_t ordinal;  // order of first addition inside a partition
  int64_t row_id;
  int64_t list_id;
};

// True when `a` stands before `b` in a result: score descending, then group, ordinal and row id ascending. The list id decides only between rows
// of different lists that agree in all of these, so that the order is total. Scores are never NaN (see final_score).
WARPMEM_HD inline bool better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.group != b.group) return a.group < b.group;
  if (a.ordinal != b.ordinal) return a.ordinal < b.ordinal;
  if (a.row_id != b.row_id) return a.row_id < b.row_id;
  return a.list_id < b.list_id;
}

}  // namespace warpmem
