// A list's pages in device memory, at one version of the list.
//
//   page    codes   coarse plane | fine plane | columns, row ids, ordinals       a block
//           rows    float rows                                                   a block, perhaps of pinned host memory; none for storage int8
//   list    table   DevicePage of each page (core/scan_tables.hpp)               a block, of this version alone
//
// Versions share pages, and groups of 64 of them, which are the pool's blocks, as long as these are the same. A page to which rows were appended is copied again in place: the slots that older versions know get the bytes that they had, and
// which slots a version knows stands in its own table. A launch reads several lists as slices of one table, so tables begin at multiples of an entry's size.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../core/page.hpp"
#include "../core/pool_view.hpp"
#include "../core/scan_tables.hpp"
#include "device_heap.hpp"

namespace warpmem::cuda {

// What blocks a page takes.
struct PageBlocks {
  PageLayout layout;
  int64_t codes = 0;
  int64_t rows = 0;  // 0: none

  PageBlocks() = default;
  explicit PageBlocks(const PageLayout& layout_)
      : layout(layout_),
        codes(round(layout_.coarse_bytes + layout_.fine_bytes + layout_.head_bytes)),
        rows(round(layout_.rows_bytes)) {}

  int64_t bytes() const noexcept { return codes + rows; }
  static int64_t round(int64_t bytes) noexcept { return (bytes + 255) / 256 * 256; }

  // A size of which blocks can be used again for other lists.
  static int64_t round_table(int64_t bytes) noexcept {
    int64_t size = 256;
    while (size < bytes) size *= 2;
    return size;
  }
};

// A block that goes back to its heap with the last that holds it, and is zeroed by whoever cleans the heap next.
struct HeldBlock {
  HeldBlock(DeviceHeap& heap_, DeviceHeap::Block block_) : heap(heap_), block(block_) {}
  ~HeldBlock() {
    if (block.memory != nullptr) heap.release(block);
  }
  HeldBlock(const HeldBlock&) = delete;
  HeldBlock& operator=(const HeldBlock&) = delete;

  DeviceHeap& heap;
  DeviceHeap::Block block;
};

struct CachedPage {
  CachedPage(DeviceHeap& codes_heap, DeviceHeap& rows_heap) : codes(codes_heap, {}), rows(rows_heap, {}) {}

  HeldBlock codes;
  HeldBlock rows;
  uint64_t serial = 0;
  int64_t used = 0;  // slots that were copied

  ConstPage memory(const PageLayout& layout) const noexcept {
    ConstPage page;
    page.coarse = codes.block.memory;
    page.fine = page.coarse + layout.coarse_bytes;
    page.columns = page.fine + layout.fine_bytes;
    page.rows = rows.block.memory;
    page.stride = kColumnBytes;
    return page;
  }
};

constexpr auto kTableEntry = static_cast<int64_t>(sizeof(DevicePage));

// Where a list's rows are. With kCodes a screen runs at the device's speed, and the few rows that it leaves are read over the bus.
enum class Keep { kWhole, kCodes };
constexpr int kKeeps = 2;

// 64 pages of a list, the last group of it perhaps fewer.
struct CachedGroup {
  uint64_t serial = 0;  // of the pool's block
  std::vector<std::shared_ptr<CachedPage>> pages;
  std::vector<uint64_t> valid;  // by page, as in the table
};

struct CachedList {
  Keep keep = Keep::kWhole;
  int64_t list_id = 0;
  uint64_t version = 0;
  int64_t slots = 0;
  int64_t live = 0;
  std::vector<std::shared_ptr<CachedGroup>> groups;  // not changed once a search may have them
  std::shared_ptr<HeldBlock> table;
  std::shared_ptr<EventOf> arrives;  // null: everything is there. Else a stream waits for this before it reads.

  int64_t n_pages() const noexcept { return (slots + kPageRows - 1) / kPageRows; }
  // Of device memory for its pages; its table is small beside them.
  int64_t bytes(const PageBlocks& blocks) const noexcept {
    return n_pages() * (keep == Keep::kWhole ? blocks.bytes() : blocks.codes);
  }

  static int64_t table_bytes(int64_t pages) noexcept { return PageBlocks::round_table((pages + 1) * kTableEntry); }
  DevicePage* device_table() const noexcept {
    const auto at = reinterpret_cast<uintptr_t>(table->block.memory);
    constexpr auto kEntry = static_cast<uintptr_t>(kTableEntry);
    return reinterpret_cast<DevicePage*>((at + kEntry - 1) / kEntry * kEntry);
  }
};

// Copy the first `used` slots of a page into the image of a block; what lies behind them becomes zero. No other slot is read: a writer may be filling it.
void stage_codes(const PageBlocks& blocks, const PageView& page, int64_t used, unsigned char* to) noexcept;
void stage_rows(const PageBlocks& blocks, const PageView& page, int64_t used, unsigned char* to) noexcept;

}  // namespace warpmem::cuda
