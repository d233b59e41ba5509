// One task of a scan; see scan.hpp.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "../core/int8.hpp"
#include "../core/planner.hpp"
#include "scan.hpp"
#include "top_k.hpp"

namespace warpmem {

constexpr int64_t kChunkPages = 16;  // screened before rows are rescored, best bound first
constexpr int64_t kChunkRows = kChunkPages * kPageRows;

// What all tasks of a scan share, and none changes but `floors`.
struct ScanContext {
  const Kernels& kernels;
  const PageLayout& layout;
  bool l2;
  const ScanRequest& request;
  bool plain = false;                    // the score is the similarity
  bool ranked = false;                   // recency or priority have a weight
  bool added = false;                    // segments add something to scores
  float min_similarity = -INFINITY;      // not above the request's
  const double* queries = nullptr;       // (n_queries, padded), zero behind dim
  const QueryBound* bounds = nullptr;    // by query; null: no screen. One without codes is not screened.
  std::atomic<float>* floors = nullptr;  // by query: a score that k rows somewhere reach. Null with one thread.
};

// A list and the segments over it.
struct ScanList {
  const List* list = nullptr;
  int64_t list_id = 0;
  const uint32_t* segments = nullptr;  // indexes of the request's segments
};

// Fills a scan's output, to the last entry.
void write_output(std::vector<TopK>& tops, size_t k, const ScanOutput& output);

// scan(), which leaves the results in `tops`, of each query, and the output as it is; with null in the output. A pool with codebooks takes only null.
ScanCounters scan_lists(const Kernels& kernels, const Pool& pool, const ScanRequest& request, const SegmentGroups& groups,
                        const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers, std::vector<TopK>* tops);

class ScanWorker {
 public:
  // Everything that can fail.
  ScanWorker(const ScanContext& context, int64_t max_queries, int64_t max_pages);

  void run(const ScanTask& task, const ScanList& list) noexcept;

  std::vector<TopK> tops;         // by query
  const Page* damaged = nullptr;  // a page of a file that is not what was written: the answer is not to be used
  unsigned damaged_planes = 0;
  int64_t rows_seen = 0;
  int64_t rows_rescored = 0;

 protected:  // scan_pq.cpp works with the same chunks
  struct Bounded {
    float bound;
    uint32_t row;  // page of the chunk * 64 + slot
  };

  // Before the first use of planes of a page of the chunk. Almost always there is nothing to do.
  void touch(const ConstPage& page, unsigned planes) noexcept {
    const auto p = static_cast<size_t>(&page - pages_);
    if ((unchecked_[p] & planes) != 0) check(p, planes);
  }
  void check(size_t p, unsigned planes) noexcept;

  // scan_filter.cpp
  void filter_chunk(const ScanTask& task, const ScanList& list) noexcept;
  void extras_chunk() noexcept;
  void added_chunk(const Segment& segment, const uint64_t* masks) noexcept;
  uint64_t test_late(const Segment& segment, int64_t at, size_t p, uint64_t mask) noexcept;
  bool same_filter(uint32_t left, uint32_t right) const noexcept;
  Verdict judge(const Filter& filter, size_t p) const noexcept;
  uint64_t test(const Filter& filter, const Term& term, size_t p, uint64_t mask) noexcept;
  uint64_t pass(const Filter& filter, size_t p, uint64_t mask) noexcept;
  const int64_t* values_of(const Filter& filter) const noexcept { return context_.request.values.data() + filter.values_begin; }

  // scan_task.cpp
  void fetch(const ConstPage& page, int slot) const noexcept;
  void fetch_fine(const ConstPage& page, uint64_t rows) const noexcept;
  void screen_chunk(const ScanTask& task, const ScanList& list) noexcept;
  ScreenPage screened(size_t p) const noexcept;
  void select(const Segment& segment, int64_t list_id, int64_t at) noexcept;
  void score_page(const Segment& segment, int64_t list_id, const ConstPage& page, uint64_t mask) noexcept;
  float threshold_of(size_t query) const noexcept;
  float floor_of(float threshold) const noexcept;
  float final_of(const ConstPage& page, int slot, float similarity) const noexcept;
  float whole_of(const Segment& segment, const ConstPage& page, int slot, float similarity) const noexcept;
  float exact(const ConstPage& page, int slot, const double* query) noexcept;
  void offer(const Segment& segment, int64_t list_id, const ConstPage& page, int slot, float similarity) noexcept;

  const ScanContext& context_;
  const PageLayout& layout_;
  size_t n_pages_ = 0;  // of the chunk
  ConstPage pages_[kChunkPages];
  uint64_t valid_[kChunkPages];
  const Page* sources_[kChunkPages];
  unsigned char unchecked_[kChunkPages];  // planes of a file's page that nobody has used yet
  const Span* spans_[kChunkPages];        // of each column of the page; null: not known
  // Filters that refuse few rows are tested on those rows alone that the screen leaves: most pages then never show their columns. Which way is cheaper
  // is learnt from chunk to chunk.
  bool late_filters_ = false;
  int64_t late_rows_ = 0;                    // of the chunk: tested late
  int64_t late_passed_ = 0;                  // and passed
  std::vector<uint16_t> untested_;           // by query of the task: pages whose filter is yet to be tested
  float extras_[kChunkPages][kPageRows];     // see Kernels::extras
  float sums_[kChunkPages][kPageRows] = {};  // of those and what the segment at hand adds
  uint64_t sparse_[kChunkPages];             // rows that one query takes without a bound
  std::vector<uint64_t> masks_;              // (queries of the task, kChunkPages)
  std::vector<float> bounds_;                // (queries of the task, rows of the chunk)
  int64_t chunk_rows_;
  std::vector<Bounded> candidates_;
  std::vector<float> row_;  // one stored row, widened
};

}  // namespace warpmem
