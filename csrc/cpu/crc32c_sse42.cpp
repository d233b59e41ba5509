// CRC-32C by the SSE4.2 instruction. The same function as crc32c_portable in core/crc32c.hpp.
//
// The instruction takes three cycles and can begin every cycle, so long data is cut into blocks of three stretches that are summed up side by side:
//
//   | stretch a, kStretch bytes | b | c |        crc(abc) = zeros(zeros(crc(a)) ^ crc(b)) ^ crc(c)        (sums begin at 0 but for a's)
//
// where zeros(s) is what s becomes when kStretch zero bytes follow. A CRC without its inversions is linear over GF(2), so zeros(s) is a sum (exclusive or)
// over the bits of s, here looked up by bytes.
#include <nmmintrin.h>
#include <string.h>

#include "kernels.hpp"

namespace warpmem {

namespace {

constexpr size_t kStretch = 1024;

struct Zeros {
  uint32_t by_byte[4][256];
};

// by_bit[i] is what bit i becomes; first for one zero bit, then, squared again and again, for 8 * kStretch of them.
constexpr Zeros make_zeros() {
  uint32_t by_bit[32] = {0x82f63b78u};
  for (int i = 1; i < 32; ++i) by_bit[i] = uint32_t{1} << (i - 1);
  for (size_t bits = 1; bits < 8 * kStretch; bits *= 2) {
    uint32_t twice[32] = {};
    for (int i = 0; i < 32; ++i) {
      for (int j = 0; j < 32; ++j) twice[i] ^= (by_bit[i] >> j & 1) != 0 ? by_bit[j] : 0;
    }
    for (int i = 0; i < 32; ++i) by_bit[i] = twice[i];
  }
  Zeros zeros{};
  for (int byte = 0; byte < 4; ++byte) {
    for (int value = 0; value < 256; ++value) {
      for (int i = 0; i < 8; ++i) zeros.by_byte[byte][value] ^= (value >> i & 1) != 0 ? by_bit[8 * byte + i] : 0;
    }
  }
  return zeros;
}

constexpr Zeros kZeros = make_zeros();

uint64_t add_zeros(uint64_t sum) {
  return kZeros.by_byte[0][sum & 0xff] ^ kZeros.by_byte[1][sum >> 8 & 0xff] ^ kZeros.by_byte[2][sum >> 16 & 0xff] ^
         kZeros.by_byte[3][sum >> 24 & 0xff];
}

uint64_t word_at(const unsigned char* p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

}  // namespace

uint32_t crc32c_sse42(uint32_t value, const void* data, size_t size) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint64_t crc = ~value;
  for (; size >= 3 * kStretch; size -= 3 * kStretch, p += 3 * kStretch) {
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < kStretch; i += 8) {
      crc = _mm_crc32_u64(crc, word_at(p + i));
      b = _mm_crc32_u64(b, word_at(p + kStretch + i));
      c = _mm_crc32_u64(c, word_at(p + 2 * kStretch + i));
    }
    crc = add_zeros(add_zeros(crc) ^ b) ^ c;
  }
  for (; size >= 8; size -= 8, p += 8) crc = _mm_crc32_u64(crc, word_at(p));
  uint32_t tail = static_cast<uint32_t>(crc);
  for (; size > 0; --size, ++p) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

}  // namespace warpmem
