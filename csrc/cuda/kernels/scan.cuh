// The exact scan: tasks of a list's pages and segments over them -> the k best rows of each segment. Screens are scan_screen.cuh, the merge of tasks is
// scan_merge.cuh. Plan and tables: core/scan_plan.hpp, core/scan_tables.hpp.
//
// As many blocks as the device holds take tasks from a counter, longest first, so that lists of a hundred rows and of a million mix in one launch. A task goes
// through its pages in chunks of kPages pages; of 1, 2, 4 ... at first when a floor is unknown, because until k rows are known every row must be rescored.
//
//   masks [page][half][segment]   32 rows a word
//     filter    live rows that pass the segment's filter: a warp a page, a lane two rows, whose truth values stand in a stack of 64 bits
//     screen    a proven bound of the final score from the coarse plane, or from both; what is below the segment's floor goes
//     rescore   the rows still in, 256 at a time: a warp a row, lane j the accumulator j; what is better than the k-th so far becomes an item
//     select    items sorted by segment, best first; a warp merges a segment's items into its k best, which raises its floor
//
// A mask has room for every row of a chunk, so nothing can overflow and nothing is dropped. A floor is the key of a score that k rows of the query reach;
// tasks share it by atomic_max. What is left out by it, or by a bound, cannot be among the k best; which rows are rescored depends on timing, the result
// does not.
//
// Rescored rows are not screened by the fine plane first: a row's 4-byte pieces of it cost as many sectors of memory as its float32 numbers.
//
// Inside a task list and group are constants. An item is score key << 32 | ~ordinal, then row id, smaller first, which is looked up only between equal keys,
// then the row's place, so that no two are equal even where a list has an id twice.
// The k best of a segment lie in the part of the workspace where the merge finds them.
//
// Shared memory: ScanShared of core/scan_plan.hpp, then `segments of a task * padded` bytes of codes (middle and large: rounded up to 8 segments).
// Limits: k <= 4,096, fewer than 2^31 rows a task.
#pragma once

#include "scan_items.cuh"
#include "scan_rows.cuh"

namespace warpmem::cuda {

// A block's task -----------------------------------------------------------------------------------------------------------------------------------

template <ScanShape kShape>
class ScanBlock {
 public:
  static constexpr int kQueries = kScanQueries[static_cast<int>(kShape)];
  static constexpr int kPages = kScanChunkPages[static_cast<int>(kShape)];
  static constexpr int kWarps = kScanThreads / kWarpSize;
  static constexpr ScanShared kShared = scan_shared(kShape);

  WARPMEM_DEVICE explicit ScanBlock(const ScanParams& params) : p(params) {}

  // Takes the next task. False when there is none.
  WARPMEM_DEVICE bool next_task() {
    const Shared<uint32_t> header = shared_array<uint32_t>(0, 32);
    sync_threads();
    if (thread_index() == 0) header[kTask] = atomic_add(p.next, 1u);
    sync_threads();
    const uint32_t number = header[kTask];
    if (number >= p.n_tasks) return false;
    const DeviceScanTask task = p.tasks[p.first_task + number];
    table = p.pages + task.first_page;
    pages = task.pages;
    segments = task.segments;
    bool unknown = false;
    for (int at = thread_index(); at < segments; at += kScanThreads) {
      const DeviceSegment segment = p.segments[task.first_segment + at];
      int leader = 0;  // the first segment with the same filter: it is tested once
      while (p.segments[task.first_segment + leader].filter != segment.filter) ++leader;
      state(kQuery)[at] = segment.query;
      state(kFilter)[at] = static_cast<uint32_t>(segment.filter);
      state(kLeader)[at] = static_cast<uint32_t>(leader);
      state(kPart)[at] = p.part_numbers[task.first_part + at];
      state(kFirstItem)[at] = p.parts[state(kPart)[at]].first_item;
      state(kFound)[at] = 0;
      state(kThreshold)[at] = load_volatile(p.floors + segment.query);
      unknown = unknown || state(kThreshold)[at] == 0;
      last()[at] = ScanItem{0, 0, 0.0f};
      if (p.screened) bounds()[at] = p.bounds[segment.query];
    }
    first_chunk = sync_threads_or(unknown) ? 1 : kPages;
    return true;
  }

  // Live rows of the chunk [first, first + n) that pass, by segment.
  WARPMEM_DEVICE void begin_chunk(int32_t first, int32_t n) {
    first_page = first;
    n_pages = n;
    const Shared<uint32_t> words = masks();
    for (int at = thread_index(); at < segments; at += kScanThreads) {
      // Other tasks know more rows of the query meanwhile.
      const uint32_t known = load_volatile(p.floors + state(kQuery)[at]);
      const uint32_t own = state(kThreshold)[at];
      const uint32_t threshold = known > own ? known : own;
      state(kThreshold)[at] = threshold;
      const float score = threshold == 0 ? -INFINITY : key_to_float(threshold);
      bound_floors()[at] = score_floor(p.ranking, p.least, score);
    }
    for (int i = warp_index(); i < n * segments; i += kWarps) {
      const int page = i / segments;
      const int at = i % segments;
      if (state(kLeader)[at] != static_cast<uint32_t>(at)) continue;
      const DevicePage& source = table[first + page];
      const uint64_t valid = source.valid;
      const auto filter = static_cast<int32_t>(state(kFilter)[at]);
      WARPMEM_UNROLL
      for (int half = 0; half < 2; ++half) {
        auto word = static_cast<uint32_t>(valid >> 32 * half);
        if (filter >= 0 && word != 0) {
          const bool live = (word >> lane_index() & 1) != 0;
          word = ballot(live && passes_filter(p, p.filters[filter], source.memory, 32 * half + lane_index()));
        }
        if (lane_index() == 0) words[(page * 2 + half) * segments + at] = word;
      }
    }
    if (p.screened && ranked()) {
      for (int row = thread_index(); row < n * kPageRows; row += kScanThreads) {
        const ConstPage& page = table[first + row / kPageRows].memory;
        const bool recency = p.ranking.w_recency != 0.0;
        const bool priority = p.ranking.w_priority != 0.0;
        extras()[row] = extra_bound(p.extra, recency, recency ? page_column(page, p.ranking.recency_column)[row % kPageRows] : 0,
                                    priority, priority ? page_column(page, p.ranking.priority_column)[row % kPageRows] : 0);
      }
    }
    sync_threads();
    for (int i = thread_index(); i < 2 * n * segments; i += kScanThreads) {
      const int at = i % segments;
      const auto leader = static_cast<int>(state(kLeader)[at]);
      if (leader != at) words[i] = words[i - at + leader];
      seen_ += static_cast<uint32_t>(count_bits(words[i]));
    }
    sync_threads();
  }

  // Whether a row with this bound on its similarity is still in; adds what recency and priority may add. `row` counts in the chunk.
  WARPMEM_DEVICE bool may_enter(float bound, int at, int row) const {
    if (ranked()) {
      if (bound < p.least) return false;
      bound += extras()[row];
    }
    return !(bound < bound_floors()[at]);
  }

  // Rescores the rows that are still in, and selects.
  WARPMEM_DEVICE void rescore_chunk() {
    const Shared<uint32_t> header = shared_array<uint32_t>(0, 32);
    const Shared<uint32_t> words = masks();
    const Shared<uint32_t> before = offsets();
    const Shared<uint32_t> rows = entries();
    sync_threads();
    const int n_words = 2 * n_pages * segments;
    const int each = (n_words + kScanThreads - 1) / kScanThreads;
    const int begin = thread_index() * each;
    uint32_t own = 0;
    for (int i = begin; i < begin + each && i < n_words; ++i) own += static_cast<uint32_t>(count_bits(words[i]));
    uint32_t total;
    uint32_t running = sum_before(own, shared_array<uint32_t>(4 * kTotals, kWarps), &total);
    if (total == 0) return;
    for (int i = begin; i < begin + each && i < n_words; ++i) {
      before[i] = running;
      running += static_cast<uint32_t>(count_bits(words[i]));
    }
    sync_threads();
    for (uint32_t base = 0; base < total; base += kScanBatch) {
      const uint32_t entry = base + static_cast<uint32_t>(thread_index());
      if (entry < total) {
        const int word = count_before(n_words, [&](int32_t i) { return before[i] <= entry; }) - 1;
        uint32_t bits = words[word];
        for (uint32_t skip = entry - before[word]; skip > 0; --skip) bits &= bits - 1;
        const int row = word / segments * 32 + lowest_bit(bits);
        rows[thread_index()] = static_cast<uint32_t>(word % segments) << 16 | static_cast<uint32_t>(row);
      }
      if (thread_index() == 0) header[kItems] = 0;
      sync_threads();
      const auto n = static_cast<int>(total - base < kScanBatch ? total - base : kScanBatch);
      for (int i = warp_index(); i < n; i += kWarps)
        rescore(static_cast<int>(rows[i] >> 16), static_cast<int32_t>(rows[i] & 0xffffu));
      sync_threads();
      select();
    }
  }

  WARPMEM_DEVICE void end_task() const {
    sync_threads();
    for (int at = thread_index(); at < segments; at += kScanThreads) p.counts[state(kPart)[at]] = state(kFound)[at];
  }

  // What the launch has seen; at its end.
  WARPMEM_DEVICE void count() const {
    if (p.counters == nullptr) return;
    const uint32_t seen = reduce_add(seen_);
    if (lane_index() != 0) return;
    atomic_add(p.counters, static_cast<uint64_t>(seen));
    atomic_add(p.counters + 1, static_cast<uint64_t>(rescored_));
  }

  WARPMEM_DEVICE bool ranked() const { return p.ranking.w_recency != 0.0 || p.ranking.w_priority != 0.0; }
  WARPMEM_DEVICE uint32_t query_of(int at) const { return state(kQuery)[at]; }

  WARPMEM_DEVICE static Shared<uint32_t> masks() { return shared_array<uint32_t>(kShared.masks, 2 * kPages * kQueries); }
  WARPMEM_DEVICE static Shared<ScanQueryBound> bounds() { return shared_array<ScanQueryBound>(kShared.bounds, kQueries); }

  const ScanParams& p;
  const DevicePage* table = nullptr;  // of the task
  int32_t pages = 0;
  int32_t segments = 0;
  int32_t first_chunk = 1;  // pages
  int32_t first_page = 0;   // of the chunk, in the task
  int32_t n_pages = 0;

 private:
  enum Header { kTask, kItems, kTotals = 8 };
  enum State { kQuery, kFilter, kLeader, kPart, kFirstItem, kFound, kThreshold, kBoundFloor };

  WARPMEM_DEVICE static Shared<uint32_t> state(int which) {
    return shared_array<uint32_t>(kShared.state + 4 * kQueries * which, kQueries);
  }
  WARPMEM_DEVICE static Shared<float> bound_floors() {
    return shared_array<float>(kShared.state + 4 * kQueries * kBoundFloor, kQueries);
  }
  WARPMEM_DEVICE static Shared<ScanItem> last() { return shared_array<ScanItem>(kShared.last, kQueries); }
  WARPMEM_DEVICE static Shared<ScanItem> items() { return shared_array<ScanItem>(kShared.items, kScanBatch); }
  WARPMEM_DEVICE static Shared<uint32_t> item_segments() { return shared_array<uint32_t>(kShared.item_segments, kScanBatch); }
  WARPMEM_DEVICE static Shared<uint32_t> ranks() { return shared_array<uint32_t>(kShared.ranks, kScanBatch); }
  WARPMEM_DEVICE static Shared<uint32_t> entries() { return shared_array<uint32_t>(kShared.entries, kScanBatch); }
  WARPMEM_DEVICE static Shared<uint32_t> offsets() { return shared_array<uint32_t>(kShared.offsets, 2 * kPages * kQueries); }
  WARPMEM_DEVICE static Shared<float> extras() { return shared_array<float>(kShared.extras, kPages * kPageRows); }

  WARPMEM_DEVICE bool item_before(const ScanItem& a, const ScanItem& b) const {
    if (a.key != b.key) return a.key > b.key;
    const auto row_id = [&](uint32_t row) {
      return page_row_id(p, table[row / kPageRows].memory, static_cast<int32_t>(row % kPageRows));
    };
    const int64_t left = row_id(a.row);
    const int64_t right = row_id(b.row);
    return left != right ? left < right : a.row < b.row;
  }

  // One row for one segment, by a warp.
  WARPMEM_DEVICE void rescore(int at, int32_t row) {
    const Shared<uint32_t> header = shared_array<uint32_t>(0, 32);
    const ConstPage& page = table[first_page + row / kPageRows].memory;
    const int32_t slot = row % kPageRows;
    const float similarity = canonical_similarity(p, page, slot, p.queries + state(kQuery)[at] * p.dim);
    if (lane_index() != 0) return;
    ++rescored_;
    if (!(static_cast<double>(similarity) >= p.min_similarity)) return;
    const Ranking& r = p.ranking;
    const int64_t recency = r.w_recency != 0.0 ? page_column(page, r.recency_column)[slot] : 0;
    const int64_t priority = r.w_priority != 0.0 ? page_column(page, r.priority_column)[slot] : 0;
    const uint32_t score = float_to_key(final_score(r, similarity, recency, priority));
    if (score < state(kThreshold)[at]) return;
    const ScanItem item{static_cast<uint64_t>(score) << 32 | static_cast<uint32_t>(~page_ordinal(p, page, slot)),
                        static_cast<uint32_t>(first_page * kPageRows + row), similarity};
    if (state(kFound)[at] == static_cast<uint32_t>(p.k) && !item_before(item, last()[at])) return;
    const auto to = static_cast<int>(atomic_add(&header[kItems], 1u));
    items()[to] = item;
    item_segments()[to] = static_cast<uint32_t>(at);
  }

  // The new items into the bests of their segments. Ends with a barrier.
  WARPMEM_DEVICE void select() {
    const auto n = static_cast<int32_t>(shared_array<uint32_t>(0, 32)[kItems]);
    const Shared<ScanItem> found = items();
    const Shared<uint32_t> owners = item_segments();
    if (n > 1) {
      int32_t size = 2;
      while (size < n) size *= 2;
      for (int32_t i = n + thread_index(); i < size; i += kScanThreads) owners[i] = 0xffffffffu;
      sort_block(
          size,
          [&](int32_t i, int32_t j) {
            const uint32_t a = owners[i];
            const uint32_t b = owners[j];
            return a != b ? a > b : a != 0xffffffffu && item_before(found[j], found[i]);
          },
          [&](int32_t i, int32_t j) {
            const ScanItem item = found[i];
            const uint32_t owner = owners[i];
            found[i] = found[j];
            owners[i] = owners[j];
            found[j] = item;
            owners[j] = owner;
          });
    }
    for (int at = n > 0 ? warp_index() : segments; at < segments; at += kWarps) {
      const int32_t begin = count_before(n, [&](int32_t i) { return owners[i] < static_cast<uint32_t>(at); });
      const int32_t end = count_before(n, [&](int32_t i) { return owners[i] <= static_cast<uint32_t>(at); });
      if (begin == end) continue;
      ScanItem* const best = p.items + state(kFirstItem)[at];
      const Shared<uint32_t> places = ranks();
      const int32_t count = merge_run<WarpTeam>(
          best, static_cast<int32_t>(state(kFound)[at]), p.k, end - begin,
          [&](int32_t j) -> const ScanItem& { return found[begin + j]; },
          [&](int32_t j) -> uint32_t& { return places[begin + j]; },
          [&](const ScanItem& a, const ScanItem& b) { return item_before(a, b); });
      if (lane_index() != 0) continue;
      state(kFound)[at] = static_cast<uint32_t>(count);
      if (count < p.k) continue;
      const ScanItem worst = best[count - 1];
      last()[at] = worst;
      const auto score = static_cast<uint32_t>(worst.key >> 32);
      if (score > state(kThreshold)[at]) state(kThreshold)[at] = score;
      atomic_max(p.floors + state(kQuery)[at], score);
    }
    sync_threads();
  }

  uint32_t seen_ = 0;
  uint32_t rescored_ = 0;
};

// Every row of every mask ----------------------------------------------------------------------------------------------------------------------------

// Runs a launch's tasks. `Screen` has load(block), before the first chunk of a task, and run(block), which takes rows out of the masks.
template <ScanShape kShape, typename Screen>
WARPMEM_DEVICE void scan_tasks(const ScanParams& p) {
  ScanBlock<kShape> block(p);
  while (block.next_task()) {
    Screen::load(block);
    int32_t limit = block.first_chunk;
    for (int32_t page = 0; page < block.pages; page += block.n_pages) {
      block.begin_chunk(page, block.pages - page < limit ? block.pages - page : limit);
      Screen::run(block);
      block.rescore_chunk();
      limit = 2 * limit < ScanBlock<kShape>::kPages ? 2 * limit : ScanBlock<kShape>::kPages;
    }
    block.end_task();
  }
  block.count();
}

struct NoScreen {
  WARPMEM_DEVICE static void load(ScanBlock<ScanShape::kPlain>&) {}
  WARPMEM_DEVICE static void run(ScanBlock<ScanShape::kPlain>&) {}
};

WARPMEM_KERNEL_OF(kScanThreads, kScanBlocks[0]) scan_plain_kernel(ScanParams p) { scan_tasks<ScanShape::kPlain, NoScreen>(p); }

}  // namespace warpmem::cuda
