// The best keys of several selections at once, each with room for more, in shared memory. Unlike the queue of select_k.cuh, a queue's threshold lies there
// too, and one barrier serves all of them.
//
//   queue of segment 0 | of 1 | ...      each `capacity` keys of 8 bytes: [0, count) offered or kept, in no order until it is cut
//
// `capacity` is a power of two, at least keep + threads * kSelectUnroll.
#pragma once

#include "../../core/select_plan.hpp"
#include "select_items.cuh"

namespace warpmem::cuda {

// The best keys of up to kSegments segments, each with room for more. All methods are called by all threads of the block.
template <int kSegments>
class KeyQueues {
 public:
  // counts (kSegments) and floors (kSegments) lie in shared memory, the queues from byte `items` on.
  WARPMEM_DEVICE KeyQueues(const Shared<uint32_t>& counts, const Shared<uint64_t>& floors, int64_t items, int32_t keep,
                           int32_t capacity)
      : counts_(counts), floors_(floors), items_(items), keep_(keep), capacity_(capacity) {}

  // By one thread, before a barrier.
  WARPMEM_DEVICE void clear(int at, uint64_t floor) const {
    counts_[at] = 0;
    floors_[at] = floor;
  }

  // Offers kSelectUnroll keys a thread; 0 is none. There is room: settle() has been called since.
  WARPMEM_DEVICE void offer(int at, const uint64_t (&next)[kSelectUnroll]) const {
    const uint64_t floor = floors_[at];
    const Items<false> items = queue(at);
    WARPMEM_UNROLL
    for (int j = 0; j < kSelectUnroll; ++j) {
      const bool passes = next[j] != 0 && next[j] >= floor;
      const uint32_t wanted = ballot(passes);
      if (wanted == 0) continue;
      uint32_t to = 0;
      if (lane_index() == 0) to = atomic_add(&counts_[at], static_cast<uint32_t>(count_bits(wanted)));
      to = shuffle(to, 0);
      if (passes) items.set(static_cast<int32_t>(to) + count_bits(wanted & ((1u << lane_index()) - 1)), Item<false>{next[j]});
    }
  }

  // Cuts the queues that have no room for one more offer of which everything passes. Begins and ends with a barrier. shared(at): where the query's floor lies.
  template <typename Floor>
  WARPMEM_DEVICE void settle(int segments, const Floor& shared) const {
    sync_threads();
    bool full[kSegments];
    WARPMEM_UNROLL
    for (int at = 0; at < kSegments; ++at)
      full[at] = at<segments&& static_cast<int32_t>(counts_[at])> capacity_ - block_threads() * kSelectUnroll;
    sync_threads();  // nobody changes a count that another has yet to read
    WARPMEM_UNROLL
    for (int at = 0; at < kSegments; ++at) {
      if (full[at]) cut(at, shared(at));
    }
  }

  // Sorts and keeps the best, [0, keep) of at(rank), 0 behind what was offered. Raises floors. Begins and ends with a barrier.
  WARPMEM_DEVICE void cut(int at, uint64_t* shared) const {
    sync_threads();
    const auto n = static_cast<int32_t>(counts_[at]);
    const Items<false> items = queue(at);
    int32_t size = 1;
    while (size < n || size < keep_) size *= 2;
    for (int32_t i = n + thread_index(); i < size; i += block_threads()) items.set(i, Item<false>{});
    block_sort(items, size);
    if (thread_index() == 0) {
      counts_[at] = static_cast<uint32_t>(n < keep_ ? n : keep_);
      const uint64_t last = items.get(keep_ - 1).key;
      if (last != 0) atomic_max(shared, last);
      const uint64_t known = load_volatile(shared);
      floors_[at] = known > last ? known : last;
    }
    sync_threads();
  }

  WARPMEM_DEVICE uint64_t get(int at, int32_t rank) const { return queue(at).get(rank).key; }

 private:
  WARPMEM_DEVICE Items<false> queue(int at) const { return Items<false>(items_ + int64_t{8} * at * capacity_, capacity_); }

  Shared<uint32_t> counts_;
  Shared<uint64_t> floors_;
  int64_t items_;
  int32_t keep_;
  int32_t capacity_;
};

}  // namespace warpmem::cuda
