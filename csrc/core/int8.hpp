// Int8 images of rows and queries, and a proven upper bound of the canonical similarity from them.
//
// A row x is stored as codes c (-127 .. 127) and a scale s. With u = c + 128, the upper four bits of u form the coarse plane and the lower four the fine
// plane. A scan reads the coarse planes, which say x to about 4 bits:  x^ = s c^,  c^ = 16 (u >> 4) - 120.  Only where that is not enough it reads the fine
// plane of the 16 rows in question and has all 8:  x^ = s c.
//
// Rows are interleaved by 4 elements, and a byte holds two nibbles, so that 64 neighbouring bytes hold 8 neighbouring elements of 16 rows:
//
//   line l:  | r0: byte 0..3 | r1: ... | ... | r15: ... |      byte j of a row: element 8l + j in the low nibble, element 8l + 4 + j in the high one
//
// A 4-element dot product instruction then leaves 16 rows' sums side by side, and never needs to add across them. The coarse plane is streamed: its lines
// are those of all 64 rows, so that a query element is fetched once for all. The fine plane is visited 16 rows at a time. What else a scan needs of the
// rows follows their lines:
//
//   coarse plane:  | line 0 of rows 0-63 | line 1 | ... | scale | coarse error | norm | square of rows 0-63 |
//   fine plane:    | line 0 of rows 0-15 | line 1 | ... | error of rows 0-15 | line 0 of rows 16-31 | ...
//
// The bound. Let q^ = t d be the quantised query, e = |x - x^| and f = |q - q^| (Euclidean), for either x^. Then by Cauchy and Schwarz
//
//   x.q = x^.q^ + x^.(q - q^) + (x - x^).q  <=  s t (c^.d) + |x^| f + e |q|                                            (1)
//
// c^.d is an integer below 2^31 (65,536 * 128 * 127) and exact. What is compared is not x.q but the canonical similarity, and (1) is evaluated in float32, so
// slack is needed:
//   - float64 sums of at most 65,536 products, folded from 32 lanes, and one rounding to float32: at most 2^-23 |x||q| above x.q;
//   - evaluating (1): every input is rounded up, except s t, which is rounded, and c^.d, which is rounded to float32; at most eight roundings in all,
//     fused or not, each at most 2^-24 of M = |x^||q^| + |x^| f' + e Q', where f' and Q' stand for what is used below: at most 2^-21 M.
// We use Q' = |q| (1 + 2^-18) and f' = f (1 + 2^-18) + 2^-18 (|q| + |q^|). That adds at least 2^-18 (e |q| + |x^|(|q| + |q^|)) to (1). As
// |x| <= |x^| + e and f <= |q| + |q^|, M is at most (1 + 2^-17)(2 |x^| (|q| + |q^|) + e |q|), so what is added exceeds 2^-23 |x||q| + 2^-21 M.
//   - underflow: a product that is subnormal may err by 2^-150; s t is multiplied by at most 2^31. The constant kBoundFloor = 2^-100 covers it.
//   - overflow: rows with |x^| >= 2^60 get e = infinity, queries with |q| >= 2^60 are not screened, so nothing else overflows. A bound that is infinite
//     or NaN passes every test "not below".
//
// For the metric l2 the similarity is -|q - x|^2 = 2 x.q - |q|^2 - |x|^2. Its canonical value is at most 2^-22 (|q|^2 + |x|^2) above (one rounding
// and float64 sums, relative to |q - x|^2 <= 2|q|^2 + 2|x|^2). The squares are used scaled by 1 - 2^-18 and rounded down, which covers that and the
// roundings of the two additions more; the first part is bounded as above.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "hd.hpp"

namespace warpmem {

constexpr int kCodeRows = 16;     // rows that share a line of codes
constexpr int kLineElements = 8;  // elements of one row in a line
constexpr int kCodeBias = 128;
constexpr int kCoarseBias = 120;
constexpr int kMaxCode = 127;
constexpr float kBoundFloor = 7.888609052210118e-31f;  // 2^-100
constexpr double kBoundSlack = 3.814697265625e-06;     // 2^-18
constexpr double kBoundLimit = 1152921504606846976.0;  // 2^60

constexpr int kCoarseParts = 4;
constexpr int kFineParts = 1;
enum BoundPart : int { kScale, kCoarseError, kNorm, kSquare, kError = 0 };

// Bytes of the planes of 64 rows.
WARPMEM_HD inline int64_t coarse_plane_bytes(int64_t padded) { return 64 * (padded / 2 + kCoarseParts * 4); }
WARPMEM_HD inline int64_t fine_plane_bytes(int64_t padded) { return 64 * (padded / 2 + kFineParts * 4); }

// Offset of the four bytes with elements 8 * line .. 8 * line + 7 of the row in `slot`. Behind the last line follow the float32 numbers.
WARPMEM_HD inline int64_t coarse_offset(int64_t slot, int64_t line) { return (line * 64 + slot) * 4; }
WARPMEM_HD inline int64_t fine_offset(int64_t slot, int64_t line, int64_t padded) {
  return slot / kCodeRows * (fine_plane_bytes(padded) / 4) + (line * kCodeRows + slot % kCodeRows) * 4;
}

// Splits eight codes + 128 into four bytes of each plane, and back.
WARPMEM_HD inline void split_codes(const unsigned char* codes, unsigned char* coarse, unsigned char* fine) {
  uint32_t first, second;  // four codes in one word; the order of its bytes does not matter here
  memcpy(&first, codes, sizeof first);
  memcpy(&second, codes + 4, sizeof second);
  const uint32_t upper = (first >> 4 & 0x0f0f0f0fu) | (second & 0xf0f0f0f0u);
  const uint32_t lower = (first & 0x0f0f0f0fu) | (second << 4 & 0xf0f0f0f0u);
  memcpy(coarse, &upper, sizeof upper);
  memcpy(fine, &lower, sizeof lower);
}
WARPMEM_HD inline void join_codes(const unsigned char* coarse, const unsigned char* fine, unsigned char* codes) {
  for (int j = 0; j < 4; ++j) {
    codes[j] = static_cast<unsigned char>((coarse[j] << 4) | (fine[j] & 0x0fu));
    codes[j + 4] = static_cast<unsigned char>((coarse[j] & 0xf0u) | (fine[j] >> 4));
  }
}

// The smallest float32 that is not below x, for x >= 0.
WARPMEM_HD inline float round_up(double x) {
  float f = static_cast<float>(x);
  if (static_cast<double>(f) < x) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    ++bits;
    memcpy(&f, &bits, sizeof f);
  }
  return f;
}

// The largest float32 that is not above x, for x >= 0.
WARPMEM_HD inline float round_down(double x) {
  float f = static_cast<float>(x);
  if (static_cast<double>(f) > x) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    --bits;
    memcpy(&f, &bits, sizeof f);
  }
  return f;
}

constexpr float kLeastScale = 7.52316384526264e-37f;  // 2^-120: rows that would need less become zero

// The scale of a row whose largest magnitude is `largest`: canonical, as int8 storage returns it. Rounded down, so that 127 * scale stays finite.
WARPMEM_HD inline float scale_of(float largest) {
  const float scale = round_down(static_cast<double>(largest) / static_cast<double>(kMaxCode));
  return scale < kLeastScale ? 0.0f : scale;
}

// 1 / scale, or 0 for a row without extent.
WARPMEM_HD inline float inverse_of(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }

// x * inverse rounded to an integer, ties to even: adding 1.5 * 2^23 leaves no room for a fraction.
WARPMEM_HD inline float code_of(float x, float inverse) {
  const float rounded = (x * inverse + 12582912.0f) - 12582912.0f;
  const float low = rounded < -127.0f ? -127.0f : rounded;
  return low > 127.0f ? 127.0f : low;
}

// What a page keeps of a row beside its codes.
struct RowBound {
  float scale;
  float coarse_error;  // |x - x^| of the coarse plane, rounded up
  float error;         // and with the fine plane
  float norm;          // the larger |x^|, rounded up
  float square;        // |x|^2 less the slack of l2, rounded down
};

// `row` is the sum of x^2 in float64, the errors are sums of (x - x^)^2 in float32. An element's error is off by at most 2^-23 |x| (two roundings), so that
// |x - x^| is off by 2^-23 |x|; 32 partial sums of at most 2,048 terms add 2^-13 of the sum. |x^| is at most |x| + |x - x^|.
WARPMEM_HD inline RowBound bound_row(float scale, double row, double coarse_error, double error) {
  const double length = sqrt(row) * (1.0 + 1e-9);
  const double coarse = sqrt(coarse_error) * (1.0 + 2e-4) + 2e-7 * length;
  const double fine = sqrt(error) * (1.0 + 2e-4) + 2e-7 * length;
  const double norm = length + (coarse > fine ? coarse : fine);
  if (!(norm < kBoundLimit)) return RowBound{scale, INFINITY, INFINITY, 0.0f, 0.0f};
  // Squares of errors below 2^-63 are lost to underflow, in float32 as a whole at most 2^-55.
  const double lost = 2.8e-17;
  return RowBound{scale, round_up(coarse + lost), round_up(fine + lost), round_up(norm + lost),
                  round_down(row * (1.0 - kBoundSlack))};
}

// A quantised query.
struct QueryBound {
  const int8_t* codes = nullptr;  // d: padded elements, zeros behind dim
  int32_t sum = 0;                // of d: what a bias of the row's codes is multiplied by
  float scale = 0.0f;             // t
  float norm = 0.0f;              // Q'
  float error = 0.0f;             // f'
  float square = 0.0f;            // |q|^2 less the slack of l2, rounded down
};

// The bound on the similarity, from the product c^.d of the planes of which `error` is: what every kernel evaluates, fused or not.
WARPMEM_HD inline float upper_bound(int32_t product, float row_scale, float row_error, float row_norm, float row_square,
                                    float scale, float norm, float error, float square, bool l2) {
  float bound = static_cast<float>(product) * (row_scale * scale);
  bound += row_error * norm + (row_norm * error + kBoundFloor);
  return l2 ? 2.0f * bound - (row_square + square) : bound;
}

// What is known of a query once it is summed up: its squares, those of its codes and of its errors. Returns false when it is too long to be screened. Sums in
// another order than that of quantize_query do: they differ by less than the factor 1 + 1e-9.
WARPMEM_HD inline bool bound_query(float scale, int32_t sum, double squared, double squared_codes, double squared_error,
                                   QueryBound* out) {
  const double norm = sqrt(squared) * (1.0 + 1e-9);
  const double image = sqrt(squared_codes) * static_cast<double>(scale) * (1.0 + 1e-9);
  if (!(norm < kBoundLimit) || !(image < kBoundLimit)) return false;
  out->sum = sum;
  out->scale = scale;
  out->norm = round_up(norm * (1.0 + kBoundSlack));
  out->error = round_up(sqrt(squared_error) * (1.0 + 1e-9) * (1.0 + kBoundSlack) + kBoundSlack * (norm + image));
  out->square = round_down(squared * (1.0 - kBoundSlack));
  return true;
}

// Writes `padded` codes. Returns false when the query is too long to be screened.
WARPMEM_HD inline bool quantize_query(const float* q, int64_t dim, int64_t padded, int8_t* codes, QueryBound* out) {
  float largest = 0.0f;
  for (int64_t i = 0; i < dim; ++i) largest = fabsf(q[i]) > largest ? fabsf(q[i]) : largest;
  const float scale = scale_of(largest);
  const float inverse = inverse_of(scale);
  double squared_error = 0.0;
  double squared_codes = 0.0;
  double squared = 0.0;
  int32_t sum = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const double code = code_of(q[i], inverse);
    const double difference = static_cast<double>(q[i]) - code * static_cast<double>(scale);
    codes[i] = static_cast<int8_t>(code);
    sum += static_cast<int32_t>(code);
    squared_error += difference * difference;
    squared_codes += code * code;
    squared += static_cast<double>(q[i]) * static_cast<double>(q[i]);
  }
  for (int64_t i = dim; i < padded; ++i) codes[i] = 0;
  if (!bound_query(scale, sum, squared, squared_codes, squared_error, out)) return false;
  out->codes = codes;
  return true;
}

}  // namespace warpmem
