// The scan of pages with product-quantisation codes in the emulator, against the CPU's over the same pool: equal, bit for bit.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/pq.cu"
#include "../../csrc/cuda/scan_pq.cu"
#include "../../csrc/cuda/select_k.cu"
#include "check.hpp"
#include "scan_pq_cases.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using namespace scan_pq_cases;
using simt::Machine;

namespace {

// Both cores' results, and that the kernel that was meant ran. Returns what the device counted.
std::vector<uint64_t> check_case(const Case& c) {
  const Scan scan(c);
  const DevicePqPlan plan = scan.plan();
  CHECK(plan.fits);
  const std::string kernel = plan.task_segments == 1 ? "scan_pq_codes_1" : "scan_pq_codes_4";
  const int64_t before = Machine::get().launches[kernel];
  std::vector<uint64_t> counters(3);
  const Result got = scan.on_device(plan, counters.data());
  CHECK_EQ(Machine::get().launches[kernel] - before, plan.tasks.empty() ? 0 : 2);
  ScanCounters did;
  const Result expected = scan.on_cpu(&did);
  if (!(got == expected)) std::printf("seed %u: %s\n", c.seed, describe(plan).c_str());
  CHECK(got == expected);
  if (!plan.tasks.empty()) CHECK_EQ(counters[0], static_cast<uint64_t>(did.rows_seen));
  if (c.storage != Storage::kPq) CHECK_EQ(counters[1], static_cast<uint64_t>(did.rows_rescored));
  return counters;
}

}  // namespace

TEST(shapes_filters_and_rankings) {
  const std::vector<Storage> storages = {Storage::kF32, Storage::kF16, Storage::kInt8, Storage::kPq};
  // -2, -1: k - 1, k
  const std::vector<std::vector<int64_t>> lists = {
      {}, {1}, {-2}, {-1}, {63}, {64}, {65}, {700, 0, 30}, {2100, 90, 1, 400, 64}, {2047, 256}, {2048}, {2049, 31}, {-2, 64, -1}};
  const std::vector<int64_t> queries = {1, 2, 7};
  const std::vector<std::pair<int64_t, int64_t>> pieces = {
      {5, 1}, {33, 2}, {64, 4}, {70, 32}};  // dimensions, elements of a subspace
  const std::vector<std::pair<int64_t, int64_t>> keeps = {{1, 1},   {10, 3},  {31, 1},  {32, 2},
                                                          {33, 10}, {256, 1}, {257, 3}, {4096, 1}};  // k, refine
  const auto cases = simt::pairwise({4, 13, 3, 4, 8, 2, int{kFilterKinds}, int{kWeightKinds}, int{kDataKinds}, 2, 2, 3, 2});
  unsigned seed = 500;
  for (size_t i = 0; i < 2 * cases.size(); ++i) {  // each with two seeds
    const std::vector<int>& f = cases[i % cases.size()];
    const auto pick = [&](const auto& list, size_t factor) { return list[static_cast<size_t>(f[factor])]; };
    Case c;
    c.storage = pick(storages, 0);
    c.rows = pick(lists, 1);
    c.queries = pick(queries, 2);
    c.dim = pick(pieces, 3).first;
    c.dsub = pick(pieces, 3).second;
    c.k = pick(keeps, 4).first;
    c.refine = pick(keeps, 4).second;
    for (int64_t& n : c.rows) n += n < 0 ? c.k + 1 : 0;
    c.metric = f[5] == 0 ? Metric::kDot : Metric::kL2;
    c.filter = f[6];
    c.weights = f[7];
    c.data = f[8] == kLong && (c.metric == Metric::kL2 || c.storage == Storage::kF16) ? int{kNormal} : f[8];
    c.least = f[9] == 1;
    c.removed = f[10] == 1;
    c.choice.segments = f[11];  // 0: chosen
    c.choice.tile_pages = f[12] == 0 ? 0 : 3;
    c.limits = f[12] == 0 ? kLimitsSm90 : kLimitsSm120;
    c.seed = ++seed;
    check_case(c);
  }
  std::printf("     seeds to %u: %zu cases\n", seed, 2 * cases.size());
}

TEST(queues_are_cut_before_they_overflow) {
  // More rows than a queue holds, in rising and in random order of their scores, and a shortlist as long as can be.
  for (const auto& [k, refine] : std::vector<std::pair<int64_t, int64_t>>{{3, 2}, {64, 64}}) {
    Case c;
    c.rows = {9000};
    c.queries = 2;
    c.dim = 8;
    c.dsub = 8;
    c.k = k;
    c.refine = refine;
    c.choice.blocks = 1;
    c.seed = static_cast<unsigned>(k);
    check_case(c);
    c.data = kLevels;
    c.choice.tile_pages = 70;
    check_case(c);
  }
}

TEST(codes_alone_are_completed_where_the_shortlist_may_be_wrong) {
  // Two subspaces: few different sums, so that many rows tie with the last of the shortlist.
  uint64_t completed = 0;
  for (const int weights : {int{kSimilarity}, int{kAllWeights}}) {
    for (const int filter : {int{kNoFilter}, int{kRangeOfThousands}}) {
      for (const Metric metric : {Metric::kDot, Metric::kL2}) {
        Case c;
        c.storage = Storage::kPq;
        c.metric = metric;
        c.dim = 32;
        c.dsub = 16;
        c.rows = {900, 500};
        c.queries = 3;
        c.k = 20;
        c.refine = 1;
        c.weights = weights;
        c.filter = filter;
        c.seed = 40 + static_cast<unsigned>(weights * 8 + filter);
        completed += check_case(c)[2];
      }
    }
  }
  CHECK(completed > 8);
}

TEST(probed_lists_are_an_inverted_file) {
  // Forty cells, of which each query probes its own ten.
  Case c;
  c.dim = 64;
  c.dsub = 8;
  for (int64_t i = 0; i < 40; ++i) c.rows.push_back(20 + i * 7 % 90);
  c.queries = 12;
  c.k = 10;
  c.refine = 4;
  c.seed = 77;
  check_case(c);
}

TEST(plans_fit_or_say_so) {
  DevicePqShape shape;
  shape.scan.dim = 768;
  shape.scan.queries = 1000;
  shape.scan.k = 10;
  shape.pq_dim = 96;
  shape.dsub = 8;
  std::vector<DeviceList> lists;
  std::vector<uint32_t> queries;
  int64_t pages = 0;
  for (int64_t l = 0; l < 50; ++l) {
    lists.push_back(DeviceList{l, pages, 20 + l, static_cast<int64_t>(queries.size()), 20});
    pages += 20 + l;
    for (uint32_t i = 0; i < 20; ++i) queries.push_back(static_cast<uint32_t>(l) * 20 + i);
  }
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    const DevicePqPlan plan = plan_device_scan_pq(shape, lists, queries.data(), limits);
    CHECK(plan.fits);
    CHECK(plan.shared_bytes <= limits.shared_per_block);
    CHECK_EQ(plan.tasks.size(), size_t{5 * (13 + 2 * 32 + 3 * 5)});  // of four segments, and 32 pages
    CHECK_EQ(plan.parts.query_parts.back(), plan.parts.parts.size());
    for (const int64_t refine : {1, 100, 409}) {
      shape.refine = refine;
      const DevicePqPlan other = plan_device_scan_pq(shape, lists, queries.data(), limits);
      CHECK(other.fits);
      CHECK(other.shared_bytes <= limits.shared_per_block);
      CHECK(other.capacity >= other.keep + kScanPqThreads * kSelectUnroll);
    }
    shape.refine = 410;  // 4,100 rows
    CHECK(!plan_device_scan_pq(shape, lists, queries.data(), limits).fits);
    shape.refine = 10;
  }
  shape.scan.queries = 1;
  const std::vector<uint32_t> one = {0, 0};
  constexpr int64_t kHalf = int64_t{1} << 25;
  std::vector<DeviceList> huge = {DeviceList{0, 0, kHalf, 0, 1}, DeviceList{1, 0, kHalf - 1, 1, 1}};
  CHECK_EQ(plan_device_scan_pq(shape, huge, one.data(), kLimitsSm90).places[1].before, static_cast<uint32_t>(kHalf));
  // The last place of 2^26 pages would have the key of no row.
  CHECK(plan_device_scan_pq(shape, huge, one.data(), kLimitsSm90).fits);
  ++huge[1].pages;
  CHECK(!plan_device_scan_pq(shape, huge, one.data(), kLimitsSm90).fits);
}

// As of the exact scan: shortlists of 4,096 over many lists.
TEST(plans_have_no_more_memory_than_they_may) {
  DevicePqShape shape;
  shape.scan.dim = 768;
  shape.scan.queries = 200;
  shape.scan.k = 64;
  shape.refine = 64;
  shape.pq_dim = 96;
  shape.dsub = 8;
  std::vector<DeviceList> lists;
  std::vector<uint32_t> queries;
  for (int64_t l = 0; l < 500; ++l) {
    lists.push_back(DeviceList{l, 20 * l, 20, 200 * l, 200});
    for (uint32_t q = 0; q < 200; ++q) queries.push_back(q);
  }
  const DevicePqPlan plan = plan_device_scan_pq(shape, lists, queries.data(), kLimitsSm90);
  CHECK_EQ(plan.parts.rounds.size(), size_t{4});  // 100,000 parts of 1,280 keys are 1 GB
  CHECK(plan.parts.items * 8 <= kScanPartBytes);
  CHECK(plan.workspace_bytes < int64_t{330} << 20);
}

TEST(rounds_change_no_bit) {
  for (const Storage storage : {Storage::kF32, Storage::kPq}) {
    for (const auto& [k, refine] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {10, 3}, {40, 10}}) {
      Case c;
      c.storage = storage;
      c.rows = {700, 3, 64, 130};
      c.queries = 5;
      c.k = k;
      c.refine = refine;
      c.data = kLevels;
      c.choice.tile_pages = 2;
      c.choice.part_bytes = 8 * std::min<int64_t>(k * refine, 128) * 5;
      c.seed = 90 + static_cast<unsigned>(k);
      const Scan scan(c);
      const DevicePqPlan plan = scan.plan();
      CHECK(plan.parts.rounds.size() >= 4);
      CHECK(scan.on_device(plan) == scan.on_cpu());
    }
  }
}

TEST(what_does_not_fit_is_refused) {
  Case c;
  c.k = 100;
  c.refine = 100;
  const Scan scan(c);
  const DevicePqPlan plan = scan.plan();
  CHECK(!plan.fits);
  bool refused = false;
  try {
    scan.on_device(plan);
  } catch (const std::runtime_error& error) {
    refused = std::string(error.what()).find("10000 rows") != std::string::npos;
  }
  CHECK(refused);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
