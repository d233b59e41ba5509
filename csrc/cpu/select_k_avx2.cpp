// Candidate filter of select_k with AVX2: 64 scores are compared with the threshold by eight compares, and nearly always none passes. "Not below or
// equal" is also true of NaN, so that the search for NaN costs nothing.
#include <immintrin.h>
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

inline __attribute__((always_inline)) uint64_t key_of(float score, uint32_t index) {
  score += 0.0f;
  uint32_t bits;
  memcpy(&bits, &score, sizeof bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~index);
}

int64_t collect(const float* scores, int64_t begin, int64_t end, float threshold, uint32_t offset, uint64_t* keys, int64_t room,
                int64_t* n) {
  const __m256 limit = _mm256_set1_ps(threshold);
  int64_t count = *n;
  int64_t i = begin;
  while (end - i >= 64 && room - count >= 64) {
    __m256 passed[8];
    for (int v = 0; v < 8; ++v) passed[v] = _mm256_cmp_ps(_mm256_loadu_ps(scores + i + 8 * v), limit, _CMP_NLE_UQ);
    const __m256 any = _mm256_or_ps(_mm256_or_ps(_mm256_or_ps(passed[0], passed[1]), _mm256_or_ps(passed[2], passed[3])),
                                    _mm256_or_ps(_mm256_or_ps(passed[4], passed[5]), _mm256_or_ps(passed[6], passed[7])));
    if (_mm256_movemask_ps(any) != 0) {
      uint64_t mask = 0;
      for (int v = 0; v < 8; ++v) mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(passed[v]))) << (8 * v);
      while (mask != 0) {
        const int64_t at = i + __builtin_ctzll(mask);
        mask &= mask - 1;
        if (scores[at] != scores[at]) return -1 - at;
        keys[count++] = key_of(scores[at], static_cast<uint32_t>(at) + offset);
      }
    }
    i += 64;
  }
  if (room - count >= 64) {
    for (; i < end; ++i) {
      if (scores[i] <= threshold) continue;
      if (scores[i] != scores[i]) return -1 - i;
      keys[count++] = key_of(scores[i], static_cast<uint32_t>(i) + offset);
    }
  }
  *n = count;
  return i;
}

int64_t collect_u16(const uint16_t* scores, int64_t begin, int64_t end, uint16_t least, uint32_t offset, uint64_t* keys,
                    int64_t room, int64_t* n) {
  const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(least));
  int64_t count = *n;
  int64_t i = begin;
  while (end - i >= 64 && room - count >= 64) {
    for (int v = 0; v < 4; ++v) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + i + 16 * v));
      // x >= limit; two mask bits a score, of which the even one is kept
      uint32_t mask =
          static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(x, limit), x))) & 0x55555555u;
      while (mask != 0) {
        const int64_t at = i + 16 * v + __builtin_ctz(mask) / 2;
        mask &= mask - 1;
        keys[count++] = static_cast<uint64_t>(scores[at]) << 32 | static_cast<uint32_t>(~(static_cast<uint32_t>(at) + offset));
      }
    }
    i += 64;
  }
  if (room - count >= 64) {
    for (; i < end; ++i) {
      if (scores[i] < least) continue;
      keys[count++] = static_cast<uint64_t>(scores[i]) << 32 | static_cast<uint32_t>(~(static_cast<uint32_t>(i) + offset));
    }
  }
  *n = count;
  return i;
}

}  // namespace

const SelectKernels kAvx2Select = {collect, collect_u16};

}  // namespace warpmem
