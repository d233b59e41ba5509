// The pool: rows of many partitions, kept in lists of pages, read without waiting while they are changed.
//
//   Pool   list id -> List                         replaced under a short mutex
//   List   [Block, Block, ...]                     immutable once published
//   Block  64 pages + 64 validity words            immutable once published (4,096 rows)
//   Page   64 rows                                 shared by versions; see below
//
// A change copies the blocks it touches and the list's vector of blocks, then publishes the new heads of all touched lists together. A search takes
// the heads it needs under the same mutex and then runs on its own snapshot: it sees all of a change or nothing. Pages are shared between versions.
// That is safe because a slot is written once, by the single writer, before any published validity word has its bit; later versions only clear bits.
//
// Threads: any number of readers and writers. Writers take turns on the writer lock; readers never touch it.
// Failure: when an allocation throws, the pool is as it was before the call. A change is prepared with everything it needs, then made by code that
// cannot throw.
//
// Lists may lie in a mapped file (pool_file.hpp). Their pages are never written: the one page of a list that is appended to is copied first. A damaged page
// throws IndexFileError from whatever needs it, which then has changed nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "../core/page.hpp"
#include "flat_map.hpp"
#include "kernels.hpp"
#include "pages.hpp"
#include "pq_books.hpp"

namespace warpmem {

constexpr int kBlockPages = 64;
constexpr int64_t kBlockRows = int64_t{kBlockPages} * kPageRows;
constexpr int64_t kCompactMinRows = 256;     // shorter lists are not worth rewriting
constexpr int64_t kCompactLivePercent = 60;  // rewritten when less than this is live

enum class Metric : int32_t { kDot, kL2 };

// What one column of a page holds: nothing below lo, nothing above hi.
struct Span {
  int64_t lo = INT64_MAX;
  int64_t hi = INT64_MIN;
};

struct Block {
  Block() = default;
  explicit Block(int64_t n_columns) : spans(static_cast<size_t>(kBlockPages * n_columns)) {}

  std::array<std::shared_ptr<Page>, kBlockPages> pages;  // filled from the front
  std::array<uint64_t, kBlockPages> valid{};
  std::vector<Span> spans;  // (kBlockPages, n_columns), dead rows included; empty: not known
  Serial serial;            // of this state of the block: what is changed is a copy

  // Takes in a row of page p.
  void widen(size_t p, int64_t n_columns, const int64_t* columns) noexcept {
    if (spans.empty()) return;
    Span* const span = spans.data() + p * static_cast<size_t>(n_columns);
    for (int64_t c = 0; c < n_columns; ++c) {
      span[c].lo = columns[c] < span[c].lo ? columns[c] : span[c].lo;
      span[c].hi = columns[c] > span[c].hi ? columns[c] : span[c].hi;
    }
  }
};

struct List {
  std::vector<std::shared_ptr<const Block>> blocks;
  int64_t slots = 0;  // rows ever appended to this version's pages
  int64_t live = 0;
  uint64_t version = 0;  // given when it is published, never to two versions of any list of the pool; 0 before
};

using ListHead = std::shared_ptr<const List>;

// Rows to append; arrays of n entries, columns (n, n_columns), vectors (n, dim), row-major.
struct Appends {
  int64_t n = 0;
  const int64_t* list_ids = nullptr;
  const int64_t* row_ids = nullptr;
  const uint32_t* ordinals = nullptr;
  const int64_t* columns = nullptr;
  const float* vectors = nullptr;
};

using Removes = std::vector<std::pair<int64_t, int64_t>>;  // (list id, row id)

struct PoolStats {
  int64_t lists = 0;
  int64_t rows = 0;  // live
  int64_t dead = 0;
  int64_t pages = 0;
  int64_t bytes = 0;
};

class Pool {
 public:
  using WriterLock = std::unique_lock<std::mutex>;

  // The rows' format, and how similarity is measured. With `screen` scans use int8 images of the rows, kept beside them; int8 storage is its own image.
  // With `books` rows carry product-quantisation codes instead, and a scan rescores only the rows that these rank first; kPq storage needs them.
  // `kernels` pack the rows; null: the best this processor has.
  Pool(int64_t dim, int64_t n_columns, Storage storage = Storage::kF32, Metric metric = Metric::kDot, bool screen = false,
       std::shared_ptr<const PqBooks> books = nullptr, const Kernels* kernels = nullptr);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const PageLayout& layout() const noexcept { return layout_; }
  Metric metric() const noexcept { return metric_; }
  bool screened() const noexcept { return screen_; }
  const PqBooks* books() const noexcept { return books_.get(); }  // null: none

  // The right to change the pool, waiting for it or not (then check owns_lock()).
  WriterLock lock_writer() { return WriterLock(writer_mutex_); }
  WriterLock try_lock_writer() { return WriterLock(writer_mutex_, std::try_to_lock); }

  // Removes, then appends, as one change. Removing what is absent does nothing; appending a live row id replaces that row; of two appends with one
  // id the later stays. Lists left without a live row are dropped; lists left mostly dead are compacted, if memory allows.
  void apply(const WriterLock& writer, const Removes& removes, const Appends& appends);

  // Removes whole lists as one change; unknown ids are ignored.
  void drop(const WriterLock& writer, const std::vector<int64_t>& list_ids);

  // Rewrites a list without its dead rows; live rows keep their order. An unknown list, or one without dead rows, is left alone.
  void compact(const WriterLock& writer, int64_t list_id);

  // Gives back the row maps of all lists; a change or vectors() builds those that it needs again.
  void trim(const WriterLock& writer);

  // The current heads of these lists, all of one moment; null where a list is unknown.
  void snapshot(const int64_t* list_ids, size_t n, ListHead* heads) const;

  // Every list with its head, all of one moment, by ascending list id.
  std::vector<std::pair<int64_t, ListHead>> snapshot_all() const;

  // Ids of all lists, ascending.
  std::vector<int64_t> lists() const;

  // Copies stored rows to out (n, dim). Returns -1, or the index of the first row id that is not live in the list.
  int64_t vectors(int64_t list_id, const int64_t* row_ids, int64_t n, float* out);

  // Copies a list's live rows in the order they lie in: `live` row ids and ordinals, columns (live, n_columns).
  void rows(const List& list, int64_t* row_ids, uint32_t* ordinals, int64_t* columns) const;

  PoolStats stats() const;

  // Fills an empty pool with lists that have live rows and ascending ids, before anyone else knows it. Their row maps are built when they are needed.
  void adopt(std::vector<std::pair<int64_t, std::shared_ptr<List>>> lists);

  // Whether every list, or each that this change touches, has its row map. To build one takes as long as its list has rows.
  bool all_mapped() const noexcept { return unmapped_.load(std::memory_order_relaxed) == 0; }
  bool mapped(const WriterLock& writer, const Removes& removes, const Appends& appends) const noexcept;

 private:
  using RowMap = FlatMap<int64_t, int64_t{-1}>;  // row id -> slot of the list
  struct Entry {
    ListHead head;  // replaced under both mutexes
    RowMap rows;    // used by the writer alone; empty until the first change that needs it when `mapped` is false
    bool mapped = true;
    size_t counted_map_bytes = 0;
  };
  struct Draft;
  struct Plan;
  using Table = FlatMap<Entry*, nullptr>;

  Plan prepare(const Removes& removes, const Appends& appends);
  void write(Plan& plan, const Removes& removes, const Appends& appends) const noexcept;
  void publish(Plan& plan) noexcept;
  void compact_entry(Entry& entry);
  void map_rows(Entry& entry);
  void set_mapped(Entry& entry) noexcept;
  void replace_head(Entry& entry, ListHead& head) noexcept;
  void count(const List& list, int64_t sign) noexcept;

  const std::shared_ptr<const PqBooks> books_;
  const PageLayout layout_;
  const Metric metric_;
  const bool screen_;
  const PackRow pack_;
  const std::shared_ptr<PageArena> arena_;
  std::mutex writer_mutex_;
  mutable std::mutex publish_mutex_;  // held for a few instructions per list; guards table_'s structure, heads and stats_
  Table table_;  // owns its entries; changed under both mutexes, so a writer may read it with its own lock alone
  PoolStats stats_;
  uint64_t last_version_ = 0;         // changed under the writer lock
  std::atomic<int64_t> unmapped_{0};  // lists whose row map is still to be built; changed under the writer lock
};

}  // namespace warpmem
