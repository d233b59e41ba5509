// AVX-512 (F, BW, DQ, VL) + VNNI kernels. Four registers of eight doubles are the 32 canonical accumulators: acc[v] = lanes 8v .. 8v+7. The fold by 16
// and 8 adds whole registers, by 4 the halves of one, and so on. See avx2.cpp for what may be fused.
//
// The screen: vpdpbusd multiplies 64 bytes (4 elements of 16 rows) with 4 elements of a query, broadcast from memory, and adds each row's four products
// to its 32-bit lane. A register then holds the sums of 16 rows; nothing is ever added across lanes. A line of nibbles makes two such steps.
//
// Up to four queries times four groups of rows share registers: a line is loaded and split once for all queries, a query broadcast once for all groups.
#if defined(__GNUC__) && !defined(__clang__)  // GCC's own header passes "undefined" registers on purpose (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels.hpp"

namespace warpmem {
namespace {

constexpr int64_t kLine = 64;
constexpr int kGroup = 16;

// Whether the two halves of a line go to accumulators of their own: with few chains, to hide the latency of 4 cycles.
template <int kQueries, int kGroups>
constexpr bool kSplit = kQueries * kGroups <= 8;

constexpr int kRows = 64;
constexpr int64_t kFewMembers = 16;
constexpr int64_t kCoarseLine = 4 * kRows;  // bytes from one line of a group to the next in the coarse plane

// Bytes of a group in the fine plane: its lines, then 16 float32 numbers.
inline __attribute__((always_inline)) int64_t fine_bytes(int64_t lines) { return (lines + 1) * kLine; }

inline __attribute__((always_inline)) float fold(__m512d* acc) {
  acc[0] = _mm512_add_pd(acc[0], acc[2]);
  acc[1] = _mm512_add_pd(acc[1], acc[3]);
  acc[0] = _mm512_add_pd(acc[0], acc[1]);
  const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(acc[0]), _mm512_extractf64x4_pd(acc[0], 1));
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  const __m128d sum = _mm_add_sd(pair, _mm_unpackhi_pd(pair, pair));
  return _mm_cvtss_f32(_mm_cvtsd_ss(_mm_setzero_ps(), sum));
}

void dots(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (; mask != 0; mask &= mask - 1) {
    const int slot = __builtin_ctzll(mask);
    const float* const row = rows + slot * padded;
    __m512d acc[4];
    for (int v = 0; v < 4; ++v) acc[v] = _mm512_setzero_pd();
    for (int64_t i = 0; i < padded; i += 32) {
      for (int v = 0; v < 4; ++v) {
        const __m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(row + i + 8 * v));
        acc[v] = _mm512_fmadd_pd(x, _mm512_loadu_pd(query + i + 8 * v), acc[v]);
      }
    }
    similarities[slot] = fold(acc);
  }
}

void distances(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (; mask != 0; mask &= mask - 1) {
    const int slot = __builtin_ctzll(mask);
    const float* const row = rows + slot * padded;
    __m512d acc[4];
    for (int v = 0; v < 4; ++v) acc[v] = _mm512_setzero_pd();
    for (int64_t i = 0; i < padded; i += 32) {
      for (int v = 0; v < 4; ++v) {
        const __m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(row + i + 8 * v));
        const __m512d difference = _mm512_sub_pd(_mm512_loadu_pd(query + i + 8 * v), x);
        acc[v] = _mm512_add_pd(acc[v], _mm512_mul_pd(difference, difference));
      }
    }
    similarities[slot] = 0.0f - fold(acc);
  }
}

void widen(const uint16_t* halves, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves + i))));
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

inline __attribute__((always_inline)) __m512i query_part(const ScreenQuery& query, int64_t element) {
  int32_t word;
  __builtin_memcpy(&word, query.codes + element, sizeof word);
  return _mm512_set1_epi32(word);
}

// _mm512_dpbusd_epi32, except that GCC copies an accumulator before and after that builtin in a loop.
inline __attribute__((always_inline)) void add_products(__m512i& sums, __m512i nibbles, __m512i query) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(nibbles), "v"(query));
}

// Sums of nibbles times query codes, for kGroups neighbouring groups of 16 rows whose lines lie `step` bytes apart: each query element is broadcast once
// for all of them.
template <int kQueries, int kGroups>
inline __attribute__((always_inline)) void sum_plane(const uint8_t* plane, int64_t step, int64_t lines,
                                                     const ScreenQuery* queries, __m512i (*sums)[kGroups]) {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i low[kQueries][kGroups], high[kQueries][kGroups];
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) low[j][g] = high[j][g] = _mm512_setzero_si512();
  }
  for (int64_t line = 0; line < lines; ++line, plane += step) {
    __m512i a[kGroups], b[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      __m512i both = _mm512_loadu_si512(plane + g * kLine);
      asm("" : "+v"(both));  // one load, not one for each use
      a[g] = _mm512_and_si512(both, nibble);
      b[g] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kQueries; ++j) {
      const __m512i first = query_part(queries[j], 8 * line);
      const __m512i second = query_part(queries[j], 8 * line + 4);
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) {
        add_products(low[j][g], a[g], first);
        if (kSplit<kQueries, kGroups>) {
          add_products(high[j][g], b[g], second);
        } else {
          add_products(low[j][g], b[g], second);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kQueries; ++j) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g)
      sums[j][g] = kSplit<kQueries, kGroups> ? _mm512_add_epi32(low[j][g], high[j][g]) : low[j][g];
  }
}

inline __attribute__((always_inline)) const float* bounds_of(const ScreenPage& page, int group) {
  return reinterpret_cast<const float*>(page.coarse + page.lines * kCoarseLine) + group;
}

// Bounds of the sixteen rows from `slot` on. A bit for each wanted row that passes.
inline __attribute__((always_inline)) __mmask16 bound_rows(const ScreenPage& page, int slot, const ScreenQuery& query,
                                                           __mmask16 wanted, __m512i product, const float* errors, __m512* out) {
  const float* const bounds = bounds_of(page, slot);
  const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(bounds), _mm512_set1_ps(query.scale));
  const __m512 rest =
      _mm512_fmadd_ps(_mm512_loadu_ps(bounds + 2 * kRows), _mm512_set1_ps(query.error), _mm512_set1_ps(0x1p-100f));
  const __m512 slack = _mm512_fmadd_ps(_mm512_loadu_ps(errors), _mm512_set1_ps(query.norm), rest);
  __m512 bound = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), scale, slack);
  if (page.l2) {
    const __m512 squares = _mm512_add_ps(_mm512_loadu_ps(bounds + 3 * kRows), _mm512_set1_ps(query.square));
    bound = _mm512_sub_ps(_mm512_add_ps(bound, bound), squares);
  }
  if (page.extra != nullptr) {
    wanted = _mm512_mask_cmp_ps_mask(wanted, bound, _mm512_set1_ps(query.least), _CMP_NLT_UQ);
    bound = _mm512_add_ps(bound, _mm512_loadu_ps(page.extra + slot));
  }
  *out = bound;
  return _mm512_mask_cmp_ps_mask(wanted, bound, _mm512_set1_ps(query.floor), _CMP_NLT_UQ);
}

inline __attribute__((always_inline)) void finish(const ScreenPage& page, ScreenQuery& query, int group, __m512i sums) {
  const float* const errors = bounds_of(page, group) + kRows;
  const __m512i product = _mm512_sub_epi32(_mm512_slli_epi32(sums, 4), _mm512_set1_epi32(120 * query.sum));
  __m512 unused;
  const __mmask16 bits = bound_rows(page, group, query, static_cast<__mmask16>(query.mask >> group), product, errors, &unused);
  if (bits == 0) return;
  _mm512_storeu_si512(query.bounds + group, sums);
  query.survivors |= static_cast<uint64_t>(bits) << group;
}

template <int kQueries, int kGroups>
inline __attribute__((always_inline)) void screen_groups(const ScreenPage& page, ScreenQuery* queries, int first) {
  __m512i sums[kQueries][kGroups];
  sum_plane<kQueries, kGroups>(page.coarse + first * kLine, kCoarseLine, page.lines, queries, sums);
  for (int j = 0; j < kQueries; ++j) {
    for (int g = 0; g < kGroups; ++g) finish(page, queries[j], (first + g) * kGroup, sums[j][g]);
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
  if (groups == 15) return screen_groups<kQueries, 4>(page, queries, 0);
  for (int g = 0; g < 4; ++g) {
    if ((groups >> g & 1) != 0) screen_groups<kQueries, 1>(page, queries, g);
  }
}

void screen(const ScreenPage& page, ScreenQuery* queries, int n) {
  for (; n >= 4; n -= 4, queries += 4) screen_block<4>(page, queries);
  if (n >= 2) screen_block<2>(page, queries), queries += 2, n -= 2;
  if (n == 1) screen_block<1>(page, queries);
}

WARPMEM_READS_UNPUBLISHED void refine(const ScreenPage& page, ScreenQuery& query) {
  query.survivors = 0;
  for (int group = 0; group < kRows; group += kGroup) {
    const auto wanted = static_cast<__mmask16>(query.mask >> group);
    if (wanted == 0) continue;
    const uint8_t* const fine = page.fine + group / kGroup * fine_bytes(page.lines);
    const auto* const errors = reinterpret_cast<const float*>(fine + page.lines * kLine);
    __m512i low[1][1];
    sum_plane<1, 1>(fine, kLine, page.lines, &query, low);
    const __m512i high = _mm512_slli_epi32(_mm512_loadu_si512(query.bounds + group), 4);
    const __m512i product = _mm512_sub_epi32(_mm512_add_epi32(high, low[0][0]), _mm512_set1_epi32(128 * query.sum));
    __m512 bound;
    query.survivors |= static_cast<uint64_t>(bound_rows(page, group, query, wanted, product, errors, &bound)) << group;
    _mm512_storeu_ps(query.bounds + group, bound);
  }
}

WARPMEM_READS_UNPUBLISHED uint64_t filter_range(const int64_t* column, int64_t lo, int64_t hi, uint64_t mask) {
  const __m512i low = _mm512_set1_epi64(lo);
  const __m512i high = _mm512_set1_epi64(hi);
  uint64_t keep = 0;
  for (int i = 0; i < 64; i += 8) {
    const __m512i x = _mm512_loadu_si512(column + i);
    const __mmask8 above = _mm512_cmpge_epi64_mask(x, low);
    keep |= static_cast<uint64_t>(_mm512_mask_cmple_epi64_mask(above, x, high)) << i;
  }
  return keep & mask;
}

// A few values are compared one by one; among many, each lane searches on its own. The search keeps the first value not below x within
// base .. base + left - 1, or finds that there is none, and then values[base] is not x either.
WARPMEM_READS_UNPUBLISHED uint64_t filter_members(const int64_t* column, const int64_t* values, int64_t n, uint64_t mask) {
  if (n == 0) return 0;
  uint64_t keep = 0;
  for (int i = 0; i < 64; i += 8) {
    const auto wanted = static_cast<__mmask8>(mask >> i);
    if (wanted == 0) continue;
    const __m512i x = _mm512_loadu_si512(column + i);
    __mmask8 found = 0;
    if (n <= kFewMembers) {
      for (int64_t v = 0; v < n; ++v) found = _kor_mask8(found, _mm512_cmpeq_epi64_mask(x, _mm512_set1_epi64(values[v])));
    } else {
      __m512i base = _mm512_setzero_si512();
      for (int64_t left = n; left > 1;) {
        const int64_t half = left / 2;
        const __m512i at = _mm512_add_epi64(base, _mm512_set1_epi64(half - 1));
        const __mmask8 below = _mm512_cmplt_epi64_mask(_mm512_i64gather_epi64(at, values, 8), x);
        base = _mm512_mask_add_epi64(base, below, base, _mm512_set1_epi64(half));
        left -= half;
      }
      found = _mm512_cmpeq_epi64_mask(_mm512_i64gather_epi64(base, values, 8), x);
    }
    keep |= static_cast<uint64_t>(found & wanted) << i;
  }
  return keep;
}

// As unsigned numbers, negative ids lie beyond the bitmap too.
WARPMEM_READS_UNPUBLISHED uint64_t filter_bitmap(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask) {
  const __m512i limit = _mm512_set1_epi64(n_words);
  const __m512i bit = _mm512_set1_epi64(63);
  const __m512i one = _mm512_set1_epi64(1);
  uint64_t keep = 0;
  for (int i = 0; i < 64; i += 8) {
    const auto wanted = static_cast<__mmask8>(mask >> i);
    if (wanted == 0) continue;
    const __m512i id = _mm512_loadu_si512(row_ids + i);
    const __m512i at = _mm512_srli_epi64(id, 6);
    const __mmask8 inside = _mm512_mask_cmplt_epu64_mask(wanted, at, limit);
    const __mmask8 natural = _mm512_mask_cmpge_epi64_mask(inside, id, _mm512_setzero_si512());
    const __m512i word = _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), natural, at, words, 8);
    const __m512i wanted_bit = _mm512_sllv_epi64(one, _mm512_and_si512(id, bit));
    keep |= static_cast<uint64_t>(_mm512_mask_test_epi64_mask(natural, word, wanted_bit)) << i;
  }
  return keep;
}

WARPMEM_READS_UNPUBLISHED void extras(const ScoreExtra& terms, float* out) {
  const __m512d tilt = _mm512_set1_pd(terms.w_recency > 0.0 ? -0x1p-51 : 0x1p-51);
  const __m512d chord = _mm512_set1_pd(terms.w_recency > 0.0 ? 1.00003 : 0.94);
  const __m512d now = _mm512_set1_pd(terms.now);
  const __m512d w_recency = _mm512_set1_pd(terms.w_recency);
  const __m512d w_priority = _mm512_set1_pd(terms.w_priority);
  for (int i = 0; i < 64; i += 8) {
    __m512d sum = _mm512_setzero_pd();
    if (terms.recency != nullptr) {
      const __m512d then = _mm512_cvtepi64_pd(_mm512_loadu_si512(terms.recency + i));
      const __m512d size = _mm512_add_pd(_mm512_abs_pd(now), _mm512_abs_pd(then));
      const __m512d age = _mm512_add_pd(_mm512_sub_pd(now, then), _mm512_mul_pd(tilt, size));
      const __m512d real_age =
          _mm512_min_pd(_mm512_max_pd(age, _mm512_setzero_pd()), _mm512_set1_pd(0x1p63));  // where age_of saturates
      __m512d y = _mm512_mul_pd(real_age, _mm512_set1_pd(terms.per_half_life));
      y = _mm512_min_pd(y, _mm512_set1_pd(126.0));
      const __m256 exponent = _mm256_mul_ps(_mm512_cvtpd_ps(_mm512_sub_pd(_mm512_set1_pd(127.0), y)), _mm256_set1_ps(8388608.0f));
      const __m512d value = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_cvtps_epi32(exponent))), chord);
      sum = _mm512_add_pd(_mm512_mul_pd(w_recency, value), _mm512_mul_pd(_mm512_abs_pd(w_recency), _mm512_set1_pd(1e-30)));
    }
    if (terms.priority != nullptr) {
      const __m512i key = _mm512_loadu_si512(terms.priority + i);
      const __m512i flip = _mm512_maskz_set1_epi64(_mm512_cmplt_epi64_mask(key, _mm512_setzero_si512()), INT64_MAX);
      const __mmask8 there = _mm512_cmpneq_epi64_mask(key, _mm512_set1_epi64(INT64_MIN));  // what is missing counts as 0
      const __m512i bits = _mm512_maskz_xor_epi64(there, key, flip);
      const __m512d part = _mm512_mul_pd(w_priority, _mm512_castsi512_pd(bits));
      sum = _mm512_add_pd(sum, _mm512_add_pd(part, _mm512_mul_pd(_mm512_abs_pd(part), _mm512_set1_pd(3e-6))));
    }
    sum = _mm512_add_pd(sum, _mm512_mul_pd(_mm512_abs_pd(sum), _mm512_set1_pd(1e-6)));
    // max returns its second operand when one is NaN.
    _mm256_storeu_ps(out + i, _mm256_max_ps(_mm256_set1_ps(-1e37f), _mm512_cvtpd_ps(sum)));
  }
}

uint64_t read(const void* data, size_t bytes) {
  const auto* const from = static_cast<const unsigned char*>(data);
  __m512i a = _mm512_setzero_si512(), b = a;
  size_t i = 0;
  for (; i + 128 <= bytes; i += 128) {
    a = _mm512_xor_si512(a, _mm512_loadu_si512(from + i));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(from + i + 64));
  }
  if (i < bytes) a = _mm512_xor_si512(a, _mm512_loadu_si512(from + i));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_xor_si512(a, b)));
}

}  // namespace

const Kernels kAvx512Kernels = {"avx512", "vnni",       dots,           distances,     widen,  decode, screen,
                                refine,   filter_range, filter_members, filter_bitmap, extras, read};

}  // namespace warpmem
