// select_k: the k best of each row, by keys that are a total order, so that whoever selects, selects the same (core/select_k.hpp).
//
// A unit is one part of one row:   unit u -> row u / parts, items [u % parts * part_items, ...).   Blocks take units in strides of the grid.
//
//   warp     lane i of a warp keeps the i-th best so far. 128 scores at a time, four a lane; those better than the k-th are put in, one by one when
//            few, sorted and merged (15 + 6 exchanges) when many. When all warps of a block share a unit, warp 0 merges their bests at the end.
//   queue    items[0, k) are the best so far, sorted; what is better than the k-th is appended behind them, a ballot and one atomic addition a warp.
//            Before the queue could overflow the block sorts it all and keeps k: nothing is ever dropped. Parts of a row tell one another, through
//            `floors`, a key of which k are known to be as good, and leave out what is worse.
//   radix    counts digit by digit, of those items whose higher digits are those of the k-th key, until what is not worse fits in shared memory;
//            then collects and sorts it. Its time does not depend on the order of the scores. After Alabi and others, "Fast k-selection algorithms
//            for graphics processing units", 2012.
//
// Shared memory: kSelectHeaderBytes of counters; then `capacity` items of 8 bytes (with ordinals 12), or kSelectBins counts, whichever is larger.
// Plans: core/select_plan.hpp. Limits: k <= 4,096, fewer than 2^31 items a row. NaN is reported, not ordered.
#pragma once

#include <cmath>

#include "../../core/pq_code.hpp"
#include "../../core/select_plan.hpp"
#include "select_items.cuh"

namespace warpmem::cuda {

struct SelectParams {
  const float* scores;         // first launch: (rows, row_stride)
  int64_t row_stride;          //
  const uint32_t* ordinals;    // (items) or null
  const uint64_t* keys_in;     // second launch: (rows, items), 0 where there is none
  const uint32_t* indexes_in;  // with ordinals
  int64_t rows;
  int64_t items;  // of a row
  int64_t parts;
  int64_t part_items;
  int32_t k;
  int32_t warps_per_unit;
  int32_t capacity;
  uint64_t* keys_out;     // parts > 1: (rows, parts, k)
  uint32_t* indexes_out;  // with ordinals
  uint64_t* floors;       // parts > 1: (rows), 0 at the start
  float* values;          // parts == 1: (rows, k)
  int64_t* indexes;
  uint64_t* bad_row;     // the smallest row with a NaN
  const double* scales;  // (rows, 2) or null: keys hold integer scores, of these scales and biases (core/pq_code.hpp)
};

// Score and index of a selected item; -inf and -1 where there is none. `scale_and_bias`: null, or the key holds an integer score.
template <bool kOrdered>
WARPMEM_DEVICE void write_selected(float* values, int64_t* indexes, int64_t at, const Item<kOrdered>& item,
                                   const double* scale_and_bias) {
  float value = -INFINITY;
  if (item.key != 0) {
    value = scale_and_bias == nullptr ? key_score(item.key)
                                      : pq_integer_score(key_integer(item.key), scale_and_bias[0], scale_and_bias[1]);
  }
  values[at] = value;
  indexes[at] = item.key == 0 ? -1 : static_cast<int64_t>(item.index());
}

// Where a unit's items come from, and where its best go. Positions in a row are below 2^31, so 32 bits hold them with what a step adds.
template <bool kOrdered, bool kKeys>
struct SelectUnit {
  WARPMEM_DEVICE SelectUnit(const SelectParams& p, int64_t unit_index) : unit(unit_index), row(unit_index / p.parts) {
    const int64_t first = unit_index % p.parts * p.part_items;
    begin = static_cast<uint32_t>(first);
    end = static_cast<uint32_t>(p.items - first < p.part_items ? p.items : first + p.part_items);
    if constexpr (kKeys) {
      keys = p.keys_in + row * p.items;
      if constexpr (kOrdered) positions = p.indexes_in + row * p.items;
    } else {
      scores = p.scores + row * p.row_stride;
      if constexpr (kOrdered) positions = p.ordinals;
    }
  }

  // Items i, i + step, ... of four; those behind the end are none. Notes NaN.
  WARPMEM_DEVICE void load(uint32_t i, uint32_t step, Item<kOrdered> (&out)[kSelectUnroll]) {
    if constexpr (kKeys) {
      WARPMEM_UNROLL
      for (uint32_t j = 0; j < kSelectUnroll; ++j) {
        const uint32_t at = i + j * step;
        out[j] = Item<kOrdered>{};
        if (at < end) {
          out[j].key = load_readonly(keys + at);
          if constexpr (kOrdered) out[j].position = load_readonly(positions + at);
        }
      }
    } else {
      float score[kSelectUnroll];
      WARPMEM_UNROLL
      for (uint32_t j = 0; j < kSelectUnroll; ++j) score[j] = i + j * step < end ? load_readonly(scores + i + j * step) : 0.0f;
      WARPMEM_UNROLL
      for (uint32_t j = 0; j < kSelectUnroll; ++j) {
        const uint32_t at = i + j * step;
        out[j] = Item<kOrdered>{};
        if (at < end) {
          nan = nan || score[j] != score[j];
          if constexpr (kOrdered) {
            out[j].key = select_key(score[j], load_readonly(positions + at));
            out[j].position = at;
          } else {
            out[j].key = select_key(score[j], at);
          }
        }
      }
    }
  }

  WARPMEM_DEVICE void store(const SelectParams& p, int32_t rank, const Item<kOrdered>& item) const {
    const int64_t at = unit * p.k + rank;
    if (p.parts > 1) {
      p.keys_out[at] = item.key;
      if constexpr (kOrdered) p.indexes_out[at] = item.position;
    } else {
      write_selected(p.values, p.indexes, at, item, p.scales == nullptr ? nullptr : p.scales + 2 * row);
    }
  }

  // By whole warps.
  WARPMEM_DEVICE void report_nan(const SelectParams& p) const {
    if constexpr (!kKeys) {
      if (any_lane(nan) && lane_index() == 0) atomic_min(p.bad_row, static_cast<uint64_t>(row));
    }
  }

  const float* scores = nullptr;
  const uint64_t* keys = nullptr;
  const uint32_t* positions = nullptr;  // ordinals of scores, indexes of keys
  int64_t unit;
  int64_t row;
  uint32_t begin = 0;
  uint32_t end = 0;
  bool nan = false;
};

// warp -------------------------------------------------------------------------------------------------------------------------------------------

template <bool kOrdered, bool kKeys>
WARPMEM_KERNEL(kSelectThreads)
select_warp_kernel(SelectParams p) {
  const int warps = block_threads() / kWarpSize;
  const int groups = warps / p.warps_per_unit;
  const int slice = warp_index() % p.warps_per_unit;
  const int lane = lane_index();
  const int64_t units = p.rows * p.parts;
  const Items<kOrdered> bests(kSelectHeaderBytes, p.capacity);  // [warp][32]
  for (int64_t first = block_index() * groups; first < units; first += grid_blocks() * groups) {
    const int64_t unit_index = first + warp_index() / p.warps_per_unit;
    SelectUnit<kOrdered, kKeys> unit(p, unit_index < units ? unit_index : first);
    Item<kOrdered> kept;
    if (unit_index < units) {
      Item<kOrdered> last;  // the k-th best
      const auto step = static_cast<uint32_t>(p.warps_per_unit * kWarpSize * kSelectUnroll);
      for (uint32_t base = unit.begin + static_cast<uint32_t>(slice * kWarpSize * kSelectUnroll); base < unit.end; base += step) {
        Item<kOrdered> next[kSelectUnroll];
        unit.load(base + static_cast<uint32_t>(lane), kWarpSize, next);
        bool passes = false;
        WARPMEM_UNROLL
        for (int j = 0; j < kSelectUnroll; ++j) passes = passes || better(next[j], last);
        if (!any_lane(passes)) continue;
        // Written out once, not four times: the items move up instead, and the registers stay few.
        WARPMEM_NO_UNROLL
        for (int turn = 0; turn < kSelectUnroll; ++turn) {
          const uint32_t wanted = ballot(better(next[0], last));
          if (wanted != 0) {
            warp_take(kept, next[0], wanted);
            last = shuffle_item(kept, p.k - 1);
          }
          WARPMEM_UNROLL
          for (int j = 1; j < kSelectUnroll; ++j) next[j - 1] = next[j];
        }
      }
      unit.report_nan(p);
    }
    if (p.warps_per_unit > 1) {
      bests.set(thread_index(), kept);
      sync_threads();
      if (slice == 0) {
        for (int w = 1; w < p.warps_per_unit; ++w) kept = warp_best(kept, bests.get((warp_index() + w) * kWarpSize + 31 - lane));
      }
      sync_threads();
    }
    if (slice == 0 && unit_index < units && lane < p.k) unit.store(p, lane, kept);
  }
}

// queue ------------------------------------------------------------------------------------------------------------------------------------------

// The best items that a block has seen, with room for more. All methods are called by all threads of the block.
template <bool kOrdered>
class BlockQueue {
 public:
  // `header` is a counter in shared memory, `items` hold `capacity` >= k + threads * kSelectUnroll, a power of two.
  WARPMEM_DEVICE BlockQueue(const Shared<uint32_t>& header, const Items<kOrdered>& items, int32_t k, int32_t capacity)
      : count_(header), items_(items), k_(k), capacity_(capacity) {}

  // `shared_floor` is null, or where blocks with the same query leave the best key of a k-th item: what is worse need not be kept.
  WARPMEM_DEVICE void clear(const uint64_t* shared_floor) {
    sync_threads();
    if (thread_index() == 0) count_[0] = 0;
    last_ = Item<kOrdered>{};
    floor_ = shared_floor == nullptr ? 0 : load_volatile(shared_floor);
    sync_threads();
  }

  // Offers kSelectUnroll items a thread.
  WARPMEM_DEVICE void offer(const Item<kOrdered> (&next)[kSelectUnroll], uint64_t* shared_floor) {
    uint32_t filled = 0;
    WARPMEM_UNROLL
    for (int j = 0; j < kSelectUnroll; ++j) {
      const bool passes = better(next[j], last_) && next[j].key >= floor_;
      const uint32_t wanted = ballot(passes);
      if (wanted == 0) continue;
      uint32_t at = 0;
      if (lane_index() == 0) at = atomic_add(&count_[0], static_cast<uint32_t>(count_bits(wanted)));
      at = shuffle(at, 0);
      if (passes) items_.set(static_cast<int32_t>(at) + count_bits(wanted & ((1u << lane_index()) - 1)), next[j]);
      filled = at + static_cast<uint32_t>(count_bits(wanted));
    }
    // Cut while one more offer of which everything passes would still fit.
    if (sync_threads_or(static_cast<int32_t>(filled) > capacity_ - block_threads() * kSelectUnroll)) cut(shared_floor);
  }

  // Sorts, keeps the k best, items()[0, k), none behind what was offered.
  WARPMEM_DEVICE void cut(uint64_t* shared_floor) {
    sync_threads();
    const auto n = static_cast<int32_t>(count_[0]);
    int32_t size = 1;
    while (size < n || size < k_) size *= 2;
    for (int32_t i = n + thread_index(); i < size; i += block_threads()) items_.set(i, Item<kOrdered>{});
    block_sort(items_, size);
    if (thread_index() == 0) count_[0] = static_cast<uint32_t>(n < k_ ? n : k_);
    last_ = items_.get(k_ - 1);
    if (shared_floor != nullptr) {
      if (thread_index() == 0 && last_.key != 0) atomic_max(shared_floor, last_.key);
      floor_ = load_volatile(shared_floor);
    }
    sync_threads();
  }

  WARPMEM_DEVICE Item<kOrdered> get(int32_t rank) const { return items_.get(rank); }

 private:
  Shared<uint32_t> count_;
  Items<kOrdered> items_;
  int32_t k_;
  int32_t capacity_;
  Item<kOrdered> last_;
  uint64_t floor_ = 0;
};

template <bool kOrdered, bool kKeys>
WARPMEM_KERNEL(kSelectThreads)
select_queue_kernel(SelectParams p) {
  const int64_t units = p.rows * p.parts;
  BlockQueue<kOrdered> queue(shared_array<uint32_t>(0, 1), Items<kOrdered>(kSelectHeaderBytes, p.capacity), p.k, p.capacity);
  for (int64_t u = block_index(); u < units; u += grid_blocks()) {
    SelectUnit<kOrdered, kKeys> unit(p, u);
    uint64_t* const floor = p.parts > 1 ? p.floors + unit.row : nullptr;
    queue.clear(floor);
    const auto threads = static_cast<uint32_t>(block_threads());
    for (uint32_t base = unit.begin; base < unit.end; base += threads * kSelectUnroll) {
      Item<kOrdered> next[kSelectUnroll];
      unit.load(base + static_cast<uint32_t>(thread_index()), threads, next);
      queue.offer(next, floor);
    }
    unit.report_nan(p);
    queue.cut(floor);
    for (int32_t rank = thread_index(); rank < p.k; rank += block_threads()) unit.store(p, rank, queue.get(rank));
  }
}

// radix ------------------------------------------------------------------------------------------------------------------------------------------

// Digits of an item, most significant first: six of the key, then three of ~position. Larger is better.
constexpr int kSelectDigits = 6;
constexpr int kSelectOrderedDigits = 9;

WARPMEM_DEVICE int digit_shift(int digit) {  // within 32 bits: 11, 11 and 10
  return digit % 3 == 0 ? 21 : digit % 3 == 1 ? 10 : 0;
}
WARPMEM_DEVICE uint32_t digit_word(uint64_t key, uint32_t position, int digit) {
  return digit < 3 ? static_cast<uint32_t>(key >> 32) : digit < 6 ? static_cast<uint32_t>(key) : ~position;
}

template <bool kOrdered, bool kKeys>
WARPMEM_KERNEL(kSelectRadixThreads)
select_radix_kernel(SelectParams p) {
  const int64_t units = p.rows * p.parts;
  const int threads = block_threads();
  const int t = thread_index();
  const auto step = static_cast<uint32_t>(threads * kSelectUnroll);
  const Shared<uint32_t> header = shared_array<uint32_t>(0, kSelectHeaderBytes / 4);
  constexpr int kCount = 0, kBin = 1, kAbove = 2, kInBin = 3,
                kTotals = 4;  // what the header holds; totals of the warps from kTotals on
  const Shared<uint32_t> bins = shared_array<uint32_t>(kSelectHeaderBytes, kSelectBins);
  const Items<kOrdered> items(kSelectHeaderBytes, p.capacity);
  constexpr int kEach = kSelectBins / kSelectRadixThreads;
  constexpr uint32_t kNoBin = 0xffffffffu;

  for (int64_t u = block_index(); u < units; u += grid_blocks()) {
    SelectUnit<kOrdered, kKeys> unit(p, u);
    // Words of the smallest item that is collected: digits found so far, zeros behind them.
    uint32_t least[3] = {0, 0, 0};
    uint32_t above = 0;  // items better than all that begin with the digits found
    bool found = unit.end - unit.begin <= static_cast<uint32_t>(p.capacity);
    for (int digit = 0; !found && digit < (kOrdered ? kSelectOrderedDigits : kSelectDigits); ++digit) {
      for (int i = t; i < kSelectBins; i += threads) bins[i] = 0;
      if (t == 0) header[kBin] = kNoBin;
      sync_threads();
      const int shift = digit_shift(digit);
      for (uint32_t base = unit.begin; base < unit.end; base += step) {
        Item<kOrdered> next[kSelectUnroll];
        unit.load(base + static_cast<uint32_t>(t), step / kSelectUnroll, next);
        WARPMEM_UNROLL
        for (int j = 0; j < kSelectUnroll; ++j) {
          bool counts = next[j].key != 0;
          WARPMEM_UNROLL
          for (int w = 0; w < (kOrdered ? 3 : 2); ++w) {
            const uint32_t word = digit_word(next[j].key, next[j].index(), 3 * w) ^ least[w];
            const int known = digit - 3 * w;  // digits of this word that are found
            const int low = known <= 0 ? 32 : known >= 3 ? 0 : digit_shift(known - 1);
            counts = counts && (low == 32 || word >> low == 0);
          }
          const uint32_t word = digit_word(next[j].key, next[j].index(), digit);
          if (counts) atomic_add(&bins[word >> shift & (kSelectBins - 1)], 1u);
        }
      }
      sync_threads();
      // From the highest bin down: the one in which the items reach k. Thread t has bins [top - kEach + 1, top].
      const int top = kSelectBins - 1 - t * kEach;
      uint32_t own = 0;
      WARPMEM_UNROLL
      for (int j = 0; j < kEach; ++j) own += bins[top - j];
      uint32_t running = own;  // with all lanes before this one
      WARPMEM_UNROLL
      for (int delta = 1; delta < kWarpSize; delta *= 2) {
        const uint32_t other = shuffle_up(running, delta);
        if (lane_index() >= delta) running += other;
      }
      if (lane_index() == kWarpSize - 1) header[kTotals + warp_index()] = running;
      sync_threads();
      running += above - own;
      for (int w = 0; w < warp_index(); ++w) running += header[kTotals + w];
      const auto wanted = static_cast<uint32_t>(p.k);
      if (running < wanted && running + own >= wanted) {
        int bin = top;
        while (running + bins[bin] < wanted) running += bins[bin--];
        header[kBin] = static_cast<uint32_t>(bin);
        header[kAbove] = running;
        header[kInBin] = bins[bin];
      }
      sync_threads();
      const uint32_t bin = header[kBin];
      if (bin == kNoBin) {  // fewer than k in all
        found = true;
      } else {
        above = header[kAbove];
        WARPMEM_UNROLL
        for (int w = 0; w < 3; ++w)
          least[w] |= digit / 3 == w ? bin << shift : 0;  // no run-time index: the words stay in registers
        found = above + header[kInBin] <= static_cast<uint32_t>(p.capacity);
      }
      sync_threads();
    }
    sync_threads();
    if (t == 0) header[kCount] = 0;
    sync_threads();
    const Item<false> least_key{static_cast<uint64_t>(least[0]) << 32 | least[1]};
    for (uint32_t base = unit.begin; base < unit.end; base += step) {
      Item<kOrdered> next[kSelectUnroll];
      unit.load(base + static_cast<uint32_t>(t), step / kSelectUnroll, next);
      WARPMEM_UNROLL
      for (int j = 0; j < kSelectUnroll; ++j) {
        bool passes = next[j].key != 0 && next[j].key >= least_key.key;
        if constexpr (kOrdered) passes = passes && (next[j].key > least_key.key || ~next[j].position >= least[2]);
        const uint32_t wanted = ballot(passes);
        if (wanted == 0) continue;
        uint32_t at = 0;
        if (lane_index() == 0) at = atomic_add(&header[kCount], static_cast<uint32_t>(count_bits(wanted)));
        at = shuffle(at, 0);
        if (passes) items.set(static_cast<int32_t>(at) + count_bits(wanted & ((1u << lane_index()) - 1)), next[j]);
      }
    }
    unit.report_nan(p);
    sync_threads();
    const auto n = static_cast<int32_t>(header[kCount]);
    int32_t size = 1;
    while (size < n || size < p.k) size *= 2;
    for (int32_t i = n + t; i < size; i += threads) items.set(i, Item<kOrdered>{});
    block_sort(items, size);
    for (int32_t rank = t; rank < p.k; rank += threads) unit.store(p, rank, items.get(rank));
    sync_threads();
  }
}

}  // namespace warpmem::cuda
