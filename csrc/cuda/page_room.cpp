// Room in the cache: what goes when something comes, and memory from the heaps. See page_cache.hpp.
#include <algorithm>
#include <iterator>
#include <new>

#include "page_cache.hpp"

namespace warpmem::cuda {

namespace {

constexpr int64_t kLeanLoads = 256;  // refusals after which a device that was out of memory is asked for more again

}  // namespace

// --------------------------------------------------------------------------------------------- who goes, under the mutex

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
bool PageCache::make_room(Keep keep, int64_t pages, int64_t list_id, bool forced) noexcept {
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
    try {
      victims.push_back(id);
    } catch (const std::bad_alloc&) {
      enough = false;
      break;
    }
    victim->chosen = true;
    freed += victim->list->n_pages();
    worth += victim->list->n_pages() * frequency_.count(id);
    enough = forced || worth < pages * frequency_.count(list_id);
  }
  for (const int64_t id : victims) {
    Entry& victim = entries_.find(id)->second;
    victim.chosen = false;
    if (enough) displace(keep, id, victim);
  }
  return enough;
}

// The next that the hand meets; false when all are pinned.
bool PageCache::evict_next(Keep keep) noexcept {
  int64_t id = 0;
  Entry* const victim = next_victim(keep, &id);
  if (victim == nullptr) return false;
  displace(keep, id, *victim);
  return true;
}

// The list goes for another. Its codes may find room, unless the device has less memory than it should: refusals are then counted, and these are not asked for.
void PageCache::displace(Keep keep, int64_t list_id, Entry& entry) noexcept {
  set_cold(list_id, entry);
  ++stats_.evictions;
  const bool asks = keep == Keep::kWhole && pinned_ && lean_loads_ == 0 && queue_.size() < kMostWaiting;
  if (asks && want(list_id)) entries_.find(list_id)->second.demoted = true;
}

// No more than there is room for the rows of.
int64_t PageCache::codes_limit() const noexcept {
  if (!pinned_) return 0;
  return std::min(page_limit() / kCodesShare / blocks_.codes, options_.pinned_bytes / blocks_.rows) * blocks_.codes;
}

void PageCache::set_limits() noexcept {
  kind(Keep::kWhole).heap->set_limit(page_limit() - codes_limit());
  kind(Keep::kCodes).heap->set_limit(codes_limit());
  host_->set_limit(pinned_ ? options_.pinned_bytes : 0);
  lean_loads_ = 0;
}

// A list was not taken. After the device was out of memory so many of these bring the limits back, even if nothing at all fits them.
void PageCache::count_refusal() noexcept {
  ++stats_.refused;
  if (lean_loads_ > 0 && --lean_loads_ == 0) set_limits();
}

// --------------------------------------------------------------------------------------------- memory, without the mutex

// The device has less memory than we were told.
void PageCache::evict_half() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++stats_.memory_failures;
    lean_loads_ = kLeanLoads;
    const int64_t half = stats_.bytes / 2;
    for (const Keep keep : {Keep::kWhole, Keep::kCodes}) {
      while (stats_.bytes > half && evict_next(keep)) {
      }
    }
  }
  clean();
  for (const Kind& one : kinds_) one.heap->trim();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Kind& one : kinds_) one.heap->set_limit(one.heap->bytes());
  lean_loads_ = kLeanLoads;
}

// A block for a page. Where versions share pages an evicted list frees fewer than it has: then more go.
HeapStatus PageCache::take_page(Keep keep, DeviceHeap& heap, int64_t size, DeviceHeap::Block* out) {
  for (;;) {
    const HeapStatus status = heap.allocate(size, out);
    if (status == HeapStatus::kOk) return status;
    if (status == HeapStatus::kFailed) fail();
    if (status == HeapStatus::kNoMemory && &heap != host_.get()) evict_half();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status == HeapStatus::kNoMemory && &heap == host_.get()) {
      ++stats_.memory_failures;
      host_->set_limit(host_->bytes());
      lean_loads_ = kLeanLoads;
    }
    if (status != HeapStatus::kFull || !evict_next(keep)) return status;
  }
}

// A block for something else.
HeapStatus PageCache::take_scratch(int64_t size, DeviceHeap::Block* out) {
  HeapStatus status = scratch_->allocate(size, out);
  if (status == HeapStatus::kNoMemory) {
    evict_half();
    status = scratch_->allocate(size, out);
  }
  if (status == HeapStatus::kFailed) fail();
  return status;
}

// What nobody holds any more becomes zero. False: the device failed, or the thread could not enter it.
bool PageCache::clean() noexcept {
  DeviceHeap* const heaps[] = {kinds_[0].heap.get(), kinds_[1].heap.get(), host_.get(), scratch_.get()};
  if (std::all_of(std::begin(heaps), std::end(heaps), [](const DeviceHeap* heap) { return heap->clean_already(); })) return true;
  const Entered entered(*runtime_);
  bool well = true;
  for (DeviceHeap* const heap : heaps) well = heap->clean() && well;
  if (!well) fail();
  return well;
}

std::shared_ptr<HeldBlock> PageCache::reserve(int64_t bytes, Stream stream) {
  if (failed()) return nullptr;
  const Entered entered(*runtime_);
  auto held = std::make_shared<HeldBlock>(*scratch_, DeviceHeap::Block{});
  if (take_scratch(PageBlocks::round_table(bytes), &held->block) != HeapStatus::kOk) return nullptr;
  const std::shared_ptr<EventOf> zeroed = events_->take();
  const bool waits = zeroed != nullptr && runtime_->record(zeroed.get(), stream_) == Status::kOk &&
                     runtime_->wait(stream, zeroed.get()) == Status::kOk;
  if (waits) return held;
  fail();
  return nullptr;
}

void PageCache::give_back(std::shared_ptr<HeldBlock>* block) noexcept {
  block->reset();
  clean();
}

}  // namespace warpmem::cuda
