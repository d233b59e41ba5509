#include "page_cache.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "room.hpp"

namespace warpmem::cuda {

PageCache::PageCache(std::shared_ptr<Runtime> runtime, const PoolPort& pool, const CacheOptions& options)
    : runtime_(std::move(runtime)),
      pool_(pool),
      options_(options),
      blocks_(PageLayout(pool.dim, pool.n_columns, pool.storage, pool.screen, PqView{pool.pq_dim, pool.dsub, nullptr})),
      pinned_((blocks_.layout.has_codes || pool.pq_dim > 0) && blocks_.rows > 0 && options.pinned_bytes >= blocks_.rows),
      frequency_(options.frequency_keys) {
  const Entered entered(*runtime_);
  if (runtime_->create_stream(&stream_) != Status::kOk) throw std::runtime_error("device cache: " + runtime_->error());
  events_ = std::make_unique<Events>(*runtime_);
  for (Kind& one : kinds_) one.heap = std::make_unique<DeviceHeap>(*runtime_, stream_, 0);
  host_ = std::make_unique<DeviceHeap>(*runtime_, stream_, 0, true);
  set_limits();
  scratch_ = std::make_unique<DeviceHeap>(*runtime_, stream_, options_.limit - page_limit());
}

PageCache::~PageCache() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  const Entered entered(*runtime_);
  static_cast<void>(runtime_->synchronize(stream_));
  load_staging_.reset();
  inline_staging_.reset();
  queue_.clear();  // nothing is hot, should the device fail now
  for (Kind& one : kinds_) one.clock.clear();
  entries_.clear();
  clean();
  events_.reset();
  for (Kind& one : kinds_) one.heap.reset();
  host_.reset();
  scratch_.reset();
  runtime_->release_stream(stream_);
}

// --------------------------------------------------------------------------------------------- searching

void PageCache::pin(const ListView* lists, int64_t n, Pins* pins) {
  pins->assign(static_cast<size_t>(n), nullptr);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed()) return;
  for (int64_t i = 0; i < n; ++i) {
    const ListView& view = lists[i];
    if (view.version == 0) continue;
    frequency_.add(view.list_id);
    const auto found = entries_.find(view.list_id);
    if (found != entries_.end() && found->second.list != nullptr && found->second.list->version == view.version) {
      Entry& entry = found->second;
      entry.referenced = true;
      (*pins)[static_cast<size_t>(i)] = entry.list;
      ++stats_.hits;
      if (entry.list->keep == Keep::kCodes && ++entry.hits % kPromoteHits == 0) {
        entry.promote = true;
        want(view.list_id);
      }
      continue;
    }
    ++stats_.misses;
    const int64_t pages = (view.slots + kPageRows - 1) / kPageRows;
    if (found != entries_.end()) {
      const auto& list = found->second.list;
      if (list == nullptr || list->version < view.version) want(view.list_id);
    } else if ((too_large(Keep::kWhole, pages) && too_large(Keep::kCodes, pages)) || queue_.size() >= kMostWaiting) {
      count_refusal();
    } else {
      want(view.list_id);
    }
  }
}

void PageCache::unpin(Pins* pins) noexcept {
  pins->clear();
  clean();
}

// Puts a list into the queue, unless it is there or on its way. False, and it is not wanted, where host memory is missing.
bool PageCache::want(int64_t list_id) noexcept {
  try {
    Entry& entry = entries_[list_id];
    if (entry.queued || entry.loading) return true;
    queue_.push_back(list_id);
    entry.queued = true;
  } catch (const std::bad_alloc&) {
    const auto found = entries_.find(list_id);
    if (found != entries_.end() && found->second.list == nullptr && !found->second.queued && !found->second.loading) {
      entries_.erase(found);
    }
    return false;
  }
  if (options_.manual) return true;
  if (!thread_.joinable()) start_thread();
  changed_.notify_all();
  return true;
}

int64_t PageCache::warm(const std::vector<int64_t>& list_ids) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed()) return 0;
  int64_t coming = 0;
  for (const int64_t list_id : list_ids) {
    frequency_.add(list_id);
    Entry& entry = entries_[list_id];
    if (entry.list != nullptr) {
      entry.referenced = true;
      continue;
    }
    entry.forced = true;
    want(list_id);
    ++coming;
  }
  return coming;
}

void PageCache::evict(const std::vector<int64_t>& list_ids) noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    bool left_queue = false;
    for (const int64_t list_id : list_ids) {
      const auto found = entries_.find(list_id);
      if (found == entries_.end()) continue;
      Entry& entry = found->second;
      entry.gone = entry.loading;
      left_queue = left_queue || entry.queued;
      entry.queued = false;
      set_cold(list_id, entry);
    }
    if (left_queue) {
      const auto left = [this](int64_t list_id) {
        const auto entry = entries_.find(list_id);
        return entry == entries_.end() || !entry->second.queued;
      };
      queue_.erase(std::remove_if(queue_.begin(), queue_.end(), left), queue_.end());
      changed_.notify_all();
    }
  }
  const Entered entered(*runtime_);
  {
    const std::lock_guard<std::mutex> turn(inline_mutex_);
    wipe(inline_staging_.get());
  }
  if (clean()) host_->trim();
}

void PageCache::settle() noexcept {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!options_.manual && !failed() && busy()) {
    if (thread_.joinable() || queue_.empty()) {
      changed_.wait(lock);
    } else {
      lock.unlock();
      load_next();
      lock.lock();
    }
  }
}

// --------------------------------------------------------------------------------------------- what is hot

// False, and nothing is done, when host memory is missing.
bool PageCache::set_hot(int64_t list_id, Entry& entry, std::shared_ptr<CachedList> list) noexcept {
  std::vector<int64_t>& clock = kind(list->keep).clock;
  try {
    room_for(clock, clock.size() + 1);
  } catch (const std::bad_alloc&) {
    return false;
  }
  leave_clock(entry);
  entry.list = std::move(list);
  entry.place = clock.size();
  clock.push_back(list_id);
  ++stats_.lists;
  stats_.codes_lists += entry.list->keep == Keep::kCodes ? 1 : 0;
  stats_.pages += entry.list->n_pages();
  stats_.bytes += entry.list->bytes(blocks_);
  return true;
}

// The list is no longer hot.
void PageCache::leave_clock(Entry& entry) noexcept {
  if (entry.list == nullptr) return;
  --stats_.lists;
  stats_.codes_lists -= entry.list->keep == Keep::kCodes ? 1 : 0;
  stats_.pages -= entry.list->n_pages();
  stats_.bytes -= entry.list->bytes(blocks_);
  std::vector<int64_t>& clock = kind(entry.list->keep).clock;
  const size_t place = entry.place;
  clock[place] = clock.back();
  entries_.find(clock[place])->second.place = place;
  clock.pop_back();
  entry.list.reset();
}

// Forgets the list, unless somebody is about to load it.
void PageCache::set_cold(int64_t list_id, Entry& entry) noexcept {
  leave_clock(entry);
  if (!entry.queued && !entry.loading) entries_.erase(list_id);
}

// --------------------------------------------------------------------------------------------- failure

void PageCache::fail() noexcept {
  try {
    fail(runtime_->error());
  } catch (const std::bad_alloc&) {
    fail(std::string());
  }
}

// Lists that are on their way find out for themselves.
void PageCache::fail(const std::string& reason) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed()) return;
  try {
    failure_ = reason;
  } catch (const std::bad_alloc&) {  // failure() knows what to say
    failure_.clear();
  }
  failed_.store(true, std::memory_order_relaxed);
  for (const int64_t list_id : queue_) entries_.find(list_id)->second.queued = false;
  queue_.clear();
  for (const Kind& one : kinds_) {
    while (!one.clock.empty()) {
      const int64_t list_id = one.clock.back();
      set_cold(list_id, entries_.find(list_id)->second);
    }
  }
  for (auto at = entries_.begin(); at != entries_.end();) at = at->second.loading ? std::next(at) : entries_.erase(at);
  changed_.notify_all();
}

std::string PageCache::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failed() && failure_.empty() ? "the device failed" : failure_;
}

// While the cache has failed nothing is loaded, so that the heaps are left alone meanwhile by all but those who give back.
bool PageCache::rebuild() {
  const std::lock_guard<std::mutex> turn(rebuild_mutex_);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!failed()) return true;
    while (loading_ > 0) changed_.wait(lock);
  }
  const Entered entered(*runtime_);
  int64_t free = 0, total = 0;
  if (runtime_->memory(&free, &total) != Status::kOk || runtime_->synchronize(stream_) != Status::kOk || !clean()) return false;
  for (const Kind& one : kinds_) one.heap->trim();
  host_->trim();
  scratch_->trim();
  const std::lock_guard<std::mutex> lock(mutex_);
  set_limits();
  failure_.clear();
  failed_.store(false, std::memory_order_relaxed);
  return true;
}

bool PageCache::waiting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return !queue_.empty();
}

CacheStats PageCache::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  CacheStats stats = stats_;
  stats.allocated = kind(Keep::kWhole).heap->bytes() + kind(Keep::kCodes).heap->bytes() + scratch_->bytes();
  stats.pinned = host_->bytes();
  stats.pinned_limit = pinned_ ? options_.pinned_bytes : 0;
  stats.limit = options_.limit;
  stats.waiting = static_cast<int64_t>(queue_.size()) + loading_;
  return stats;
}

}  // namespace warpmem::cuda
