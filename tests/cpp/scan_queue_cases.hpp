// Searches over a tiered pool whose kernels run in the emulator: through the queue of csrc/cuda, and by the host alone to be compared with.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "../../csrc/cuda/scan.cu"
#include "../../csrc/cuda/scan_batch.cpp"
#include "../../csrc/cuda/scan_lane.cpp"
#include "../../csrc/cuda/scan_queue.cpp"
#include "page_cache_cases.hpp"

namespace {

struct Found {
  std::vector<float> scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
  ScanCounters counters;
  bool operator==(const Found& o) const {
    const auto same = [](const auto& a, const auto& b) { return std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0; };
    return same(scores, o.scores) && same(similarities, o.similarities) && list_ids == o.list_ids && row_ids == o.row_ids &&
           counts == o.counts;
  }
};

// A search: some queries over some lists.
struct Search {
  std::vector<float> queries;
  std::vector<int64_t> lists;  // of each segment
  ScanRequest request;
  std::vector<uint64_t> bitmap;

  Search(unsigned seed, int64_t n_queries, const std::vector<int64_t>& list_ids, int64_t k) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < n_queries * kDim; ++i)
      queries.push_back(static_cast<float>(static_cast<int32_t>(random())) / 2147483648.0f);
    request.n_queries = n_queries;
    request.queries = queries.data();
    request.k = k;
    request.min_similarity = -INFINITY;
    request.filters.emplace_back();
    for (int64_t q = 0; q < n_queries; ++q) {
      for (const int64_t id : list_ids) {
        request.segment_queries.push_back(static_cast<uint32_t>(q));
        request.segment_groups.push_back(static_cast<uint32_t>(id % 3));
        request.segment_filters.push_back(0);
        lists.push_back(id);
      }
    }
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  void filter() {
    request.terms = {Term{0, kRange, 100, 4000}, Term{1, kMembership, 0, 3}, Term{0, kOr, 0, 0}};
    request.values = {1, 21, 4001};
    bitmap.assign(8, 0x5555777755557777u);
    request.filters.push_back(Filter{0, 3, 0, 3, true, bitmap.data(), 8});
    for (size_t s = 0; s < request.segment_filters.size(); s += 2) request.segment_filters[s] = 1;
  }

  Found run(const Pool& pool, const ScanPort* port) const {
    const SegmentGroups groups = group_segments(lists.data(), lists.size());
    std::vector<ListHead> heads(groups.list_ids.size());
    pool.snapshot(groups.list_ids.data(), heads.size(), heads.data());
    const auto n = static_cast<size_t>(request.n_queries * request.k);
    Found found{std::vector<float>(n),
                std::vector<float>(n),
                std::vector<int64_t>(n),
                std::vector<int64_t>(n),
                std::vector<int32_t>(static_cast<size_t>(request.n_queries)),
                {}};
    const ScanOutput output{found.scores.data(), found.similarities.data(), found.list_ids.data(), found.row_ids.data(),
                            found.counts.data()};
    const Kernels& kernels = *find_kernels("auto");
    found.counters = port != nullptr ? scan(*port, kernels, pool, request, groups, heads, output, nullptr)
                                     : scan(kernels, pool, request, groups, heads, output, nullptr);
    return found;
  }
};

struct Searched : Tiered {
  explicit Searched(int32_t lanes = 1, int64_t limit = 64 << 20, Storage storage = Storage::kF32, bool screen = true,
                    int64_t pinned_bytes = 0)
      : Tiered(limit, storage, screen, true, 1 << 20, pinned_bytes) {
    before_launch = fake::before_launch;
    queue = std::make_unique<ScanQueue>(*cache, lanes);
    port = queue->port(0);
    for (int64_t id = 0; id < 4; ++id) grow(id, 70 * (id + 1), static_cast<float>(id));
  }
  void heat() {
    for (int64_t id = 0; id < 4; ++id) ask(id);
    load_all();
  }
  std::unique_ptr<ScanQueue> queue;
  ScanPort port;
};

// A call of the port by hand, over one list with its own queries.
struct Call {
  Search search;
  ListView list;
  std::vector<int64_t> begin;
  ScanCall call;
  uint8_t taken = 9;
  void* ticket = nullptr;

  Call(const Searched& t, unsigned seed, int64_t list_id, int64_t k = 5, int64_t n_queries = 2)
      : search(seed, n_queries, {list_id}, k), list(t.view(list_id)) {
    begin = {0, n_queries};
    call.queries = search.queries.data();
    call.n_queries = n_queries;
    call.k = k;
    call.min_similarity = -INFINITY;
    call.n_lists = 1;
    call.lists = &list;
    call.segment_begin = begin.data();
    call.segment_query = search.request.segment_queries.data();
    call.segment_group = search.request.segment_groups.data();
    call.segment_filter = search.request.segment_filters.data();
    call.n_filters = 1;
    call.filters = search.request.filters.data();
  }
  void start(const ScanPort& port) { ticket = port.begin(port.cache, &call, &taken); }
  void check(const Searched& t) const { CHECK(done(t)); }
  // False when the device has not answered; what it answers is compared.
  bool done(const Searched& t) const {
    const Found wanted = search.run(t.pool, nullptr);
    ScanFound found;
    if (!t.port.finish(t.port.cache, ticket, &found)) return false;
    for (int64_t q = 0; q < call.n_queries; ++q) {
      CHECK_EQ(found.counts[q], wanted.counts[static_cast<size_t>(q)]);
      for (int64_t i = 0; i < found.counts[q]; ++i) {
        CHECK_EQ(found.candidates[q * found.k + i].row_id, wanted.row_ids[static_cast<size_t>(q * call.k + i)]);
      }
    }
    return true;
  }
  void end(const ScanPort& port) const { port.end(port.cache, ticket); }
};

}  // namespace
