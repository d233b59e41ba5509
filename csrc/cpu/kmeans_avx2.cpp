// Kernels of k-means with AVX2 and FMA. The block of 16 rows is two registers wide and the tile has 6 centroids: 12 registers of sums stay in
// registers while dim is walked once, each step loading two registers of rows and broadcasting 6 numbers. A lane belongs to one row, so the best
// centroid so far is kept lane by lane without ever adding across a register (the register blocking of Goto and van de Geijn, "Anatomy of
// high-performance matrix multiplication", 2008).
#include <immintrin.h>
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

constexpr int kWide = 8;
constexpr int kRows = 2 * kWide;
constexpr int kCentroids = 6;

using Sums = __m256[kCentroids][2];

inline __attribute__((always_inline)) void multiply(const float* block, int64_t dim, const float* tile, Sums& sums) {
  for (int c = 0; c < kCentroids; ++c) sums[c][0] = sums[c][1] = _mm256_setzero_ps();
  for (int64_t i = 0; i < dim; ++i) {
    const __m256 x0 = _mm256_loadu_ps(block + i * kRows);
    const __m256 x1 = _mm256_loadu_ps(block + i * kRows + kWide);
    for (int c = 0; c < kCentroids; ++c) {
      const __m256 y = _mm256_set1_ps(tile[i * kCentroids + c]);
      sums[c][0] = _mm256_fmadd_ps(x0, y, sums[c][0]);
      sums[c][1] = _mm256_fmadd_ps(x1, y, sums[c][1]);
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
        __m256 first = _mm256_loadu_ps(best + at);
        __m256 next = _mm256_loadu_ps(second + at);
        __m256i which = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index + at));
        for (int c = 0; c < kCentroids; ++c) {
          const int64_t centroid = t * kCentroids + c;
          const __m256 score = _mm256_add_ps(sums[c][v], _mm256_set1_ps(bias[centroid]));
          const __m256i number = _mm256_set1_epi32(static_cast<int32_t>(centroid));
          const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(score, first, _CMP_GT_OQ));
          which = _mm256_blendv_epi8(which, number, above);
          next = _mm256_max_ps(next, _mm256_min_ps(score, first));
          first = _mm256_max_ps(score, first);
        }
        _mm256_storeu_ps(best + at, first);
        _mm256_storeu_ps(second + at, next);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(index + at), which);
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
        const __m256 score = _mm256_add_ps(sums[c][v], _mm256_set1_ps(bias[centroid]));
        const __m256 limit = _mm256_loadu_ps(limits + v * kWide);
        uint32_t mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(score, limit, _CMP_GE_OQ)));
        for (; mask != 0; mask &= mask - 1) found[n++] = static_cast<int64_t>(v * kWide + __builtin_ctz(mask)) << 32 | centroid;
      }
    }
  }
  return n;
}

inline __attribute__((always_inline)) __m256d wide(const float* from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }

// One line of 32 elements: squares of differences, or products.
template <bool kSquares>
inline __attribute__((always_inline)) void add_line(const float* a, const float* b, __m256d (&acc)[8]) {
  for (int v = 0; v < 8; ++v) {
    if (kSquares) {
      const __m256d difference = _mm256_sub_pd(wide(a + 4 * v), wide(b + 4 * v));
      acc[v] = _mm256_add_pd(acc[v], _mm256_mul_pd(difference, difference));
    } else {
      acc[v] = _mm256_fmadd_pd(wide(a + 4 * v), wide(b + 4 * v), acc[v]);
    }
  }
}

template <bool kSquares>
double canonical_sum(const float* a, const float* b, int64_t dim) {
  __m256d acc[8];
  for (int v = 0; v < 8; ++v) acc[v] = _mm256_setzero_pd();
  int64_t i = 0;
  for (; i + 32 <= dim; i += 32) add_line<kSquares>(a + i, b + i, acc);
  if (i < dim) {
    float rest_a[32] = {};
    float rest_b[32] = {};
    memcpy(rest_a, a + i, static_cast<size_t>(dim - i) * sizeof(float));
    memcpy(rest_b, b + i, static_cast<size_t>(dim - i) * sizeof(float));
    add_line<kSquares>(rest_a, rest_b, acc);
  }
  for (int v = 0; v < 4; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 4]);
  for (int v = 0; v < 2; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 2]);
  acc[0] = _mm256_add_pd(acc[0], acc[1]);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(acc[0]), _mm256_extractf128_pd(acc[0], 1));
  return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

}  // namespace

const NearestKernels kAvx2Nearest = {kRows, kCentroids, nearest, near, canonical_sum<true>, canonical_sum<false>};

}  // namespace warpmem
