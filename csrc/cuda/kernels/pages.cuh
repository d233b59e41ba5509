// Pages of core/page.hpp in device memory: rows are packed, removed, moved together.
//
//   append    a warp a row: lane j holds element i with i % 32 = j, and is accumulator j of the sums that pack() makes; four lanes with
//
//               codes of elements   | 8 l ... 8 l + 3 | 8 l + 4 ... 8 l + 7 |       lane 8 l collects, by three exchanges, the word of line l in
//                                     lane 8 l + b: byte b of either plane          the coarse plane and that in the fine plane
//
//             codes of product quantisation: a lane a subspace, the even one writes the byte of both. Rows of a page are written by neighbouring warps, so
//             that the four bytes which each leaves in a line meet in the cache. The row's bit is set last.
//   remove    a thread a place: its bit is cleared
//   count     a block a move: firsts[page] = live rows of the move's pages before; the bits of the new pages
//   move      a block a page: half-planes and columns by thread = slot, 64 a line, so that reads are whole lines with gaps and writes runs; the rows
//             themselves by a warp a row
//
// Shared memory: of count, 4 bytes a warp. Limits: fewer than 2^25 pages a move, subspaces of at most kPqMaxPiece elements.
#pragma once

#include "../../core/pages_plan.hpp"
#include "../../core/scan_tables.hpp"
#include "canonical.cuh"

namespace warpmem::cuda {

// The table's pages as what they are for a writer.
WARPMEM_DEVICE PageMemory writable(const ConstPage& page) {
  PageMemory out;
  out.coarse = const_cast<unsigned char*>(page.coarse);
  out.fine = const_cast<unsigned char*>(page.fine);
  out.columns = const_cast<unsigned char*>(page.columns);
  out.rows = const_cast<unsigned char*>(page.rows);
  out.stride = page.stride;
  return out;
}

WARPMEM_DEVICE uint32_t* word_at(unsigned char* plane, int64_t offset) { return reinterpret_cast<uint32_t*>(plane + offset); }
WARPMEM_DEVICE const uint32_t* word_at(const unsigned char* plane, int64_t offset) {
  return reinterpret_cast<const uint32_t*>(plane + offset);
}

// append -----------------------------------------------------------------------------------------------------------------------------------------

struct AppendParams {
  PageLayout layout;
  DevicePage* pages;
  const int64_t* places;
  const float* vectors;
  const int64_t* row_ids;
  const uint32_t* ordinals;
  const int64_t* columns;
  int64_t n;
};

// A piece of a vector as pq_nearest reads it: zeros stand behind the end.
struct VectorPiece {
  const float* vector;
  int64_t dim;
  int64_t first;
  WARPMEM_DEVICE float operator[](int64_t i) const { return first + i < dim ? load_readonly(vector + first + i) : 0.0f; }
};

WARPMEM_DEVICE float warp_largest(const float* vector, int64_t dim, bool half) {
  float largest = 0.0f;
  for (int64_t i = lane_index(); i < dim; i += kLanes) {
    const float x = load_readonly(vector + i);
    const float magnitude = fabsf(half ? half_to_float(float_to_half(x)) : x);
    largest = magnitude > largest ? magnitude : largest;
  }
  WARPMEM_UNROLL
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    const float other = shuffle_xor(largest, lanes);
    largest = other > largest ? other : largest;
  }
  return largest;
}

// The lanes' numbers added in float64, one after another.
WARPMEM_DEVICE double warp_sum_in_order(float own) {
  double sum = 0.0;
  for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(shuffle(own, lane));
  return sum;
}

// PageLayout::pack_codes.
WARPMEM_DEVICE void warp_pack_codes(const PageLayout& layout, const PageMemory& page, int64_t slot, const float* vector) {
  const int lane = lane_index();
  const bool half = layout.storage == Storage::kF16;
  const float scale = scale_of(warp_largest(vector, layout.dim, half));
  const float inverse = inverse_of(scale);
  double squares = 0.0;
  float errors = 0.0f;
  float coarse_errors = 0.0f;
  for (int64_t first = 0; first < layout.padded; first += kLanes) {
    float x = first + lane < layout.dim ? load_readonly(vector + first + lane) : 0.0f;
    if (half) x = half_to_float(float_to_half(x));
    const float code = code_of(x, inverse);
    const int32_t biased = static_cast<int32_t>(code) + kCodeBias;
    if (layout.storage == Storage::kInt8) x = code * scale;
    const float error = x - code * scale;
    errors += error * error;
    const float coarse_error = x - static_cast<float>((biased & 0xf0) - kCoarseBias) * scale;
    coarse_errors += coarse_error * coarse_error;
    squares += static_cast<double>(x) * static_cast<double>(x);
    // Both planes' bytes in one word, so that they travel together: coarse low, fine high.
    const auto low = static_cast<uint32_t>(biased);
    const uint32_t high = shuffle_down(low, 4);
    uint32_t bytes = (low >> 4 & 15u) | (high & 240u) | (low & 15u) << 16 | (high & 15u) << 20;
    bytes |= shuffle_down(bytes, 1) << 8;
    const uint32_t upper = shuffle_down(bytes, 2);
    if (lane % kLineElements == 0) {
      const int64_t line = (first + lane) / kLineElements;
      *word_at(page.coarse, coarse_offset(slot, line)) = (bytes & 0xffffu) | upper << 16;
      *word_at(page.fine, fine_offset(slot, line, layout.padded)) = bytes >> 16 | (upper & 0xffff0000u);
    }
  }
  const double error = warp_sum_in_order(errors);
  const double coarse_error = warp_sum_in_order(coarse_errors);
  const RowBound bound = bound_row(scale, warp_fold(squares), coarse_error, error);
  const int64_t lines = layout.padded / kLineElements;
  if (lane < kCoarseParts) {
    const float part = lane == kScale         ? bound.scale
                       : lane == kCoarseError ? bound.coarse_error
                       : lane == kNorm        ? bound.norm
                                              : bound.square;
    memcpy(page.coarse + coarse_offset(slot, lines + lane), &part, sizeof part);
  } else if (lane == kCoarseParts) {
    memcpy(page.fine + fine_offset(slot, lines + kError, layout.padded), &bound.error, sizeof bound.error);
  }
}

// PageLayout::pack_pq.
WARPMEM_DEVICE void warp_pack_pq(const PageLayout& layout, const PageMemory& page, int64_t slot, const float* vector) {
  const int lane = lane_index();
  if (layout.storage == Storage::kInt8) {
    const float scale = scale_of(warp_largest(vector, layout.dim, false));
    const float inverse = inverse_of(scale);
    unsigned char* const to = page.rows + slot * layout.row_bytes();
    if (lane == 0) memcpy(to, &scale, sizeof scale);
    auto* const codes = reinterpret_cast<int8_t*>(to + sizeof scale);
    for (int64_t i = lane; i < layout.padded; i += kLanes)
      codes[i] = i < layout.dim ? static_cast<int8_t>(code_of(load_readonly(vector + i), inverse)) : int8_t{0};
  }
  for (int64_t first = 0; first < layout.pq.pq_dim; first += kLanes) {
    const int64_t s = first + lane;
    uint32_t code = 0;
    if (s < layout.pq.pq_dim) {
      const VectorPiece piece{vector, layout.dim, s * layout.pq.dsub};
      code = pq_nearest(layout.pq.books + s * layout.pq.dsub * 16, piece, layout.pq.dsub);
    }
    const uint32_t odd = shuffle_down(code, 1);
    if (s % 2 == 0 && s < layout.pq.pq_dim) page.coarse[s / 2 * 64 + slot] = static_cast<unsigned char>(code | odd << 4);
  }
}

WARPMEM_KERNEL(kPagesThreads) pages_append_kernel(AppendParams p) {
  const PageLayout& layout = p.layout;
  const int lane = lane_index();
  const int warps = block_threads() / kWarpSize;
  for (int64_t row = block_index() * warps + warp_index(); row < p.n; row += grid_blocks() * warps) {
    const int64_t place = p.places[row];
    DevicePage& entry = p.pages[place / kPageRows];
    const PageMemory page = writable(entry.memory);
    const auto slot = static_cast<int>(place % kPageRows);
    const float* const vector = p.vectors + row * layout.dim;
    if (layout.storage == Storage::kF32) {
      float* const to = layout.row(page, slot);
      for (int64_t i = lane; i < layout.padded; i += kLanes) to[i] = i < layout.dim ? load_readonly(vector + i) : 0.0f;
    } else if (layout.storage == Storage::kF16) {
      uint16_t* const to = layout.half_row(page, slot);
      for (int64_t i = lane; i < layout.padded; i += kLanes)
        to[i] = i < layout.dim ? float_to_half(load_readonly(vector + i)) : uint16_t{0};
    }
    if (layout.has_codes) warp_pack_codes(layout, page, slot, vector);
    if (layout.pq.pq_dim > 0) warp_pack_pq(layout, page, slot, vector);
    for (int64_t c = lane; c < layout.n_columns; c += kLanes)
      layout.column(page, c)[slot] = p.columns[row * layout.n_columns + c];
    if (lane == 0) layout.row_ids(page)[slot] = p.row_ids[row];
    if (lane == 0) layout.ordinals(page)[slot] = p.ordinals[row];
    fence_device();
    sync_warp();
    if (lane == 0) atomic_or(&entry.valid, uint64_t{1} << slot);
  }
}

// remove -----------------------------------------------------------------------------------------------------------------------------------------

struct RemoveParams {
  DevicePage* pages;
  const int64_t* places;
  int64_t n;
  uint64_t* removed;  // may be null
};

WARPMEM_KERNEL(kPagesThreads) pages_remove_kernel(RemoveParams p) {
  for (int64_t base = block_index() * block_threads(); base < p.n; base += grid_blocks() * block_threads()) {
    const int64_t at = base + thread_index();
    bool was = false;
    if (at < p.n) {
      const uint64_t bit = uint64_t{1} << p.places[at] % kPageRows;
      was = (atomic_and(&p.pages[p.places[at] / kPageRows].valid, ~bit) & bit) != 0;
    }
    const uint32_t count = count_bits(ballot(was));
    if (lane_index() == 0 && count > 0 && p.removed != nullptr) atomic_add(p.removed, uint64_t{count});
  }
}

// compact ----------------------------------------------------------------------------------------------------------------------------------------

struct CompactParams {
  PageLayout layout;
  DevicePage* pages;
  const PageMove* moves;
  int64_t n_moves;
  int64_t n_pages;   // of all moves
  uint32_t* firsts;  // (n_pages)
  int64_t* rows;     // (n_moves) or null
};

WARPMEM_DEVICE uint32_t count_bits_64(uint64_t bits) {
  return static_cast<uint32_t>(count_bits(static_cast<uint32_t>(bits)) + count_bits(static_cast<uint32_t>(bits >> 32)));
}

WARPMEM_KERNEL(kPagesThreads) pages_count_kernel(CompactParams p) {
  const int lane = lane_index();
  const int warps = block_threads() / kWarpSize;
  const Shared<uint32_t> sums = shared_array<uint32_t>(0, warps);
  for (int64_t m = block_index(); m < p.n_moves; m += grid_blocks()) {
    const PageMove move = p.moves[m];
    uint32_t total = 0;
    for (int64_t base = 0; base < move.pages; base += block_threads()) {
      const int64_t page = base + thread_index();
      const uint32_t own = page < move.pages ? count_bits_64(p.pages[move.from_page + page].valid) : 0;
      uint32_t before = own;  // of this lane and those below
      WARPMEM_UNROLL
      for (int lanes = 1; lanes < kWarpSize; lanes *= 2) {
        const uint32_t below = shuffle_up(before, lanes);
        if (lane >= lanes) before += below;
      }
      sync_threads();  // the last step's sums were read
      if (lane == kWarpSize - 1) sums[warp_index()] = before;
      sync_threads();
      uint32_t first = total + before - own;
      for (int w = 0; w < warps; ++w) {
        if (w < warp_index()) first += sums[w];
        total += sums[w];
      }
      if (page < move.pages) p.firsts[move.before + page] = first;
    }
    if (thread_index() == 0 && p.rows != nullptr) p.rows[m] = total;
    for (int64_t page = thread_index(); page < move.to_pages; page += block_threads()) {
      const int64_t left = static_cast<int64_t>(total) - page * kPageRows;
      p.pages[move.to_page + page].valid = left >= kPageRows ? ~uint64_t{0} : left > 0 ? (uint64_t{1} << left) - 1 : 0;
    }
  }
}

// Where a row of a page goes: to the page of the table and the slot.
struct RowTarget {
  PageMemory page;
  int64_t slot = 0;
  bool there = false;
};

WARPMEM_DEVICE RowTarget target_of(const CompactParams& p, const PageMove& move, uint32_t first, uint64_t valid, int slot) {
  RowTarget out;
  const int64_t rank = int64_t{first} + count_bits_64(valid & ((uint64_t{1} << slot) - 1));
  out.there = (valid >> slot & 1u) != 0 && rank < move.to_pages * kPageRows;
  if (!out.there) return out;
  out.page = writable(p.pages[move.to_page + rank / kPageRows].memory);
  out.slot = rank % kPageRows;
  return out;
}

WARPMEM_KERNEL(kPagesThreads) pages_move_kernel(CompactParams p) {
  const PageLayout& layout = p.layout;
  const int warps = block_threads() / kWarpSize;
  const int slot = thread_index() % kPageRows;
  const int group = thread_index() / kPageRows;
  const int groups = block_threads() / kPageRows;
  const int64_t lines = layout.padded / kLineElements;
  for (int64_t at = block_index(); at < p.n_pages; at += grid_blocks()) {
    const PageMove move = p.moves[move_of(p.moves, p.n_moves, at)];
    const DevicePage source = p.pages[move.from_page + at - move.before];
    const ConstPage& from = source.memory;
    const uint32_t first = p.firsts[at];
    const RowTarget to = target_of(p, move, first, source.valid, slot);
    if (to.there) {
      if (layout.has_codes) {
        for (int64_t line = group; line < lines + kCoarseParts; line += groups)
          *word_at(to.page.coarse, coarse_offset(to.slot, line)) = *word_at(from.coarse, coarse_offset(slot, line));
        for (int64_t line = group; line < lines + kFineParts; line += groups) {
          *word_at(to.page.fine, fine_offset(to.slot, line, layout.padded)) =
              *word_at(from.fine, fine_offset(slot, line, layout.padded));
        }
      }
      for (int64_t line = group; line < pq_pairs(layout.pq.pq_dim); line += groups)
        to.page.coarse[line * 64 + to.slot] = from.coarse[line * 64 + slot];
      for (int64_t c = group; c < layout.n_columns + 1; c += groups)  // the last are the row ids
        layout.column(to.page, c)[to.slot] = layout.column(from, c)[slot];
      if (group == 0) layout.ordinals(to.page)[to.slot] = layout.ordinals(from)[slot];
    }
    const int64_t words = layout.row_bytes() / 4;
    for (int row = warp_index(); row < kPageRows && words > 0; row += warps) {
      const RowTarget other = target_of(p, move, first, source.valid, row);
      if (!other.there) continue;
      for (int64_t i = lane_index(); i < words; i += kWarpSize)
        *word_at(other.page.rows, other.slot * layout.row_bytes() + 4 * i) =
            *word_at(from.rows, row * layout.row_bytes() + 4 * i);
    }
  }
}

}  // namespace warpmem::cuda
