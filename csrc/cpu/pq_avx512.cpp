// Sums of a product-quantisation scan with AVX-512: the arithmetic of pq_avx2.cpp, four subspaces of a block in one register. A last load reads only
// what the block has; the tables are padded with zeros.
#include <immintrin.h>

#include "op_kernels.hpp"

#define WARPMEM_LUT_BYTES 64
#include "pq_common.hpp"

namespace warpmem {
namespace {

struct Halves {
  __m512i mixed;
  __m512i odd;
};

inline __attribute__((always_inline)) void add(Halves& sum, __m512i bytes) {
  sum.mixed = _mm512_add_epi16(sum.mixed, bytes);
  sum.odd = _mm512_add_epi16(sum.odd, _mm512_srli_epi16(bytes, 8));
}

inline __attribute__((always_inline)) __m128i quarters(__m512i x) {
  const __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The sums of 16 rows, in order.
inline __attribute__((always_inline)) __m256i fold(const Halves& sum) {
  const __m128i e = quarters(_mm512_sub_epi16(sum.mixed, _mm512_slli_epi16(sum.odd, 8)));
  const __m128i o = quarters(sum.odd);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(e, o)), _mm_unpackhi_epi16(e, o), 1);
}

void sums4(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const uint8_t* lut, uint16_t* sums) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const int64_t whole = n_sub / 4 * 4;
  const __mmask8 rest = static_cast<__mmask8>((1u << (2 * (n_sub - whole))) - 1);
  for (int64_t b = 0; b < n_blocks; ++b) {
    const uint8_t* const block = blocks + b * stride;
    Halves low = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    Halves high = low;
    for (int64_t s = 0; s < whole; s += 4) {
      const __m512i table = _mm512_loadu_si512(lut + s * 16);
      const __m512i codes = _mm512_loadu_si512(block + s * 16);
      add(low, _mm512_shuffle_epi8(table, _mm512_and_si512(codes, nibble)));
      add(high, _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble)));
    }
    if (rest != 0) {
      const __m512i table = _mm512_loadu_si512(lut + whole * 16);
      const __m512i codes = _mm512_maskz_loadu_epi64(rest, block + whole * 16);
      add(low, _mm512_shuffle_epi8(table, _mm512_and_si512(codes, nibble)));
      add(high, _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + b * 32), fold(low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + b * 32 + 16), fold(high));
  }
}

WARPMEM_READS_UNPUBLISHED void page4(const uint8_t* plane, int64_t pairs, const uint8_t* lut, uint16_t* sums) {
  const __m512i nibble = _mm512_set1_epi8(15);
  Halves low = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  Halves high = low;
  for (int64_t p = 0; p < pairs; ++p) {
    const __m512i codes = _mm512_loadu_si512(plane + p * 64);
    const __m512i even = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lut + p * 32)));
    const __m512i odd = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lut + p * 32 + 16)));
    add(low, _mm512_shuffle_epi8(even, _mm512_and_si512(codes, nibble)));
    add(high, _mm512_shuffle_epi8(odd, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble)));
  }
  const __m512i o = _mm512_add_epi16(low.odd, high.odd);
  const __m512i e = _mm512_sub_epi16(_mm512_add_epi16(low.mixed, high.mixed), _mm512_slli_epi16(o, 8));
  const __m512i front = _mm512_unpacklo_epi16(e, o);  // rows 0..7, 16..23, 32..39, 48..55
  const __m512i back = _mm512_unpackhi_epi16(e, o);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_storeu_si512(sums, _mm512_permutex2var_epi64(front, first, back));
  _mm512_storeu_si512(sums + 32, _mm512_permutex2var_epi64(front, second, back));
}

}  // namespace

const PqKernels kAvx512Pq = {lut, quantize, sums4, page4, sums8};

}  // namespace warpmem
