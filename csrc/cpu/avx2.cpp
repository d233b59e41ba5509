// AVX2 + FMA kernels. Eight registers of four doubles are the 32 canonical accumulators:
//
//   acc[v] = lanes 4v .. 4v+3        v = 0 .. 7
//
// The fold by 16, 8 and 4 adds whole registers, by 2 the halves of one, by 1 its last two lanes. Fused multiply-add is allowed here because the
// product of two float32 numbers is exact in float64: rounding once or twice gives the same bits. Eight independent chains of latency 4 keep two FMA
// units busy.
#include <immintrin.h>

#include "kernels.hpp"

namespace warpmem {
namespace {

inline __attribute__((always_inline)) float dot_row(const float* row, const double* query, int64_t padded) {
  __m256d acc[8];
  for (int v = 0; v < 8; ++v) acc[v] = _mm256_setzero_pd();
  for (int64_t i = 0; i < padded; i += 32) {
    for (int v = 0; v < 8; ++v) {
      const __m256d x = _mm256_cvtps_pd(_mm_loadu_ps(row + i + 4 * v));
      acc[v] = _mm256_fmadd_pd(x, _mm256_loadu_pd(query + i + 4 * v), acc[v]);
    }
  }
  for (int v = 0; v < 4; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 4]);
  for (int v = 0; v < 2; ++v) acc[v] = _mm256_add_pd(acc[v], acc[v + 2]);
  acc[0] = _mm256_add_pd(acc[0], acc[1]);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(acc[0]), _mm256_extractf128_pd(acc[0], 1));
  const __m128d sum = _mm_add_sd(pair, _mm_unpackhi_pd(pair, pair));
  return _mm_cvtss_f32(_mm_cvtsd_ss(_mm_setzero_ps(), sum));
}

void dots(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  while (mask != 0) {
    const int i = __builtin_ctzll(mask);
    mask &= mask - 1;
    similarities[i] = dot_row(rows + i * padded, query, padded);
  }
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2", dots};

}  // namespace warpmem
