// How lists get to the device, and how their copies follow their changes. See page_cache.hpp; the copying itself is page_copies.cpp.
//
// A list is on its way (Entry::loading) in one thread at a time, in passes: compare with what is there, take blocks, copy without the mutex; once more, if the
// list changed meanwhile; publish. What was copied for a list that went goes back.
//
// What a pass costs follows the change: blocks of the pool that are the same are not looked into, and of the table only entries that differ are sent. What
// follows the list is one number and one pointer for each 4,096 rows, and a copy of the table on the device, 48 bytes for 64 rows.
#include <algorithm>
#include <exception>
#include <new>

#include "page_load.hpp"

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

}  // namespace

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

// The list is marked as loading, and no longer when this returns: then nothing of the load is left but what is hot. The caller holds the mutex of the
// staging memory.
void PageCache::load_list(int64_t list_id, bool inline_only) noexcept {
  const Entered entered(*runtime_);
  int pass = 0;
  LoadEnd end = LoadEnd::kCold;
  do {
    Load load;
    load.list_id = list_id;
    load.inline_only = inline_only;
    do {
      load.end = make_version(load);
    } while (!end_pass(load, ++pass >= kPasses));
    end = load.end;
    load.old.reset();
    load.base.reset();
    load.next.reset();
    // A writer's copies are still under way as a rule, and nobody waits for them; but what is erased does not stay in what he copied from.
    const bool erased = load.erases || end == LoadEnd::kCold;
    if (inline_only) {
      if (erased) wipe(inline_staging_.get());
    } else {
      wipe(load_staging_.get());
      const std::unique_lock<std::mutex> turn =
          erased ? std::unique_lock<std::mutex>(inline_mutex_) : std::unique_lock<std::mutex>();
      if (erased) wipe(inline_staging_.get());
    }
    if (clean() && load.dropped) host_->trim();
  } while (!end_load(list_id, end, pass >= kPasses));
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

// Publishes what a pass made, or forgets the list. False: it changed, and the next pass follows.
bool PageCache::end_pass(Load& load, bool last) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_.find(load.list_id)->second;
  if (entry.gone || failed()) load.end = LoadEnd::kCold;
  if (entry.again && (load.end == LoadEnd::kMade || load.end == LoadEnd::kCurrent)) {
    if (last) {
      load.end = LoadEnd::kLater;
    } else {
      entry.again = false;
      if (load.end == LoadEnd::kMade) load.base = std::move(load.next);
      return false;
    }
  }
  if (load.end == LoadEnd::kMade) {
    if (set_hot(load.list_id, entry, load.next)) {
      ++(load.old == nullptr ? stats_.loads : stats_.refreshes);
    } else {
      load.end = LoadEnd::kCold;
    }
  }
  if (load.end == LoadEnd::kCold) set_cold(load.list_id, entry);
  return true;
}

// Unmarks the list. False, and it stays marked: it changed since it was published, or went.
bool PageCache::end_load(int64_t list_id, LoadEnd end, bool last) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  Entry& entry = entries_.find(list_id)->second;
  const bool changed = entry.again && !entry.gone && !failed();
  entry.again = entry.gone = false;
  if (changed && !last) return false;
  const bool later = (changed || end == LoadEnd::kLater) && !failed();
  if (!later) entry.forced = entry.demoted = false;
  entry.loading = entry.promote = false;
  --loading_;
  changed_.notify_all();
  if (later) want(list_id);
  if (entry.list == nullptr) set_cold(list_id, entry);
  return true;
}

PageCache::LoadEnd PageCache::load_view(Load& load, const PoolView& view) {
  const ListView& list = view.lists[0];
  load.dropped = list.version == 0;
  if (load.dropped) return LoadEnd::kCold;
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
  if (load.old == nullptr) {
    const bool codes_alone = entry.demoted && !load.forced;
    return (!codes_alone && room(Keep::kWhole, load.forced)) || room(Keep::kCodes, load.forced);
  }
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

}  // namespace warpmem::cuda
