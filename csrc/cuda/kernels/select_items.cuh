// Items of a selection on the device, and how warps and blocks order them: what select_k and the scans that end in a selection share.
//
// An item is a key of core/select_k.hpp; with ordinals the key's low half is ~ordinal and the index follows it. Key 0 is no item: it comes last.
// Sorting networks after Batcher, "Sorting networks and their applications", 1968.
#pragma once

#include "../../core/select_k.hpp"
#include "intrinsics.cuh"

namespace warpmem::cuda {

template <bool kOrdered>
struct Item;

template <>
struct Item<false> {
  uint64_t key = 0;
  WARPMEM_DEVICE uint32_t index() const { return key_index(key); }
};

template <>
struct Item<true> {
  uint64_t key = 0;
  uint32_t position = 0xffffffffu;
  WARPMEM_DEVICE uint32_t index() const { return position; }
};

WARPMEM_DEVICE bool better(const Item<false>& a, const Item<false>& b) { return a.key > b.key; }
WARPMEM_DEVICE bool better(const Item<true>& a, const Item<true>& b) {
  return a.key > b.key || (a.key == b.key && a.position < b.position);
}

WARPMEM_DEVICE Item<false> shuffle_item(const Item<false>& item, int source) { return {shuffle(item.key, source)}; }
WARPMEM_DEVICE Item<true> shuffle_item(const Item<true>& item, int source) {
  return {shuffle(item.key, source), shuffle(item.position, source)};
}
WARPMEM_DEVICE Item<false> shuffle_item_xor(const Item<false>& item, int lanes) { return {shuffle_xor(item.key, lanes)}; }
WARPMEM_DEVICE Item<true> shuffle_item_xor(const Item<true>& item, int lanes) {
  return {shuffle_xor(item.key, lanes), shuffle_xor(item.position, lanes)};
}
WARPMEM_DEVICE Item<false> shuffle_item_up(const Item<false>& item) { return {shuffle_up(item.key, 1)}; }
WARPMEM_DEVICE Item<true> shuffle_item_up(const Item<true>& item) {
  return {shuffle_up(item.key, 1), shuffle_up(item.position, 1)};
}

// `capacity` items in shared memory from byte `offset` on: keys, then positions.
template <bool kOrdered>
class Items;

template <>
class Items<false> {
 public:
  WARPMEM_DEVICE Items(int64_t offset, int32_t capacity) : keys_(shared_array<uint64_t>(offset, capacity)) {}
  WARPMEM_DEVICE Item<false> get(int32_t i) const { return {keys_[i]}; }
  WARPMEM_DEVICE void set(int32_t i, const Item<false>& item) const { keys_[i] = item.key; }

 private:
  Shared<uint64_t> keys_;
};

template <>
class Items<true> {
 public:
  WARPMEM_DEVICE Items(int64_t offset, int32_t capacity)
      : keys_(shared_array<uint64_t>(offset, capacity)), positions_(shared_array<uint32_t>(offset + capacity * 8, capacity)) {}
  WARPMEM_DEVICE Item<true> get(int32_t i) const { return {keys_[i], positions_[i]}; }
  WARPMEM_DEVICE void set(int32_t i, const Item<true>& item) const {
    keys_[i] = item.key;
    positions_[i] = item.position;
  }

 private:
  Shared<uint64_t> keys_;
  Shared<uint32_t> positions_;
};

// One item a lane, and lane i holds the i-th best --------------------------------------------------------------------------------------------------

// Sorts a bitonic sequence so that lane 0 is best.
template <bool kOrdered>
WARPMEM_DEVICE Item<kOrdered> warp_merge(Item<kOrdered> item) {
  WARPMEM_UNROLL
  for (int stride = 16; stride > 0; stride /= 2) {
    const Item<kOrdered> other = shuffle_item_xor(item, stride);
    const bool keep_better = (lane_index() & stride) == 0;
    if (better(other, item) == keep_better) item = other;
  }
  return item;
}

// Sorts so that lane 31 is best.
template <bool kOrdered>
WARPMEM_DEVICE Item<kOrdered> warp_sort_ascending(Item<kOrdered> item) {
  WARPMEM_UNROLL
  for (int size = 2; size <= 32; size *= 2) {
    WARPMEM_UNROLL
    for (int stride = size / 2; stride > 0; stride /= 2) {
      const Item<kOrdered> other = shuffle_item_xor(item, stride);
      const bool ascending = (lane_index() & size) == 0;  // all of the last round
      const bool keep_better = ((lane_index() & stride) == 0) != ascending;
      if (better(other, item) == keep_better) item = other;
    }
  }
  return item;
}

// The 32 best of `kept` (lane 0 best) and `other` (lane 31 best).
template <bool kOrdered>
WARPMEM_DEVICE Item<kOrdered> warp_best(const Item<kOrdered>& kept, const Item<kOrdered>& other) {
  return warp_merge(better(other, kept) ? other : kept);
}

constexpr int kWarpInsertions = 4;  // up to so many candidates are put in one after another; more are sorted and merged

// Takes the candidates that stand in `wanted` lanes into `kept`.
template <bool kOrdered>
WARPMEM_DEVICE void warp_take(Item<kOrdered>& kept, const Item<kOrdered>& candidate, uint32_t wanted) {
  const int lane = lane_index();
  if (count_bits(wanted) > kWarpInsertions) {
    const Item<kOrdered> sorted = warp_sort_ascending((wanted >> lane & 1) != 0 ? candidate : Item<kOrdered>{});
    kept = warp_best(kept, sorted);
    return;
  }
  for (; wanted != 0; wanted &= wanted - 1) {
    const Item<kOrdered> next = shuffle_item(candidate, lowest_bit(wanted));
    const int place = count_bits(ballot(better(kept, next)));
    const Item<kOrdered> above = shuffle_item_up(kept);
    if (lane > place) kept = above;
    if (lane == place) kept = next;
  }
}

// Sorts items[0, n), n a power of two, best first, by all threads of the block. Begins and ends with a barrier.
template <bool kOrdered>
WARPMEM_DEVICE void block_sort(const Items<kOrdered>& items, int32_t n) {
  sync_threads();
  for (int32_t size = 2; size <= n; size *= 2) {
    for (int32_t stride = size / 2; stride > 0; stride /= 2) {
      for (int32_t i = thread_index(); i < n / 2; i += block_threads()) {
        const int32_t low = 2 * i - (i & (stride - 1));
        const int32_t high = low + stride;
        const Item<kOrdered> a = items.get(low);
        const Item<kOrdered> b = items.get(high);
        const bool best_first = (low & size) == 0;
        if (best_first ? better(b, a) : better(a, b)) {
          items.set(low, b);
          items.set(high, a);
        }
      }
      sync_threads();
    }
  }
}

}  // namespace warpmem::cuda
