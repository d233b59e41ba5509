// Maximal marginal relevance: k of n candidates, one after another, each relevant and unlike those before it (Carbonell and Goldstein, "The use of MMR,
// diversity-based reranking for reordering documents and producing summaries", 1998).
//
//   first   the largest relevance                                                        value = w r
//   next    the largest  w r_i - (1 - w) max_j x_i . x_j  over j chosen before           value = that
//
// Products of rows are canonical and not rounded to float32, so they are finite for all finite rows; everything else is float64, two products and one
// difference, never fused. Ties go to the smaller position. A relevance of -inf says that there is no candidate at this place, as results of a search are
// padded.
#pragma once

#include <cmath>
#include <cstdint>

#include "hd.hpp"

namespace warpmem {

constexpr int64_t kMmrMaxCandidates = 1024;
constexpr int32_t kMmrNone = 0x7fffffff;  // the position of no candidate

// What one step compares. No candidate is a value of -inf at kMmrNone; that of a candidate is finite.
struct MmrChoice {
  double value = -INFINITY;
  int32_t position = kMmrNone;
};

WARPMEM_HD inline bool better(const MmrChoice& a, const MmrChoice& b) {
  return a.value > b.value || (a.value == b.value && a.position < b.position);
}

WARPMEM_HD inline double mmr_first_value(double weight, float relevance) { return weight * static_cast<double>(relevance) + 0.0; }

// `nearest` is the largest product with a row chosen before.
WARPMEM_HD inline double mmr_value(double weight, float relevance, double nearest) {
  const double gain = weight * static_cast<double>(relevance);
  const double loss = (1.0 - weight) * nearest;
  return gain - loss + 0.0;  // -0 becomes +0
}

}  // namespace warpmem
