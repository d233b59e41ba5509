// The scan of product-quantisation codes: tables of the queries, then the best keys of each segment of each task, then each query's shortlist. What becomes of
// it is scan_pq_rescore.cuh. Plan: core/scan_pq_plan.hpp; codes in pages: core/pq_code.hpp.
//
//   prepare   a warp a query: the query with zeros behind it, and the magnitude of its products
//   tables    a block a query: pq_quantize_lut over the tables that pq.cuh made
//   codes     blocks take tasks of pages and up to four segments from a counter, longest first. A chunk is 16 pages of 64 rows:
//
//               | line 0 of 64 rows | line 1 | ... |        thread t: rows 4 (t % 16) ... + 3 of page t / 16, four bytes of a line a load
//               table word [subspace][16]: byte j is the entry of segment j, so that one read of shared memory serves four queries
//
//             Sums of two segments stand in the halves of a register: at most 256 * 255. What passes the filter and the segment's floor goes to the segment's
//             queue, a ballot and one atomic addition a warp; before a queue could overflow it is sorted and cut to `keep`: nothing is dropped. The floor
//             is the key of which `keep` rows of the query are known to be as good, shared by atomic_max.
//   merge     a block a query, once a round: the wanted keys of its parts, which are sorted, are prefixes; they and the shortlist of earlier rounds pass
//             through one queue
//
// A key is score << 32 | ~place: the integer sum when the score is the similarity, else the final score of the approximate similarity. A place counts the rows
// of the query's segments, list by list, so a shortlist does not depend on tasks, blocks or other queries.
//
// Shared memory: kScanPqHeaderBytes; masks, kScanPqMaskBytes; table, 64 bytes a subspace; queues, 8 bytes an item. Limits: 256 subspaces, k * refine <= 4,096.
#pragma once

#include <cmath>

#include "../../core/scan_pq_plan.hpp"
#include "key_queues.cuh"
#include "pq_table.cuh"
#include "scan.cuh"

namespace warpmem::cuda {

struct ScanPqParams {
  ScanParams scan;  // what filters and rows are read by; tasks, counters
  int64_t queries;
  const float* books;    // [pq_dim][dsub][16]
  const float* largest;  // (width)
  int64_t pq_dim;
  int64_t dsub;
  bool plain;  // the score is the similarity
  int32_t keep;
  int32_t capacity;
  const uint32_t* query_parts;  // of the round
  bool first;                   // round
  const uint32_t* segment_shifts;
  const PqPlace* places;
  const uint32_t* query_places;
  uint64_t* floors;       // (queries)
  float* padded_queries;  // (queries, width), width = pq_dim * dsub
  double* magnitudes;     // (queries)
  float* luts;            // (queries, pq_dim, 16)
  uint8_t* quantized;     // (queries, 2 * pairs, 16)
  PqTable* tables;        // (queries)
  uint64_t* part_keys;    // of the round's parts
  uint64_t* shortlists;   // (queries, keep)
  Candidate* candidates;  // (queries, keep)
  Candidate* best;        // (queries, k)
  float* scores;          // (queries, k), likewise below
  float* similarities;
  int64_t* list_ids;
  int64_t* row_ids;
  uint32_t* groups;    // may be null
  uint32_t* ordinals;  // may be null
  int32_t* counts;     // (queries)
};

// Tables -----------------------------------------------------------------------------------------------------------------------------------------

WARPMEM_KERNEL(kScanPqThreads) scan_pq_prepare_kernel(ScanPqParams p) {
  const int warps = block_threads() / kWarpSize;
  const int64_t width = p.pq_dim * p.dsub;
  for (int64_t q = block_index() * warps + warp_index(); q < p.queries; q += grid_blocks() * warps) {
    const float* const query = p.scan.queries + q * p.scan.dim;
    double magnitude = 0.0;
    for (int64_t i = lane_index(); i < width; i += kWarpSize) {
      const float x = i < p.scan.dim ? query[i] : 0.0f;
      p.padded_queries[q * width + i] = x;
      magnitude += pq_magnitude(x, p.largest[i], p.scan.l2);
    }
    magnitude = warp_fold(magnitude);  // in the host's order: the limit decides whether there is a table
    if (lane_index() != 0) continue;
    p.magnitudes[q] = magnitude;
  }
}

inline int64_t scan_pq_tables_shared(int64_t pq_dim) { return 32 + pq_dim * 4 + pq_dim * 16; }

WARPMEM_KERNEL(kScanPqThreads) scan_pq_tables_kernel(ScanPqParams p) {
  static_assert(kScanPqThreads == kPqThreads);
  const int t = thread_index();
  const Shared<double> scale = shared_array<double>(0, 2);
  const Shared<uint64_t> widest = shared_array<uint64_t>(16, 1);
  const Shared<float> lows = shared_array<float>(32, p.pq_dim);
  const Shared<uint8_t> table = shared_array<uint8_t>(32 + p.pq_dim * 4, p.pq_dim * 16);
  const int64_t words = scan_pq_table_words(p.pq_dim);
  for (int64_t q = block_index(); q < p.queries; q += grid_blocks()) {
    const double magnitude = p.magnitudes[q];
    const bool usable = magnitude < kPqMagnitudeLimit;
    if (usable) quantize_table(p.luts + q * p.pq_dim * 16, p.pq_dim, table, lows, scale, widest);
    for (int64_t i = t; i < words; i += kScanPqThreads)
      p.quantized[q * words + i] = usable && i < p.pq_dim * 16 ? table[i] : uint8_t{0};
    if (t == 0) p.tables[q] = usable ? PqTable{scale[0], scale[1], pq_table_error(scale[0], p.pq_dim, magnitude)} : PqTable{};
    sync_threads();
  }
}

// Codes ------------------------------------------------------------------------------------------------------------------------------------------

// The final score of an approximate similarity.
WARPMEM_DEVICE float approximate_score(const ScanParams& p, const ConstPage& page, int32_t slot, float similarity) {
  const Ranking& r = p.ranking;
  const int64_t recency = r.w_recency != 0.0 ? load_readonly(page_column(page, r.recency_column) + slot) : 0;
  const int64_t priority = r.w_priority != 0.0 ? load_readonly(page_column(page, r.priority_column) + slot) : 0;
  return final_score(r, similarity, recency, priority);
}

WARPMEM_DEVICE uint64_t shortlist_key(const ScanPqParams& p, const PqTable& table, const ConstPage& page, int32_t slot,
                                      uint32_t sum, uint32_t place) {
  if (p.plain) return select_key(sum, place);
  return select_key(approximate_score(p.scan, page, slot, pq_integer_score(sum, table.scale, table.bias)), place);
}

// 32 rows of a page that live and pass, by a warp.
WARPMEM_DEVICE uint32_t passing_rows(const ScanParams& p, const DevicePage& page, int half, int32_t filter) {
  auto word = static_cast<uint32_t>(page.valid >> 32 * half);
  if (filter < 0 || word == 0) return word;
  const bool live = (word >> lane_index() & 1) != 0;
  return ballot(live && passes_filter(p, p.filters[filter], page.memory, 32 * half + lane_index()));
}

// Sums of four rows for kSegments segments; 16 bits each: low half of sums[r][0] segment 0, of [1] segment 1, high halves 2 and 3.
template <int kSegments>
WARPMEM_DEVICE void sum_codes(const unsigned char* codes, int64_t pairs, const Shared<uint32_t>& table, uint32_t (&sums)[4][2]) {
  constexpr int kAhead = 4;  // lines that a thread has in flight
  WARPMEM_UNROLL
  for (int r = 0; r < 4; ++r) sums[r][0] = sums[r][1] = 0;
  for (int64_t line = 0; line < pairs; line += kAhead) {
    uint32_t words[kAhead];
    WARPMEM_UNROLL
    for (int a = 0; a < kAhead; ++a) {
      words[a] = 0;
      if (line + a < pairs) words[a] = load_readonly(reinterpret_cast<const uint32_t*>(codes + (line + a) * 64));
    }
    WARPMEM_UNROLL
    for (int a = 0; a < kAhead; ++a) {
      if (line + a >= pairs) continue;
      WARPMEM_UNROLL
      for (int r = 0; r < 4; ++r) {
        WARPMEM_UNROLL
        for (int half = 0; half < 2; ++half) {
          const uint32_t entry = table[((line + a) * 2 + half) * 16 + (words[a] >> (8 * r + 4 * half) & 15u)];
          if constexpr (kSegments == 1) {
            sums[r][0] += entry;
          } else {
            sums[r][0] += entry & 0x00ff00ffu;
            sums[r][1] += entry >> 8 & 0x00ff00ffu;
          }
        }
      }
    }
  }
}

template <int kSegments>
WARPMEM_KERNEL_OF(kScanPqThreads, 2)
scan_pq_codes_kernel(ScanPqParams p) {
  const int t = thread_index();
  const int warps = kScanPqThreads / kWarpSize;
  const Shared<uint32_t> header = shared_array<uint32_t>(0, 4);
  const Shared<uint32_t> counts = shared_array<uint32_t>(16, kSegments);
  const Shared<uint64_t> floors = shared_array<uint64_t>(32, kSegments);
  const Shared<PqTable> tables = shared_array<PqTable>(64, kSegments);
  const Shared<uint32_t> queries = shared_array<uint32_t>(160, kSegments);
  const Shared<int32_t> filters = shared_array<int32_t>(176, kSegments);
  const Shared<uint32_t> before = shared_array<uint32_t>(192, kSegments);
  const Shared<uint32_t> parts = shared_array<uint32_t>(208, kSegments);
  const Shared<uint32_t> masks =
      shared_array<uint32_t>(kScanPqHeaderBytes, 2 * kScanPqChunkPages * kSegments);  // [page][half][segment]
  const int64_t pairs = pq_pairs(p.pq_dim);
  const int64_t words = scan_pq_table_words(p.pq_dim);
  const Shared<uint32_t> table = shared_array<uint32_t>(kScanPqHeaderBytes + kScanPqMaskBytes, words);
  const KeyQueues<kSegments> queues(counts, floors, kScanPqHeaderBytes + kScanPqMaskBytes + 4 * words, p.keep, p.capacity);
  const auto shared_floor = [&](int at) { return p.floors + queries[at]; };
  uint32_t seen = 0;
  for (;;) {
    sync_threads();
    if (t == 0) header[0] = atomic_add(p.scan.next, 1u);
    sync_threads();
    if (header[0] >= p.scan.n_tasks) break;
    const DeviceScanTask task = p.scan.tasks[p.scan.first_task + header[0]];
    const DevicePage* const pages = p.scan.pages + task.first_page;
    if (t < task.segments) {
      const DeviceSegment segment = p.scan.segments[task.first_segment + t];
      queries[t] = segment.query;
      filters[t] = segment.filter;
      tables[t] = p.tables[segment.query];
      parts[t] = p.scan.part_numbers[task.first_part + t];
      before[t] = p.segment_shifts[task.first_segment + t] + static_cast<uint32_t>(task.first_page);
      queues.clear(t, load_volatile(p.floors + segment.query));
    }
    sync_threads();
    for (int64_t i = t; i < words; i += kScanPqThreads) {
      uint32_t entries = 0;
      for (int at = 0; at < task.segments; ++at)
        entries |= static_cast<uint32_t>(load_readonly(p.quantized + queries[at] * words + i)) << 8 * at;
      table[i] = entries;
    }
    for (int32_t first = 0; first < task.pages; first += kScanPqChunkPages) {
      const int n = task.pages - first < kScanPqChunkPages ? task.pages - first : kScanPqChunkPages;
      for (int i = warp_index(); i < 2 * n * task.segments; i += warps) {
        const int page = i / task.segments / 2;
        const int half = i / task.segments % 2;
        const int at = i % task.segments;
        const uint32_t word = passing_rows(p.scan, pages[first + page], half, filters[at]);
        if (lane_index() == 0) masks[(page * 2 + half) * kSegments + at] = word;
        seen += lane_index() == 0 ? static_cast<uint32_t>(count_bits(word)) : 0;
      }
      sync_threads();
      const int page = t / 16;
      const int slot = t % 16 * 4;
      uint32_t sums[4][2];
      ConstPage memory;
      if (page < n) {
        memory = pages[first + page].memory;
        sum_codes<kSegments>(memory.coarse + slot, pairs, table, sums);
      }
      WARPMEM_UNROLL
      for (int at = 0; at < kSegments; ++at) {
        if (at >= task.segments) continue;
        uint64_t next[kSelectUnroll] = {};
        const uint32_t rows = page < n ? masks[(page * 2 + slot / 32) * kSegments + at] >> slot % 32 & 15u : 0;
        if (rows != 0) {
          WARPMEM_UNROLL
          for (int r = 0; r < 4; ++r) {
            if ((rows >> r & 1) == 0) continue;
            const uint32_t sum = sums[r][at % 2] >> at / 2 * 16 & 0xffffu;
            const uint32_t place =
                (before[at] + static_cast<uint32_t>(first + page)) * kPageRows + static_cast<uint32_t>(slot + r);
            next[r] = shortlist_key(p, tables[at], memory, slot + r, sum, place);
          }
        }
        queues.offer(at, next);
      }
      queues.settle(task.segments, shared_floor);
    }
    for (int at = 0; at < task.segments; ++at) {
      queues.cut(at, shared_floor(at));
      const DeviceScanPart part = p.scan.parts[parts[at]];
      for (uint32_t rank = static_cast<uint32_t>(t); rank < part.items; rank += kScanPqThreads)
        p.part_keys[part.first_item + rank] = queues.get(at, static_cast<int32_t>(rank));
    }
  }
  seen = reduce_add(seen);
  if (p.scan.counters != nullptr && lane_index() == 0 && seen > 0) atomic_add(p.scan.counters, uint64_t{seen});
}

// Merge ------------------------------------------------------------------------------------------------------------------------------------------

constexpr int64_t kScanPqMergeOffsets = 192;
constexpr int64_t kScanPqMergeItems = kScanPqMergeOffsets + 4 * kScanPqThreads;
inline int64_t scan_pq_merge_shared(int32_t capacity) { return kScanPqMergeItems + int64_t{8} * capacity; }

WARPMEM_KERNEL(kScanPqThreads) scan_pq_merge_kernel(ScanPqParams p) {
  const int t = thread_index();
  const Shared<uint32_t> counts = shared_array<uint32_t>(0, 1);
  const Shared<uint64_t> floors = shared_array<uint64_t>(8, 1);
  const Shared<uint32_t> totals = shared_array<uint32_t>(64, 32);
  const Shared<uint32_t> before = shared_array<uint32_t>(kScanPqMergeOffsets, kScanPqThreads);
  const KeyQueues<1> queue(counts, floors, kScanPqMergeItems, p.keep, p.capacity);
  for (int64_t q = block_index(); q < p.queries; q += grid_blocks()) {
    const auto shared_floor = [&](int) { return p.floors + q; };
    sync_threads();
    const uint64_t floor = load_volatile(p.floors + q);
    if (t == 0) queue.clear(0, floor);
    sync_threads();
    for (int32_t base = 0; !p.first && base < p.keep; base += kScanPqThreads * kSelectUnroll) {
      uint64_t next[kSelectUnroll];
      WARPMEM_UNROLL
      for (int j = 0; j < kSelectUnroll; ++j) {
        const int32_t rank = base + j * kScanPqThreads + t;
        next[j] = rank < p.keep ? p.shortlists[q * p.keep + rank] : 0;
      }
      queue.offer(0, next);
      queue.settle(1, shared_floor);
    }
    for (uint32_t first = p.query_parts[q]; first < p.query_parts[q + 1]; first += kScanPqThreads) {
      const uint32_t part = first + static_cast<uint32_t>(t);
      int32_t wanted = 0;
      if (part < p.query_parts[q + 1]) {
        const uint64_t* const keys = p.part_keys + p.scan.parts[part].first_item;
        wanted = count_before(static_cast<int32_t>(p.scan.parts[part].items),
                              [&](int32_t i) { return keys[i] != 0 && keys[i] >= floor; });
      }
      uint32_t total;
      before[t] = sum_before(static_cast<uint32_t>(wanted), totals, &total);
      sync_threads();
      for (uint32_t base = 0; base < total; base += kScanPqThreads * kSelectUnroll) {
        uint64_t next[kSelectUnroll];
        WARPMEM_UNROLL
        for (int j = 0; j < kSelectUnroll; ++j) {
          const uint32_t entry = base + static_cast<uint32_t>(j * kScanPqThreads + t);
          next[j] = 0;
          if (entry >= total) continue;
          const int32_t from = count_before(kScanPqThreads, [&](int32_t i) { return before[i] <= entry; }) - 1;
          next[j] = p.part_keys[p.scan.parts[first + static_cast<uint32_t>(from)].first_item + (entry - before[from])];
        }
        queue.offer(0, next);
        queue.settle(1, shared_floor);
      }
      sync_threads();
    }
    queue.cut(0, p.floors + q);
    for (int32_t rank = t; rank < p.keep; rank += kScanPqThreads) p.shortlists[q * p.keep + rank] = queue.get(0, rank);
  }
}

}  // namespace warpmem::cuda
