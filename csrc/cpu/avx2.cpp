// AVX2 + FMA + F16C kernels. Eight registers of four doubles are the 32 canonical accumulators:
//
//   acc[v] = lanes 4v .. 4v+3        v = 0 .. 7
//
// The fold by 16, 8 and 4 adds whole registers, by 2 the halves of one, by 1 its last two lanes. Fused multiply-add is allowed in the dot product
// because the product of two float32 numbers is exact in float64: rounding once or twice gives the same bits. The square of a difference is not, and is
// not fused. Eight independent chains of latency 4 keep two FMA units busy.
//
// The screen multiplies with maddubs: nibbles (0 .. 15) times query codes (-127 .. 127), added in pairs to 16 bits. Eight such pairs stay within 8 * 2 *
// 15 * 127 = 30,480, so four lines are added up before they are widened to 32 bits. A 64-byte line is two registers of eight rows.
#include <immintrin.h>

#include "kernels.hpp"

namespace warpmem {
namespace {

constexpr int64_t kLine = 64;
constexpr int kGroup = 16;

constexpr int kRows = 64;
constexpr int64_t kFewMembers = 16;
constexpr int64_t kCoarseLine = 4 * kRows;  // bytes from one line of a group to the next in the coarse plane

// Bytes of a group in the fine plane: its lines, then 16 float32 numbers.
inline __attribute__((always_inline)) int64_t fine_bytes(int64_t lines) { return (lines + 1) * kLine; }

inline __attribute__((always_inline)) float fold(__m256d* acc) {
  for (int v = 0; v < 4; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 4]);
  for (int v = 0; v < 2; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 2]);
  acc[0] = _mm256_add_pd(acc[0], acc[1]);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(acc[0]), _mm256_extractf128_pd(acc[0], 1));
  const __m128d sum = _mm_add_sd(pair, _mm_unpackhi_pd(pair, pair));
  return _mm_cvtss_f32(_mm_cvtsd_ss(_mm_setzero_ps(), sum));
}

void dots(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (; mask != 0; mask &= mask - 1) {
    const int slot = __builtin_ctzll(mask);
    const float* const row = rows + slot * padded;
    __m256d acc[8];
    for (int v = 0; v < 8; ++v) acc[v] = _mm256_setzero_pd();
    for (int64_t i = 0; i < padded; i += 32) {
      for (int v = 0; v < 8; ++v) {
        const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps(row + i + 4 * v));
        acc[v] = _mm256_fmadd_pd(x, _mm256_loadu_pd(query + i + 4 * v), acc[v]);
      }
    }
    similarities[slot] = fold(acc);
  }
}

void distances(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (; mask != 0; mask &= mask - 1) {
    const int slot = __builtin_ctzll(mask);
    const float* const row = rows + slot * padded;
    __m256d acc[8];
    for (int v = 0; v < 8; ++v) acc[v] = _mm256_setzero_pd();
    for (int64_t i = 0; i < padded; i += 32) {
      for (int v = 0; v < 8; ++v) {
        const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps(row + i + 4 * v));
        const __m256d difference = _mm256_sub_pd(_mm256_loadu_pd(query + i + 4 * v), x);
        acc[v] = _mm256_add_pd(acc[v], _mm256_mul_pd(difference, difference));
      }
    }
    similarities[slot] = 0.0f - fold(acc);
  }
}

void widen(const uint16_t* halves, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i))));
  }
}

void decode(const uint8_t* coarse, const uint8_t* fine, int64_t slot, int64_t lines, float scale, float* out) {
  coarse += slot * 4;
  fine += slot / kGroup * fine_bytes(lines) + slot % kGroup * 4;
  const __m256 scales = _mm256_set1_ps(scale);
  const __m256i bias = _mm256_set1_epi32(128);
  for (int64_t line = 0; line < lines; ++line, out += 8) {
    uint32_t c, f;
    __builtin_memcpy(&c, coarse + line * kCoarseLine, sizeof c);
    __builtin_memcpy(&f, fine + line * kLine, sizeof f);
    const uint32_t low = (c & 0x0f0f0f0fu) << 4 | (f & 0x0f0f0f0fu);
    const uint32_t high = (c & 0xf0f0f0f0u) | (f >> 4 & 0x0f0f0f0fu);
    const __m128i codes = _mm_cvtsi64_si128(static_cast<int64_t>(static_cast<uint64_t>(high) << 32 | low));
    const __m256i code = _mm256_sub_epi32(_mm256_cvtepu8_epi32(codes), bias);
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(code), scales));
  }
}

inline __attribute__((always_inline)) __m256i query_part(const ScreenQuery& query, int64_t element) {
  int32_t word;
  __builtin_memcpy(&word, query.codes + element, sizeof word);
  return _mm256_set1_epi32(word);
}

// Sums of nibbles times query codes, for kGroups neighbouring groups of 16 rows whose lines lie `step` bytes apart: two registers of 8 rows a group.
template <int kQueries, int kGroups>
inline __attribute__((always_inline)) void sum_plane(const uint8_t* plane, int64_t step, int64_t lines,
                                                     const ScreenQuery* queries, __m256i (*sums)[2 * kGroups]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int h = 0; h < 2 * kGroups; ++h) sums[j][h] = _mm256_setzero_si256();
  }
  for (int64_t line = 0; line < lines; line += 4) {
    __m256i part[kQueries][2 * kGroups];
#pragma GCC unroll 8
    for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
      for (int h = 0; h < 2 * kGroups; ++h) part[j][h] = _mm256_setzero_si256();
    }
    for (int64_t l = line; l < line + 4; ++l, plane += step) {
      __m256i first[kQueries], second[kQueries];
#pragma GCC unroll 8
      for (int j = 0; j < kQueries; ++j) {
        first[j] = query_part(queries[j], 8 * l);
        second[j] = query_part(queries[j], 8 * l + 4);
      }
#pragma GCC unroll 8
      for (int h = 0; h < 2 * kGroups; ++h) {
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane + 32 * h));
        const __m256i a = _mm256_and_si256(both, nibble);
        const __m256i b = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
#pragma GCC unroll 8
        for (int j = 0; j < kQueries; ++j) {
          const __m256i products = _mm256_add_epi16(_mm256_maddubs_epi16(a, first[j]), _mm256_maddubs_epi16(b, second[j]));
          part[j][h] = _mm256_add_epi16(part[j][h], products);
        }
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
      for (int h = 0; h < 2 * kGroups; ++h) sums[j][h] = _mm256_add_epi32(sums[j][h], _mm256_madd_epi16(part[j][h], ones));
    }
  }
}

inline __attribute__((always_inline)) const float* bounds_of(const ScreenPage& page, int group) {
  return reinterpret_cast<const float*>(page.coarse + page.lines * kCoarseLine) + group;
}

// Bounds of the eight rows from `slot` on. A bit for each that passes.
inline __attribute__((always_inline)) uint32_t bound_rows(const ScreenPage& page, int slot, const ScreenQuery& query,
                                                          __m256i product, const float* errors, __m256* out) {
  const float* const bounds = bounds_of(page, slot);
  const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(bounds), _mm256_set1_ps(query.scale));
  const __m256 rest =
      _mm256_fmadd_ps(_mm256_loadu_ps(bounds + 2 * kRows), _mm256_set1_ps(query.error), _mm256_set1_ps(0x1p-100f));
  const __m256 slack = _mm256_fmadd_ps(_mm256_loadu_ps(errors), _mm256_set1_ps(query.norm), rest);
  __m256 bound = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, slack);
  if (page.l2) {
    const __m256 squares = _mm256_add_ps(_mm256_loadu_ps(bounds + 3 * kRows), _mm256_set1_ps(query.square));
    bound = _mm256_sub_ps(_mm256_add_ps(bound, bound), squares);
  }
  __m256 pass = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  if (page.extra != nullptr) {
    pass = _mm256_cmp_ps(bound, _mm256_set1_ps(query.least), _CMP_NLT_UQ);
    bound = _mm256_add_ps(bound, _mm256_loadu_ps(page.extra + slot));
  }
  *out = bound;
  pass = _mm256_and_ps(pass, _mm256_cmp_ps(bound, _mm256_set1_ps(query.floor), _CMP_NLT_UQ));
  return static_cast<uint32_t>(_mm256_movemask_ps(pass));
}

inline __attribute__((always_inline)) void finish(const ScreenPage& page, ScreenQuery& query, int group, __m256i low,
                                                  __m256i high) {
  const float* const errors = bounds_of(page, group) + kRows;
  const __m256i bias = _mm256_set1_epi32(120 * query.sum);
  __m256 unused;
  const __m256i low_product = _mm256_sub_epi32(_mm256_slli_epi32(low, 4), bias);
  const __m256i high_product = _mm256_sub_epi32(_mm256_slli_epi32(high, 4), bias);
  uint32_t bits = bound_rows(page, group, query, low_product, errors, &unused) |
                  bound_rows(page, group + 8, query, high_product, errors + 8, &unused) << 8;
  bits &= static_cast<uint32_t>((query.mask >> group) & 0xffffu);
  if (bits == 0) return;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(query.bounds + group), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(query.bounds + group + 8), high);
  query.survivors |= static_cast<uint64_t>(bits) << group;
}

template <int kQueries, int kGroups>
inline __attribute__((always_inline)) void screen_groups(const ScreenPage& page, ScreenQuery* queries, int first) {
  __m256i sums[kQueries][2 * kGroups];
  sum_plane<kQueries, kGroups>(page.coarse + first * kLine, kCoarseLine, page.lines, queries, sums);
  for (int j = 0; j < kQueries; ++j) {
    for (int g = 0; g < kGroups; ++g) finish(page, queries[j], (first + g) * kGroup, sums[j][2 * g], sums[j][2 * g + 1]);
  }
}

template <int kQueries>
WARPMEM_READS_UNPUBLISHED void screen_block(const ScreenPage& page, ScreenQuery* queries) {
  uint64_t any = 0;
  for (int j = 0; j < kQueries; ++j) {
    any |= queries[j].mask;
    queries[j].survivors = 0;
  }
  unsigned groups = 0;
  for (int g = 0; g < 4; ++g) groups |= static_cast<unsigned>(((any >> (g * kGroup)) & 0xffffu) != 0) << g;
  if (groups == 15 && kQueries == 1) return screen_groups<kQueries, 4>(page, queries, 0);
  for (int g = 0; g < 4; ++g) {
    if ((groups >> g & 1) != 0) screen_groups<kQueries, 1>(page, queries, g);
  }
}

void screen(const ScreenPage& page, ScreenQuery* queries, int n) {
  for (; n >= 2; n -= 2, queries += 2) screen_block<2>(page, queries);
  if (n == 1) screen_block<1>(page, queries);
}

WARPMEM_READS_UNPUBLISHED void refine(const ScreenPage& page, ScreenQuery& query) {
  query.survivors = 0;
  for (int group = 0; group < kRows; group += kGroup) {
    if (((query.mask >> group) & 0xffffu) == 0) continue;
    const uint8_t* const fine = page.fine + group / kGroup * fine_bytes(page.lines);
    const auto* const errors = reinterpret_cast<const float*>(fine + page.lines * kLine);
    const __m256i bias = _mm256_set1_epi32(128 * query.sum);
    __m256i sums[1][2];
    sum_plane<1, 1>(fine, kLine, page.lines, &query, sums);
    for (int h = 0; h < 2; ++h) {
      float* const out = query.bounds + group + 8 * h;
      const __m256i high = _mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(out)), 4);
      const __m256i product = _mm256_sub_epi32(_mm256_add_epi32(high, sums[0][h]), bias);
      __m256 bound;
      const uint64_t bits = bound_rows(page, group + 8 * h, query, product, errors + 8 * h, &bound);
      query.survivors |= bits << (group + 8 * h);
      _mm256_storeu_ps(out, bound);
    }
  }
  query.survivors &= query.mask;
}

WARPMEM_READS_UNPUBLISHED uint64_t filter_range(const int64_t* column, int64_t lo, int64_t hi, uint64_t mask) {
  const __m256i low = _mm256_set1_epi64x(lo);
  const __m256i high = _mm256_set1_epi64x(hi);
  uint64_t out = 0;
  for (int i = 0; i < 64; i += 4) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column + i));
    const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi64(low, x), _mm256_cmpgt_epi64(x, high));
    out |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(outside)))) << i;
  }
  return mask & ~out;
}

// A few values are compared one by one; among many, each lane searches on its own. The search keeps the first value not below x within
// base .. base + left - 1, or finds that there is none, and then values[base] is not x either.
WARPMEM_READS_UNPUBLISHED uint64_t filter_members(const int64_t* column, const int64_t* values, int64_t n, uint64_t mask) {
  if (n == 0) return 0;
  const auto* const from = reinterpret_cast<const long long*>(values);
  uint64_t keep = 0;
  for (int i = 0; i < 64; i += 4) {
    if (((mask >> i) & 15u) == 0) continue;
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(column + i));
    __m256i found = _mm256_setzero_si256();
    if (n <= kFewMembers) {
      for (int64_t v = 0; v < n; ++v) found = _mm256_or_si256(found, _mm256_cmpeq_epi64(x, _mm256_set1_epi64x(values[v])));
    } else {
      __m256i base = _mm256_setzero_si256();
      for (int64_t left = n; left > 1;) {
        const int64_t half = left / 2;
        const __m256i at = _mm256_add_epi64(base, _mm256_set1_epi64x(half - 1));
        const __m256i below = _mm256_cmpgt_epi64(x, _mm256_i64gather_epi64(from, at, 8));
        base = _mm256_add_epi64(base, _mm256_and_si256(below, _mm256_set1_epi64x(half)));
        left -= half;
      }
      found = _mm256_cmpeq_epi64(_mm256_i64gather_epi64(from, base, 8), x);
    }
    keep |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(found)))) << i;
  }
  return keep & mask;
}

// Row ids beyond the bitmap are turned into word 0 and masked away afterwards. As unsigned numbers, negative ids lie beyond it too.
WARPMEM_READS_UNPUBLISHED uint64_t filter_bitmap(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask) {
  if (n_words == 0) return 0;
  const __m256i limit = _mm256_set1_epi64x(n_words > INT64_MAX / 64 ? INT64_MAX : n_words * 64);
  const __m256i bit = _mm256_set1_epi64x(63);
  uint64_t keep = 0;
  for (int i = 0; i < 64; i += 4) {
    if (((mask >> i) & 15u) == 0) continue;
    const __m256i id = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row_ids + i));
    const __m256i negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), id);
    const __m256i inside = _mm256_andnot_si256(negative, _mm256_cmpgt_epi64(limit, id));
    const __m256i safe = _mm256_and_si256(id, inside);
    const __m256i word = _mm256_i64gather_epi64(reinterpret_cast<const long long*>(words), _mm256_srli_epi64(safe, 6), 8);
    const __m256i shift = _mm256_sub_epi64(bit, _mm256_and_si256(safe, bit));
    const __m256i found = _mm256_and_si256(_mm256_sllv_epi64(word, shift), inside);  // the wanted bit becomes the sign
    keep |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(found)))) << i;
  }
  return keep & mask;
}

// Four int64 as float64, rounded once. The upper 32 bits, sign flipped, become the low bits of a number near 2^84 + 2^63, the lower 32 bits those of one
// near 2^52; both offsets are taken away again.
inline __attribute__((always_inline)) __m256d to_double(__m256i x) {
  const __m256i high = _mm256_xor_si256(_mm256_srli_epi64(x, 32), _mm256_castpd_si256(_mm256_set1_pd(0x1.000008p84)));
  const __m256i low = _mm256_blend_epi32(x, _mm256_castpd_si256(_mm256_set1_pd(0x1p52)), 0xaa);
  return _mm256_add_pd(_mm256_sub_pd(_mm256_castsi256_pd(high), _mm256_set1_pd(0x1.00000801p84)), _mm256_castsi256_pd(low));
}

WARPMEM_READS_UNPUBLISHED void extras(const ScoreExtra& terms, float* out) {
  const __m256d magnitude = _mm256_castsi256_pd(_mm256_set1_epi64x(INT64_MAX));
  const __m256d tilt = _mm256_set1_pd(terms.w_recency > 0.0 ? -0x1p-51 : 0x1p-51);
  const __m256d chord = _mm256_set1_pd(terms.w_recency > 0.0 ? 1.00003 : 0.94);
  const __m256d now = _mm256_set1_pd(terms.now);
  const __m256d w_recency = _mm256_set1_pd(terms.w_recency);
  const __m256d w_priority = _mm256_set1_pd(terms.w_priority);
  for (int i = 0; i < 64; i += 4) {
    __m256d sum = _mm256_setzero_pd();
    if (terms.recency != nullptr) {
      const __m256d then = to_double(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(terms.recency + i)));
      const __m256d size = _mm256_add_pd(_mm256_and_pd(now, magnitude), _mm256_and_pd(then, magnitude));
      const __m256d age = _mm256_add_pd(_mm256_sub_pd(now, then), _mm256_mul_pd(tilt, size));
      const __m256d real_age =
          _mm256_min_pd(_mm256_max_pd(age, _mm256_setzero_pd()), _mm256_set1_pd(0x1p63));  // where age_of saturates
      __m256d y = _mm256_mul_pd(real_age, _mm256_set1_pd(terms.per_half_life));
      y = _mm256_min_pd(y, _mm256_set1_pd(126.0));
      const __m128 exponent = _mm_mul_ps(_mm256_cvtpd_ps(_mm256_sub_pd(_mm256_set1_pd(127.0), y)), _mm_set1_ps(8388608.0f));
      const __m256d value = _mm256_mul_pd(_mm256_cvtps_pd(_mm_castsi128_ps(_mm_cvtps_epi32(exponent))), chord);
      sum = _mm256_add_pd(_mm256_mul_pd(w_recency, value),
                          _mm256_mul_pd(_mm256_and_pd(w_recency, magnitude), _mm256_set1_pd(1e-30)));
    }
    if (terms.priority != nullptr) {
      const __m256i key = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(terms.priority + i));
      const __m256i flip = _mm256_and_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), key), _mm256_set1_epi64x(INT64_MAX));
      const __m256i missing = _mm256_cmpeq_epi64(key, _mm256_set1_epi64x(INT64_MIN));  // counts as 0
      const __m256i bits = _mm256_andnot_si256(missing, _mm256_xor_si256(key, flip));
      const __m256d part = _mm256_mul_pd(w_priority, _mm256_castsi256_pd(bits));
      sum = _mm256_add_pd(sum, _mm256_add_pd(part, _mm256_mul_pd(_mm256_and_pd(part, magnitude), _mm256_set1_pd(3e-6))));
    }
    sum = _mm256_add_pd(sum, _mm256_mul_pd(_mm256_and_pd(sum, magnitude), _mm256_set1_pd(1e-6)));
    // max returns its second operand when one is NaN.
    _mm_storeu_ps(out + i, _mm_max_ps(_mm_set1_ps(-1e37f), _mm256_cvtpd_ps(sum)));
  }
}

uint64_t read(const void* data, size_t bytes) {
  const auto* const from = static_cast<const __m256i*>(data);
  __m256i a = _mm256_setzero_si256(), b = a;
  for (size_t i = 0; i < bytes / 32; i += 2) {
    a = _mm256_xor_si256(a, _mm256_loadu_si256(from + i));
    b = _mm256_xor_si256(b, _mm256_loadu_si256(from + i + 1));
  }
  const __m256i c = _mm256_xor_si256(a, b);
  return static_cast<uint64_t>(_mm256_extract_epi64(c, 0) ^ _mm256_extract_epi64(c, 1) ^ _mm256_extract_epi64(c, 2) ^
                               _mm256_extract_epi64(c, 3));
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2", "maddubs",    dots,           distances,     widen,  decode, screen,
                              refine, filter_range, filter_members, filter_bitmap, extras, read};

}  // namespace warpmem
