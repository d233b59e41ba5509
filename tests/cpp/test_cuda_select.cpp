// select_k's kernels in the emulator: equal, bit for bit, to a sort and to the CPU core; every variant forced, over the named edges, pairwise.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/select_k.hpp"
#include "../../csrc/cuda/select_k.cu"
#include "check.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using simt::Machine;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum Data { kNormal, kEqual, kLevels, kSignedZeros, kDenormal, kAscending, kDescending, kInfinite, kDataKinds };
enum Ordinals { kNoOrdinals, kDistinct, kRepeated, kOrdinalKinds };

std::vector<float> scores_of(int data, int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    float& x = out[static_cast<size_t>(i)];
    const auto r = static_cast<uint32_t>(random());
    if (data == kNormal) x = normal(random);
    if (data == kEqual) x = 0.25f;
    if (data == kLevels) x = static_cast<float>(r % 5) - 2.0f;
    if (data == kSignedZeros) x = r % 2 == 0 ? 0.0f : -0.0f;
    if (data == kDenormal) x = static_cast<float>(static_cast<int>(r % 7) - 3) * std::numeric_limits<float>::denorm_min();
    if (data == kAscending) x = static_cast<float>(i) * 0.5f;
    if (data == kDescending) x = static_cast<float>(-i);
    if (data == kInfinite) x = r % 3 == 0 ? kInfinity : r % 3 == 1 ? -kInfinity : normal(random);
  }
  return out;
}

struct Result {
  std::vector<float> values;
  std::vector<int64_t> indexes;
  uint64_t bad_row = 0;
  bool operator==(const Result& other) const {
    return values.size() == other.values.size() && bad_row == other.bad_row && indexes == other.indexes &&
           (values.empty() || std::memcmp(values.data(), other.values.data(), values.size() * sizeof(float)) == 0);
  }
};

struct Case {
  int64_t rows = 1;
  int64_t columns = 0;
  int64_t k = 1;
  int64_t padding = 0;
  std::vector<float> scores;
  std::vector<uint32_t> ordinals;
};

Case make_case(int64_t rows, int64_t columns, int64_t k, int64_t padding, int data, int ordinals, unsigned seed) {
  Case c{rows, columns, k, padding, {}, {}};
  const std::vector<float> dense = scores_of(data, rows * columns, seed);
  const int64_t stride = columns + padding;
  // The last row has no padding: reading behind it is an error that the sanitizer sees; padding that is read is a NaN that would be reported.
  c.scores.assign(static_cast<size_t>(rows * stride - padding), std::nanf(""));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(dense.data() + r * columns, columns, c.scores.data() + r * stride);
  if (ordinals != kNoOrdinals) {
    std::mt19937 random(seed + 1);
    c.ordinals.resize(static_cast<size_t>(columns));
    for (int64_t i = 0; i < columns; ++i)
      c.ordinals[static_cast<size_t>(i)] = ordinals == kDistinct ? static_cast<uint32_t>(0xffffffffu - i * 3) : random() % 4;
    if (ordinals == kDistinct) std::shuffle(c.ordinals.begin(), c.ordinals.end(), random);
  }
  return c;
}

Result run(const Case& c, const SelectPlan& plan) {
  return simt::run_twice([&](unsigned char fill) {
    Result result;
    result.values.resize(static_cast<size_t>(c.rows * c.k));
    result.indexes.resize(static_cast<size_t>(c.rows * c.k));
    std::vector<unsigned char> workspace(static_cast<size_t>(plan.workspace_bytes), fill);
    if (!result.values.empty()) {
      std::memset(result.values.data(), fill, result.values.size() * sizeof(float));
      std::memset(result.indexes.data(), fill, result.indexes.size() * sizeof(int64_t));
    }
    cuda::SelectArguments arguments;
    arguments.scores = c.scores.data();
    arguments.row_stride = c.columns + c.padding;
    arguments.ordinals = c.ordinals.empty() ? nullptr : c.ordinals.data();
    arguments.values = result.values.data();
    arguments.indexes = result.indexes.data();
    arguments.bad_row = &result.bad_row;
    arguments.workspace = workspace.data();
    cuda::select_k(plan, arguments, nullptr);
    return result;
  });
}

// By sorting: shares no code with the kernels.
Result sorted(const Case& c) {
  Result out;
  out.bad_row = UINT64_MAX;
  for (int64_t r = 0; r < c.rows; ++r) {
    std::vector<std::tuple<double, uint32_t, int64_t>> all;
    for (int64_t i = 0; i < c.columns; ++i) {
      const double score = c.scores[static_cast<size_t>(r * (c.columns + c.padding) + i)];
      all.emplace_back(-score, c.ordinals.empty() ? 0 : c.ordinals[static_cast<size_t>(i)], i);
    }
    std::sort(all.begin(), all.end());
    for (int64_t i = 0; i < c.k; ++i) {
      const bool there = i < c.columns;
      out.values.push_back(there ? static_cast<float>(-std::get<0>(all[static_cast<size_t>(i)])) + 0.0f : -kInfinity);
      out.indexes.push_back(there ? std::get<2>(all[static_cast<size_t>(i)]) : -1);
    }
  }
  return out;
}

Result on_cpu(const Case& c) {
  Result out;
  std::vector<float> dense;
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* const row = c.scores.data() + r * (c.columns + c.padding);
    dense.insert(dense.end(), row, row + c.columns);
  }
  out.values.resize(static_cast<size_t>(c.rows * c.k));
  out.indexes.resize(static_cast<size_t>(c.rows * c.k));
  const int64_t bad = select_k(*find_op_kernels("auto"), dense.data(), c.rows, c.columns, c.k,
                               c.ordinals.empty() ? nullptr : c.ordinals.data(), 1, out.values.data(), out.indexes.data());
  out.bad_row = static_cast<uint64_t>(bad);
  return out;
}

void check_variant(SelectVariant variant, const std::vector<int64_t>& ks) {
  const std::vector<int64_t> rows = {1, 2, 11};
  const std::vector<int64_t> columns = {0, 1, -2, -1, -3, 63, 64, 65, 2047, 2048, 2049, 5003};  // -2, -1, -3: k - 1, k, k + 1
  const std::vector<int64_t> parts = {0, 1, 3};
  const std::vector<int64_t> paddings = {0, 5};
  const std::vector<int32_t> warps = {1, 8};
  const std::vector<DeviceLimits> limits = {kLimitsSm80, kLimitsSm120};
  const std::string kernel = std::string("select_") + select_variant_name(variant);
  const auto count = [](const auto& list) { return static_cast<int>(list.size()); };
  const auto cases = simt::pairwise({count(ks), count(columns), count(rows), int{kDataKinds}, int{kOrdinalKinds}, count(parts),
                                     count(paddings), count(warps), count(limits)});
  unsigned seed = 100;
  for (const std::vector<int>& f : cases) {
    const auto pick = [&](const auto& list, int factor) { return list[static_cast<size_t>(f[static_cast<size_t>(factor)])]; };
    const int64_t k = pick(ks, 0);
    int64_t n = pick(columns, 1);
    if (n < 0) n = k + (n == -2 ? -1 : n == -1 ? 0 : 1);
    const Case c = make_case(pick(rows, 2), n, k, pick(paddings, 6), f[3], f[4], ++seed);
    SelectChoice choice;
    choice.variant = static_cast<int32_t>(variant);
    choice.parts = pick(parts, 5);
    choice.warps_per_unit = pick(warps, 7);
    const bool ordered = f[4] != kNoOrdinals;
    const SelectPlan plan = plan_select_k(c.rows, n, k, ordered, pick(limits, 8), choice);
    const int64_t before = Machine::get().launches[kernel];
    const Result got = run(c, plan);
    CHECK_EQ(Machine::get().launches[kernel] - before, plan.second.blocks > 0 ? 4 : 2);  // run twice
    if (choice.parts == 3 && n > 3) CHECK_EQ(plan.first.parts, 3);
    Result expected = sorted(c);
    if (!(got == expected)) std::printf("seed %u: %s\n", seed, describe(plan).c_str());
    CHECK(got == expected);
    if (n > 0) CHECK(on_cpu(c) == expected);
  }
  std::printf("     %zu cases of %s\n", cases.size(), kernel.c_str());
}

}  // namespace

TEST(warp_selects) { check_variant(SelectVariant::kWarp, {1, 2, 31, 32}); }
TEST(queue_selects) { check_variant(SelectVariant::kQueue, {1, 32, 33, 255, 256}); }
TEST(radix_selects) { check_variant(SelectVariant::kRadix, {1, 33, 257, 1024, 4096}); }

TEST(plans_choose_by_k_and_shape) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    for (const int64_t k : {1, 32, 33, 256, 257, 4096}) {
      for (const int64_t rows : {0, 1, 7, 5000, 1 << 20}) {
        for (const int64_t columns : {int64_t{0}, int64_t{1}, int64_t{2048}, int64_t{1000000}, kSelectMaxColumns}) {
          for (const bool ordered : {false, true}) {
            const SelectPlan plan = plan_select_k(rows, columns, k, ordered, limits);
            CHECK(plan.first.variant == (k <= 32    ? SelectVariant::kWarp
                                         : k <= 256 ? SelectVariant::kQueue
                                                    : SelectVariant::kRadix));
            for (const SelectStage* stage : {&plan.first, &plan.second}) {
              CHECK(stage->shared_bytes <= limits.shared_per_block);
              CHECK(stage->blocks >= (stage == &plan.first && rows > 0 ? 1 : 0));
              CHECK(stage->blocks <= 8 * resident_blocks(limits, 256, 0));
              if (stage->blocks == 0) continue;
              CHECK(stage->part_items * stage->parts >= stage->items);
              CHECK(stage->part_items * (stage->parts - 1) < std::max<int64_t>(stage->items, 1));
              if (stage->variant == SelectVariant::kQueue) CHECK(stage->capacity >= k + kSelectThreads * kSelectUnroll);
              if (stage->variant == SelectVariant::kRadix) CHECK(stage->capacity >= k);
              CHECK((stage->capacity & (stage->capacity - 1)) == 0);
            }
            CHECK_EQ(plan.second.blocks > 0, plan.first.parts > 1 && rows > 0);
          }
        }
      }
    }
    // One row of a million fills the device; many rows are not cut.
    CHECK(plan_select_k(1, 1000000, 100, false, limits).first.parts > 32);
    CHECK_EQ(plan_select_k(100000, 1000000, 100, false, limits).first.parts, 1);
  }
  CHECK_EQ(
      describe(plan_select_k(1, 100000, 10, false, kLimitsSm90)),
      "select_k 10 of 100000 in 1 rows; warp: 6 parts of 17408, 6 blocks of 256 threads, 2304 bytes shared; then warp: 1 parts "
      "of 60, 1 blocks of 256 threads, 2304 bytes shared");
}

TEST(the_plan_of_the_device_runs) {
  // Without any force: parts, a second launch and the thresholds that parts share.
  for (const int64_t k : {10, 100, 300}) {
    const Case c = make_case(2, 50000, k, 0, kNormal, kNoOrdinals, 9);
    const SelectPlan plan = plan_select_k(c.rows, c.columns, k, false, kLimitsSm90);
    CHECK(plan.second.blocks > 0);
    CHECK(run(c, plan) == sorted(c));
  }
}

TEST(rows_beyond_the_grid_are_taken_in_strides) {
  const Case c = make_case(300, 40, 5, 0, kLevels, kNoOrdinals, 10);
  SelectPlan plan = plan_select_k(c.rows, c.columns, c.k, false, kLimitsSm90);
  for (const int64_t blocks : {1, 7, 38}) {
    plan.first.blocks = blocks;
    CHECK(run(c, plan) == sorted(c));
  }
}

TEST(the_first_row_with_nan_is_reported) {
  for (const int64_t k : {5, 100, 300}) {
    for (const int64_t parts : {1, 3}) {
      for (const int64_t at : {0, 1024, 2999}) {
        Case c = make_case(4, 3000, k, 0, kNormal, kNoOrdinals, 11);
        c.scores[static_cast<size_t>(2 * 3000 + at)] = std::nanf("");
        c.scores[static_cast<size_t>(3 * 3000 + 1)] = -std::nanf("");
        SelectChoice choice;
        choice.parts = parts;
        const SelectPlan plan = plan_select_k(4, 3000, k, false, kLimitsSm90, choice);
        CHECK_EQ(run(c, plan).bad_row, 2u);
        CHECK_EQ(on_cpu(c).bad_row, 2u);
      }
    }
  }
}

TEST(no_rows_are_no_work) {
  const Case c{0, 10, 3, 0, {}, {}};
  CHECK_EQ(run(c, plan_select_k(0, 10, 3, false, kLimitsSm90)).bad_row, UINT64_MAX);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
