// Device memory as a cache of a pool's lists: whole lists, at their newest version, under a hard limit of bytes.
//
//            want()                   load() done
//    cold ───────────> queued, loading ─────────> hot ──┐ refresh(): the pages that changed
//      ^                    │ refused                ^──┘
//      └────────────────────┴── evicted, dropped, or the device failed
//
// A search pins the lists that are hot at the very version of its snapshot; the host answers the others meanwhile and nobody waits. A list that is asked for
// more often than those it would displace is loaded by a thread of the cache; those go by a clock's hand that spares what was used since it last passed, and
// whatever is pinned. A change of a hot list is followed up by the writer when it is small, else by that thread.
//
// With pinned host memory to spend, lists that are not asked for often enough to lie in device memory whole keep their codes there, in a quarter of it at
// most, and their rows in that host memory (Keep::kCodes). Those that are hit again and again are tried for a whole place, and who had one and is displaced is
// loaded again, with its codes alone; it does not take the place back before it was hit so often. Each kind has its own clock.
//
// A list that changes while it is loaded is not published: the pages that changed are copied too, and again, a few times. So what was dropped meanwhile is
// never hot, and what it had is zeroed when the load ends.
//
// The device may fail at any time. When it is out of memory, half of the cache goes and no more is taken until so many lists were refused. After any other
// failure the cache answers nothing until rebuild() succeeds; failure() says why.
//
//   page_cache.cpp   what is hot      page_room.cpp   what goes, memory      page_loader.cpp, page_copies.cpp   copying lists to the device
//
// Threads: any number of callers. One mutex guards what is hot; it is held for a few instructions a list and never during a call of the driver, so that nobody
// waits for the device who does not ask it for something.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "../core/frequency.hpp"
#include "../core/pool_view.hpp"
#include "cached_list.hpp"
#include "device_heap.hpp"
#include "events.hpp"
#include "runtime.hpp"
#include "staging.hpp"

namespace warpmem::cuda {

// An eighth of the limit is for tables of lists and for those who search; the rest for pages. Apart, because room for one cannot be made by evicting the other: a
// chunk is given back only when all its blocks are free.
constexpr int64_t kScratchShare = 8;
// A quarter of the room for pages, or less where there is pinned memory for fewer pages, is for codes of lists that are not there whole.
constexpr int64_t kCodesShare = 4;
constexpr int64_t kPromoteHits = 16;  // after so many hits such a list is tried for a whole place
constexpr size_t kMostWaiting = 4096;

struct CacheOptions {
  int64_t limit = 0;                          // bytes of device memory, all in all
  int64_t pinned_bytes = 0;                   // of pinned host memory, for rows of lists whose codes alone are on the device
  int64_t inline_bytes = int64_t{1} << 20;    // a writer copies so much itself
  int64_t staging_bytes = int64_t{8} << 20;   // pinned, of the loading thread
  int64_t frequency_keys = int64_t{1} << 16;  // lists among which popularity is told apart
  bool manual = false;                        // no thread: load_next() loads
  std::function<void()> between;           // called in the middle of a load by load_next(), without the mutex, after each `unit`
  std::chrono::microseconds unit{15'000};  // of the time that copying takes
};

struct CacheStats {
  int64_t lists = 0;         // hot
  int64_t pages = 0;         // of these
  int64_t bytes = 0;         // of these pages, of device memory
  int64_t codes_lists = 0;   // of the lists, those with their codes alone
  int64_t pinned = 0;        // bytes of host memory for their rows
  int64_t pinned_limit = 0;  // of that
  int64_t allocated = 0;     // taken from the device, everything counted
  int64_t limit = 0;
  int64_t hits = 0;    // lists that searches found hot
  int64_t misses = 0;  // and that they did not
  int64_t loads = 0;
  int64_t refreshes = 0;
  int64_t refused = 0;  // lists that were not asked for often enough, or are too large
  int64_t evictions = 0;
  int64_t uploaded_pages = 0;
  int64_t uploaded_bytes = 0;
  int64_t memory_failures = 0;  // times the device had less memory than the limit says
  int64_t waiting = 0;          // lists that are to be loaded
};

using Pins = std::vector<std::shared_ptr<CachedList>>;

class PageCache {
 public:
  // Takes no device memory yet. Throws std::bad_alloc, or std::runtime_error when the device fails at once.
  PageCache(std::shared_ptr<Runtime> runtime, const PoolPort& pool, const CacheOptions& options);
  ~PageCache();
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  Runtime& runtime() noexcept { return *runtime_; }
  const PageBlocks& blocks() const noexcept { return blocks_; }
  const PoolPort& pool() const noexcept { return pool_; }

  // For a search: pins[i] becomes the device's copy of lists[i], or null where there is none of this version, which is then wanted. Pins go back by unpin()
  // alone.
  void pin(const ListView* lists, int64_t n, Pins* pins);
  void unpin(Pins* pins) noexcept;

  // After a change of these lists in the pool: brings hot ones up to date and forgets those that are gone, and those for which host memory is missing. The
  // change is made already, so this cannot fail.
  void refresh(const int64_t* list_ids, int64_t n) noexcept;
  void refresh(const std::vector<int64_t>& list_ids) noexcept { refresh(list_ids.data(), static_cast<int64_t>(list_ids.size())); }
  // Loads lists whether they are asked for or not. Returns how many are on their way.
  int64_t warm(const std::vector<int64_t>& list_ids);
  // Forgets lists, also those that wait for their load. Here and after a drop, host memory goes back whose rows were all theirs.
  void evict(const std::vector<int64_t>& list_ids) noexcept;

  // Makes one load that waits, in the caller's thread. False when none does.
  bool load_next() noexcept;
  // Waits until no load does. Where the system has no thread for the cache, loads in the caller's.
  void settle() noexcept;

  // Device memory beside pages, for whoever searches, on a stream that waits until it is free. Null: none.
  std::shared_ptr<HeldBlock> reserve(int64_t bytes, Stream stream);
  void give_back(std::shared_ptr<HeldBlock>* block) noexcept;
  int64_t scratch_bytes() const noexcept { return options_.limit - page_limit(); }  // that and tables of lists, at most

  void fail() noexcept;  // the runtime has failed
  void fail(const std::string& reason) noexcept;
  std::string failure() const;  // empty: none
  bool failed() const noexcept { return failed_.load(std::memory_order_relaxed); }
  // Starts anew with an empty cache. False when the device still fails.
  bool rebuild();

  CacheStats stats() const;
  bool waiting() const;  // whether load_next() has something to do

 private:
  struct Entry {
    std::shared_ptr<CachedList> list;  // null: not hot
    size_t place = 0;                  // in the clock of its kind, of a hot list
    int64_t hits = 0;                  // while its codes alone are there
    bool promote = false;              // to be tried for a whole place
    bool demoted = false;              // it lost one, and is loaded with its codes alone unless it is forced
    bool queued = false;
    bool loading = false;
    bool forced = false;  // by warm()
    bool again = false;   // the list changed while it was loaded
    bool gone = false;    // it was evicted meanwhile
    bool referenced = false;
    bool chosen = false;  // to be evicted, by make_room()
  };

  // Lists that are kept alike, and what goes first when another comes.
  struct Kind {
    std::unique_ptr<DeviceHeap> heap;  // of their pages, or of their codes
    std::vector<int64_t> clock;
    size_t hand = 0;
  };

  // page_cache.cpp, under the mutex
  bool want(int64_t list_id) noexcept;
  bool set_hot(int64_t list_id, Entry& entry, std::shared_ptr<CachedList> list) noexcept;
  void set_cold(int64_t list_id, Entry& entry) noexcept;
  void leave_clock(Entry& entry) noexcept;

  // page_room.cpp, under the mutex
  bool evictable(const Entry& entry) const noexcept;
  Entry* next_victim(Keep keep, int64_t* list_id) noexcept;
  bool fits(Keep keep, int64_t pages) const noexcept;
  bool too_large(Keep keep, int64_t pages) const noexcept;
  bool make_room(Keep keep, int64_t pages, int64_t list_id, bool forced) noexcept;
  bool evict_next(Keep keep) noexcept;
  void displace(Keep keep, int64_t list_id, Entry& entry) noexcept;
  void set_limits() noexcept;
  void count_refusal() noexcept;
  int64_t page_limit() const noexcept { return options_.limit - options_.limit / kScratchShare; }
  int64_t codes_limit() const noexcept;
  Kind& kind(Keep keep) noexcept { return kinds_[static_cast<int>(keep)]; }
  const Kind& kind(Keep keep) const noexcept { return kinds_[static_cast<int>(keep)]; }
  bool busy() const noexcept { return loading_ > 0 || !queue_.empty(); }

  // page_room.cpp, without the mutex: they call the driver
  void evict_half() noexcept;
  HeapStatus take_page(Keep keep, DeviceHeap& heap, int64_t size, DeviceHeap::Block* out);
  HeapStatus take_scratch(int64_t size, DeviceHeap::Block* out);
  bool clean() noexcept;

  // page_loader.cpp, without the mutex
  struct Load;  // one list on its way
  enum class LoadEnd {
    kCold,     // gone, damaged, refused, or no memory: the host answers
    kCurrent,  // there was nothing to do
    kLater,    // too much for a writer
    kMade,
  };
  void run() noexcept;
  void start_thread() noexcept;
  void load_list(int64_t list_id, bool inline_only) noexcept;
  LoadEnd make_version(Load& load) noexcept;
  bool end_pass(Load& load, bool last) noexcept;
  bool end_load(int64_t list_id, LoadEnd end, bool last) noexcept;
  void wipe(Staging* staging) noexcept;
  LoadEnd load_view(Load& load, const PoolView& view);
  bool choose_keep(Load& load, int64_t pages) noexcept;
  LoadEnd refuse(const Load& load) noexcept;
  bool compare(Load& load, const PoolView& view);
  bool allocate(Load& load);

  // page_copies.cpp
  bool copy(Load& load, Staging& staging);
  bool copy_page(const Load& load, Staging& staging, const PageView& view, int64_t p);
  bool copy_entries(const CachedList& list, Staging& staging, int64_t first, int64_t last);
  bool copy_table(const Load& load, Staging& staging);

  const std::shared_ptr<Runtime> runtime_;
  const PoolPort pool_;
  const CacheOptions options_;
  const PageBlocks blocks_;
  const bool pinned_;  // whether lists may have their codes alone on the device: there is room for the rows of a page

  mutable std::mutex mutex_;         // the heaps take theirs under it, and nothing else is taken under it
  std::condition_variable changed_;  // a load came, or is done; or the end
  Stream stream_ = nullptr;          // of all copies to the device and of all zeroing
  std::unique_ptr<Events> events_;   // which lists wait for
  Kind kinds_[kKeeps];
  std::unique_ptr<DeviceHeap> host_;     // rows of lists that have their codes alone on the device
  std::unique_ptr<DeviceHeap> scratch_;  // tables, and what reserve() gives
  Frequency frequency_;
  std::unordered_map<int64_t, Entry> entries_;  // lists that are hot or on their way
  std::deque<int64_t> queue_;
  int64_t loading_ = 0;
  int64_t lean_loads_ = 0;  // refusals until the limit is tried again, after the device was out of memory
  CacheStats stats_;
  std::atomic<bool> failed_{false};
  std::string failure_;
  bool stop_ = false;
  std::thread thread_;

  std::mutex load_mutex_;     // one load_next() at a time
  std::mutex inline_mutex_;   // one writer at a time
  std::mutex rebuild_mutex_;  // one rebuild() at a time
  std::unique_ptr<Staging> load_staging_;
  std::unique_ptr<Staging> inline_staging_;
};

}  // namespace warpmem::cuda
