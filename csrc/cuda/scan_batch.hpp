// One launch of the scan for the searches of several callers: their queries, segments and filters behind one another, lists that they share once.
//
//   device block:   queries | plan's table | segments | filters | terms | values | bitmaps | counters || results || workspace
//                   └──────────────────────── one copy to the device ──────────────────────┘
//                                                                              └── one copy back ──┘
#pragma once

#include <cstdint>
#include <vector>

#include "../core/pool_view.hpp"
#include "page_cache.hpp"
#include "scan.hpp"

namespace warpmem::cuda {

// One caller's scan.
struct ScanTicket {
  enum class State { kWaiting, kRunning, kDone, kFailed };

  ScanCall call;
  Pins pins;  // by list of the call; null where the host answers
  State state = State::kWaiting;
  struct ScanRun* run = nullptr;  // that it is part of
  std::vector<Candidate> candidates;
  std::vector<int32_t> counts;
  bool lost = false;      // host memory was missing for what was found; the launch's thread says so
  int64_t rows_seen = 0;  // of the launch, by its share of the queries
  int64_t rows_rescored = 0;
};

// The ranking with what does not matter made equal, so that searches that rank alike can be told.
Ranking plain_ranking(const Ranking& ranking);

// Whether two scans can be one launch.
bool can_share(const ScanTicket& left, const ScanTicket& right);

// What a launch of several callers has at most; a larger one is a launch of its own.
constexpr int64_t kBatchQueries = 1024;
constexpr int64_t kBatchSegments = int64_t{1} << 16;
constexpr int64_t kBatchBytes = int64_t{16} << 20;  // of filters and results

struct BatchSize {
  int64_t queries = 0;
  int64_t segments = 0;
  int64_t bytes = 0;

  // Takes a scan in; false, and nothing is changed, when others are there already and it is too much.
  bool add(const ScanCall& call) noexcept;
};

class ScanBatch {
 public:
  // Tickets that can share a launch, at least one. Throws std::bad_alloc.
  ScanBatch(std::vector<ScanTicket*> tickets, const PoolPort& pool, const DeviceLimits& limits);

  int64_t image_bytes() const noexcept { return at_.results; }
  int64_t result_bytes() const noexcept { return at_.workspace - at_.counters; }
  int64_t bytes() const noexcept { return at_.workspace + plan_.workspace_bytes; }
  const DeviceScanPlan& plan() const noexcept { return plan_; }
  const std::vector<ScanTicket*>& tickets() const noexcept { return tickets_; }

  // Writes what is to be copied to the device block at `device`, without the queries that are there already.
  void pack(unsigned char* image, unsigned char* device) const noexcept;
  // Enqueues the copies and the launches. Throws std::runtime_error when a launch fails.
  Status run(Runtime& runtime, const unsigned char* image, unsigned char* device, unsigned char* results, Stream stream) const;
  // Gives each ticket its part of what was copied back; one for which host memory is missing is marked as failed.
  void unpack(const unsigned char* results) const noexcept;

 private:
  struct Layout {
    int64_t queries = 0, table = 0, segments = 0, filters = 0, terms = 0, values = 0, bitmaps = 0, counters = 0;
    int64_t results = 0, similarities = 0, list_ids = 0, row_ids = 0, groups = 0, ordinals = 0, counts = 0;
    int64_t workspace = 0;
  };

  void gather();
  void place();

  const std::vector<ScanTicket*> tickets_;
  const PoolPort& pool_;
  int64_t k_ = 0;
  int64_t n_queries_ = 0;
  const DevicePage* pages_ = nullptr;  // the first table's
  std::vector<warpmem::DeviceList> lists_;
  std::vector<DeviceSegment> segments_;
  std::vector<uint32_t> segment_queries_;
  std::vector<DeviceFilter> filters_;  // bitmaps as offsets into their piece, plus 1; null: none
  int64_t n_terms_ = 0, n_values_ = 0, n_words_ = 0;
  DeviceScanPlan plan_;
  Layout at_;
};

}  // namespace warpmem::cuda
