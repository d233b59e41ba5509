// The canonical scorer: the one definition of similarity, normalisation, recency and score that every backend reproduces bit for bit.
//
// A product of two float32 numbers is exact in float64 (48 significand bits of 53), so fused and unfused multiply-add agree in the dot product.
// Every other multiply-add here must stay two operations: compile with -ffp-contract=off (nvcc: -fmad=false) and never with -ffast-math.
//
//   element i of a row  ->  accumulator i % 32          32 float64 accumulators
//   fold: 32 -> 16 -> 8 -> 4 -> 2 -> 1                  acc[j] += acc[j + w], w = 16, 8, 4, 2, 1
//   one rounding to float32
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "hd.hpp"
#include "keys.hpp"

namespace warpmem {

constexpr int kLanes = 32;

WARPMEM_HD inline int64_t padded_dim(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

// Adds the lanes together in the canonical order; destroys `acc`.
WARPMEM_HD inline double fold_lanes(double* acc) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
  }
  return acc[0];
}

// Unrounded canonical dot product of `n` elements. A short last chunk equals one padded with zeros: an accumulator is never -0, so adding +0 keeps
// its bits.
template <typename A, typename B>
WARPMEM_HD inline double dot_f64(const A* a, const B* b, int64_t n) {
  double acc[kLanes];
  for (int j = 0; j < kLanes; ++j) acc[j] = 0.0;
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) acc[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (int64_t i = whole; i < n; ++i) acc[i - whole] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return fold_lanes(acc);
}

WARPMEM_HD inline float dot(const float* a, const float* b, int64_t n) { return static_cast<float>(dot_f64(a, b, n)); }

// Unrounded canonical squared distance: float64 differences, squared, in the same 32 accumulators. The square of a difference is not exact, so it must
// not be fused with its addition.
template <typename A, typename B>
WARPMEM_HD inline double squared_distance_f64(const A* a, const B* b, int64_t n) {
  double acc[kLanes];
  for (int j = 0; j < kLanes; ++j) acc[j] = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    acc[i % kLanes] += difference * difference;
  }
  return fold_lanes(acc);
}

// The similarity of the metric l2: larger is nearer. +0, not -0, where the two agree.
WARPMEM_HD inline float negated_distance(const float* a, const float* b, int64_t n) {
  return 0.0f - static_cast<float>(squared_distance_f64(a, b, n));
}

// Writes the row scaled to unit length. Returns false, with `out` untouched, when the row is all zero or holds a NaN or an infinity.
// The squared length of finite float32 numbers neither overflows nor underflows in float64.
WARPMEM_HD inline bool normalize_row(const float* x, int64_t n, float* out) {
  const double squared = dot_f64(x, x, n);
  if (!(squared > 0.0) || !(squared <= 1.7976931348623157e308)) return false;
  const double inverse = 1.0 / sqrt(squared);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(static_cast<double>(x[i]) * inverse);
  return true;
}

// 2^x for x <= 0, in float64, from operations that IEEE 754 rounds correctly, so the bits are the same everywhere (library exp2 differs between
// platforms). x = n + f with |f| <= 1/2; 2^f = e^(f ln 2) by its Taylor series to degree 13, whose remainder is below 2^-57. Flushed to 0 below
// 2^-1022. Exactly 1 at 0.
WARPMEM_HD inline double exp2_neg(double x) {
  if (!(x >= -1022.0)) return 0.0;
  const double n = floor(x + 0.5);
  const double y = (x - n) * 0.6931471805599453;
  double p = 1.6059043836821613e-10;  // 1/13!
  p = p * y;
  p = p + 2.08767569878681e-09;  // 1/12!
  p = p * y;
  p = p + 2.505210838544172e-08;
  p = p * y;
  p = p + 2.755731922398589e-07;
  p = p * y;
  p = p + 2.7557319223985893e-06;
  p = p * y;
  p = p + 2.48015873015873e-05;
  p = p * y;
  p = p + 0.0001984126984126984;
  p = p * y;
  p = p + 0.001388888888888889;
  p = p * y;
  p = p + 0.008333333333333333;
  p = p * y;
  p = p + 0.041666666666666664;
  p = p * y;
  p = p + 0.16666666666666666;
  p = p * y;
  p = p + 0.5;
  p = p * y;
  p = p + 1.0;
  p = p * y;
  p = p + 1.0;
  const int64_t bits = (static_cast<int64_t>(n) + 1023) << 52;
  double scale;
  memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

// How the final score is put together. A weight of 0 switches its part off.
struct Ranking {
  double w_similarity = 1.0;
  double w_recency = 0.0;
  double w_priority = 0.0;
  double half_life = 1.0;       // microseconds, > 0
  int32_t recency_column = 0;   // int64 microseconds
  int32_t priority_column = 0;  // f64_to_key image
  int64_t now = 0;              // microseconds
};

// max(0, now - then) without overflow: a difference beyond int64 saturates.
WARPMEM_HD inline int64_t age_of(int64_t now, int64_t then) {
  if (then >= now) return 0;
  const uint64_t difference = static_cast<uint64_t>(now) - static_cast<uint64_t>(then);
  return difference > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<int64_t>(difference);
}

// `recency` and `priority` are read only when their weight is not 0. An infinite similarity (possible for rows that were not normalised) times a
// weight of 0, or a priority that is not a number, would give NaN, whose sign differs between processors: such a row gets -inf and comes last.
WARPMEM_HD inline float final_score(const Ranking& r, float similarity, int64_t recency, int64_t priority) {
  double s = r.w_similarity * static_cast<double>(similarity);
  if (r.w_recency != 0.0) {
    const double age = static_cast<double>(age_of(r.now, recency));
    const double part = r.w_recency * exp2_neg(-(age / r.half_life));
    s = s + part;
  }
  if (r.w_priority != 0.0) {
    const double part = r.w_priority * key_to_f64(priority);
    s = s + part;
  }
  if (s != s) return -INFINITY;
  return static_cast<float>(s) + 0.0f;  // -0 becomes +0
}

// A final score and what is added to it from outside: rounded once more. Never NaN, whatever `added` became since it was checked.
WARPMEM_HD inline float add_score(float score, float added) {
  const double s = static_cast<double>(score) + static_cast<double>(added);
  if (s != s) return -INFINITY;
  return static_cast<float>(s) + 0.0f;
}

}  // namespace warpmem
