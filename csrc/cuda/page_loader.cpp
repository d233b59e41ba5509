// How lists get to the device, and how their copies follow their changes. See page_cache.hpp.
//
// A list is on its way (Entry::loading) in one thread at a time: compare with what is there, take blocks, copy without the mutex, publish. What was copied
// for a list that went meanwhile goes back.
#include <algorithm>
#include <cstring>
#include <new>
#include <system_error>

#include "page_cache.hpp"

namespace warpmem::cuda {

namespace {

constexpr size_t kMostPatches = 32;  // of a table that is copied from the older version's; beyond that it is written anew
constexpr int64_t kViewPages = 64;   // whose addresses are asked for at a time

struct HeldView {
  explicit HeldView(PoolView* held) : view(held) {}
  ~HeldView() {
    if (view != nullptr) view->release(view);
  }
  HeldView(const HeldView&) = delete;
  HeldView& operator=(const HeldView&) = delete;

  PoolView* const view;
};

int64_t used_of(int64_t slots, int64_t page) noexcept { return std::min<int64_t>(kPageRows, slots - page * kPageRows); }

}  // namespace

struct PageCache::Load {
  int64_t list_id = 0;
  bool inline_only = false;
  bool forced = false;
  bool promotes = false;  // from codes alone to a whole place
  Keep keep = Keep::kWhole;
  LoadEnd end = LoadEnd::kCold;
  std::shared_ptr<CachedList> old;
  std::shared_ptr<CachedList> next;
  std::vector<PageView> views;  // of all pages
  std::vector<int64_t> fresh;   // pages that get new blocks
  std::vector<int64_t> grown;   // pages that are copied again, in place
};

void PageCache::start_thread() noexcept {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error&) {  // no more threads: the host answers, and the next load tries again
  }
}

void PageCache::run() noexcept {
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      while (!stop_ && queue_.empty()) changed_.wait(lock);
      if (stop_) return;
    }
    try {
      load_next();
    } catch (const std::bad_alloc&) {  // the list stays cold
    }
  }
}

bool PageCache::load_next() {
  const std::lock_guard<std::mutex> turn(load_mutex_);
  int64_t list_id = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (queue_.empty()) return false;
    list_id = queue_.front();
    queue_.pop_front();
    Entry& entry = entries_.find(list_id)->second;
    entry.queued = false;
    if (entry.loading) {  // by a writer, who looks again when he is through
      entry.again = true;
      return true;
    }
    entry.loading = true;
    ++loading_;
  }
  load_list(list_id, false);
  return true;
}

void PageCache::refresh(const std::vector<int64_t>& list_ids) {
  if (failed()) return;
  for (const int64_t list_id : list_ids) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = entries_.find(list_id);
      if (found == entries_.end()) continue;
      Entry& entry = found->second;
      entry.again = entry.loading;
      if (entry.loading || entry.list == nullptr) continue;
      entry.loading = true;
      ++loading_;
    }
    const std::lock_guard<std::mutex> turn(inline_mutex_);
    load_list(list_id, true);
  }
}

// The list is marked as loading, and no longer when this returns.
void PageCache::load_list(int64_t list_id, bool inline_only) {
  const Entered entered(*runtime_);
  Load load;
  load.list_id = list_id;
  load.inline_only = inline_only;
  bool memory = true;
  try {
    const HeldView held(pool_.view(pool_.pool, &list_id, 1));
    if (held.view == nullptr) throw std::bad_alloc();
    load.end = load_view(load, *held.view);
  } catch (const std::bad_alloc&) {
    memory = false;
    load.end = LoadEnd::kCold;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_.find(list_id)->second;
  if (entry.gone || failed()) load.end = LoadEnd::kCold;
  if (load.end == LoadEnd::kMade) {
    ++(load.old == nullptr ? stats_.loads : stats_.refreshes);
    set_hot(list_id, entry, load.next);
  }
  load.old.reset();
  load.next.reset();  // blocks go back under the mutex
  const bool again = (entry.again || load.end == LoadEnd::kLater) && memory && !failed();
  entry.loading = entry.gone = entry.again = entry.forced = entry.promote = false;
  --loading_;
  changed_.notify_all();
  if (load.end == LoadEnd::kCold) return set_cold(list_id, entry);
  if (again && !entry.queued) enqueue(list_id, entry);
}

PageCache::LoadEnd PageCache::load_view(Load& load, const PoolView& view) {
  const ListView& list = view.lists[0];
  if (list.version == 0) return LoadEnd::kCold;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Entry& entry = entries_.find(load.list_id)->second;
    load.old = entry.list;
    load.forced = entry.forced;
    const int64_t pages = (list.slots + kPageRows - 1) / kPageRows;
    const auto room = [&](Keep keep, bool forced) {
      load.keep = keep;
      return make_room(keep, pages, load.list_id, forced);
    };
    if (load.old == nullptr) {
      if (!room(Keep::kWhole, load.forced) && !room(Keep::kCodes, load.forced)) return refuse(load);
    } else {
      load.promotes = entry.promote && !load.inline_only && load.old->keep == Keep::kCodes && room(Keep::kWhole, false);
      load.keep = load.promotes ? Keep::kWhole : load.old->keep;
    }
    if (load.promotes) load.old.reset();  // it stays hot until the other is there; they share nothing
  }
  if (load.old != nullptr && load.old->version >= list.version) return LoadEnd::kCurrent;
  if (!compare(load, view)) return LoadEnd::kCold;
  const auto copies = static_cast<int64_t>(load.fresh.size() + load.grown.size());
  if (load.inline_only && copies * blocks_.bytes() > options_.inline_bytes) return LoadEnd::kLater;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failed()) return LoadEnd::kCold;
    if (!allocate(load)) return refuse(load);
  }
  std::unique_ptr<Staging>& staging = load.inline_only ? inline_staging_ : load_staging_;
  if (staging == nullptr) {
    const int64_t half = (load.inline_only ? options_.inline_bytes : options_.staging_bytes) / 2;
    staging = std::make_unique<Staging>(*runtime_, stream_, std::max({blocks_.codes, blocks_.rows, half}));
  }
  if (copy(load, *staging)) return LoadEnd::kMade;
  fail();
  staging.reset();
  return LoadEnd::kCold;
}

// Under the mutex. After the device was out of memory the limit is lower for so many refusals.
PageCache::LoadEnd PageCache::refuse(const Load& load) noexcept {
  ++stats_.refused;
  if (lean_loads_ > 0 && --lean_loads_ == 0) set_limits();
  return load.promotes ? LoadEnd::kCurrent : LoadEnd::kCold;
}

// What is there, and what has to be copied. False when a page is damaged: whoever searches the list is told by the host.
bool PageCache::compare(Load& load, const PoolView& view) {
  const ListView& list = view.lists[0];
  const int64_t n = (list.slots + kPageRows - 1) / kPageRows;
  const int64_t n_old = load.old != nullptr ? load.old->n_pages() : 0;
  load.views.resize(static_cast<size_t>(n));
  for (int64_t first = 0; first < n; first += kViewPages) {
    if (!view.pages(&view, 0, first, std::min(kViewPages, n - first), load.views.data() + first)) return false;
  }
  load.next = std::make_shared<CachedList>();
  load.next->keep = load.keep;
  load.next->list_id = list.list_id;
  load.next->version = list.version;
  load.next->slots = list.slots;
  load.next->live = list.live;
  load.next->pages.resize(static_cast<size_t>(n));
  load.next->valid.reserve(static_cast<size_t>(n));
  for (const PageView& page : load.views) load.next->valid.push_back(page.valid);
  for (int64_t p = 0; p < n; ++p) {
    const auto at = static_cast<size_t>(p);
    if (p >= n_old || load.old->pages[at]->serial != load.views[at].serial) {
      load.fresh.push_back(p);
      continue;
    }
    load.next->pages[at] = load.old->pages[at];
    if (load.old->pages[at]->used < used_of(list.slots, p)) load.grown.push_back(p);
  }
  return true;
}

// Under the mutex. A hot list that grows displaces others without being compared with them; if it cannot, it is cold from now on.
bool PageCache::allocate(Load& load) {
  const auto n = static_cast<int64_t>(load.next->pages.size());
  if (load.old != nullptr && !make_room(load.keep, static_cast<int64_t>(load.fresh.size()), load.list_id, true)) return false;
  DeviceHeap& codes = *kind(load.keep).heap;
  DeviceHeap& rows = load.keep == Keep::kWhole ? codes : *host_;
  for (const int64_t p : load.fresh) {
    auto page = std::make_shared<CachedPage>(codes, rows);
    if (take_page(load.keep, codes, blocks_.codes, &page->codes.block) != HeapStatus::kOk) return false;
    if (blocks_.rows > 0 && take_page(load.keep, rows, blocks_.rows, &page->rows.block) != HeapStatus::kOk) return false;
    load.next->pages[static_cast<size_t>(p)] = std::move(page);
  }
  load.next->table = std::make_shared<HeldBlock>(*scratch_, DeviceHeap::Block{});
  return take_scratch(CachedList::table_bytes(n), &load.next->table->block) == HeapStatus::kOk;
}

bool PageCache::copy_page(Load& load, Staging& staging, int64_t p) {
  const auto at = static_cast<size_t>(p);
  CachedPage& page = *load.next->pages[at];
  const int64_t used = used_of(load.next->slots, p);
  unsigned char* const codes = staging.next(blocks_.codes);
  if (codes == nullptr) return false;
  stage_codes(blocks_, load.views[at], used, codes);
  if (staging.send(page.codes.block.memory, blocks_.codes) != Status::kOk) return false;
  if (load.keep == Keep::kCodes) {
    stage_rows(blocks_, load.views[at], used, page.rows.block.memory);
  } else if (blocks_.rows > 0) {
    unsigned char* const rows = staging.next(blocks_.rows);
    if (rows == nullptr) return false;
    stage_rows(blocks_, load.views[at], used, rows);
    if (staging.send(page.rows.block.memory, blocks_.rows) != Status::kOk) return false;
  }
  page.serial = load.views[at].serial;
  page.used = used;
  return true;
}

// Entries first .. last - 1 of the new table.
bool PageCache::copy_entries(const Load& load, Staging& staging, int64_t first, int64_t last) {
  const CachedList& list = *load.next;
  const int64_t step = staging.room() / kTableEntry;
  for (; first < last; first += step) {
    const int64_t some = std::min(step, last - first);
    unsigned char* const image = staging.next(some * kTableEntry);
    if (image == nullptr) return false;
    for (int64_t i = 0; i < some; ++i) {
      const auto at = static_cast<size_t>(first + i);
      const DevicePage entry{list.pages[at]->memory(blocks_.layout), list.valid[at]};
      std::memcpy(image + i * kTableEntry, &entry, sizeof entry);
    }
    if (staging.send(list.device_table() + first, some * kTableEntry) != Status::kOk) return false;
  }
  return true;
}

// The table: the older version's, with what differs, or all of it.
bool PageCache::copy_table(const Load& load, Staging& staging) {
  const int64_t n = load.next->n_pages();
  if (load.old == nullptr) return copy_entries(load, staging, 0, n);
  const int64_t common = std::min(n, load.old->n_pages());
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (int64_t p = 0; p < n && runs.size() <= kMostPatches; ++p) {
    const auto at = static_cast<size_t>(p);
    if (p < common && load.next->pages[at] == load.old->pages[at] && load.next->valid[at] == load.old->valid[at]) continue;
    if (!runs.empty() && runs.back().second == p) {
      runs.back().second = p + 1;
    } else {
      runs.emplace_back(p, p + 1);
    }
  }
  if (runs.size() > kMostPatches) return copy_entries(load, staging, 0, n);
  if (runtime_->copy_within(load.next->device_table(), load.old->device_table(), common * kTableEntry, stream_) != Status::kOk) {
    return false;
  }
  return std::all_of(runs.begin(), runs.end(),
                     [&](const auto& run) { return copy_entries(load, staging, run.first, run.second); });
}

bool PageCache::copy(Load& load, Staging& staging) {
  const auto copy_one = [&](int64_t p) { return copy_page(load, staging, p); };
  if (!std::all_of(load.fresh.begin(), load.fresh.end(), copy_one)) return false;
  if (!std::all_of(load.grown.begin(), load.grown.end(), copy_one)) return false;
  if (!copy_table(load, staging)) return false;

  Event event = nullptr;
  if (runtime_->create_event(&event, false) != Status::kOk) return false;
  const std::shared_ptr<EventOf> arrives(event, [this](Event e) { runtime_->release_event(e); });
  if (runtime_->record(event, stream_) != Status::kOk) return false;
  if (load.inline_only) {
    load.next->arrives = arrives;  // a few pages: a search waits for them on the device, if it comes so soon
  } else if (runtime_->synchronize(event) != Status::kOk) {
    return false;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto copied = static_cast<int64_t>(load.fresh.size() + load.grown.size());
  stats_.uploaded_pages += copied;
  stats_.uploaded_bytes += copied * blocks_.bytes();
  return true;
}

}  // namespace warpmem::cuda
