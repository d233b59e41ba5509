// What a load copies: pages through staging memory, and the table that names them. See page_cache.hpp.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "page_load.hpp"

namespace warpmem::cuda {

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
  auto began = std::chrono::steady_clock::now();
  const auto copy_one = [&](const Load::Copy& one) {
    if (!copy_page(load, staging, one.view, one.page)) return false;
    if (load.inline_only || !options_.between || std::chrono::steady_clock::now() - began < options_.unit) return true;
    if (!staging.wipe()) return false;  // the device is free for others only when it has what was sent
    options_.between();
    began = std::chrono::steady_clock::now();
    return true;
  };
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
