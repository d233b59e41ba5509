// What the pq_<isa>.cpp files share, included by each with its register width: everything here has internal linkage, so each file keeps its own copy.
//
// Tables of one query. A lane belongs to one entry, 16 entries side by side. Element i of a piece goes to accumulator i % 32, and accumulators are
// folded 32 -> 16 -> ... -> 1. A piece shorter than 32 is padded with zeros to a power of two, and the fold starts there: the accumulators left out
// would be +0, and since none is ever -0, adding +0 changes nothing. This is the canonical order of core/score.hpp.
#include <stdint.h>
#include <string.h>

namespace warpmem {
namespace {

constexpr int kLutEntries = 16;
constexpr int kLutPer = WARPMEM_LUT_BYTES / 8;
typedef double LutWide __attribute__((vector_size(WARPMEM_LUT_BYTES)));
typedef float LutNarrow __attribute__((vector_size(WARPMEM_LUT_BYTES / 2)));

template <int kTop, bool kSquared>
void lut_entries(const float* book, const float* query, int64_t padded, float* out) {
  for (int v = 0; v < kLutEntries / kLutPer; ++v) {
    LutWide acc[kTop];
    for (int j = 0; j < kTop; ++j) acc[j] = LutWide{};
    for (int64_t i = 0; i < padded; i += kTop) {
      for (int j = 0; j < kTop; ++j) {
        LutNarrow entries;
        memcpy(&entries, book + (i + j) * kLutEntries + v * kLutPer, sizeof entries);
        const LutWide wide = __builtin_convertvector(entries, LutWide);
        const double x = static_cast<double>(query[i + j]);
        if (kSquared) {
          const LutWide difference = x - wide;
          acc[j] += difference * difference;
        } else {
          acc[j] += x * wide;
        }
      }
    }
    for (int width = kTop / 2; width > 0; width /= 2) {
      for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
    }
    LutWide sum = acc[0];
    if (kSquared) sum = -sum;
    const LutNarrow rounded = __builtin_convertvector(sum, LutNarrow) + 0.0f;
    memcpy(out + v * kLutPer, &rounded, sizeof rounded);
  }
}

template <int kTop>
void lut_groups(const float* books, int64_t n_groups, int64_t padded, const float* query, bool squared, float* out) {
  for (int64_t g = 0; g < n_groups; ++g) {
    if (squared) {
      lut_entries<kTop, true>(books + g * padded * kLutEntries, query, padded, out + g * kLutEntries);
    } else {
      lut_entries<kTop, false>(books + g * padded * kLutEntries, query, padded, out + g * kLutEntries);
    }
  }
}

void lut(const float* books, int64_t n_groups, int64_t padded, const float* query, bool squared, float* out) {
  if (padded == 1) return lut_groups<1>(books, n_groups, padded, query, squared, out);
  if (padded == 2) return lut_groups<2>(books, n_groups, padded, query, squared, out);
  if (padded == 4) return lut_groups<4>(books, n_groups, padded, query, squared, out);
  if (padded == 8) return lut_groups<8>(books, n_groups, padded, query, squared, out);
  if (padded == 16) return lut_groups<16>(books, n_groups, padded, query, squared, out);
  return lut_groups<32>(books, n_groups, padded, query, squared, out);
}

#if WARPMEM_LUT_BYTES > 16
inline __attribute__((always_inline)) float least_of(__m128 a, __m128 b, __m128 c, __m128 d) {
  __m128 least = _mm_min_ps(_mm_min_ps(a, b), _mm_min_ps(c, d));
  least = _mm_min_ps(least, _mm_movehl_ps(least, least));
  return _mm_cvtss_f32(_mm_min_ss(least, _mm_shuffle_ps(least, least, 1)));
}

// Four quotients, rounded. Products with the inverse are off by less than 1e-12: unless one and 1/2 come so close to an integer that it might matter, which
// is noted in `near`, they are rounded alike, and a division takes several times as long.
inline __attribute__((always_inline)) __m128i quantized4(__m128 entries, __m256d low, __m256d inverse, __m256d* near) {
  const __m256d above = _mm256_sub_pd(_mm256_cvtps_pd(entries), low);
  const __m256d whole = _mm256_add_pd(_mm256_mul_pd(above, inverse), _mm256_set1_pd(0.5));
  const __m256d off = _mm256_sub_pd(whole, _mm256_round_pd(whole, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  const __m256d size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), off);
  *near = _mm256_or_pd(*near, _mm256_cmp_pd(size, _mm256_set1_pd(1e-9), _CMP_NGE_UQ));
  return _mm256_cvttpd_epi32(whole);
}

inline __attribute__((always_inline)) __m128i divided4(__m128 entries, __m256d low, __m256d step) {
  const __m256d above = _mm256_sub_pd(_mm256_cvtps_pd(entries), low);
  return _mm256_cvttpd_epi32(_mm256_add_pd(_mm256_div_pd(above, step), _mm256_set1_pd(0.5)));
}

inline __attribute__((always_inline)) void store_entries(uint8_t* out, const __m128i* q) {
  const __m128i both = _mm_packus_epi16(_mm_packus_epi32(q[0], q[1]), _mm_packus_epi32(q[2], q[3]));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), both);
}

// pq_quantize_lut of core/pq_code.hpp, to the bit: the entries of a subspace side by side.
void quantize(const float* lut, int64_t pq_dim, uint8_t* out, double* scale, double* bias) {
  const __m128 sign = _mm_set1_ps(-0.0f);
  double widest = 0.0;
  double low_sum = 0.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    __m128 e[4];
    for (int v = 0; v < 4; ++v) e[v] = _mm_loadu_ps(lut + s * kLutEntries + 4 * v);
    const double low = static_cast<double>(least_of(e[0], e[1], e[2], e[3]));
    for (int v = 0; v < 4; ++v) e[v] = _mm_xor_ps(e[v], sign);
    const double width = -static_cast<double>(least_of(e[0], e[1], e[2], e[3])) - low;
    widest = width > widest ? width : widest;
    low_sum += low;
  }
  *scale = widest / 255.0;
  *bias = low_sum;
  if (!(*scale > 0.0)) {
    memset(out, 0, static_cast<size_t>(pq_dim * kLutEntries));
    return;
  }
  const __m256d step = _mm256_set1_pd(*scale);
  const __m256d inverse = _mm256_div_pd(_mm256_set1_pd(1.0), step);
  __m256d near = _mm256_setzero_pd();
  for (int64_t s = 0; s < pq_dim; ++s) {
    __m128 e[4];
    __m128i q[4];
    for (int v = 0; v < 4; ++v) e[v] = _mm_loadu_ps(lut + s * kLutEntries + 4 * v);
    const __m256d low = _mm256_set1_pd(static_cast<double>(least_of(e[0], e[1], e[2], e[3])));
    for (int v = 0; v < 4; ++v) q[v] = quantized4(e[v], low, inverse, &near);
    store_entries(out + s * kLutEntries, q);
  }
  if (_mm256_movemask_pd(near) == 0) return;
  for (int64_t s = 0; s < pq_dim; ++s) {
    __m128 e[4];
    __m128i q[4];
    for (int v = 0; v < 4; ++v) e[v] = _mm_loadu_ps(lut + s * kLutEntries + 4 * v);
    const __m256d low = _mm256_set1_pd(static_cast<double>(least_of(e[0], e[1], e[2], e[3])));
    for (int v = 0; v < 4; ++v) q[v] = divided4(e[v], low, step);
    store_entries(out + s * kLutEntries, q);
  }
}
#endif

// Sums of 8-bit codes, eight rows at a time: eight sums stay in registers and hide one another's latency. Plain loads, because a gather of eight
// costs more than eight loads on the processors measured (Zen 4).
void sums8(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const float* tables, bool start, float* sums) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int g = 0; g < 32; g += 8) {
      const uint8_t* const codes = blocks + b * stride + g;
      float* const to = sums + b * 32 + g;
      float acc[8];
      for (int r = 0; r < 8; ++r) acc[r] = start ? tables[codes[r]] : to[r];
      for (int64_t s = start ? 1 : 0; s < n_sub; ++s) {
        for (int r = 0; r < 8; ++r) acc[r] += tables[s * 256 + codes[s * 32 + r]];
      }
      for (int r = 0; r < 8; ++r) to[r] = acc[r];
    }
  }
}

}  // namespace
}  // namespace warpmem
