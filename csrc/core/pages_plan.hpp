// How rows are written to, removed from and moved between pages on a device. Pure functions of shapes and limits.
//
//   place   page of the table * 64 + slot
//   move    the live rows of a list, in their order, to other pages: a slice of the page table to another
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_limits.hpp"
#include "hd.hpp"
#include "page.hpp"

namespace warpmem {

constexpr int32_t kPagesThreads = 256;

struct PageMove {
  int64_t from_page = 0;
  int64_t pages = 0;  // < 2^25, so that 32 bits count their rows
  int64_t to_page = 0;
  int64_t to_pages = 0;  // with room for all live rows
  int64_t before = 0;    // pages of the moves before this one
};

struct CompactPlan {
  int64_t moves = 0;
  int64_t pages = 0;  // of all moves
  int64_t count_blocks = 0;
  int64_t move_blocks = 0;
  int64_t shared_bytes = 0;     // of the first launch: a count of each warp
  int64_t workspace_bytes = 0;  // a number for each page
};

inline int64_t pages_blocks(int64_t work, int64_t per_block, const DeviceLimits& limits) {
  return std::clamp<int64_t>((work + per_block - 1) / per_block, 1, 16 * resident_blocks(limits, kPagesThreads, 0));
}

// A warp a row.
inline int64_t append_blocks(int64_t rows, const DeviceLimits& limits) { return pages_blocks(rows, kPagesThreads / 32, limits); }

// A thread a place.
inline int64_t remove_blocks(int64_t places, const DeviceLimits& limits) { return pages_blocks(places, kPagesThreads, limits); }

// Fills in `before` of each move.
inline CompactPlan plan_compact(std::vector<PageMove>* moves, const DeviceLimits& limits) {
  CompactPlan plan;
  plan.moves = static_cast<int64_t>(moves->size());
  for (PageMove& move : *moves) {
    move.before = plan.pages;
    plan.pages += move.pages;
  }
  plan.count_blocks = pages_blocks(plan.moves, 1, limits);
  plan.move_blocks = pages_blocks(plan.pages, 1, limits);
  plan.shared_bytes = 4 * (kPagesThreads / 32);
  plan.workspace_bytes = (4 * plan.pages + 15) / 16 * 16;
  return plan;
}

// The move to which page `page` of all moves belongs: the last that begins there or before. Moves without pages are passed over.
WARPMEM_HD inline int64_t move_of(const PageMove* moves, int64_t n, int64_t page) {
  int64_t low = 0;
  int64_t high = n;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (moves[middle].before <= page) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace warpmem
