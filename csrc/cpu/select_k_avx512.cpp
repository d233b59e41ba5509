// Candidate filter of select_k with AVX-512. 64 scores a step are compared as with AVX2, eight at a time: collecting masks in mask registers was
// slower on Zen 4. What passes is packed together by a compress in a register (the form that compresses to memory is slow on some processors) and
// stored whole. A store writes 16 places and keeps those that count, which is why `room` always leaves 64.
#include <immintrin.h>
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

// Stores the keys of the scores chosen by `mask`.
inline __attribute__((always_inline)) void append(__m512 scores, __mmask16 mask, uint32_t first, uint64_t* keys) {
  const __m512i bits = _mm512_castps_si512(_mm512_add_ps(scores, _mm512_setzero_ps()));
  const __m512i flip = _mm512_or_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(static_cast<int32_t>(0x80000000u)));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(first)), lanes);
  const __m512i high = _mm512_maskz_compress_epi32(mask, _mm512_xor_si512(bits, flip));
  const __m512i low = _mm512_maskz_compress_epi32(mask, _mm512_andnot_si512(index, _mm512_set1_epi32(-1)));
  const __m512i front = _mm512_or_si512(_mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(high)), 32),
                                        _mm512_cvtepu32_epi64(_mm512_castsi512_si256(low)));
  const __m512i back = _mm512_or_si512(_mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(high, 1)), 32),
                                       _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(low, 1)));
  _mm512_storeu_si512(keys, front);
  _mm512_storeu_si512(keys + 8, back);
}

inline __attribute__((always_inline)) bool none_passes(const float* scores, __m256 limit) {
  __m256 passed[8];
  for (int v = 0; v < 8; ++v) passed[v] = _mm256_cmp_ps(_mm256_loadu_ps(scores + 8 * v), limit, _CMP_NLE_UQ);
  const __m256 any = _mm256_or_ps(_mm256_or_ps(_mm256_or_ps(passed[0], passed[1]), _mm256_or_ps(passed[2], passed[3])),
                                  _mm256_or_ps(_mm256_or_ps(passed[4], passed[5]), _mm256_or_ps(passed[6], passed[7])));
  return _mm256_movemask_ps(any) == 0;
}

int64_t collect(const float* scores, int64_t begin, int64_t end, float threshold, uint32_t offset, uint64_t* keys, int64_t room,
                int64_t* n) {
  const __m512 limit = _mm512_set1_ps(threshold);
  int64_t count = *n;
  int64_t i = begin;
  while (i < end && room - count >= 64) {
    const int64_t left = end - i;
    if (left >= 64 && none_passes(scores + i, _mm512_castps512_ps256(limit))) {
      i += 64;
      continue;
    }
    const uint64_t valid = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    for (int v = 0; v < 4; ++v) {
      const __mmask16 lanes = static_cast<__mmask16>(valid >> (16 * v));
      const __m512 x = _mm512_maskz_loadu_ps(lanes, scores + i + 16 * v);
      const __mmask16 passed = _mm512_mask_cmp_ps_mask(lanes, x, limit, _CMP_NLE_UQ);
      if (passed == 0) continue;
      const __mmask16 nan = _mm512_mask_cmp_ps_mask(passed, x, x, _CMP_UNORD_Q);
      if (nan != 0) return -1 - (i + 16 * v + __builtin_ctz(nan));
      append(x, passed, static_cast<uint32_t>(i + 16 * v) + offset, keys + count);
      count += __builtin_popcount(passed);
    }
    i += left >= 64 ? 64 : left;
  }
  *n = count;
  return i;
}

int64_t collect_u16(const uint16_t* scores, int64_t begin, int64_t end, uint16_t least, uint32_t offset, uint64_t* keys,
                    int64_t room, int64_t* n) {
  const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(least));
  int64_t count = *n;
  int64_t i = begin;
  while (i < end && room - count >= 64) {
    const int64_t left = end - i;
    const uint64_t valid = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    uint64_t mask = 0;
    for (int v = 0; v < 2; ++v) {
      const __mmask32 lanes = static_cast<__mmask32>(valid >> (32 * v));
      const __m512i x = _mm512_maskz_loadu_epi16(lanes, scores + i + 32 * v);
      mask |= static_cast<uint64_t>(_mm512_mask_cmpge_epu16_mask(lanes, x, limit)) << (32 * v);
    }
    while (mask != 0) {
      const int64_t at = i + __builtin_ctzll(mask);
      mask &= mask - 1;
      keys[count++] = static_cast<uint64_t>(scores[at]) << 32 | static_cast<uint32_t>(~(static_cast<uint32_t>(at) + offset));
    }
    i += left >= 64 ? 64 : left;
  }
  *n = count;
  return i;
}

}  // namespace

const SelectKernels kAvx512Select = {collect, collect_u16};

}  // namespace warpmem
