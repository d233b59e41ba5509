// CRC-32C by the SSE4.2 instruction, eight bytes a step. The same function as crc32c_portable in core/crc32c.hpp.
#include <nmmintrin.h>
#include <string.h>

#include "kernels.hpp"

namespace warpmem {

uint32_t crc32c_sse42(uint32_t value, const void* data, size_t size) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint64_t crc = ~value;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    crc = _mm_crc32_u64(crc, word);
  }
  uint32_t tail = static_cast<uint32_t>(crc);
  for (; size > 0; --size, ++p) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

}  // namespace warpmem
