#include "page_cache.hpp"

#include <algorithm>
#include <stdexcept>

namespace warpmem::cuda {

namespace {

constexpr int64_t kLeanLoads = 256;  // refusals after which a device that was out of memory is asked for more again
constexpr size_t kMostWaiting = 4096;

}  // namespace

PageCache::PageCache(std::shared_ptr<Runtime> runtime, const PoolPort& pool, const CacheOptions& options)
    : runtime_(std::move(runtime)),
      pool_(pool),
      options_(options),
      blocks_(PageLayout(pool.dim, pool.n_columns, pool.storage, pool.screen, PqView{pool.pq_dim, pool.dsub, nullptr})),
      pinned_(options.pinned_bytes > 0 && (blocks_.layout.has_codes || pool.pq_dim > 0) && blocks_.rows > 0),
      frequency_(options.frequency_keys) {
  const Entered entered(*runtime_);
  if (runtime_->create_stream(&stream_) != Status::kOk) throw std::runtime_error("device cache: " + runtime_->error());
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
  entries_.clear();
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
        want(view.list_id, entry);
      }
      continue;
    }
    ++stats_.misses;
    const int64_t pages = (view.slots + kPageRows - 1) / kPageRows;
    if (found != entries_.end()) {
      const auto& list = found->second.list;
      if (list == nullptr || list->version < view.version) want(view.list_id, found->second);
    } else if ((too_large(Keep::kWhole, pages) && too_large(Keep::kCodes, pages)) || queue_.size() >= kMostWaiting) {
      ++stats_.refused;
    } else {
      want(view.list_id, entries_[view.list_id]);
    }
  }
}

void PageCache::unpin(Pins* pins) noexcept {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  pins->clear();
}

void PageCache::want(int64_t list_id, Entry& entry) {
  if (!entry.queued && !entry.loading) enqueue(list_id, entry);
}

void PageCache::enqueue(int64_t list_id, Entry& entry) {
  queue_.push_back(list_id);
  entry.queued = true;
  if (options_.manual) return;
  if (!thread_.joinable()) start_thread();
  changed_.notify_all();
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
    want(list_id, entry);
    ++coming;
  }
  return coming;
}

void PageCache::evict(const std::vector<int64_t>& list_ids) {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const int64_t list_id : list_ids) {
    const auto found = entries_.find(list_id);
    if (found == entries_.end()) continue;
    found->second.gone = found->second.loading;
    set_cold(list_id, found->second);
  }
}

void PageCache::settle() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!options_.manual && !failed() && busy()) changed_.wait(lock);
}

// --------------------------------------------------------------------------------------------- what is hot

void PageCache::set_hot(int64_t list_id, Entry& entry, std::shared_ptr<CachedList> list) {
  kind(list->keep).clock.reserve(kind(list->keep).clock.size() + 1);
  leave_clock(entry);
  entry.list = std::move(list);
  entry.place = kind(entry.list->keep).clock.size();
  kind(entry.list->keep).clock.push_back(list_id);
  ++stats_.lists;
  stats_.codes_lists += entry.list->keep == Keep::kCodes ? 1 : 0;
  stats_.pages += entry.list->n_pages();
  stats_.bytes += entry.list->bytes(blocks_);
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

bool PageCache::evictable(const Entry& entry) const noexcept {
  return entry.list.use_count() == 1 && !entry.loading && !entry.chosen;
}

// The next list that the hand meets and that was not used since it last passed; null when all are pinned.
PageCache::Entry* PageCache::next_victim(Keep keep, int64_t* list_id) noexcept {
  Kind& one = kind(keep);
  for (size_t turns = 2 * one.clock.size(); turns-- > 0;) {
    if (one.hand >= one.clock.size()) one.hand = 0;
    *list_id = one.clock[one.hand++];
    Entry& entry = entries_.find(*list_id)->second;
    if (!evictable(entry)) continue;
    if (!entry.referenced) return &entry;
    entry.referenced = false;
  }
  return nullptr;
}

bool PageCache::fits(Keep keep, int64_t pages) const noexcept {
  if (keep == Keep::kWhole) return kind(keep).heap->fits(pages, blocks_.codes, blocks_.rows);
  return kind(keep).heap->fits(pages, blocks_.codes, 0) && host_->fits(pages, blocks_.rows, 0);
}

bool PageCache::too_large(Keep keep, int64_t pages) const noexcept {
  if (keep == Keep::kWhole) return pages > kind(keep).heap->limit() / blocks_.bytes();
  return !pinned_ || pages > kind(keep).heap->limit() / blocks_.codes || pages > host_->limit() / blocks_.rows;
}

// Evicts what `pages` more pages of the list displace. Unforced only if it is asked for more often: what a hit saves grows with a list's pages, so that a page
// is worth its list's count, and what is compared are counts times pages.
bool PageCache::make_room(Keep keep, int64_t pages, int64_t list_id, bool forced) {
  if (too_large(keep, pages)) return false;
  int64_t freed = 0;
  int64_t worth = 0;
  std::vector<int64_t> victims;
  bool enough = true;
  while (enough && freed < pages && !fits(keep, pages - freed)) {
    int64_t id = 0;
    Entry* const victim = next_victim(keep, &id);
    enough = victim != nullptr;
    if (!enough) break;
    victims.push_back(id);
    victim->chosen = true;
    freed += victim->list->n_pages();
    worth += victim->list->n_pages() * frequency_.count(id);
    enough = forced || worth < pages * frequency_.count(list_id);
  }
  for (const int64_t id : victims) {
    Entry& victim = entries_.find(id)->second;
    victim.chosen = false;
    if (!enough) continue;
    set_cold(id, victim);
    ++stats_.evictions;
  }
  return enough;
}

void PageCache::set_limits() noexcept {
  kind(Keep::kWhole).heap->set_limit(page_limit() - codes_limit());
  kind(Keep::kCodes).heap->set_limit(codes_limit());
  host_->set_limit(pinned_ ? options_.pinned_bytes : 0);
  lean_loads_ = 0;
}

// The device has less memory than we were told.
void PageCache::evict_half() noexcept {
  ++stats_.memory_failures;
  const int64_t half = stats_.bytes / 2;
  for (const Keep keep : {Keep::kWhole, Keep::kCodes}) {
    while (stats_.bytes > half) {
      int64_t id = 0;
      Entry* const victim = next_victim(keep, &id);
      if (victim == nullptr) break;
      set_cold(id, *victim);
      ++stats_.evictions;
    }
    kind(keep).heap->trim();
    kind(keep).heap->set_limit(kind(keep).heap->bytes());
  }
  lean_loads_ = kLeanLoads;
}

// A block for a page. Where versions share pages an evicted list frees fewer than it has: then more go.
HeapStatus PageCache::take_page(Keep keep, DeviceHeap& heap, int64_t size, DeviceHeap::Block* out) {
  for (;;) {
    const HeapStatus status = heap.allocate(size, out);
    if (status == HeapStatus::kFailed) fail_locked(runtime_->error());
    if (status == HeapStatus::kNoMemory && &heap != host_.get()) evict_half();
    if (status == HeapStatus::kNoMemory && &heap == host_.get()) {
      ++stats_.memory_failures;
      host_->set_limit(host_->bytes());
      lean_loads_ = kLeanLoads;
    }
    if (status != HeapStatus::kFull) return status;
    int64_t id = 0;
    Entry* const victim = next_victim(keep, &id);
    if (victim == nullptr) return status;
    set_cold(id, *victim);
    ++stats_.evictions;
  }
}

// A block for something else.
HeapStatus PageCache::take_scratch(int64_t size, DeviceHeap::Block* out) {
  HeapStatus status = scratch_->allocate(size, out);
  if (status == HeapStatus::kNoMemory) {
    evict_half();
    status = scratch_->allocate(size, out);
  }
  if (status == HeapStatus::kFailed) fail_locked(runtime_->error());
  return status;
}

std::shared_ptr<HeldBlock> PageCache::reserve(int64_t bytes, Stream stream) {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed()) return nullptr;
  auto held = std::make_shared<HeldBlock>(*scratch_, DeviceHeap::Block{});
  if (take_scratch(PageBlocks::round_table(bytes), &held->block) != HeapStatus::kOk) return nullptr;
  Event zeroed = nullptr;
  bool waits = runtime_->create_event(&zeroed, false) == Status::kOk;
  waits = waits && runtime_->record(zeroed, stream_) == Status::kOk && runtime_->wait(stream, zeroed) == Status::kOk;
  if (zeroed != nullptr) runtime_->release_event(zeroed);
  if (!waits) {
    fail_locked(runtime_->error());
    held.reset();
  }
  return held;
}

void PageCache::give_back(std::shared_ptr<HeldBlock>* block) noexcept {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  block->reset();
}

// --------------------------------------------------------------------------------------------- failure

void PageCache::fail() noexcept {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  fail_locked(runtime_->error());
}

void PageCache::fail(const std::string& reason) noexcept {
  const Entered entered(*runtime_);
  const std::lock_guard<std::mutex> lock(mutex_);
  fail_locked(reason);
}

// Lists that are on their way find out for themselves.
void PageCache::fail_locked(const std::string& reason) noexcept {
  if (failed()) return;
  failure_ = reason;
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
  return failure_;
}

bool PageCache::rebuild() {
  const Entered entered(*runtime_);
  std::unique_lock<std::mutex> lock(mutex_);
  if (!failed()) return true;
  while (loading_ > 0) changed_.wait(lock);
  int64_t free = 0, total = 0;
  if (runtime_->memory(&free, &total) != Status::kOk || runtime_->synchronize(stream_) != Status::kOk) return false;
  for (const Kind& one : kinds_) one.heap->trim();
  host_->trim();
  scratch_->trim();
  set_limits();
  failure_.clear();
  failed_.store(false, std::memory_order_relaxed);
  return true;
}

CacheStats PageCache::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  CacheStats stats = stats_;
  stats.allocated = kind(Keep::kWhole).heap->bytes() + kind(Keep::kCodes).heap->bytes() + scratch_->bytes();
  stats.pinned = host_->bytes();
  stats.limit = options_.limit;
  stats.waiting = static_cast<int64_t>(queue_.size()) + loading_;
  return stats;
}

}  // namespace warpmem::cuda
