// The screen of the nearest centroid by halves in the emulator: its bound, its lists, its rows.
#include <random>

#include "check.hpp"
#include "kmeans_cases.hpp"
#include "number_kinds.hpp"

TEST(halves_leave_few_candidates_to_canonical_values) {
  // Centroids in groups that half precision cannot tell apart: of so many each row has to be compared. Lanes have two candidates and a third score, rows
  // eight candidates; beyond that rows are settled, or, where they are many, screened in float32.
  const int64_t n = 1100, dim = 40;
  std::vector<int32_t> index;
  for (const int64_t group : {1, 2, 8, 9}) {
    const int64_t k = 12 * group;
    const std::vector<float> x = numbers(kNormal, n * dim, 21);
    std::vector<float> y = numbers(kNormal, k * dim, 22);
    for (int64_t c = 0; c < k; ++c) {
      const int64_t like = c % 12;  // its group's first: the others are far off, in other lanes
      for (int64_t d = 0; d < dim; ++d) {
        const float near = y[static_cast<size_t>(like * dim + d)];
        if (c >= 12) y[static_cast<size_t>(c * dim + d)] = near * (1.0f + 1e-6f * static_cast<float>((c * 7 + d * 3) % 5));
      }
    }
    for (const int64_t rows : {int64_t{300}, n}) {
      const std::vector<float> some(x.begin(), x.begin() + rows * dim);
      const NearestPlan plan = plan_nearest(rows, dim, k, 1, kLimitsSm90, NearestScreen::kHalves64);
      const cuda::NearestCounts counts = counts_of(plan, some, y, &index);
      CHECK(index == exhaustive(some, rows, dim, dim, y, k, false).index);
      const auto all = static_cast<uint64_t>(rows);
      if (group == 1) CHECK(counts.few < all / 20 && counts.many == 0);
      if (group == 2) CHECK(counts.few > all * 9 / 10);
      if (group == 9) CHECK(counts.many > all * 9 / 10);
      CHECK(counts.many <= uint64_t{kHalvesSettled} ? counts.doubtful == 0 : counts.doubtful > all / 2);
    }
  }
}

TEST(rows_with_too_many_candidates_are_screened_again) {
  // Equal centroids leave all rows in doubt: 1,100 of one chunk, 100 of the next, which are settled at once. Rows lie apart; largest product or least distance.
  const int64_t n = 1200, dim = 40, k = 33, stride = dim + 3;
  const std::vector<float> x = numbers(kNormal, n * stride, 31);
  std::vector<float> y = numbers(kNormal, k * dim, 32);
  for (int64_t c = 10; c < k; ++c) std::copy_n(y.begin(), dim, y.begin() + c * dim);
  for (const bool inner : {false, true}) {
    for (const NearestScreen screen : {NearestScreen::kHalves32, NearestScreen::kHalves128}) {
      const NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, screen, 1100);
      CHECK(assign(plan, x, stride, y, inner) == exhaustive(x, n, stride, dim, y, k, inner));
    }
  }
}

TEST(the_margin_of_halves_is_no_smaller_than_what_they_err) {
  // Half precision takes from every element of the best centroid almost half a unit, and gives the others as much: it ranks that one last.
  constexpr float kUnit = 9.765625e-4f;
  for (const int64_t dim : {64, 200}) {
    std::vector<float> x(static_cast<size_t>(64 * dim));
    std::vector<float> y(static_cast<size_t>(33 * dim));
    std::mt19937 random(23);
    for (float& value : x) value = 1.3f + 1e-5f * static_cast<float>(random() % 100);
    for (size_t at = 0; at < y.size(); ++at) {
      const float half_of_them = random() % 2 == 0 ? 0.51f * kUnit : 0.0f;
      y[at] = 1.0f + (at / static_cast<size_t>(dim) == 20 ? 0.49f * kUnit : half_of_them);
    }
    for (const bool inner : {false, true}) {
      const Assigned expected = exhaustive(x, 64, dim, dim, y, 33, inner);
      CHECK(std::count(expected.index.begin(), expected.index.end(), 20) == 64);
      for (const NearestScreen screen : {NearestScreen::kHalves32, NearestScreen::kHalves64, NearestScreen::kHalves128})
        CHECK(assign(plan_nearest(64, dim, 33, 1, kLimitsSm90, screen), x, dim, y, inner) == expected);
    }
  }
}

TEST(sums_that_hardware_truncates_err_by_less_than_the_bound_says) {
  // One large product, and thousands of others just below the unit of its sum: truncation takes all of them. Rounded additions would err by half as much.
  constexpr int kDepth = 4096;
  std::vector<uint32_t> x(kDepth, float_to_half(0x1.f8p-12f));
  std::vector<uint32_t> y(kDepth, float_to_half(0x1p-12f));
  x[0] = y[0] = float_to_half(1.0f);
  double exact = 0.0, of_x = 0.0, of_y = 0.0;
  for (size_t i = 0; i < kDepth; ++i) {
    const double a = static_cast<double>(half_to_float(static_cast<uint16_t>(x[i])));
    const double b = static_cast<double>(half_to_float(static_cast<uint16_t>(y[i])));
    exact += a * b;
    of_x += a * a;
    of_y += b * b;
  }
  const double lengths = std::sqrt(of_x) * std::sqrt(of_y);
  for (const int adder : {4, 8, 16}) {
    float sums[4] = {};
    Machine::get().settings.adder = adder;
    Machine::get().launch("probe", 1, 32, 0, [&] {
      float d[4] = {};
      const auto at = static_cast<size_t>(2 * (cuda::lane_index() % 4));
      for (size_t first = at; first < kDepth; first += 16) {  // all rows are x, all columns y
        const auto pair = [&](const std::vector<uint32_t>& from, size_t i) { return from[i] | from[i + 1] << 16; };
        cuda::mma_f16(d, {pair(x, first), pair(x, first), pair(x, first + 8), pair(x, first + 8)},
                      {pair(y, first), pair(y, first + 8)});
      }
      if (cuda::lane_index() == 0) std::memcpy(sums, d, sizeof d);
    });
    Machine::get().settings.adder = 0;
    for (const float sum : sums) {
      const double error = exact - static_cast<double>(sum);
      CHECK(error > (kDepth + 4) * 5.9604644775390625e-08 * lengths);
      CHECK(error < cuda::halves_sums_error(kDepth) * lengths);
    }
  }
}

TEST(truncated_sums_leave_assignments_exact) {
  const int64_t n = 64, dim = 200, k = 260;
  for (const int kind : {kNormal, kLevels, kHuge}) {
    const std::vector<float> x = numbers(kind, n * dim, 51);
    std::vector<float> y = numbers(kind, k * dim, 52);
    for (int64_t d = 0; d < dim; ++d) y[static_cast<size_t>(7 * dim + d)] = x[static_cast<size_t>(d)] * 1.0001f;
    for (const bool inner : {false, true}) {
      Machine::get().settings.adder = 4;
      const NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, NearestScreen::kHalves64);
      std::vector<int32_t> index;
      static_cast<void>(counts_of(plan, x, y, &index, inner));
      Machine::get().settings.adder = 0;
      CHECK(index == exhaustive(x, n, dim, dim, y, k, inner).index);
    }
  }
}

TEST(rows_may_be_rounded_before) {
  // Once for pieces of them, the last of which ends in the middle of a tile. Of 770 dimensions the last are read twice.
  for (const int64_t dim : {40, 770}) {
    const int64_t n = 300, k = 40, stride = dim + 2;
    const std::vector<float> x = numbers(kNormal, n * stride, 61);
    const std::vector<float> y = numbers(kNormal, k * dim, 62);
    const std::vector<int32_t> found = simt::run_twice([&](unsigned char fill) {
      const Memory memory(rounded_bytes(n, dim), fill);
      const cuda::RoundedRows rounded(memory.data, n, dim);
      cuda::round_rows(x.data(), stride, n, dim, rounded, nullptr);
      std::vector<int32_t> index = filled<int32_t>(n, fill);
      const int64_t before = Machine::get().launches["nearest_round_rows"];
      for (const int64_t first : {0, 128}) {
        const int64_t rows = first == 0 ? 128 : n - 128;
        const NearestPlan plan = plan_nearest(rows, dim, k, 1, kLimitsSm90, NearestScreen::kHalves64, 0, true);
        const Memory workspace(plan.workspace_bytes, fill);
        cuda::AssignArguments arguments;
        arguments.rows = x.data() + first * stride;
        arguments.row_stride = stride;
        arguments.centroids = y.data();
        arguments.index = index.data() + first;
        arguments.rounded = rounded.from(first, dim);
        arguments.workspace = workspace.data;
        cuda::nearest(plan, arguments, nullptr);
      }
      CHECK_EQ(Machine::get().launches["nearest_round_rows"], before);
      return index;
    });
    CHECK(found == exhaustive(x, n, stride, dim, y, k, false).index);
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
