// Kernels of k-means with AVX-512. The block of 32 rows is two registers wide and the tile has 12 centroids: 24 registers of sums stay in registers
// while dim is walked once, each step loading two registers of rows and broadcasting 12 numbers. A lane belongs to one row, so the best centroid so
// far is kept lane by lane without ever adding across a register (the register blocking of Goto and van de Geijn, "Anatomy of high-performance
// matrix multiplication", 2008).
#include <immintrin.h>
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

constexpr int kWide = 16;
constexpr int kRows = 2 * kWide;
constexpr int kCentroids = 12;

using Sums = __m512[kCentroids][2];

inline __attribute__((always_inline)) void multiply(const float* block, int64_t dim, const float* tile, Sums& sums) {
  for (int c = 0; c < kCentroids; ++c) sums[c][0] = sums[c][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < dim; ++i) {
    const __m512 x0 = _mm512_loadu_ps(block + i * kRows);
    const __m512 x1 = _mm512_loadu_ps(block + i * kRows + kWide);
    for (int c = 0; c < kCentroids; ++c) {
      const __m512 y = _mm512_set1_ps(tile[i * kCentroids + c]);
      sums[c][0] = _mm512_fmadd_ps(x0, y, sums[c][0]);
      sums[c][1] = _mm512_fmadd_ps(x1, y, sums[c][1]);
    }
  }
}

void nearest(const float* blocks, int64_t n_blocks, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles,
             float* best, float* second, int32_t* index) {
  for (int64_t r = 0; r < n_blocks * kRows; ++r) {
    best[r] = second[r] = -__builtin_inff();
    index[r] = 0;
  }
  // A tile stays in the first cache while all blocks pass it.
  for (int64_t t = 0; t < n_tiles; ++t) {
    for (int64_t b = 0; b < n_blocks; ++b) {
      Sums sums;
      multiply(blocks + b * dim * kRows, dim, tiles + t * dim * kCentroids, sums);
      for (int v = 0; v < 2; ++v) {
        const int64_t at = b * kRows + v * kWide;
        __m512 first = _mm512_loadu_ps(best + at);
        __m512 next = _mm512_loadu_ps(second + at);
        __m512i which = _mm512_loadu_si512(index + at);
        for (int c = 0; c < kCentroids; ++c) {
          const int64_t centroid = t * kCentroids + c;
          const __m512 score = _mm512_add_ps(sums[c][v], _mm512_set1_ps(bias[centroid]));
          const __m512i number = _mm512_set1_epi32(static_cast<int32_t>(centroid));
          which = _mm512_mask_mov_epi32(which, _mm512_cmp_ps_mask(score, first, _CMP_GT_OQ), number);
          next = _mm512_max_ps(next, _mm512_min_ps(score, first));
          first = _mm512_max_ps(score, first);
        }
        _mm512_storeu_ps(best + at, first);
        _mm512_storeu_ps(second + at, next);
        _mm512_storeu_si512(index + at, which);
      }
    }
  }
}

int64_t near(const float* block, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles, const float* limits,
             int64_t* found) {
  int64_t n = 0;
  for (int64_t t = 0; t < n_tiles; ++t) {
    Sums sums;
    multiply(block, dim, tiles + t * dim * kCentroids, sums);
    for (int c = 0; c < kCentroids; ++c) {
      const int64_t centroid = t * kCentroids + c;
      for (int v = 0; v < 2; ++v) {
        const __m512 score = _mm512_add_ps(sums[c][v], _mm512_set1_ps(bias[centroid]));
        const __m512 limit = _mm512_loadu_ps(limits + v * kWide);
        uint32_t mask = static_cast<uint32_t>(_mm512_cmp_ps_mask(score, limit, _CMP_GE_OQ));
        for (; mask != 0; mask &= mask - 1) found[n++] = static_cast<int64_t>(v * kWide + __builtin_ctz(mask)) << 32 | centroid;
      }
    }
  }
  return n;
}

// acc + (a - b)^2, or acc + a b.
template <bool kSquares>
inline __attribute__((always_inline)) __m512d add_line(__m512d acc, __m256 a, __m256 b) {
  if (!kSquares) return _mm512_fmadd_pd(_mm512_cvtps_pd(a), _mm512_cvtps_pd(b), acc);
  const __m512d difference = _mm512_sub_pd(_mm512_cvtps_pd(a), _mm512_cvtps_pd(b));
  return _mm512_add_pd(acc, _mm512_mul_pd(difference, difference));
}

template <bool kSquares>
double canonical_sum(const float* a, const float* b, int64_t dim) {
  __m512d acc[4];
  for (int v = 0; v < 4; ++v) acc[v] = _mm512_setzero_pd();
  int64_t i = 0;
  for (; i + 32 <= dim; i += 32) {
    for (int v = 0; v < 4; ++v)
      acc[v] = add_line<kSquares>(acc[v], _mm256_loadu_ps(a + i + 8 * v), _mm256_loadu_ps(b + i + 8 * v));
  }
  if (i < dim) {
    const uint32_t valid = (uint32_t{1} << (dim - i)) - 1;
    for (int v = 0; v < 4; ++v) {
      const __mmask8 lanes = static_cast<__mmask8>(valid >> (8 * v));
      acc[v] =
          add_line<kSquares>(acc[v], _mm256_maskz_loadu_ps(lanes, a + i + 8 * v), _mm256_maskz_loadu_ps(lanes, b + i + 8 * v));
    }
  }
  acc[0] = _mm512_add_pd(acc[0], acc[2]);
  acc[1] = _mm512_add_pd(acc[1], acc[3]);
  acc[0] = _mm512_add_pd(acc[0], acc[1]);
  const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(acc[0]), _mm512_extractf64x4_pd(acc[0], 1));
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

}  // namespace

const NearestKernels kAvx512Nearest = {kRows, kCentroids, nearest, near, canonical_sum<true>, canonical_sum<false>};

}  // namespace warpmem
