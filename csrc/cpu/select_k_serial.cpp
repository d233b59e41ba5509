// Portable candidate filter of select_k: one comparison a score. The key is that of core/select_k.hpp.
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

uint64_t key_of(float score, uint32_t index) {
  score += 0.0f;
  uint32_t bits;
  memcpy(&bits, &score, sizeof bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(~index);
}

int64_t collect(const float* scores, int64_t begin, int64_t end, float threshold, uint32_t offset, uint64_t* keys, int64_t room,
                int64_t* n) {
  int64_t count = *n;
  int64_t i = begin;
  while (i < end && room - count >= 64) {
    const int64_t stop = end - i < 64 ? end : i + 64;
    for (; i < stop; ++i) {
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
  int64_t count = *n;
  int64_t i = begin;
  while (i < end && room - count >= 64) {
    const int64_t stop = end - i < 64 ? end : i + 64;
    for (; i < stop; ++i) {
      if (scores[i] < least) continue;
      keys[count++] = static_cast<uint64_t>(scores[i]) << 32 | static_cast<uint32_t>(~(static_cast<uint32_t>(i) + offset));
    }
  }
  *n = count;
  return i;
}

}  // namespace

const SelectKernels kSerialSelect = {collect, collect_u16};

}  // namespace warpmem
