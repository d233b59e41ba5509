// A scan of product-quantisation codes as both cores see it: a pool whose rows tie, filters and rankings, the CPU's scan, and the device's in the emulator over the
// same pages. For the test that includes csrc/cuda/scan_pq.cu before it.
#pragma once

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cuda/scan_pq.hpp"
#include "scan_cases.hpp"

namespace scan_pq_cases {

using namespace warpmem;
using scan_cases::kColumns;
using scan_cases::kInfinity;
using scan_cases::Result;

enum Filters { kNoFilter, kRangeOfThousands, kProgram, kRowBitmap, kFilterKinds };
enum Weights { kSimilarity, kScaled, kAllWeights, kNegative, kWeightKinds };
// Equal rows have ordinary codebooks, zero and denormal rows such codebooks as well; queries are ordinary with all three. kLong: sums of products around the
// limit.
enum Data { kNormal, kLevels, kEqual, kZero, kDenormal, kLong, kDataKinds };

struct Case {
  Storage storage = Storage::kF32;
  Metric metric = Metric::kDot;
  int64_t dim = 40;
  int64_t dsub = 4;
  std::vector<int64_t> rows = {300};
  int64_t queries = 1;
  int64_t k = 10;
  int64_t refine = 3;
  int filter = kNoFilter;
  int weights = kSimilarity;
  int data = kNormal;
  bool least = false;
  bool removed = false;
  DevicePqChoice choice;
  DeviceLimits limits = kLimitsSm90;
  unsigned seed = 1;
};

class Scan {
 public:
  explicit Scan(const Case& c)
      : case_(c),
        random_(c.seed),
        books_(make_books()),
        pool_(std::make_unique<Pool>(c.dim, kColumns, c.storage, c.metric, false, books_)) {
    fill_pool();
    make_request();
    snapshot();
  }

  Result on_cpu(ScanCounters* counters = nullptr) const {
    Result out(case_.queries, case_.k, 0);
    const ScanCounters did = scan(*find_kernels("auto"), *pool_, request_, groups_, heads_,
                                  ScanOutput{out.scores.data(), out.similarities.data(), out.list_ids.data(), out.row_ids.data(),
                                             out.counts.data(), out.groups.data(), out.ordinals.data()});
    if (counters != nullptr) *counters = did;
    return out;
  }

  DevicePqPlan plan() const {
    DevicePqShape shape;
    shape.scan.dim = case_.dim;
    shape.scan.n_columns = kColumns;
    shape.scan.storage = case_.storage;
    shape.scan.l2 = case_.metric == Metric::kL2;
    shape.scan.queries = case_.queries;
    shape.scan.k = case_.k;
    shape.scan.ranking = request_.ranking;
    shape.pq_dim = books_->shape().pq_dim;
    shape.dsub = books_->shape().dsub;
    shape.refine = case_.refine;
    return plan_device_scan_pq(shape, lists_, segment_queries_.data(), case_.limits, case_.choice);
  }

  Result on_device(const DevicePqPlan& plan, uint64_t* counters = nullptr) const {
    return simt::run_twice([&](unsigned char fill) {
      if (counters != nullptr) std::fill(counters, counters + 3, uint64_t{0});
      Result out(case_.queries, case_.k, fill);
      const Memory workspace(plan.workspace_bytes, fill);
      const Memory table(plan.table_bytes, fill);
      pack_pq_table(plan, table.data);
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
      const cuda::PqPoolBooks books{books_->codebooks().data(), books_->view().books, books_->largest().data()};
      cuda::scan_pq(plan, books, arguments, nullptr);
      return out;
    });
  }

 private:
  float normal() { return static_cast<float>(std::normal_distribution<double>()(random_)); }

  // Of an entry of a codebook.
  float number() {
    if (case_.data == kLevels) return static_cast<float>(random_() % 3) - 1.0f;
    if (case_.data == kZero) return random_() % 2 == 0 ? 0.0f : -0.0f;
    if (case_.data == kDenormal) return normal() * 1e-42f;
    return case_.data == kLong ? normal() * 1e18f : normal();
  }

  float row_element(int64_t d) { return case_.data == kEqual ? 0.75f - 0.5f * static_cast<float>(d % 3) : number(); }

  float query_element(int64_t query) {
    if (case_.data == kZero || case_.data == kDenormal) return normal();
    // Every second query is short, so that some have tables and some none.
    return case_.data == kLong && query % 2 == 1 ? number() * 1e-18f : number();
  }

  std::shared_ptr<const PqBooks> make_books() {
    const int64_t padded = padded_dim(case_.dim);
    std::vector<float> entries;
    for (int64_t i = 0; i < padded * 16; ++i) entries.push_back(number());
    return std::make_shared<const PqBooks>(*find_op_kernels("auto"), padded / case_.dsub, case_.dsub, case_.dim, entries.data());
  }

  static int64_t list_id(size_t list) { return list % 2 == 0 ? -static_cast<int64_t>(list) : 1000 + static_cast<int64_t>(list); }

  void fill_pool() {
    std::vector<int64_t> list_ids, row_ids, columns;
    std::vector<uint32_t> ordinals;
    std::vector<float> vectors;
    Removes removes;
    for (size_t list = 0; list < case_.rows.size(); ++list) {
      for (int64_t i = 0; i < case_.rows[list]; ++i) {
        list_ids.push_back(list_id(list));
        row_ids.push_back((i * 7919) % 10007 - 3);  // in no order
        ordinals.push_back(case_.data == kLevels ? static_cast<uint32_t>(i % 2) : static_cast<uint32_t>(i));
        columns.push_back(static_cast<int64_t>(random_() % 1000) * 1000);
        columns.push_back(random_() % 8 == 0 ? INT64_MIN : f64_to_key(static_cast<double>(random_() % 5)));
        columns.push_back(static_cast<int64_t>(random_() % 7));
        for (int64_t d = 0; d < case_.dim; ++d) vectors.push_back(row_element(d));
        if (case_.removed && i % 3 == 1) removes.emplace_back(list_id(list), row_ids.back());
      }
    }
    pool_->apply(pool_->lock_writer(), {},
                 Appends{static_cast<int64_t>(list_ids.size()), list_ids.data(), row_ids.data(), ordinals.data(), columns.data(),
                         vectors.data()});
    if (!removes.empty()) pool_->apply(pool_->lock_writer(), removes, Appends{});
  }

  void make_request() {
    for (int64_t i = 0; i < case_.queries * case_.dim; ++i) queries_.push_back(query_element(i / case_.dim));
    request_.queries = queries_.data();
    request_.n_queries = case_.queries;
    request_.k = case_.k;
    request_.refine = case_.refine;
    request_.min_similarity =
        case_.least ? (case_.metric == Metric::kL2 ? -2.0 * static_cast<double>(case_.dim) : 0.5) : -kInfinity;
    Ranking& r = request_.ranking;
    r.half_life = 3e5;
    r.now = 700000;
    r.priority_column = 1;
    if (case_.weights != kSimilarity) r.w_similarity = case_.weights == kNegative ? -0.5 : 0.7;
    if (case_.weights == kAllWeights || case_.weights == kNegative) r.w_recency = 1.3;
    if (case_.weights == kAllWeights) r.w_priority = -0.25;
    request_.values = {100, 0, 2, 3, 6};
    request_.terms = {Term{0, kRange, 100000, 900000}, Term{2, kMembership, 0, 3}, Term{0, kNot, 0, 0}, Term{0, kOr, 0, 0}};
    for (int i = 0; i < 100; ++i) bitmap_.push_back(random_() & random_());
    request_.filters.resize(case_.filter == kNoFilter ? 1 : 2);
    if (case_.filter != kNoFilter) {
      Filter& filter = request_.filters[1];
      filter.values_begin = 1;
      filter.values_end = request_.values.size();
      filter.terms_end = case_.filter == kProgram ? 4 : case_.filter == kRangeOfThousands ? 1 : 0;
      filter.joined = case_.filter == kProgram;
      if (case_.filter == kRowBitmap) {
        filter.bitmap = bitmap_.data();
        filter.bitmap_words = static_cast<int64_t>(bitmap_.size());
      }
    }
    std::vector<int64_t> list_ids;
    for (int64_t q = 0; q < case_.queries; ++q) {
      for (size_t list = 0; list < case_.rows.size(); ++list) {
        if (q % 3 == 2 && list % 2 == 1) continue;
        list_ids.push_back(list_id((list + static_cast<size_t>(q)) % case_.rows.size()));
        request_.segment_queries.push_back(static_cast<uint32_t>(q));
        request_.segment_groups.push_back(static_cast<uint32_t>(list / 2));
        request_.segment_filters.push_back(q % 2 == 0 ? static_cast<uint32_t>(request_.filters.size()) - 1 : 0);
      }
    }
    groups_ = group_segments(list_ids.data(), list_ids.size());
    heads_.resize(groups_.list_ids.size());
    pool_->snapshot(groups_.list_ids.data(), heads_.size(), heads_.data());
  }

  void snapshot() {
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

  const Case case_;
  std::mt19937_64 random_;
  std::shared_ptr<const PqBooks> books_;
  std::unique_ptr<Pool> pool_;
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

}  // namespace scan_pq_cases
