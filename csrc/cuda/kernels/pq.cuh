// Product quantisation on the device: tables, layouts, scans. Codes and the quantised table are those of core/pq_code.hpp, sums and their order those
// of cpu/pq.cpp, so scores and ranks are the CPU's bit for bit.
//
// Scan. A unit is one query and one part of the rows; units that follow one another share the part, so that its codes stay in the second cache.
//
//   8 bits    table [subspace][256] float32 in shared memory. Codes come four rows a load: thread t of a tile of 1,024 rows has rows
//             4 (t % 8) ... + 3 of block t / 8; a score is ((lut_0 + lut_1) + lut_2) + ... in float32. When the tables do not fit, `chunk` subspaces
//             of them pass by for every tile.
//   4 bits    quantised table [subspace][16] of bytes. A load brings 4 bytes, 8 rows: rows 4 (t % 4) ... + 3 of block t / 4, and those 16 behind
//             them. A score is the integer sum; it becomes a number when the selection is over.
//
// The k best go through the queue of select_k.cuh. Shared memory: kSelectHeaderBytes, 8 bytes for each item of the queue, then 1,024 bytes for each
// subspace of a chunk (4 bits: 20 bytes for each subspace). Bank conflicts of the table's reads bind an 8-bit scan before the memory does.
//
// With refine the rows found are a shortlist: a warp a row reads what is stored of it and makes a key of its canonical similarity (scan_rows.cuh), of which
// select_k.cuh finds the k best.
#pragma once

#include "../../core/pq_plan.hpp"
#include "canonical.cuh"
#include "pq_table.cuh"
#include "scan_rows.cuh"
#include "select_k.cuh"

namespace warpmem::cuda {

// Tables ----------------------------------------------------------------------------------------------------------------------------------------

struct PqLutParams {
  const float* codebooks;  // (pq_dim, entries, dsub)
  const float* queries;    // (n, pq_dim * dsub)
  float* luts;             // (n, pq_dim, entries)
  int64_t n;
  int64_t pq_dim;
  int64_t entries;
  int64_t dsub;
  bool l2;  // negated squared distances instead of dot products
};

// By template recursion, because a loop over widths is not always written out, and what is indexed at run time lies in local memory.
template <int kWidth, int kTop>
WARPMEM_DEVICE void fold_registers(double (&acc)[kTop]) {
  if constexpr (kWidth > 0) {
    WARPMEM_UNROLL
    for (int j = 0; j < kWidth; ++j) acc[j] += acc[j + kWidth];
    fold_registers<kWidth / 2>(acc);
  }
}

// A thread an entry, dsub <= kTop. kTop accumulators, a power of two; those left out would be +0 (cpu/pq_common.hpp).
template <int kTop>
WARPMEM_KERNEL(kPqThreads)
pq_lut_kernel(PqLutParams p) {
  const int64_t total = p.n * p.pq_dim * p.entries;
  for (int64_t at = block_index() * block_threads() + thread_index(); at < total; at += grid_blocks() * block_threads()) {
    const int64_t entry = at % (p.pq_dim * p.entries);
    const float* const x = p.queries + at / (p.pq_dim * p.entries) * p.pq_dim * p.dsub + entry / p.entries * p.dsub;
    const float* const y = p.codebooks + entry * p.dsub;
    double acc[kTop];
    WARPMEM_UNROLL
    for (int j = 0; j < kTop; ++j) {
      acc[j] = 0.0;
      if (j >= p.dsub) continue;
      const auto a = static_cast<double>(load_readonly(x + j));
      const auto b = static_cast<double>(load_readonly(y + j));
      const double factor = p.l2 ? a - b : b;
      acc[j] += (p.l2 ? factor : a) * factor;
    }
    fold_registers<kTop / 2>(acc);
    p.luts[at] = static_cast<float>(p.l2 ? -acc[0] : acc[0]) + 0.0f;
  }
}

// A warp an entry, for longer subspaces.
WARPMEM_KERNEL(kPqThreads) pq_lut_warp_kernel(PqLutParams p) {
  const int warps = block_threads() / kWarpSize;
  const int64_t total = p.n * p.pq_dim * p.entries;
  for (int64_t at = block_index() * warps + warp_index(); at < total; at += grid_blocks() * warps) {
    const int64_t entry = at % (p.pq_dim * p.entries);
    const float* const x = p.queries + at / (p.pq_dim * p.entries) * p.pq_dim * p.dsub + entry / p.entries * p.dsub;
    const float* const y = p.codebooks + entry * p.dsub;
    const double sum = p.l2 ? -warp_squared_distance_f64(x, y, p.dsub) : warp_dot_f64(x, y, p.dsub);
    if (lane_index() == 0) p.luts[at] = static_cast<float>(sum) + 0.0f;
  }
}

// Layouts ---------------------------------------------------------------------------------------------------------------------------------------

struct PqLayoutParams {
  const uint8_t* from;
  uint8_t* to;
  int64_t n;
  int64_t pq_dim;
  int64_t bits;
};

// One code a byte (n, pq_dim) -> packed rows of 4 bits. A thread a byte.
WARPMEM_KERNEL(kPqThreads) pq_pack_kernel(PqLayoutParams p) {
  const int64_t size = pq_code_size(p.pq_dim, 4);
  for (int64_t at = block_index() * block_threads() + thread_index(); at < p.n * size; at += grid_blocks() * block_threads()) {
    const int64_t s = at % size * 2;
    const uint8_t* const codes = p.from + at / size * p.pq_dim + s;
    const unsigned high = s + 1 < p.pq_dim ? codes[1] : 0u;
    p.to[at] = static_cast<uint8_t>(codes[0] | high << 4);
  }
}

// Packed rows -> interleaved blocks. A thread a byte of a block.
WARPMEM_KERNEL(kPqThreads) pq_interleave_kernel(PqLayoutParams p) {
  const int64_t size = pq_code_size(p.pq_dim, p.bits);
  const int64_t group = pq_group_bytes(p.bits);
  const int64_t total = pq_blocks(p.n) * p.pq_dim * group;
  for (int64_t at = block_index() * block_threads() + thread_index(); at < total; at += grid_blocks() * block_threads()) {
    const int64_t s = at / group % p.pq_dim;
    const int64_t row = at / (group * p.pq_dim) * kPqBlockRows + at % group;
    unsigned byte = row < p.n ? pq_get(p.from + row * size, s, p.bits) : 0u;
    if (p.bits == 4 && row + 16 < p.n) byte |= static_cast<unsigned>(pq_get(p.from + (row + 16) * size, s, 4)) << 4;
    p.to[at] = static_cast<uint8_t>(byte);
  }
}

struct PqDecodeParams {
  const float* codebooks;
  const uint8_t* codes;  // packed
  float* rows;           // (n, pq_dim * dsub)
  int64_t n;
  int64_t pq_dim;
  int64_t bits;
  int64_t dsub;
};

WARPMEM_KERNEL(kPqThreads) pq_decode_kernel(PqDecodeParams p) {
  const int64_t dim = p.pq_dim * p.dsub;
  for (int64_t at = block_index() * block_threads() + thread_index(); at < p.n * dim; at += grid_blocks() * block_threads()) {
    const int64_t s = at % dim / p.dsub;
    const int64_t entry = (s << p.bits) + pq_get(p.codes + at / dim * pq_code_size(p.pq_dim, p.bits), s, p.bits);
    p.rows[at] = load_readonly(p.codebooks + entry * p.dsub + at % p.dsub);
  }
}

// Scans -----------------------------------------------------------------------------------------------------------------------------------------

struct PqScanParams {
  const uint8_t* codes;  // interleaved blocks, aligned to 4 bytes
  const float* luts;     // (queries, pq_dim, entries), finite
  int64_t queries;
  int64_t rows;
  int64_t pq_dim;
  int64_t parts;
  int64_t part_rows;  // a multiple of the tile
  int64_t chunk;
  int32_t k;
  int32_t capacity;
  uint64_t* keys_out;  // parts > 1: (queries, parts, k)
  uint64_t* floors;    // parts > 1: (queries), 0 at the start
  double* scales;      // 4 bits: (queries, 2), scale and bias
  float* values;       // parts == 1: (queries, k)
  int64_t* indexes;
};

// Queue and outputs of a unit, whatever the width of the codes.
struct PqUnit {
  WARPMEM_DEVICE PqUnit(const PqScanParams& p, int64_t unit) : query(unit % p.queries), part(unit / p.queries) {
    begin = part * p.part_rows;
    end = p.rows < begin + p.part_rows ? p.rows : begin + p.part_rows;
    floor = p.parts > 1 ? p.floors + query : nullptr;
  }

  WARPMEM_DEVICE void store(const PqScanParams& p, int32_t rank, const Item<false>& item, const double* scale_and_bias) const {
    if (p.parts > 1) {
      p.keys_out[(query * p.parts + part) * p.k + rank] = item.key;
      return;
    }
    write_selected(p.values, p.indexes, query * p.k + rank, item, scale_and_bias);
  }

  int64_t query;
  int64_t part;
  int64_t begin;
  int64_t end;
  uint64_t* floor;
};

WARPMEM_KERNEL(kPqThreads) pq_scan8_kernel(PqScanParams p) {
  constexpr int kAhead = 4;  // subspaces whose codes a thread has in flight
  const int t = thread_index();
  BlockQueue<false> queue(shared_array<uint32_t>(0, 1), Items<false>(kSelectHeaderBytes, p.capacity), p.k, p.capacity);
  const Shared<float> table = shared_array<float>(kSelectHeaderBytes + p.capacity * 8, p.chunk * 256);
  const int64_t n_blocks = pq_blocks(p.rows);
  for (int64_t u = block_index(); u < p.queries * p.parts; u += grid_blocks()) {
    const PqUnit unit(p, u);
    const float* const lut = p.luts + unit.query * p.pq_dim * 256;
    bool loaded = false;
    queue.clear(unit.floor);
    for (int64_t base = unit.begin; base < unit.end; base += 4 * kPqThreads) {
      const int64_t block = base / kPqBlockRows + t / 8;
      const uint8_t* const codes = p.codes + block * p.pq_dim * 32 + 4 * (t % 8);
      const bool there = block < n_blocks;
      float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int64_t first = 0; first < p.pq_dim; first += p.chunk) {
        const int64_t count = p.pq_dim - first < p.chunk ? p.pq_dim - first : p.chunk;
        if (!loaded) {
          sync_threads();
          for (int64_t i = t; i < count * 256; i += kPqThreads) table[i] = load_readonly(lut + first * 256 + i);
          sync_threads();
          loaded = p.chunk == p.pq_dim;
        }
        if (!there) continue;
        for (int64_t s = 0; s < count; s += kAhead) {
          uint32_t words[kAhead];
          WARPMEM_UNROLL
          for (int a = 0; a < kAhead; ++a) {
            words[a] = 0;
            if (s + a < count) words[a] = load_readonly(reinterpret_cast<const uint32_t*>(codes + (first + s + a) * 32));
          }
          WARPMEM_UNROLL
          for (int a = 0; a < kAhead; ++a) {
            if (s + a >= count) continue;
            WARPMEM_UNROLL
            for (int r = 0; r < 4; ++r) {
              const float entry = table[(s + a) * 256 + (words[a] >> 8 * r & 255u)];
              sums[r] = first + s + a == 0 ? entry : sums[r] + entry;
            }
          }
        }
      }
      Item<false> next[kSelectUnroll];
      WARPMEM_UNROLL
      for (int r = 0; r < 4; ++r) {
        const int64_t row = block * kPqBlockRows + 4 * (t % 8) + r;
        next[r] = Item<false>{row < unit.end ? select_key(sums[r], static_cast<uint32_t>(row)) : 0};
      }
      queue.offer(next, unit.floor);
    }
    queue.cut(unit.floor);
    for (int32_t rank = t; rank < p.k; rank += kPqThreads) unit.store(p, rank, queue.get(rank), nullptr);
  }
}

WARPMEM_KERNEL(kPqThreads) pq_scan4_kernel(PqScanParams p) {
  constexpr int kAhead = 4;
  const int t = thread_index();
  BlockQueue<false> queue(shared_array<uint32_t>(0, 1), Items<false>(kSelectHeaderBytes, p.capacity), p.k, p.capacity);
  const Shared<double> scale = shared_array<double>(16, 2);
  const Shared<uint64_t> widest = shared_array<uint64_t>(32, 1);
  const int64_t tables = kSelectHeaderBytes + p.capacity * 8;
  const Shared<float> lows = shared_array<float>(tables, p.pq_dim);
  const Shared<uint8_t> table = shared_array<uint8_t>(tables + 4 * p.pq_dim, p.pq_dim * 16);
  const int64_t n_blocks = pq_blocks(p.rows);
  for (int64_t u = block_index(); u < p.queries * p.parts; u += grid_blocks()) {
    const PqUnit unit(p, u);
    quantize_table(p.luts + unit.query * p.pq_dim * 16, p.pq_dim, table, lows, scale, widest);
    if (unit.part == 0 && t < 2) p.scales[unit.query * 2 + t] = scale[t];
    queue.clear(unit.floor);
    for (int64_t base = unit.begin; base < unit.end; base += 8 * kPqThreads) {
      const int64_t block = base / kPqBlockRows + t / 4;
      const uint8_t* const codes = p.codes + block * p.pq_dim * 16 + 4 * (t % 4);
      uint32_t sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
      for (int64_t s = 0; s < p.pq_dim && block < n_blocks; s += kAhead) {
        uint32_t words[kAhead];
        WARPMEM_UNROLL
        for (int a = 0; a < kAhead; ++a) {
          words[a] = 0;
          if (s + a < p.pq_dim) words[a] = load_readonly(reinterpret_cast<const uint32_t*>(codes + (s + a) * 16));
        }
        WARPMEM_UNROLL
        for (int a = 0; a < kAhead; ++a) {
          if (s + a >= p.pq_dim) continue;
          WARPMEM_UNROLL
          for (int r = 0; r < 4; ++r) {
            sums[r] += table[(s + a) * 16 + (words[a] >> 8 * r & 15u)];
            sums[r + 4] += table[(s + a) * 16 + (words[a] >> (8 * r + 4) & 15u)];
          }
        }
      }
      WARPMEM_UNROLL
      for (int half = 0; half < 2; ++half) {
        Item<false> next[kSelectUnroll];
        WARPMEM_UNROLL
        for (int r = 0; r < 4; ++r) {
          const int64_t row = block * kPqBlockRows + 16 * half + 4 * (t % 4) + r;
          next[r] = Item<false>{row < unit.end ? select_key(sums[4 * half + r], static_cast<uint32_t>(row)) : 0};
        }
        queue.offer(next, unit.floor);
      }
    }
    queue.cut(unit.floor);
    const double scale_and_bias[2] = {scale[0], scale[1]};
    for (int32_t rank = t; rank < p.k; rank += kPqThreads) unit.store(p, rank, queue.get(rank), scale_and_bias);
  }
}

// Rescoring -------------------------------------------------------------------------------------------------------------------------------------

struct PqRescoreParams {
  ScanParams scan;            // queries and what is stored of a row
  ConstPage rows;             // all of them, as slots
  const int64_t* shortlists;  // (queries, keep), -1 behind the rows
  int64_t queries;
  int64_t keep;
  uint64_t* keys;  // (queries, keep)
};

// A warp a row of a shortlist: its key by the canonical similarity, 0 where there is no row.
WARPMEM_KERNEL(kPqThreads) pq_rescore_kernel(PqRescoreParams p) {
  const int warps = kPqThreads / kWarpSize;
  for (int64_t at = block_index() * warps + warp_index(); at < p.queries * p.keep; at += grid_blocks() * warps) {
    const int64_t row = p.shortlists[at];
    uint64_t key = 0;
    if (row >= 0) {
      const float* const query = p.scan.queries + at / p.keep * p.scan.dim;
      key = select_key(coded_similarity(p.scan, PqView{}, p.rows, static_cast<int32_t>(row), query), static_cast<uint32_t>(row));
    }
    if (lane_index() == 0) p.keys[at] = key;
  }
}

}  // namespace warpmem::cuda
