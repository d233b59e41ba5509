// Portable sums of a product-quantisation scan, over blocks of 32 interleaved rows (core/pq_code.hpp).
#include "../core/pq_code.hpp"
#include "op_kernels.hpp"

#define WARPMEM_LUT_BYTES 16
#include "pq_common.hpp"

namespace warpmem {
namespace {

void sums4(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const uint8_t* lut, uint16_t* sums) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    const uint8_t* const block = blocks + b * stride;
    uint16_t acc[32] = {};
    for (int64_t s = 0; s < n_sub; ++s) {
      for (int j = 0; j < 16; ++j) {
        const uint8_t codes = block[s * 16 + j];
        acc[j] = static_cast<uint16_t>(acc[j] + lut[s * 16 + (codes & 15)]);
        acc[j + 16] = static_cast<uint16_t>(acc[j + 16] + lut[s * 16 + (codes >> 4)]);
      }
    }
    for (int r = 0; r < 32; ++r) sums[b * 32 + r] = acc[r];
  }
}

WARPMEM_READS_UNPUBLISHED void page4(const uint8_t* plane, int64_t pairs, const uint8_t* lut, uint16_t* sums) {
  for (int r = 0; r < 64; ++r) sums[r] = 0;
  for (int64_t p = 0; p < pairs; ++p) {
    for (int r = 0; r < 64; ++r) {
      const uint8_t codes = plane[p * 64 + r];
      sums[r] = static_cast<uint16_t>(sums[r] + lut[p * 32 + (codes & 15)] + lut[p * 32 + 16 + (codes >> 4)]);
    }
  }
}

}  // namespace

const PqKernels kSerialPq = {lut, pq_quantize_lut, sums4, page4, sums8};

}  // namespace warpmem
