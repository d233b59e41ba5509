// The scan's kernels in the emulator: equal, bit for bit, to the CPU core's scan of the same pages; every shape forced, over the named edges, pairwise.
#include "../../csrc/cuda/scan.cu"
#include "check.hpp"
#include "scan_cases.hpp"
#include "simt_pairwise.hpp"

using namespace scan_cases;
using simt::Machine;

namespace {

struct Variant {
  const char* kernel;
  ScanShape shape;
  std::vector<int64_t> queries;
};

// Runs the case and compares. Returns rows seen and rescored by the second run.
std::vector<uint64_t> check_case(const Case& c, const char* kernel) {
  const Scan scan(c);
  const DeviceScanPlan plan = scan.plan();
  const int64_t before = kernel == nullptr ? 0 : Machine::get().launches[kernel];
  std::vector<uint64_t> counters(2);
  const Result got = simt::run_twice([&](unsigned char fill) {
    counters.assign(2, 0);
    return scan.on_device(plan, fill, counters.data());
  });
  const bool expected = got == scan.on_cpu();
  if (!expected) std::printf("seed %u: %s\n", c.seed, describe(plan).c_str());
  CHECK(expected);
  if (kernel != nullptr && !plan.tasks.empty()) CHECK_EQ(Machine::get().launches[kernel] - before, 2);
  CHECK(counters[1] <= counters[0]);
  return counters;
}

void check_variant(const Variant& variant, unsigned seed) {
  const std::vector<Storage> storages = {Storage::kF32, Storage::kF16, Storage::kInt8};
  const std::vector<int64_t> dims = {1, 31, 32, 33, 77, 384};
  const std::vector<int64_t> rows = {0, 1, 63, 64, 65, 700, 2047, 2049};
  const std::vector<int64_t> ks = {1, 10, 32, 33, 256, 4096};
  const std::vector<int64_t> tiles = {0, 1, 3};
  const std::vector<DeviceLimits> limits = {kLimitsSm80, kLimitsSm120};
  const auto count = [](const auto& list) { return static_cast<int>(list.size()); };
  const int rankings = variant.shape == ScanShape::kPlain ? int{kRankingKinds} : int{kNegative};
  const auto cases = simt::pairwise({count(storages), 2, count(dims), count(rows), count(ks), count(variant.queries),
                                     int{kFilterKinds}, rankings, int{kRowKinds}, 2, 2, 3, count(tiles), count(limits)});
  for (const std::vector<int>& f : cases) {
    const auto pick = [&](const auto& list, int factor) { return list[static_cast<size_t>(f[static_cast<size_t>(factor)])]; };
    Case c;
    c.storage = pick(storages, 0);
    c.metric = f[1] == 0 ? Metric::kDot : Metric::kL2;
    c.dim = pick(dims, 2);
    const int64_t n = pick(rows, 3);
    c.k = pick(ks, 4);
    c.queries = pick(variant.queries, 5);
    c.filters = f[6];
    c.ranking = f[7];
    c.data = f[8];
    c.least = f[9] == 1;
    c.removed = f[10] == 1;
    c.rows = {n};
    if (f[11] > 0) c.rows = {n, 5, 130};
    c.one_query = f[11] != 2;
    if (c.queries * n > 40000) c.rows[0] = 40000 / c.queries;  // what is rescored takes the time
    c.choice.tile_pages = pick(tiles, 12);
    c.limits = pick(limits, 13);
    c.choice.shape = static_cast<int32_t>(variant.shape);
    c.screen = variant.shape != ScanShape::kPlain || seed % 2 == 0;
    c.seed = ++seed;
    check_case(c, variant.kernel);
  }
  std::printf("     %zu cases of %s\n", cases.size(), variant.kernel);
}

}  // namespace

TEST(plain) { check_variant({"scan_plain", ScanShape::kPlain, {1, 2, 8, 9}}, 1000); }
TEST(small_of_one) { check_variant({"scan_small_1", ScanShape::kSmall, {1}}, 2000); }
TEST(small) { check_variant({"scan_small_3", ScanShape::kSmall, {2, 3, 5}}, 3000); }
TEST(middle_of_eight) { check_variant({"scan_middle_1", ScanShape::kMiddle, {4, 7, 8}}, 4000); }
TEST(middle) { check_variant({"scan_middle_4", ScanShape::kMiddle, {9, 33, 40}}, 5000); }
TEST(large) { check_variant({"scan_large", ScanShape::kLarge, {64, 70, 130}}, 6000); }

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
