// Runs scan_cases.hpp's scans on both cores and compares them, one case or a pairwise list with a shape forced.
#pragma once

#include "../../csrc/cuda/scan.cu"
#include "check.hpp"
#include "scan_cases.hpp"
#include "simt_pairwise.hpp"

namespace scan_cases {

using simt::Machine;

// Returns the rows seen and the rows rescored by the second run. `kernel` is one that must have run, or null.
inline std::vector<uint64_t> check_case(const Case& c, const char* kernel) {
  const Scan scan(c);
  const DeviceScanPlan plan = scan.plan();
  const int64_t before = kernel == nullptr ? 0 : Machine::get().launches[kernel];
  std::vector<uint64_t> counters(2);
  const Result got = simt::run_twice([&](unsigned char fill) {
    counters.assign(2, 0);
    return scan.on_device(plan, fill, counters.data());
  });
  const bool equal = got == scan.on_cpu();
  if (!equal) std::printf("seed %u: %s\n", c.seed, describe(plan).c_str());
  CHECK(equal);
  if (kernel != nullptr && !plan.tasks.empty()) CHECK_EQ(Machine::get().launches[kernel] - before, 2);
  CHECK(counters[1] <= counters[0]);
  return counters;
}

inline void check_variant(const char* kernel, ScanShape shape, const std::vector<int64_t>& queries, unsigned seed) {
  const std::vector<Storage> storages = {Storage::kF32, Storage::kF16, Storage::kInt8};
  const std::vector<int64_t> dims = {1, 31, 32, 33, 77, 384};
  const std::vector<int64_t> rows = {0, 1, -2, -1, 63, 64, 65, 2047, 2048, 2049};  // -2, -1: k - 1, k
  const std::vector<int64_t> ks = {1, 31, 32, 33, 256, 257, 4096};
  const std::vector<int64_t> tiles = {0, 1, 3};
  const std::vector<DeviceLimits> limits = {kLimitsSm80, kLimitsSm120};
  const auto count = [](const auto& list) { return static_cast<int>(list.size()); };
  const int rankings = shape == ScanShape::kPlain ? int{kRankingKinds} : int{kNegative};
  // Rows of which no screen leaves any out take the time: a long list of them has the fewest queries of the shape.
  const auto avoid = [&](const simt::Values& v) {
    if (v[3] < 0 || v[5] < 1) return false;
    const int64_t n = rows[static_cast<size_t>(v[3])];
    const bool large_k = v[4] >= 0 && ks[static_cast<size_t>(v[4])] > 33;
    return (n > 65 && (large_k || v[8] > kNormalRows)) || (n < 0 && large_k);
  };
  const auto cases = simt::pairwise({count(storages), 2, count(dims), count(rows), count(ks), count(queries), int{kFilterKinds},
                                     rankings, int{kRowKinds}, 2, 2, 3, count(tiles), count(limits)},
                                    avoid);
  for (const std::vector<int>& f : cases) {
    const auto pick = [&](const auto& list, int factor) { return list[static_cast<size_t>(f[static_cast<size_t>(factor)])]; };
    Case c;
    c.storage = pick(storages, 0);
    c.metric = f[1] == 0 ? Metric::kDot : Metric::kL2;
    c.dim = pick(dims, 2);
    c.k = pick(ks, 4);
    c.queries = pick(queries, 5);
    c.rows = {pick(rows, 3) < 0 ? c.k + pick(rows, 3) + 1 : pick(rows, 3)};
    c.filters = f[6];
    c.ranking = f[7];
    c.data = f[8];
    c.least = f[9] == 1;
    c.removed = f[10] == 1;
    if (f[11] > 0) c.rows = {c.rows[0], 5, 130};
    c.all_lists = f[11] != 2;
    if (!c.all_lists) c.queries *= 3;  // so that each list has as many
    c.choice.tile_pages = pick(tiles, 12);
    c.limits = pick(limits, 13);
    c.choice.shape = static_cast<int32_t>(shape);
    c.screen = shape != ScanShape::kPlain || seed % 2 == 0;
    c.seed = ++seed;
    check_case(c, kernel);
  }
  std::printf("     %zu cases of %s\n", cases.size(), kernel);
}

}  // namespace scan_cases
