// Keys of `select_k`: one 64-bit number holds a score and its tie-break, so that the k best of anything are the k largest numbers.
//
//   bits 63..32   order-preserving image of the score (float_to_key), or a plain integer score
//   bits 31..0    ~index: of equal scores the smaller index is the larger key
//
// No two keys of one selection are equal, so every algorithm that finds the k largest finds the same k in the same order.
#pragma once

#include <cstdint>

#include "hd.hpp"
#include "keys.hpp"

namespace warpmem {

constexpr int64_t kSelectMaxK = 4096;
constexpr int64_t kSelectMaxColumns = int64_t{1} << 31;  // an index fits in 31 bits

// -0 counts as +0. `score` is not NaN.
WARPMEM_HD inline uint64_t select_key(float score, uint32_t index) {
  return static_cast<uint64_t>(float_to_key(score + 0.0f)) << 32 | static_cast<uint32_t>(~index);
}

WARPMEM_HD inline uint64_t select_key(uint32_t score, uint32_t index) {
  return static_cast<uint64_t>(score) << 32 | static_cast<uint32_t>(~index);
}

WARPMEM_HD inline float key_score(uint64_t key) { return key_to_float(static_cast<uint32_t>(key >> 32)); }
WARPMEM_HD inline uint32_t key_integer(uint64_t key) { return static_cast<uint32_t>(key >> 32); }
WARPMEM_HD inline uint32_t key_index(uint64_t key) { return ~static_cast<uint32_t>(key); }

// Room for candidates while k are sought: large enough that the threshold is seldom renewed, small enough to stay in the first cache. Holds k, one
// step of the widest kernel (64), and as many more as k.
WARPMEM_HD inline int64_t select_capacity(int64_t k) { return 2 * k + 256; }

}  // namespace warpmem
