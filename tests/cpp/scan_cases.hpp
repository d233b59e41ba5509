// A scan as both cores see it: pools with lists of rows made to tie, filters and rankings, the CPU's scan of them, and the device's in the emulator over the
// same pages. For the tests of the device's scan.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/core/scan_plan.hpp"
#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/pool.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "../../csrc/cuda/scan.hpp"
#include "exact_memory.hpp"

namespace scan_cases {

using namespace warpmem;

constexpr int64_t kColumns = 3;  // microseconds, an image of float64, anything
constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum Filters { kNoFilters, kTerms, kProgram, kBitmap, kTermsAndBitmap, kMixed, kFilterKinds };
enum Rankings { kSimilarity, kWeighted, kAllWeights, kNegative, kRankingKinds, kNoWeights };
// Huge rows have norms around the screen's limit, long queries beyond it. Tight rows lie where a screen's bound is their similarity: what makes it a little
// less leaves out rows that are wanted.
enum Rows { kNormalRows, kLevelRows, kHugeRows, kLongQueries, kTightRows, kEqualRows, kZeroRows, kDenormalRows, kRowKinds };

struct Case {
  Storage storage = Storage::kF32;
  Metric metric = Metric::kDot;
  bool screen = true;
  int64_t dim = 32;
  std::vector<int64_t> rows;  // of each list
  int64_t queries = 1;
  int64_t k = 10;
  int filters = kNoFilters;
  int ranking = kSimilarity;
  int data = kNormalRows;
  bool least = false;                    // a min_similarity that some rows do not reach
  bool removed = false;                  // a third of the rows
  bool all_lists = false;                // each query over all lists, else over one of them
  std::vector<int64_t> queries_of_list;  // instead: the first so many are over each list
  DeviceScanChoice choice;
  DeviceLimits limits = kLimitsSm90;
  unsigned seed = 1;
};

struct Result {
  std::vector<float> scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<uint32_t> groups, ordinals;
  std::vector<int32_t> counts;

  Result(int64_t queries, int64_t k, int fill)
      : scores(static_cast<size_t>(queries * k)),
        similarities(scores.size()),
        list_ids(scores.size()),
        row_ids(scores.size()),
        groups(scores.size()),
        ordinals(scores.size()),
        counts(static_cast<size_t>(queries)) {
    const auto poison = [fill](auto& all) {
      if (!all.empty()) std::memset(all.data(), fill, all.size() * sizeof all[0]);
    };
    poison(scores);
    poison(similarities);
    poison(list_ids);
    poison(row_ids);
    poison(groups);
    poison(ordinals);
    poison(counts);
  }
  bool operator==(const Result& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    };
    return same(scores, other.scores) && same(similarities, other.similarities) && list_ids == other.list_ids &&
           row_ids == other.row_ids && groups == other.groups && ordinals == other.ordinals && counts == other.counts;
  }
};

class Scan {
 public:
  explicit Scan(const Case& c) : case_(c), random_(c.seed), pool_(c.dim, kColumns, c.storage, c.metric, c.screen) {
    fill_pool();
    make_request();
    for (size_t g = 0; g < groups_.list_ids.size(); ++g) {
      if (!heads_[g]) continue;
      DeviceList list;
      list.list_id = groups_.list_ids[g];
      list.first_page = static_cast<int64_t>(pages_.size());
      list.first_segment = static_cast<int64_t>(segments_.size());
      list.pages = (heads_[g]->slots + kPageRows - 1) / kPageRows;
      for (int64_t page = 0; page < list.pages; ++page) {
        const Block& block = *heads_[g]->blocks[static_cast<size_t>(page / kBlockPages)];
        const Page& source = *block.pages[static_cast<size_t>(page % kBlockPages)];
        pages_.push_back(DevicePage{source.memory(), block.valid[static_cast<size_t>(page % kBlockPages)]});
      }
      for (size_t at = groups_.begin[g]; at < groups_.begin[g + 1]; ++at) {
        const Segment s = request_.segment(groups_.order[at]);
        // The filter without conditions comes first.
        segments_.push_back(DeviceSegment{s.query, s.group, static_cast<int32_t>(s.filter) - 1});
        segment_queries_.push_back(s.query);
      }
      list.segments = static_cast<int64_t>(segments_.size()) - list.first_segment;
      lists_.push_back(list);
    }
    for (size_t f = 1; f < request_.filters.size(); ++f) {
      const Filter& from = request_.filters[f];
      filters_.push_back(DeviceFilter{static_cast<int32_t>(from.terms_begin), static_cast<int32_t>(from.terms_end),
                                      static_cast<int64_t>(from.values_begin), from.bitmap, from.bitmap_words});
    }
  }

  DeviceScanPlan plan() const { return plan(lists_); }
  // As if all pages were the first list's.
  DeviceScanPlan plan_joined() const {
    DeviceList all = lists_[0];
    all.pages = static_cast<int64_t>(pages_.size());
    return plan({all});
  }
  DeviceScanPlan plan(const std::vector<DeviceList>& lists) const {
    DeviceScanShape shape;
    shape.dim = case_.dim;
    shape.n_columns = kColumns;
    shape.storage = case_.storage;
    shape.l2 = case_.metric == Metric::kL2;
    shape.codes = pool_.layout().has_codes;
    shape.queries = case_.queries;
    shape.k = case_.k;
    shape.ranking = request_.ranking;
    return plan_device_scan(shape, lists, segment_queries_.data(), case_.limits, case_.choice);
  }

  Result on_cpu() const {
    Result out(case_.queries, case_.k, 0);
    scan(*find_kernels("auto"), pool_, request_, groups_, heads_,
         ScanOutput{out.scores.data(), out.similarities.data(), out.list_ids.data(), out.row_ids.data(), out.counts.data(),
                    out.groups.data(), out.ordinals.data()});
    return out;
  }

  // counters: null, or (2).
  Result on_device(const DeviceScanPlan& plan, unsigned char fill, uint64_t* counters) const {
    Result out(case_.queries, case_.k, fill);
    const Memory workspace(plan.workspace_bytes, fill);
    const Memory table(plan.table_bytes, fill);
    pack_scan_table(plan, table.data);
    cuda::ScanArguments arguments;
    arguments.pages = pages_.data();
    arguments.queries = queries_.data();
    arguments.table = table.data;
    arguments.segments = segments_.data();
    arguments.filters = filters_.data();
    arguments.terms = request_.terms.data();
    arguments.values = request_.values.data();
    arguments.min_similarity = request_.min_similarity;
    arguments.scores = out.scores.data();
    arguments.similarities = out.similarities.data();
    arguments.list_ids = out.list_ids.data();
    arguments.row_ids = out.row_ids.data();
    arguments.groups = out.groups.data();
    arguments.ordinals = out.ordinals.data();
    arguments.counts = out.counts.data();
    arguments.counters = counters;
    arguments.workspace = workspace.data;
    cuda::scan(plan, arguments, nullptr);
    return out;
  }

  const std::vector<DeviceList>& lists() const { return lists_; }

 private:
  float normal() { return static_cast<float>(std::normal_distribution<double>()(random_)); }

  float element(int64_t d) {
    if (case_.data == kLevelRows) return static_cast<float>(random_() % 3) - 1.0f;
    if (case_.data == kHugeRows) return normal() * 3e17f;
    // Of scale 2^-10 because of the first element. All others err by as much as a plane can, in one direction: 7.4375 in the coarse plane, 0.4375 in both.
    if (case_.data == kTightRows) return (d == 0 ? 127.0f : 79.4375f + 16.0f * static_cast<float>(random_() % 3)) / 1024.0f;
    if (case_.data == kEqualRows) return 0.75f - 0.5f * static_cast<float>(d % 3);
    if (case_.data == kZeroRows) return random_() % 2 == 0 ? 0.0f : -0.0f;
    if (case_.data == kDenormalRows) return normal() * 1e-42f;
    return normal();
  }

  float query_element(int64_t query, int64_t d) {
    if (case_.data == kTightRows) return (d == 0 ? 127.0f : 50.4375f) / 1024.0f;  // likewise, and in the rows' direction
    const float factor = case_.data == kHugeRows ? 3e17f : case_.data == kLongQueries && query % 3 == 0 ? 1e19f : 1.0f;
    return normal() * factor;
  }

  void fill_pool() {
    std::vector<int64_t> list_ids, row_ids, columns;
    std::vector<uint32_t> ordinals;
    std::vector<float> vectors;
    Removes removes;
    for (size_t list = 0; list < case_.rows.size(); ++list) {
      for (int64_t i = 0; i < case_.rows[list]; ++i) {
        list_ids.push_back(list_id(list));
        row_ids.push_back((i * 7919) % 10007 - 3);  // in no order
        ordinals.push_back(case_.data == kLevelRows ? static_cast<uint32_t>(i % 2) : static_cast<uint32_t>(0xfffffff0u - i));
        columns.push_back(static_cast<int64_t>(random_() % 1000) * 1000);
        const uint64_t r = random_() % 8;
        columns.push_back(r == 0 ? INT64_MIN : r == 1 ? f64_to_key(-3.5) : f64_to_key(static_cast<double>(random_() % 5)));
        columns.push_back(static_cast<int64_t>(random_() % 7));
        const float scale = case_.data == kLevelRows && i % 5 == 0 ? 0.0f : 1.0f;
        for (int64_t d = 0; d < case_.dim; ++d) vectors.push_back(scale * element(d));
        if (case_.removed && i % 3 == 1) removes.emplace_back(list_id(list), row_ids.back());
      }
    }
    pool_.apply(pool_.lock_writer(), {},
                Appends{static_cast<int64_t>(list_ids.size()), list_ids.data(), row_ids.data(), ordinals.data(), columns.data(),
                        vectors.data()});
    if (!removes.empty()) pool_.apply(pool_.lock_writer(), removes, Appends{});
  }

  static int64_t list_id(size_t list) { return static_cast<int64_t>(list) * 1000000007 - 5; }

  void make_request() {
    for (int64_t i = 0; i < case_.queries * case_.dim; ++i) queries_.push_back(query_element(i / case_.dim, i % case_.dim));
    request_.queries = queries_.data();
    request_.n_queries = case_.queries;
    request_.k = case_.k;
    request_.min_similarity =
        case_.least ? (case_.metric == Metric::kL2 ? -static_cast<double>(2 * case_.dim) : 0.1) : -kInfinity;
    Ranking& r = request_.ranking;
    r.half_life = 3e5;
    r.now = 700000;
    r.recency_column = 0;
    r.priority_column = 1;
    if (case_.ranking != kSimilarity) r.w_similarity = 0.7;
    if (case_.ranking == kAllWeights || case_.ranking == kNegative) r.w_recency = case_.ranking == kNegative ? -0.5 : 0.3;
    if (case_.ranking == kAllWeights) r.w_priority = 0.25;
    if (case_.ranking == kNegative) r.w_similarity = -1.0;  // which no bound serves
    if (case_.ranking == kNoWeights) r.w_similarity = 0.0;
    make_filters();
    std::vector<int64_t> list_ids;
    for (int64_t q = 0; q < case_.queries; ++q) {
      for (size_t list = 0; list < case_.rows.size(); ++list) {
        if (!case_.queries_of_list.empty()) {
          if (q >= case_.queries_of_list[list]) continue;
        } else if (!case_.all_lists && list != static_cast<size_t>(q) % case_.rows.size()) {
          continue;
        }
        list_ids.push_back(list_id(list));
        request_.segment_queries.push_back(static_cast<uint32_t>(q));
        request_.segment_groups.push_back(static_cast<uint32_t>(list / 2));
        request_.segment_filters.push_back(static_cast<uint32_t>(static_cast<size_t>(q + 1) % request_.filters.size()));
      }
    }
    groups_ = group_segments(list_ids.data(), list_ids.size());
    heads_.resize(groups_.list_ids.size());
    pool_.snapshot(groups_.list_ids.data(), heads_.size(), heads_.data());
  }

  // Filter 0 has no conditions; the others depend on the case.
  void make_filters() {
    request_.values = {100, 0, 2, 3, 6};
    request_.terms = {Term{0, kRange, 100000, 900000},
                      Term{2, kMembership, 1, 4},  // a conjunction of two
                      Term{2, kMembership, 0, 2},
                      Term{0, kRange, 0, 300000},
                      Term{1, kRange, INT64_MIN, f64_to_key(1.0)},
                      Term{0, kNot, 0, 0},
                      Term{0, kOr, 0, 0},
                      Term{0, kRange, 500000, 990000},
                      Term{0, kAnd, 0, 0},
                      Term{2, kRange, 0, 5}};
    for (int i = 0; i < 100; ++i) bitmap_.push_back(random_() | random_());
    request_.filters.resize(case_.filters == kNoFilters ? 1 : case_.filters == kMixed ? 5 : 2);
    const auto set = [&](size_t at, int kind) {
      Filter& filter = request_.filters[at];
      filter.values_begin = 1;
      filter.values_end = request_.values.size();
      if (kind == kTerms || kind == kTermsAndBitmap) filter.terms_end = 2;
      if (kind == kProgram) {
        filter.terms_begin = 2;
        filter.terms_end = request_.terms.size();
        filter.joined = true;
      }
      if (kind == kBitmap || kind == kTermsAndBitmap) {
        filter.bitmap = bitmap_.data();
        filter.bitmap_words = static_cast<int64_t>(bitmap_.size());
      }
    };
    if (case_.filters == kMixed) {
      for (int kind = kTerms; kind <= kTermsAndBitmap; ++kind) set(static_cast<size_t>(kind), kind);
    } else if (case_.filters != kNoFilters) {
      set(1, case_.filters);
    }
  }

  Case case_;
  std::mt19937_64 random_;
  Pool pool_;
  ScanRequest request_;
  SegmentGroups groups_;
  std::vector<ListHead> heads_;
  std::vector<float> queries_;
  std::vector<uint64_t> bitmap_;
  std::vector<DevicePage> pages_;
  std::vector<DeviceSegment> segments_;
  std::vector<uint32_t> segment_queries_;
  std::vector<DeviceList> lists_;
  std::vector<DeviceFilter> filters_;
};

}  // namespace scan_cases
