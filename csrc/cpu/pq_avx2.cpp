// Sums of a product-quantisation scan with AVX2.
//
// 4 bits: a register holds two subspaces of one block, 16 bytes each, and the matching 16-entry tables; vpshufb looks up 32 rows' codes at a time
// (Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with product quantization fast scan",
// 2015). Its results are bytes; they are added as 16-bit numbers, where an odd byte weighs 256, and the odd bytes again by themselves:
//   mixed = sum even + 256 * sum odd (mod 2^16)     odd = sum odd     =>     sum even = mixed - 256 * odd (mod 2^16)
// which is exact as long as each true sum is below 2^16: at most 256 subspaces of at most 255.
#include <immintrin.h>

#include "op_kernels.hpp"

#define WARPMEM_LUT_BYTES 32
#include "pq_common.hpp"

namespace warpmem {
namespace {

struct Halves {
  __m256i mixed;
  __m256i odd;
};

inline __attribute__((always_inline)) void add(Halves& sum, __m256i bytes) {
  sum.mixed = _mm256_add_epi16(sum.mixed, bytes);
  sum.odd = _mm256_add_epi16(sum.odd, _mm256_srli_epi16(bytes, 8));
}

// The sums of 16 rows, in order.
inline __attribute__((always_inline)) __m256i fold(const Halves& sum) {
  const __m256i even = _mm256_sub_epi16(sum.mixed, _mm256_slli_epi16(sum.odd, 8));
  const __m128i e = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
  const __m128i o = _mm_add_epi16(_mm256_castsi256_si128(sum.odd), _mm256_extracti128_si256(sum.odd, 1));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(e, o)), _mm_unpackhi_epi16(e, o), 1);
}

void sums4(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const uint8_t* lut, uint16_t* sums) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int64_t b = 0; b < n_blocks; ++b) {
    const uint8_t* const block = blocks + b * stride;
    Halves low = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    Halves high = low;
    for (int64_t s = 0; s < n_sub; s += 2) {
      const __m256i table = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lut + s * 16));
      const __m256i codes = s + 1 < n_sub
                                ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + s * 16))
                                : _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + s * 16)));
      add(low, _mm256_shuffle_epi8(table, _mm256_and_si256(codes, nibble)));
      add(high, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + b * 32), fold(low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + b * 32 + 16), fold(high));
  }
}

inline __attribute__((always_inline)) void store(const Halves& sum, uint16_t* sums) {
  const __m256i e = _mm256_sub_epi16(sum.mixed, _mm256_slli_epi16(sum.odd, 8));
  const __m256i front = _mm256_unpacklo_epi16(e, sum.odd);  // rows 0..7 and 16..23
  const __m256i back = _mm256_unpackhi_epi16(e, sum.odd);   // rows 8..15 and 24..31
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_permute2x128_si256(front, back, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 16), _mm256_permute2x128_si256(front, back, 0x31));
}

// 32 rows to a register, whose halves look up the same table; both registers of a page, so that a table is read once.
WARPMEM_READS_UNPUBLISHED void page4(const uint8_t* plane, int64_t pairs, const uint8_t* lut, uint16_t* sums) {
  const __m256i nibble = _mm256_set1_epi8(15);
  Halves front = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  Halves back = front;
  for (int64_t p = 0; p < pairs; ++p) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane + p * 64));
    const __m256i last = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane + p * 64 + 32));
    const __m256i even = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lut + p * 32)));
    const __m256i odd = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lut + p * 32 + 16)));
    add(front, _mm256_shuffle_epi8(even, _mm256_and_si256(first, nibble)));
    add(front, _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(first, 4), nibble)));
    add(back, _mm256_shuffle_epi8(even, _mm256_and_si256(last, nibble)));
    add(back, _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(last, 4), nibble)));
  }
  store(front, sums);
  store(back, sums + 32);
}

}  // namespace

const PqKernels kAvx2Pq = {lut, quantize, sums4, page4, sums8};

}  // namespace warpmem
