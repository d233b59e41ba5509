// What a screen has to know of the final score: upper bounds of what recency and priority add, and from which bound on a row may still be a result.
//
//   row may be a result   =>   not (bound of its similarity + extra_bound < score_floor)
//
// Exact scores are core/score.hpp's; these only decide which rows are scored at all.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "hd.hpp"
#include "keys.hpp"
#include "score.hpp"

namespace warpmem {

// The largest float32 that is not above x.
WARPMEM_HD inline float not_above(double x) {
  const auto f = static_cast<float>(x);
  return static_cast<double>(f) > x ? key_to_float(float_to_key(f) - 1) : f;
}

// The bound is on the similarity from above, so it says something about the score only when the weight is positive.
inline bool can_bound(const Ranking& r) {
  return r.w_similarity > 0.0 && std::isfinite(1.0 / r.half_life) && std::isfinite(r.w_recency / r.w_similarity) &&
         std::isfinite(r.w_priority / r.w_similarity);
}

// A ranking as a screen uses it: weights are divided by that of the similarity.
struct ExtraTerms {
  double now = 0.0;
  double per_half_life = 1.0;
  double w_recency = 0.0;
  double w_priority = 0.0;
};

inline ExtraTerms extra_terms(const Ranking& r) {
  return ExtraTerms{static_cast<double>(r.now), 1.0 / r.half_life, r.w_recency / r.w_similarity, r.w_priority / r.w_similarity};
}

// An upper bound of  w_recency * 2^(-age / half_life) + w_priority * priority, above the value that core/score.hpp computes, by at least 2e-6 of the
// magnitude of each part and by at most about 7 % of the first. -1e37 instead of anything less; NaN where the priority is not a number. Between powers of
// two the bits of a float, read as a number, interpolate linearly; 2^-y is convex, so such a chord lies above it, by 6.2 % at most.
WARPMEM_HD inline float extra_bound(const ExtraTerms& terms, bool by_recency, int64_t recency, bool by_priority,
                                    int64_t priority) {
  double sum = 0.0;
  if (by_recency) {
    // Of the conversion of times to float64, towards the higher score.
    const double tilt = terms.w_recency > 0.0 ? -4.440892098500626e-16 : 4.440892098500626e-16;  // 2^-51
    const double chord = terms.w_recency > 0.0 ? 1.00003 : 0.94;
    const double longest = 9223372036854775808.0;  // where age_of saturates
    const auto then = static_cast<double>(recency);
    const double age = terms.now - then + tilt * (fabs(terms.now) + fabs(then));
    double y = (age > 0.0 ? age < longest ? age : longest : 0.0) * terms.per_half_life;
    if (!(y < 126.0)) y = 126.0;
    const auto bits = static_cast<int32_t>(static_cast<float>(127.0 - y) * 8388608.0f);
    float value;
    memcpy(&value, &bits, sizeof value);
    sum = terms.w_recency * (static_cast<double>(value) * chord) + fabs(terms.w_recency) * 1e-30;
  }
  if (by_priority) {
    const double part = terms.w_priority * key_to_f64(priority);
    sum += part + fabs(part) * 3e-6;
  }
  const auto value = static_cast<float>(sum + fabs(sum) * 1e-6);
  return value < -1e37f ? -1e37f : value;
}

// An extra and what else is added to a score: above their sum by at least 3e-6 of the latter's magnitude. NaN where the extra is.
inline float add_bound(const Ranking& r, float extra, float added) {
  const double part = static_cast<double>(added) / r.w_similarity;
  const double sum = static_cast<double>(extra) + part + fabs(part) * 3e-6;
  const auto value = static_cast<float>(sum + fabs(sum) * 1e-6);
  return value < -1e37f ? -1e37f : value;
}

// A row whose bound (on similarity + extra) is below this has a final score below `threshold`: the slack exceeds the rounding errors of final_score, under
// 2^-22 of the magnitudes of its parts. Those of the extra are covered in extra_bound; that of the similarity's part is at most |t| plus those.
// `least` is a similarity not above the smallest that is wanted. `added`: extras have something else in them, by add_bound.
WARPMEM_HD inline float score_floor(const Ranking& r, float least, float threshold, bool added = false) {
  const bool ranked = added || r.w_recency != 0.0 || r.w_priority != 0.0;
  float floor = threshold;
  if (ranked || r.w_similarity != 1.0) {
    const double t = threshold;
    const double low = (t - fabs(t) * 2e-6 - 1e-30) / r.w_similarity;
    floor = low - low == 0.0 ? not_above(low) : -INFINITY;  // finite?
  }
  if (ranked) return floor;
  return floor < least ? least : floor;
}

}  // namespace warpmem
