#include "cached_list.hpp"

#include <cstring>

namespace warpmem::cuda {

namespace {

// A plane of `lines` lines, each of `slots` slots of `width` bytes.
void stage_lines(unsigned char* to, const unsigned char* from, int64_t lines, int64_t slots, int64_t width,
                 int64_t used) noexcept {
  for (int64_t line = 0; line < lines; ++line) {
    std::memcpy(to + line * slots * width, from + line * slots * width, static_cast<size_t>(used * width));
  }
}

}  // namespace

void stage_codes(const PageBlocks& blocks, const PageView& page, int64_t used, unsigned char* to) noexcept {
  const PageLayout& layout = blocks.layout;
  unsigned char* const fine = to + layout.coarse_bytes;
  unsigned char* const head = fine + layout.fine_bytes;
  unsigned char* const end = head + layout.head_bytes;
  std::memset(used < kPageRows ? to : end, 0, static_cast<size_t>(used < kPageRows ? blocks.codes : to + blocks.codes - end));
  if (layout.pq.pq_dim > 0) stage_lines(to, page.coarse, layout.coarse_bytes / kPageRows, kPageRows, 1, used);
  if (layout.has_codes) {
    stage_lines(to, page.coarse, layout.coarse_bytes / (kPageRows * 4), kPageRows, 4, used);
    const int64_t group = layout.fine_bytes / (kPageRows / kCodeRows);  // of 16 rows
    for (int64_t g = 0; g * kCodeRows < used; ++g) {
      const int64_t some = used - g * kCodeRows < kCodeRows ? used - g * kCodeRows : kCodeRows;
      stage_lines(fine + g * group, page.fine + g * group, group / (kCodeRows * 4), kCodeRows, 4, some);
    }
  }
  for (int64_t c = 0; c < layout.n_columns + 1; ++c) {  // the last are row ids
    std::memcpy(head + c * kColumnBytes, page.columns + c * page.stride, static_cast<size_t>(used) * sizeof(int64_t));
  }
  unsigned char* const ordinals = head + (layout.n_columns + 1) * kColumnBytes;
  std::memset(ordinals, 0, kColumnBytes);
  std::memcpy(ordinals, page.columns + (layout.n_columns + 1) * page.stride, static_cast<size_t>(used) * sizeof(uint32_t));
}

void stage_rows(const PageBlocks& blocks, const PageView& page, int64_t used, unsigned char* to) noexcept {
  const int64_t bytes = used * blocks.layout.row_bytes();
  std::memcpy(to, page.rows, static_cast<size_t>(bytes));
  std::memset(to + bytes, 0, static_cast<size_t>(blocks.rows - bytes));
}

}  // namespace warpmem::cuda
