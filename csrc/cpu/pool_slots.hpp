// Where the rows of a list lie: position p of a list is slot p % 64 of a page, in a block of 64 pages.
#pragma once

#include <cstdint>

#include "pool.hpp"

namespace warpmem {

inline uint64_t bit_of(int64_t position) { return uint64_t{1} << (position % kPageRows); }
inline size_t block_of(int64_t position) { return static_cast<size_t>(position / kBlockRows); }
inline size_t page_of(int64_t position) { return static_cast<size_t>(position % kBlockRows / kPageRows); }
inline int slot_of(int64_t position) { return static_cast<int>(position % kPageRows); }
inline size_t blocks_for(int64_t slots) { return static_cast<size_t>((slots + kBlockRows - 1) / kBlockRows); }

// Calls f(position, page, slot) for every live row, in the order in which they lie. Only `planes` of the pages may be looked at.
template <typename F>
void for_each_live(const List& list, unsigned planes, F&& f) {
  for (int64_t first = 0; first < list.slots; first += kPageRows) {
    const Block& block = *list.blocks[block_of(first)];
    uint64_t valid = block.valid[page_of(first)];
    if (valid == 0) continue;
    const Page& source = *block.pages[page_of(first)];
    source.require(planes);
    const ConstPage page = source.memory();
    for (; valid != 0; valid &= valid - 1) {
      const int slot = __builtin_ctzll(valid);
      f(first + slot, page, slot);
    }
  }
}

}  // namespace warpmem
