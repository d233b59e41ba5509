// A list on its way to the device: what page_loader.cpp finds out and page_copies.cpp copies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "page_cache.hpp"

namespace warpmem::cuda {

// Slots of a page that rows were written to, of a list with so many.
inline int64_t used_of(int64_t slots, int64_t page) noexcept { return std::min<int64_t>(kPageRows, slots - page * kPageRows); }

inline std::shared_ptr<CachedPage>& page_at(const CachedList& list, int64_t p) {
  return list.groups[static_cast<size_t>(p / kViewBlockPages)]->pages[static_cast<size_t>(p % kViewBlockPages)];
}

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
  bool dropped = false;   // the list
  Keep keep = Keep::kWhole;
  LoadEnd end = LoadEnd::kCold;
  std::shared_ptr<CachedList> old;   // that is hot
  std::shared_ptr<CachedList> base;  // what the next one shares pages with: that, or what the last pass made
  std::shared_ptr<CachedList> next;
  std::vector<Copy> copies;
  std::vector<std::pair<int64_t, int64_t>> runs;  // entries of the table that the base's has not
};

}  // namespace warpmem::cuda
