// The scans' part of the self-test: a pool of three lists on the host, its pages on the device, one question to both.
#include <algorithm>
#include <cmath>
#include <memory>

#include "../cpu/dispatch.hpp"
#include "../cpu/op_dispatch.hpp"
#include "../cpu/scan.hpp"
#include "scan.hpp"
#include "scan_pq.hpp"
#include "self_test.hpp"
#include "test_array.hpp"

namespace warpmem::cuda {
namespace {

constexpr int64_t kDim = 70;
constexpr int64_t kLists = 3;
constexpr int64_t kRows = 900;
constexpr int64_t kBest = 12;
constexpr int64_t kRefine = 4;
constexpr int64_t kNow = 1000;

// What both sides answer.
struct Answer {
  explicit Answer(int64_t queries)
      : scores(static_cast<size_t>(queries * kBest)),
        similarities(scores.size()),
        list_ids(scores.size()),
        row_ids(scores.size()),
        counts(static_cast<size_t>(queries)) {}
  std::vector<float> scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
};

class Problem {
 public:
  Problem(Pool& pool, int64_t queries, bool ranked) : pool_(pool), queries_(test_numbers(queries * kDim, 11)) {
    std::vector<int64_t> list_ids, row_ids, columns;
    std::vector<uint32_t> ordinals;
    const std::vector<float> vectors = test_numbers(kRows * kDim, 12);
    Removes removes;
    for (int64_t i = 0; i < kRows; ++i) {
      list_ids.push_back(i % kLists);
      row_ids.push_back(i);
      ordinals.push_back(static_cast<uint32_t>(i / 2));
      columns.push_back(i % kNow);
      columns.push_back(f64_to_key(static_cast<double>(i % 11)));
      if (i % 5 == 0) removes.emplace_back(i % kLists, i);
    }
    pool.apply(pool.lock_writer(), {},
               Appends{kRows, list_ids.data(), row_ids.data(), ordinals.data(), columns.data(), vectors.data()});
    pool.apply(pool.lock_writer(), removes, Appends{});
    request_.queries = queries_.data();
    request_.n_queries = queries;
    request_.k = kBest;
    request_.refine = kRefine;
    request_.min_similarity = -INFINITY;
    if (ranked) request_.ranking = Ranking{0.6, 0.3, 0.2, 250.0, 0, 1, kNow};
    request_.terms = {Term{0, kRange, 50, 700}};
    request_.filters.resize(2);
    request_.filters[1].terms_end = 1;
    std::vector<int64_t> asked;
    for (int64_t q = 0; q < queries; ++q) {
      for (int64_t list = 0; list < kLists; ++list) {
        request_.segment_queries.push_back(static_cast<uint32_t>(q));
        request_.segment_filters.push_back(q % 2 == 0 ? 1 : 0);
        asked.push_back(list);
      }
    }
    groups_ = group_segments(asked.data(), asked.size());
    heads_.resize(groups_.list_ids.size());
    pool.snapshot(groups_.list_ids.data(), heads_.size(), heads_.data());
  }

  Answer on_host() const {
    Answer out(request_.n_queries);
    warpmem::scan(
        *find_kernels("auto"), pool_, request_, groups_, heads_,
        ScanOutput{out.scores.data(), out.similarities.data(), out.list_ids.data(), out.row_ids.data(), out.counts.data()});
    return out;
  }

  DeviceScanShape shape() const {
    DeviceScanShape out;
    out.dim = kDim;
    out.n_columns = pool_.layout().n_columns;
    out.storage = pool_.layout().storage;
    out.l2 = pool_.metric() == Metric::kL2;
    out.codes = pool_.layout().has_codes;
    out.queries = request_.n_queries;
    out.k = kBest;
    out.ranking = request_.ranking;
    return out;
  }

  // Whether the device answers alike. plan(lists, queries of segments) makes a plan; run(plan, arguments) runs it.
  template <typename Plan, typename Run>
  bool same(TestMemory& memory, const Plan& make_plan, const Run& run) const {
    std::vector<DevicePage> table;
    std::vector<std::unique_ptr<TestArray<unsigned char>>> planes;
    std::vector<DeviceList> lists;
    std::vector<DeviceSegment> segments;
    std::vector<uint32_t> queries;
    for (size_t g = 0; g < heads_.size(); ++g) {
      DeviceList list{groups_.list_ids[g], static_cast<int64_t>(table.size()), (heads_[g]->slots + kPageRows - 1) / kPageRows,
                      static_cast<int64_t>(segments.size()), static_cast<int64_t>(groups_.begin[g + 1] - groups_.begin[g])};
      for (int64_t i = 0; i < list.pages; ++i) {
        const Block& block = *heads_[g]->blocks[static_cast<size_t>(i / kBlockPages)];
        const auto at = static_cast<size_t>(i % kBlockPages);
        table.push_back(DevicePage{copy_page(memory, block.pages[at]->memory(), &planes), block.valid[at]});
      }
      for (size_t at = groups_.begin[g]; at < groups_.begin[g + 1]; ++at) {
        const Segment s = request_.segment(groups_.order[at]);
        segments.push_back(DeviceSegment{s.query, s.group, static_cast<int32_t>(s.filter) - 1});
        queries.push_back(s.query);
      }
      lists.push_back(list);
    }
    DeviceFilter filter;
    filter.terms_end = 1;
    const auto plan = make_plan(lists, queries.data());
    const TestArray<DevicePage> device_table(memory, table);
    const TestArray<DeviceSegment> device_segments(memory, segments);
    const TestArray<DeviceFilter> device_filters(memory, std::vector<DeviceFilter>{filter});
    const TestArray<Term> device_terms(memory, request_.terms);
    const TestArray<float> device_queries(memory, queries_);
    const TestArray<unsigned char> plan_table(memory, packed(plan));
    const TestArray<unsigned char> workspace(memory, plan.workspace_bytes);
    const Answer expected = on_host();
    const auto n = static_cast<int64_t>(expected.scores.size());
    const TestArray<float> scores(memory, n);
    const TestArray<float> similarities(memory, n);
    const TestArray<int64_t> list_ids(memory, n);
    const TestArray<int64_t> row_ids(memory, n);
    const TestArray<int32_t> counts(memory, request_.n_queries);
    ScanArguments arguments;
    arguments.pages = device_table.data();
    arguments.queries = device_queries.data();
    arguments.table = plan_table.data();
    arguments.segments = device_segments.data();
    arguments.filters = device_filters.data();
    arguments.terms = device_terms.data();
    arguments.min_similarity = request_.min_similarity;
    arguments.scores = scores.data();
    arguments.similarities = similarities.data();
    arguments.list_ids = list_ids.data();
    arguments.row_ids = row_ids.data();
    arguments.counts = counts.data();
    arguments.workspace = workspace.data();
    run(plan, arguments);
    return scores.holds(expected.scores) && similarities.holds(expected.similarities) && list_ids.holds(expected.list_ids) &&
           row_ids.holds(expected.row_ids) && counts.holds(expected.counts);
  }

 private:
  // A page in one piece of device memory, its columns, row ids and ordinals side by side.
  ConstPage copy_page(TestMemory& memory, const ConstPage& from,
                      std::vector<std::unique_ptr<TestArray<unsigned char>>>* planes) const {
    const PageLayout& layout = pool_.layout();
    std::vector<unsigned char> bytes;
    const auto add = [&bytes](const unsigned char* data, int64_t n) { bytes.insert(bytes.end(), data, data + n); };
    add(from.coarse, layout.coarse_bytes);
    add(from.fine, layout.fine_bytes);
    for (int64_t c = 0; c < layout.n_columns + 2; ++c)
      add(from.columns + c * from.stride, c == layout.n_columns + 1 ? kColumnBytes / 2 : kColumnBytes);
    bytes.resize(bytes.size() + kColumnBytes / 2);
    add(from.rows, layout.rows_bytes);
    planes->push_back(std::make_unique<TestArray<unsigned char>>(memory, bytes));
    PageMemory page;
    page.coarse = planes->back()->data();
    page.fine = page.coarse + layout.coarse_bytes;
    page.columns = page.fine + layout.fine_bytes;
    page.rows = page.columns + layout.head_bytes;
    return page;
  }

  static std::vector<unsigned char> packed(const DeviceScanPlan& plan) {
    std::vector<unsigned char> out(static_cast<size_t>(plan.table_bytes));
    pack_scan_table(plan, out.data());
    return out;
  }
  static std::vector<unsigned char> packed(const DevicePqPlan& plan) {
    std::vector<unsigned char> out(static_cast<size_t>(plan.table_bytes));
    pack_pq_table(plan, out.data());
    return out;
  }

  Pool& pool_;
  const std::vector<float> queries_;
  ScanRequest request_;
  SegmentGroups groups_;
  std::vector<ListHead> heads_;
};

}  // namespace

FamilyTest test_scan(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"scan", 0, 0};
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
    for (const ScanShape shape : {ScanShape::kPlain, ScanShape::kSmall, ScanShape::kMiddle, ScanShape::kLarge}) {
      Pool pool(kDim, 2, storage, Metric::kDot, true);
      const Problem problem(pool, shape == ScanShape::kSmall ? 3 : shape == ScanShape::kLarge ? 66 : 9, storage == Storage::kF16);
      DeviceScanChoice choice;
      choice.shape = static_cast<int32_t>(shape);
      const auto plan = [&](const std::vector<DeviceList>& lists, const uint32_t* queries) {
        return plan_device_scan(problem.shape(), lists, queries, limits, choice);
      };
      count_case(&test, problem.same(memory, plan, [](const DeviceScanPlan& p, const ScanArguments& arguments) {
        scan(p, arguments, nullptr);
      }));
    }
  }
  return test;
}

FamilyTest test_scan_pq(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"scan_pq", 0, 0};
  constexpr int64_t kSub = 4;
  const int64_t padded = padded_dim(kDim);
  const std::vector<float> entries = test_numbers(padded * 16, 13);
  for (const Storage storage : {Storage::kF32, Storage::kInt8, Storage::kPq}) {
    for (const int64_t queries : {1, 5}) {
      const auto books =
          std::make_shared<const warpmem::PqBooks>(*find_op_kernels("auto"), padded / kSub, kSub, kDim, entries.data());
      Pool pool(kDim, 2, storage, queries == 1 ? Metric::kDot : Metric::kL2, false, books);
      const Problem problem(pool, queries, storage == Storage::kInt8);
      const std::vector<float> beside(books->view().books, books->view().books + padded * 16);
      const TestArray<float> device_codebooks(memory, books->codebooks());
      const TestArray<float> device_beside(memory, beside);
      const TestArray<float> device_largest(memory, books->largest());
      const PqPoolBooks on_device{device_codebooks.data(), device_beside.data(), device_largest.data()};
      const auto plan = [&](const std::vector<DeviceList>& lists, const uint32_t* of_segments) {
        return plan_device_scan_pq(DevicePqShape{problem.shape(), padded / kSub, kSub, kRefine}, lists, of_segments, limits);
      };
      count_case(&test, problem.same(memory, plan, [&](const DevicePqPlan& p, const ScanArguments& arguments) {
        scan_pq(p, on_device, arguments, nullptr);
      }));
    }
  }
  return test;
}

}  // namespace warpmem::cuda
