// Sorted lists of the best rows, and how new rows get into them: what the tasks of a scan and the merge of their parts share.
//
//   best [0, count)    in memory, best first           run [0, n)    sorted likewise, in shared memory
//
// Each item's place in the merged list is its own index plus the number of items of the other list in front of it; of equal ones those that were there first
// stand in front, so every place is taken once. The best that move, move
// to the right: those at the end go first, a team's width at a time, so that the list needs no second copy. Those that stay in front of the whole run are
// not looked at. A team is a warp or the whole block.
#pragma once

#include "intrinsics.cuh"

namespace warpmem::cuda {

struct WarpTeam {
  WARPMEM_DEVICE static int rank() { return lane_index(); }
  WARPMEM_DEVICE static int size() { return kWarpSize; }
  WARPMEM_DEVICE static void sync() { sync_warp(); }
  WARPMEM_DEVICE static bool any(bool predicate) {
    const bool found = any_lane(predicate);
    sync_warp();  // a vote orders no memory, and what was read before it is overwritten after
    return found;
  }
};

struct BlockTeam {
  WARPMEM_DEVICE static int rank() { return thread_index(); }
  WARPMEM_DEVICE static int size() { return block_threads(); }
  WARPMEM_DEVICE static void sync() { sync_threads(); }
  WARPMEM_DEVICE static bool any(bool predicate) { return sync_threads_or(predicate); }
};

// How many of `n` items, sorted best first, stand before another: before(i) says it of the i-th.
template <typename Before>
WARPMEM_DEVICE int32_t count_before(int32_t n, const Before& before) {
  int32_t low = 0;
  while (low < n) {
    const int32_t middle = (low + n) / 2;
    if (before(middle)) {
      low = middle + 1;
    } else {
      n = middle;
    }
  }
  return low;
}

// Merges run(0) ... run(n - 1) into best[0, count) and keeps at most `limit`. before(a, b): a stands before b. `ranks` is scratch, rank(j) a reference
// for each of the run. Returns the new count. By all threads of the team, which have met since the run was written; ends with their meeting.
template <typename Team, typename T, typename Run, typename Rank, typename Before>
WARPMEM_DEVICE int32_t merge_run(T* best, int32_t count, int32_t limit, int32_t n, const Run& run, const Rank& rank,
                                 const Before& before) {
  for (int32_t j = Team::rank(); j < n; j += Team::size()) {
    const T item = run(j);
    rank(j) = static_cast<uint32_t>(j + count_before(count, [&](int32_t i) { return !before(item, best[i]); }));
  }
  Team::sync();
  for (int32_t base = (count - 1) / Team::size() * Team::size(); base >= 0 && count > 0; base -= Team::size()) {
    const int32_t i = base + Team::rank();
    int32_t to = i;
    T item{};
    if (i < count) {
      item = best[i];
      to += count_before(n, [&](int32_t j) { return before(run(j), item); });
    }
    if (!Team::any(to != i)) break;  // nor do those in front of them move
    if (to != i && to < limit) best[to] = item;
    Team::sync();
  }
  for (int32_t j = Team::rank(); j < n; j += Team::size()) {
    const auto to = static_cast<int32_t>(rank(j));
    if (to < limit) best[to] = run(j);
  }
  Team::sync();
  return count + n < limit ? count + n : limit;
}

// Sorts `n` things, n a power of two, by all threads of the block: after(i, j) says that the i-th stands behind the j-th, exchange(i, j) swaps them.
// Begins and ends with a barrier.
template <typename After, typename Exchange>
WARPMEM_DEVICE void sort_block(int32_t n, const After& after, const Exchange& exchange) {
  sync_threads();
  WARPMEM_NO_UNROLL
  for (int32_t size = 2; size <= n; size *= 2) {
    WARPMEM_NO_UNROLL
    for (int32_t stride = size / 2; stride > 0; stride /= 2) {
      for (int32_t i = thread_index(); i < n / 2; i += block_threads()) {
        const int32_t low = 2 * i - (i & (stride - 1));
        const int32_t high = low + stride;
        const bool forward = (low & size) == 0;
        if (forward ? after(low, high) : after(high, low)) exchange(low, high);
      }
      sync_threads();
    }
  }
}

// The sums of all threads before this one, and of all. `totals` has an element for each warp. Ends with a barrier.
WARPMEM_DEVICE uint32_t sum_before(uint32_t own, const Shared<uint32_t>& totals, uint32_t* all) {
  uint32_t running = own;
  WARPMEM_UNROLL
  for (int delta = 1; delta < kWarpSize; delta *= 2) {
    const uint32_t other = shuffle_up(running, delta);
    if (lane_index() >= delta) running += other;
  }
  if (lane_index() == kWarpSize - 1) totals[warp_index()] = running;
  sync_threads();
  uint32_t before = running - own;
  uint32_t sum = 0;
  for (int w = 0; w < block_threads() / kWarpSize; ++w) {
    if (w < warp_index()) before += totals[w];
    sum += totals[w];
  }
  *all = sum;
  sync_threads();
  return before;
}

}  // namespace warpmem::cuda
