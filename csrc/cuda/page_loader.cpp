// How lists get to the device, and how their copies follow their changes. See page_cache.hpp.
//
// A list is on its way (Entry::loading) in one thread at a time, in passes: compare with what is there, take blocks, copy without the mutex; once more, if the
// list changed meanwhile; publish. What was copied for a list that went goes back.
//
// What a pass costs follows the change: blocks of the pool that are the same are not looked into, and of the table only entries that differ are sent. What
// follows the list is one number and one pointer for each 4,096 rows, and a copy of the table on the device, 48 bytes for 64 rows.
#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "page_cache.hpp"

namespace warpmem::cuda {

namespace {

constexpr int64_t kNearEntries = 64;  // entries of a table between two that changed, up to which all are sent in one piece
constexpr int kPasses = 8;

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

std::shared_ptr<CachedPage>& page_at(const CachedList& list, int64_t p) {
  return list.groups[static_cast<size_t>(p / kViewBlockPages)]->pages[static_cast<size_t>(p % kViewBlockPages)];
}

}  // namespace

struct PageCache::Load {
  struct Copy {
    int64_t page;
    PageView view;
    bool fresh;  // gets new blocks; else it is copied again, in place
  };

  int64_t list_id = 0;
  bool inline_only = false;
  bool forced = false;
  bool promotes = false;  // from codes alone to a whole place
  bool chosen = false;    // where it is kept
  bool erases = false;    // the list, or pages of it, are no longer the pool's
  Keep keep = Keep::kWhole;
  LoadEnd end = LoadEnd::kCold;
  std::shared_ptr<CachedList> old;   // that is hot
  std::shared_ptr<CachedList> base;  // what the next one shares pages with: that, or what the last pass made
  std::shared_ptr<CachedList> next;
  std::vector<Copy> copies;
  std::vector<std::pair<int64_t, int64_t>> runs;  // entries of the table that the base's has not
};

// Under the mutex.
void PageCache::start_thread() noexcept {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::exception&) {  // no thread, or no memory for one: the host answers, and the next load tries again
  }
}

void PageCache::run() noexcept {
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      while (!stop_ && queue_.empty()) changed_.wait(lock);
      if (stop_) return;
    }
    load_next();
  }
}

bool PageCache::load_next() noexcept {
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

void PageCache::refresh(const int64_t* list_ids, int64_t n) noexcept {
  if (failed()) return;
  for (int64_t i = 0; i < n; ++i) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = entries_.find(list_ids[i]);
      if (found == entries_.end()) continue;
      Entry& entry = found->second;
      entry.again = entry.loading;
      if (entry.loading || entry.list == nullptr) continue;
      entry.loading = true;
      ++loading_;
    }
    const std::lock_guard<std::mutex> turn(inline_mutex_);
    load_list(list_ids[i], true);
  }
}

// The list is marked as loading, and no longer when this returns. The caller holds the mutex of the staging memory.
void PageCache::load_list(int64_t list_id, bool inline_only) noexcept {
  const Entered entered(*runtime_);
  {
    Load load;
    load.list_id = list_id;
    load.inline_only = inline_only;
    int pass = 0;
    do {
      load.end = make_version(load);
    } while (!end_pass(load, ++pass == kPasses));
    // A writer's copies are still under way as a rule, and nobody waits for them; but what is erased does not stay in what he copied from.
    const bool erased = load.erases || load.end == LoadEnd::kCold;
    if (inline_only) {
      if (erased) wipe(inline_staging_.get());
    } else {
      wipe(load_staging_.get());
      const std::unique_lock<std::mutex> turn =
          erased ? std::unique_lock<std::mutex>(inline_mutex_) : std::unique_lock<std::mutex>();
      if (erased) wipe(inline_staging_.get());
    }
  }
  clean();
}

void PageCache::wipe(Staging* staging) noexcept {
  if (staging != nullptr && !staging->wipe()) fail();
}

PageCache::LoadEnd PageCache::make_version(Load& load) noexcept {
  try {
    const HeldView held(pool_.view(pool_.pool, &load.list_id, 1));
    return held.view != nullptr ? load_view(load, *held.view) : LoadEnd::kCold;
  } catch (const std::bad_alloc&) {
    return LoadEnd::kCold;
  }
}

// False: the list changed, and the next pass follows. With the last the list is no longer marked as loading.
bool PageCache::end_pass(Load& load, bool last) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_.find(load.list_id)->second;
  if (entry.gone || failed()) load.end = LoadEnd::kCold;
  if (entry.again && (load.end == LoadEnd::kMade || load.end == LoadEnd::kCurrent)) {
    entry.again = false;
    if (!last) {
      if (load.end == LoadEnd::kMade) load.base = std::move(load.next);
      return false;
    }
    load.end = LoadEnd::kLater;
  }
  if (load.end == LoadEnd::kMade) {
    if (set_hot(load.list_id, entry, load.next)) {
      ++(load.old == nullptr ? stats_.loads : stats_.refreshes);
    } else {
      load.end = LoadEnd::kCold;
    }
  }
  if (load.end != LoadEnd::kLater) entry.forced = false;
  entry.loading = entry.gone = entry.again = entry.promote = false;
  --loading_;
  changed_.notify_all();
  if (load.end == LoadEnd::kCold) set_cold(load.list_id, entry);
  if (load.end == LoadEnd::kLater) want(load.list_id);
  return true;
}

PageCache::LoadEnd PageCache::load_view(Load& load, const PoolView& view) {
  const ListView& list = view.lists[0];
  if (list.version == 0) return LoadEnd::kCold;
  if (!load.chosen && !choose_keep(load, (list.slots + kPageRows - 1) / kPageRows)) return refuse(load);
  if (load.base != nullptr && load.base->version >= list.version) {
    if (load.base == load.old) return LoadEnd::kCurrent;
    load.next = load.base;
    return LoadEnd::kMade;
  }
  if (!compare(load, view)) return LoadEnd::kCold;
  if (load.inline_only && static_cast<int64_t>(load.copies.size()) * blocks_.bytes() > options_.inline_bytes) {
    return LoadEnd::kLater;
  }
  if (!allocate(load)) return refuse(load);
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

// Where a list is kept: as until now, whole if it is worth that, else its codes alone. False when it finds no place.
bool PageCache::choose_keep(Load& load, int64_t pages) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Entry& entry = entries_.find(load.list_id)->second;
  load.chosen = true;
  load.old = entry.list;
  load.forced = entry.forced;
  const auto room = [&](Keep keep, bool forced) {
    load.keep = keep;
    return make_room(keep, pages, load.list_id, forced);
  };
  if (load.old == nullptr) return room(Keep::kWhole, load.forced) || room(Keep::kCodes, load.forced);
  load.promotes = entry.promote && !load.inline_only && load.old->keep == Keep::kCodes && room(Keep::kWhole, false);
  load.keep = load.promotes ? Keep::kWhole : load.old->keep;
  if (load.promotes) load.old.reset();  // it stays hot until the other is there; they share nothing
  load.base = load.old;
  return true;
}

PageCache::LoadEnd PageCache::refuse(const Load& load) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  count_refusal();
  return load.promotes ? LoadEnd::kCurrent : LoadEnd::kCold;
}

// What is there, and what has to be copied. False when a page is damaged: whoever searches the list is told by the host.
bool PageCache::compare(Load& load, const PoolView& view) {
  const ListView& list = view.lists[0];
  load.next = std::make_shared<CachedList>();
  load.copies.clear();
  load.runs.clear();
  CachedList& next = *load.next;
  next.keep = load.keep;
  next.list_id = list.list_id;
  next.version = list.version;
  next.slots = list.slots;
  next.live = list.live;
  const int64_t n = next.n_pages();
  std::vector<uint64_t> serials(static_cast<size_t>((n + kViewBlockPages - 1) / kViewBlockPages));
  view.blocks(&view, 0, serials.data());
  next.groups.reserve(serials.size());
  load.erases = load.erases || (load.base != nullptr && load.base->n_pages() > n);
  for (size_t g = 0; g < serials.size(); ++g) {
    const auto known = load.base != nullptr && g < load.base->groups.size() ? load.base->groups[g] : nullptr;
    if (known != nullptr && known->serial == serials[g]) {
      next.groups.push_back(known);
      continue;
    }
    const int64_t first = static_cast<int64_t>(g) * kViewBlockPages;
    const auto some = static_cast<size_t>(std::min(kViewBlockPages, n - first));
    PageView views[kViewBlockPages];
    if (!view.pages(&view, 0, first, static_cast<int64_t>(some), views)) return false;
    const auto group = std::make_shared<CachedGroup>();
    group->serial = serials[g];
    group->pages.resize(some);
    group->valid.resize(some);
    for (size_t i = 0; i < some; ++i) {
      const int64_t p = first + static_cast<int64_t>(i);
      const bool had = known != nullptr && i < known->pages.size();
      const bool same = had && known->pages[i]->serial == views[i].serial;
      if (same) group->pages[i] = known->pages[i];
      if (!same || known->pages[i]->used < used_of(list.slots, p)) load.copies.push_back(Load::Copy{p, views[i], !same});
      load.erases = load.erases || (had && !same);
      group->valid[i] = views[i].valid;
      if (same && known->valid[i] == views[i].valid) continue;
      if (!load.runs.empty() && p - load.runs.back().second < kNearEntries) {
        load.runs.back().second = p + 1;
      } else {
        load.runs.emplace_back(p, p + 1);
      }
    }
    next.groups.push_back(group);
  }
  return true;
}

// A hot list that grows displaces others without being compared with them; if it cannot, it is cold from now on.
bool PageCache::allocate(Load& load) {
  const auto fresh = std::count_if(load.copies.begin(), load.copies.end(), [](const Load::Copy& copy) { return copy.fresh; });
  if (load.base != nullptr && fresh > 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!make_room(load.keep, fresh, load.list_id, true)) return false;
  }
  DeviceHeap& codes = *kind(load.keep).heap;
  DeviceHeap& rows = load.keep == Keep::kWhole ? codes : *host_;
  for (const Load::Copy& copy : load.copies) {
    if (!copy.fresh) continue;
    if (failed()) return false;
    auto page = std::make_shared<CachedPage>(codes, rows);
    if (take_page(load.keep, codes, blocks_.codes, &page->codes.block) != HeapStatus::kOk) return false;
    if (blocks_.rows > 0 && take_page(load.keep, rows, blocks_.rows, &page->rows.block) != HeapStatus::kOk) return false;
    page_at(*load.next, copy.page) = std::move(page);
  }
  load.next->table = std::make_shared<HeldBlock>(*scratch_, DeviceHeap::Block{});
  return take_scratch(CachedList::table_bytes(load.next->n_pages()), &load.next->table->block) == HeapStatus::kOk;
}

bool PageCache::copy_page(const Load& load, Staging& staging, const PageView& view, int64_t p) {
  CachedPage& page = *page_at(*load.next, p);
  const int64_t used = used_of(load.next->slots, p);
  unsigned char* const codes = staging.next(blocks_.codes);
  if (codes == nullptr) return false;
  stage_codes(blocks_, view, used, codes);
  if (staging.send(page.codes.block.memory, blocks_.codes) != Status::kOk) return false;
  if (load.keep == Keep::kCodes) {
    stage_rows(blocks_, view, used, page.rows.block.memory);
  } else if (blocks_.rows > 0) {
    unsigned char* const rows = staging.next(blocks_.rows);
    if (rows == nullptr) return false;
    stage_rows(blocks_, view, used, rows);
    if (staging.send(page.rows.block.memory, blocks_.rows) != Status::kOk) return false;
  }
  page.serial = view.serial;
  page.used = used;
  return true;
}

// Entries first .. last - 1 of a table.
bool PageCache::copy_entries(const CachedList& list, Staging& staging, int64_t first, int64_t last) {
  const int64_t step = staging.room() / kTableEntry;
  for (; first < last; first += step) {
    const int64_t some = std::min(step, last - first);
    unsigned char* const image = staging.next(some * kTableEntry);
    if (image == nullptr) return false;
    for (int64_t i = 0; i < some; ++i) {
      const CachedGroup& group = *list.groups[static_cast<size_t>((first + i) / kViewBlockPages)];
      const auto at = static_cast<size_t>((first + i) % kViewBlockPages);
      const DevicePage entry{group.pages[at]->memory(blocks_.layout), group.valid[at]};
      std::memcpy(image + i * kTableEntry, &entry, sizeof entry);
    }
    if (staging.send(list.device_table() + first, some * kTableEntry) != Status::kOk) return false;
  }
  return true;
}

// The table: the older version's, with what differs.
bool PageCache::copy_table(const Load& load, Staging& staging) {
  const CachedList& next = *load.next;
  const bool all = load.runs.size() == 1 && load.runs[0] == std::make_pair(int64_t{0}, next.n_pages());
  if (load.base != nullptr && !all) {
    const int64_t common = std::min(next.n_pages(), load.base->n_pages());
    if (runtime_->copy_within(next.device_table(), load.base->device_table(), common * kTableEntry, stream_) != Status::kOk) {
      return false;
    }
  }
  return std::all_of(load.runs.begin(), load.runs.end(),
                     [&](const auto& run) { return copy_entries(next, staging, run.first, run.second); });
}

bool PageCache::copy(Load& load, Staging& staging) {
  const auto copy_one = [&](const Load::Copy& one) { return copy_page(load, staging, one.view, one.page); };
  if (!std::all_of(load.copies.begin(), load.copies.end(), copy_one)) return false;
  if (!copy_table(load, staging)) return false;

  const std::shared_ptr<EventOf> arrives = events_->take();
  if (arrives == nullptr || runtime_->record(arrives.get(), stream_) != Status::kOk) return false;
  if (load.inline_only) {
    load.next->arrives = arrives;  // a few pages: a search waits for them on the device, if it comes so soon
  } else if (runtime_->synchronize(arrives.get()) != Status::kOk) {
    return false;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto copied = static_cast<int64_t>(load.copies.size());
  stats_.uploaded_pages += copied;
  stats_.uploaded_bytes += copied * blocks_.bytes();
  return true;
}

}  // namespace warpmem::cuda
