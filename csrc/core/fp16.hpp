// IEEE 754 half precision in integer arithmetic: the same bits as the F16C instructions, everywhere.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.hpp"

namespace warpmem {

constexpr float kHalfLimit = 65520.0f;  // magnitudes from here on round to infinity

// Rounds to nearest, ties to even.
WARPMEM_HD inline uint16_t float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the multiple of 2^-24 in the low bits, rounded by the adder
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof bits);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  bits += 0xc8000fffu +
          ((bits >> 13) & 1u);  // exponent bias 127 -> 15; half of the cut-off part, less one when that makes an odd number even
  return static_cast<uint16_t>(sign | (bits >> 13));
}

// Exact.
WARPMEM_HD inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t bits = static_cast<uint32_t>(half & 0x7fffu) << 13;
  if (bits >= 0x0f800000u) {
    bits += 0x70000000u;  // infinity or NaN: exponent 31 -> 255
  } else if (bits >= 0x00800000u) {
    bits += 0x38000000u;
  } else {  // subnormal: a multiple of 2^-24
    const float magnitude = static_cast<float>(half & 0x7fffu) * 5.9604644775390625e-08f;
    memcpy(&bits, &magnitude, sizeof bits);
  }
  bits |= sign;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace warpmem
