// What becomes of the shortlists of scan_pq.cuh: canonical scores, and the k best by them.
//
//   rescore   a warp a row of a shortlist, wherever it lies: a candidate, or none when the similarity is too small
//   finish    a block a query: 256 candidates at a time are sorted and merged into the k best, in the order of core/keys.hpp's better(). For kPq storage the
//             result is that of all decoded rows: what the shortlist left out is looked at again, 256 rows at a time, when the bound on its scores reaches the
//             k-th best. That is rare, so one block does it.
//
// Shared memory of finish: 128 bytes; 256 candidates of 32 bytes; 256 ranks and 256 rows of 4 bytes; the query's table, 32 bytes for two subspaces.
#pragma once

#include "scan_pq.cuh"

namespace warpmem::cuda {

constexpr int64_t kScanPqFinishCandidates = 128;
constexpr int64_t kScanPqFinishRanks = kScanPqFinishCandidates + kScanPqThreads * static_cast<int64_t>(sizeof(Candidate));
constexpr int64_t kScanPqFinishRows = kScanPqFinishRanks + 4 * kScanPqThreads;
constexpr int64_t kScanPqFinishTable = kScanPqFinishRows + 4 * kScanPqThreads;
inline int64_t scan_pq_finish_shared(int64_t pq_dim) { return kScanPqFinishTable + scan_pq_table_words(pq_dim); }

// No row: behind every other.
WARPMEM_DEVICE Candidate no_candidate() { return Candidate{-INFINITY, 0.0f, UINT32_MAX, UINT32_MAX, INT64_MAX, INT64_MAX}; }
WARPMEM_DEVICE bool is_row(const Candidate& candidate) {
  return candidate.ordinal != UINT32_MAX || candidate.list_id != INT64_MAX || candidate.group != UINT32_MAX;
}

// One row of a segment, by a warp: scored, or none.
WARPMEM_DEVICE Candidate rescore_row(const ScanPqParams& p, const ConstPage& page, int32_t slot, uint32_t segment,
                                     int64_t list_id) {
  const ScanParams& s = p.scan;
  const DeviceSegment asked = s.segments[segment];
  const float similarity =
      coded_similarity(s, PqView{p.pq_dim, p.dsub, p.books}, page, slot, s.queries + int64_t{asked.query} * s.dim);
  if (!(static_cast<double>(similarity) >= s.min_similarity)) return no_candidate();
  return Candidate{approximate_score(s, page, slot, similarity),
                   similarity,
                   asked.group,
                   page_ordinal(s, page, slot),
                   page_row_id(s, page, slot),
                   list_id};
}

WARPMEM_KERNEL(kScanPqThreads) scan_pq_rescore_kernel(ScanPqParams p) {
  const int warps = kScanPqThreads / kWarpSize;
  uint64_t rescored = 0;
  for (int64_t at = block_index() * warps + warp_index(); at < p.queries * p.keep; at += grid_blocks() * warps) {
    const uint64_t key = p.shortlists[at];
    Candidate found = no_candidate();
    if (key != 0) {
      const int64_t q = at / p.keep;
      const uint32_t page = key_index(key) / kPageRows;
      const PqPlace* const places = p.places + p.query_places[q];
      const auto n = static_cast<int32_t>(p.query_places[q + 1] - p.query_places[q]);
      const PqPlace place = places[count_before(n, [&](int32_t i) { return places[i].before <= page; }) - 1];
      const ConstPage& memory = p.scan.pages[place.first_page + (page - place.before)].memory;
      found = rescore_row(p, memory, static_cast<int32_t>(key_index(key) % kPageRows), place.segment, place.list_id);
      ++rescored;
    }
    if (lane_index() == 0) p.candidates[at] = found;
  }
  if (p.scan.counters != nullptr && lane_index() == 0 && rescored > 0) atomic_add(p.scan.counters + 1, rescored);
}

// The k best of one query, by all threads of a block.
class BestRows {
 public:
  WARPMEM_DEVICE BestRows(Candidate* best, int32_t k)
      : best_(best),
        k_(k),
        next_(shared_array<Candidate>(kScanPqFinishCandidates, kScanPqThreads)),
        ranks_(shared_array<uint32_t>(kScanPqFinishRanks, kScanPqThreads)) {}

  WARPMEM_DEVICE Candidate& next(int i) const { return next_[i]; }

  // Takes next(0) ... next(kScanPqThreads - 1), none among them. Begins and ends with a barrier.
  WARPMEM_DEVICE void take() {
    sort_block(
        kScanPqThreads, [&](int32_t i, int32_t j) { return warpmem::better(next_[j], next_[i]); },
        [&](int32_t i, int32_t j) {
          const Candidate other = next_[i];
          next_[i] = next_[j];
          next_[j] = other;
        });
    const int32_t n = count_before(kScanPqThreads, [&](int32_t i) { return is_row(next_[i]); });
    count_ = merge_run<BlockTeam>(
        best_, count_, k_, n, [&](int32_t j) -> const Candidate& { return next_[j]; },
        [&](int32_t j) -> uint32_t& { return ranks_[j]; },
        [](const Candidate& a, const Candidate& b) { return warpmem::better(a, b); });
  }

  WARPMEM_DEVICE int32_t count() const { return count_; }
  WARPMEM_DEVICE float threshold() const { return count_ == k_ ? best_[k_ - 1].score : -INFINITY; }

 private:
  Candidate* best_;
  int32_t k_;
  int32_t count_ = 0;
  Shared<Candidate> next_;
  Shared<uint32_t> ranks_;
};

// Rows that the shortlist of query q left out although they may be among the k best.
WARPMEM_DEVICE void complete(const ScanPqParams& p, int64_t q, BestRows& best) {
  const int t = thread_index();
  const int warps = kScanPqThreads / kWarpSize;
  const PqTable table = p.tables[q];
  const uint64_t least = p.shortlists[q * p.keep + p.keep - 1];
  if (least == 0) return;  // it holds every row
  if (pq_score_above(p.scan.ranking, table.error, static_cast<double>(pq_key_score(p.plain, table, least))) <
      static_cast<double>(best.threshold())) {
    return;
  }
  const Shared<uint32_t> header = shared_array<uint32_t>(0, 1);
  const Shared<uint32_t> rows = shared_array<uint32_t>(kScanPqFinishRows, kScanPqThreads);
  const int64_t words = scan_pq_table_words(p.pq_dim);
  const Shared<uint8_t> entries = shared_array<uint8_t>(kScanPqFinishTable, words);
  sync_threads();
  for (int64_t i = t; i < words; i += kScanPqThreads) entries[i] = p.quantized[q * words + i];
  uint64_t rescored = 0;
  for (uint32_t at = p.query_places[q]; at < p.query_places[q + 1]; ++at) {
    const PqPlace place = p.places[at];
    const int32_t filter = p.scan.segments[place.segment].filter;
    for (int64_t base = 0; base < place.pages * kPageRows; base += kScanPqThreads) {
      sync_threads();
      if (t == 0) header[0] = 0;
      best.next(t) = no_candidate();
      sync_threads();
      const int64_t row = base + t;
      const auto slot = static_cast<int32_t>(row % kPageRows);
      bool wanted = false;
      if (row < place.pages * kPageRows) {
        const DevicePage& page = p.scan.pages[place.first_page + row / kPageRows];
        wanted =
            (page.valid >> slot & 1u) != 0 && (filter < 0 || passes_filter(p.scan, p.scan.filters[filter], page.memory, slot));
        if (wanted) {
          uint32_t sum = 0;
          for (int64_t line = 0; line < pq_pairs(p.pq_dim); ++line) {
            const uint32_t byte = load_readonly(page.memory.coarse + line * 64 + slot);
            sum += entries[line * 32 + (byte & 15u)];
            sum += entries[line * 32 + 16 + (byte >> 4)];
          }
          const uint32_t number = place.before * kPageRows + static_cast<uint32_t>(row);
          const uint64_t key = shortlist_key(p, table, page.memory, slot, sum, number);
          const auto score = static_cast<double>(pq_key_score(p.plain, table, key));
          wanted = key < least && !(pq_score_above(p.scan.ranking, table.error, score) < static_cast<double>(best.threshold()));
        }
      }
      if (wanted) rows[atomic_add(&header[0], 1u)] = static_cast<uint32_t>(row - base);
      sync_threads();
      const auto n = static_cast<int>(header[0]);
      if (n == 0) continue;
      for (int i = warp_index(); i < n; i += warps) {
        const int64_t which = base + rows[i];
        const ConstPage& page = p.scan.pages[place.first_page + which / kPageRows].memory;
        const Candidate found = rescore_row(p, page, static_cast<int32_t>(which % kPageRows), place.segment, place.list_id);
        if (lane_index() == 0) best.next(i) = found;
        ++rescored;
      }
      best.take();
    }
  }
  if (p.scan.counters == nullptr) return;
  if (lane_index() == 0 && rescored > 0) atomic_add(p.scan.counters + 1, rescored);
  if (t == 0) atomic_add(p.scan.counters + 2, uint64_t{1});
}

WARPMEM_KERNEL(kScanPqThreads) scan_pq_finish_kernel(ScanPqParams p) {
  const int t = thread_index();
  const int32_t k = p.scan.k;
  for (int64_t q = block_index(); q < p.queries; q += grid_blocks()) {
    BestRows best(p.best + q * k, k);
    for (int32_t base = 0; base < p.keep; base += kScanPqThreads) {
      sync_threads();
      best.next(t) = base + t < p.keep ? p.candidates[q * p.keep + base + t] : no_candidate();
      best.take();
    }
    if (p.scan.storage == Storage::kPq) complete(p, q, best);
    sync_threads();
    for (int32_t rank = t; rank < k; rank += kScanPqThreads) {
      const int64_t at = q * k + rank;
      const Candidate found = rank < best.count() ? p.best[at] : Candidate{-INFINITY, -INFINITY, 0, 0, -1, -1};
      p.scores[at] = found.score;
      p.similarities[at] = found.similarity;
      p.list_ids[at] = found.list_id;
      p.row_ids[at] = found.row_id;
      if (p.groups != nullptr) p.groups[at] = found.group;
      if (p.ordinals != nullptr) p.ordinals[at] = found.ordinal;
    }
    if (t == 0) p.counts[q] = best.count();
    sync_threads();
  }
}

}  // namespace warpmem::cuda
