// The kernels of k-means in the emulator: assignments and means equal, bit for bit, to plain loops and to the CPU core.
#include <random>

#include "../../csrc/cpu/kmeans.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "check.hpp"
#include "kmeans_cases.hpp"
#include "number_kinds.hpp"
#include "simt_pairwise.hpp"

namespace {

// Means by cluster, rows added in order.
std::vector<float> plain_update(const std::vector<float>& rows, int64_t n, int64_t dim, const std::vector<int32_t>& index,
                                std::vector<float> centroids, int64_t k, bool spherical) {
  for (int64_t c = 0; c < k; ++c) {
    std::vector<double> sum(static_cast<size_t>(dim), 0.0);
    std::vector<float> mean(static_cast<size_t>(dim));
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (index[static_cast<size_t>(i)] != c) continue;
      ++count;
      for (int64_t d = 0; d < dim; ++d)
        sum[static_cast<size_t>(d)] += static_cast<double>(rows[static_cast<size_t>(i * dim + d)]);
    }
    if (count == 0) continue;
    for (size_t d = 0; d < mean.size(); ++d) mean[d] = static_cast<float>(sum[d] / static_cast<double>(count));
    float* const to = centroids.data() + c * dim;
    if (spherical) {
      normalize_row(mean.data(), dim, to);
    } else {
      std::copy(mean.begin(), mean.end(), to);
    }
  }
  return centroids;
}

struct Updated {
  std::vector<float> centroids;
  std::vector<int64_t> sizes;
  bool operator==(const Updated& other) const {
    return sizes == other.sizes && centroids.size() == other.centroids.size() &&
           std::memcmp(centroids.data(), other.centroids.data(), centroids.size() * sizeof(float)) == 0;
  }
};

Updated update(const std::vector<float>& rows, int64_t n, int64_t dim, const std::vector<int32_t>& index,
               const std::vector<float>& centroids, int64_t k, bool spherical) {
  const UpdatePlan plan = plan_update(n, dim, k);
  return simt::run_twice([&](unsigned char fill) {
    Updated out{centroids, filled<int64_t>(k, fill)};
    std::vector<float> means = filled<float>(k * dim, fill);
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::UpdateArguments arguments;
    arguments.rows = rows.data();
    arguments.index = index.data();
    arguments.centroids = out.centroids.data();
    arguments.means = means.data();
    arguments.spherical = spherical;
    arguments.sizes = out.sizes.data();
    arguments.workspace = workspace.data;
    cuda::kmeans_update(plan, arguments, nullptr);
    return out;
  });
}

// Codes of the rows' subspaces, one row after another; rows begin `apart` elements into x.
std::vector<uint8_t> encode(const NearestPlan& plan, const std::vector<float>& x, size_t apart, const std::vector<float>& books,
                            unsigned char fill) {
  std::vector<uint8_t> out = filled<uint8_t>(plan.rows * plan.batches, fill);
  const Memory workspace(plan.workspace_bytes, fill);
  cuda::AssignArguments arguments;
  arguments.rows = x.data() + apart;
  arguments.row_stride = plan.dim * plan.batches;
  arguments.batch_step = plan.dim;
  arguments.centroids = books.data();
  arguments.codes = out.data();
  arguments.out_row = plan.batches;
  arguments.out_batch = 1;
  arguments.workspace = workspace.data;
  cuda::nearest(plan, arguments, nullptr);
  return out;
}

void check_codes(const std::vector<uint8_t>& codes, const NearestPlan& plan, const std::vector<float>& x, size_t apart,
                 const std::vector<float>& books) {
  const int64_t batches = plan.batches, dsub = plan.dim, k = plan.k;
  for (int64_t b = 0; plan.rows > 0 && b < batches; ++b) {
    const std::vector<float> part(x.begin() + static_cast<int64_t>(apart) + b * dsub, x.end());
    const std::vector<float> book(books.begin() + b * k * dsub, books.begin() + (b + 1) * k * dsub);
    const Assigned expected = exhaustive(part, plan.rows, dsub * batches, dsub, book, k, false);
    for (int64_t i = 0; i < plan.rows; ++i)
      CHECK_EQ(int{codes[static_cast<size_t>(i * batches + b)]}, expected.index[static_cast<size_t>(i)]);
  }
}

}  // namespace

TEST(assignments_are_exact) {
  const std::vector<int64_t> rows = {0, 1, -2, -1, 63, 64, 65, 150, 2047, 2048, 2049};  // -2, -1: k - 1, k
  const std::vector<int64_t> ks = {1, 2, 31, 32, 33, 63, 64, 65, 129, 256, 257, 4096};
  const std::vector<int64_t> dims = {1, 7, 15, 16, 33, 64, 130};
  const auto count_of = [&](int row, int k) {
    const int64_t n = rows[static_cast<size_t>(row)];
    return n < 0 ? ks[static_cast<size_t>(k)] + n + 1 : n;
  };
  const std::vector<int64_t> chunks = {0, 50};
  // Rows that only canonical values decide take the time: many of them have few centroids, and few rows
  // have thousands, which they meet in seven dimensions: in one, near ties are many.
  const auto avoid = [&](const simt::Values& v) {
    if (v[0] < 0 || v[1] < 0) return false;
    const int64_t work = count_of(v[0], v[1]) * ks[static_cast<size_t>(v[1])];
    // Tiles of halves are whole, whatever lies in them: many rows meet few centroids of few dimensions.
    if (v[5] >= 2 && v[2] >= 0) {
      const int64_t tile = nearest_tile(kScreens[static_cast<size_t>(v[5])]);
      const int64_t rows_padded = (count_of(v[0], v[1]) + tile - 1) / tile * tile;
      if (rows_padded * halves_columns(ks[static_cast<size_t>(v[1])]) * halves_dim(dims[static_cast<size_t>(v[2])]) > 40000000)
        return true;
    }
    return (v[3] > kNormal && work > 20000) || (v[2] != 1 && work > 600000);
  };
  const auto cases = simt::pairwise({11, 12, 7, int{kDataKinds}, 2, 5, 2, 2}, avoid);
  unsigned seed = 200;
  for (const std::vector<int>& f : cases) {
    const int64_t n = count_of(f[0], f[1]);
    const int64_t k = ks[static_cast<size_t>(f[1])];
    const int64_t dim = dims[static_cast<size_t>(f[2])];
    const bool inner = f[4] == 1;
    const int64_t stride = dim + (f[6] == 1 ? 3 : 0);
    const NearestScreen screen = kScreens[static_cast<size_t>(f[5])];
    const std::vector<float> x = numbers(f[3], std::max<int64_t>(0, n * stride - (stride - dim)), ++seed);
    std::vector<float> y = numbers(f[3], k * dim, ++seed);
    if (n > 0 && k > 2) std::copy_n(x.begin(), dim, y.begin() + dim);  // a row that is a centroid, twice
    if (n > 0 && k > 2) std::copy_n(x.begin(), dim, y.begin() + 2 * dim);
    const NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, screen, chunks[static_cast<size_t>(f[7])]);
    const std::string kernel = kernel_of(screen);
    const int64_t before = Machine::get().launches[kernel];
    const Assigned got = assign(plan, x, stride, y, inner);
    CHECK_EQ(Machine::get().launches[kernel] - before, 2 * ((n + plan.chunk_rows - 1) / plan.chunk_rows));
    const Assigned expected = exhaustive(x, n, stride, dim, y, k, inner);
    if (!(got == expected)) std::printf("seed %u, data %d: %s\n", seed, f[3], describe(plan).c_str());
    CHECK(got == expected);
    if (n > 0 && stride == dim) {
      Assigned cpu{std::vector<int32_t>(static_cast<size_t>(n)), std::vector<double>(static_cast<size_t>(n))};
      kmeans_assign(*find_op_kernels("auto"), x.data(), n, dim, y.data(), k, inner, 1, cpu.index.data(), cpu.values.data());
      CHECK(cpu == got);
    }
  }
  std::printf("     %zu cases\n", cases.size());
}

TEST(thousands_of_centroids_that_tie) {
  const std::vector<float> x = numbers(kLevels, 65 * 7, 290);
  const std::vector<float> y = numbers(kLevels, 4096 * 7, 291);
  for (const NearestScreen screen : {NearestScreen::kTiles4, NearestScreen::kTiles8, NearestScreen::kHalves64}) {
    for (const bool inner : {false, true})
      CHECK(assign(plan_nearest(65, 7, 4096, 1, kLimitsSm90, screen), x, 7, y, inner) == exhaustive(x, 65, 7, 7, y, 4096, inner));
  }
}

TEST(a_block_settles_a_row_as_a_warp_does) {
  // All centroids reach the limit; ties go to the smallest, whichever warp has it. Of 65 and of 96 centroids some warps have none.
  for (const int64_t k : {65, 96, 257, 600}) {
    const int64_t n = 40, dim = 260;
    const std::vector<float> x = numbers(kNormal, n * dim, 71);
    std::vector<float> y = numbers(kNormal, k * dim, 72);
    for (int64_t c = 3; c < k; ++c) std::copy_n(y.begin() + (c % 3) * dim, dim, y.begin() + c * dim);
    for (const bool inner : {false, true}) {
      const NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, NearestScreen::kTiles4);
      const int64_t before = Machine::get().launches["nearest_settle_block"];
      CHECK(assign(plan, x, dim, y, inner) == exhaustive(x, n, dim, dim, y, k, inner));
      CHECK_EQ(Machine::get().launches["nearest_settle_block"] - before, 2);
    }
  }
}

TEST(most_rows_need_no_settling) {
  // What a screen cannot decide is counted: on separated data it is little, on equal centroids everything.
  const std::vector<float> x = numbers(kNormal, 200 * 32, 1);
  std::vector<int32_t> index;
  for (const bool equal : {false, true}) {
    const std::vector<float> y = numbers(equal ? kEqual : kNormal, 40 * 32, 2);
    CHECK_EQ(int(plan_nearest(200, 32, 40, 1, kLimitsSm90).screen), int(NearestScreen::kTiles4));
    for (const NearestScreen screen : kScreens) {
      const cuda::NearestCounts counts = counts_of(plan_nearest(200, 32, 40, 1, kLimitsSm90, screen), x, y, &index);
      const bool halves = nearest_by_halves(screen);
      CHECK(equal ? (halves ? counts.many : counts.doubtful) == 200 : counts.doubtful + counts.few < 10 && counts.many == 0);
      if (equal) CHECK(counts.few == 0 && std::count(index.begin(), index.end(), 0) == 200);
    }
  }
}

TEST(blocks_take_tiles_in_strides) {
  // A tile of rows comes while the last centroids pass the one before: in one step of dimensions, or in five.
  const int64_t n = 300, k = 70;
  for (const int64_t dim : {20, 130}) {
    const std::vector<float> x = numbers(kLevels, n * dim, 6);
    const std::vector<float> y = numbers(kLevels, k * dim, 7);
    for (const NearestScreen screen : kScreens) {
      NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, screen);
      plan.screen_blocks = 1;
      plan.settle_blocks = 2;
      plan.few_blocks = 1;
      plan.again_blocks = 1;
      CHECK(assign(plan, x, dim, y, false) == exhaustive(x, n, dim, dim, y, k, false));
    }
  }
}

TEST(batches_are_separate_searches) {
  // Three to 40 subspaces; codes are bytes, one row after another. Of 16 centroids and 4 or 8 dimensions they are kept in registers.
  const std::vector<int64_t> rows = {0, 1, 63, 64, 65, 150};
  const std::vector<int64_t> dims = {4, 5, 8};
  const std::vector<int64_t> batch_counts = {2, 3, 33};
  unsigned seed = 400;
  for (const std::vector<int>& f : simt::pairwise({6, 3, 3, int{kDataKinds}, 2, 2}, [](const simt::Values&) { return false; })) {
    const int64_t n = rows[static_cast<size_t>(f[0])];
    const int64_t dsub = dims[static_cast<size_t>(f[1])];
    const int64_t batches = batch_counts[static_cast<size_t>(f[2])];
    constexpr int64_t k = 16;
    const auto apart = static_cast<size_t>(f[4]);  // rows that are aligned to 16 bytes, or not
    const std::vector<float> x = numbers(f[3], n * dsub * batches + 1, ++seed);
    const std::vector<float> books = numbers(f[3], batches * k * dsub, ++seed);
    NearestPlan plan = plan_nearest(n, dsub, k, batches, kLimitsSm90, NearestScreen::kChosen, f[5] == 1 ? 32 : 0);
    const NearestScreen expected_screen = dsub == 4   ? NearestScreen::kRegisters4
                                          : dsub == 8 ? NearestScreen::kRegisters8
                                                      : NearestScreen::kTiles4;
    CHECK_EQ(int(plan.screen), int(expected_screen));
    if (dsub != 5) plan.screen_blocks = std::min<int64_t>(plan.screen_blocks, 3);  // rows in strides
    const int64_t before = Machine::get().launches[kernel_of(plan.screen)];
    const auto codes = simt::run_twice([&](unsigned char fill) { return encode(plan, x, apart, books, fill); });
    CHECK_EQ(Machine::get().launches[kernel_of(plan.screen)] - before, 2 * ((n + plan.chunk_rows - 1) / plan.chunk_rows));
    check_codes(codes, plan, x, apart, books);
  }
}

TEST(scores_that_are_no_normal_numbers_are_told_apart) {
  // The low bits that say whose a score is weigh more than what a score of some 1e-43 differs by.
  constexpr int64_t dsub = 4, batches = 2, k = 16, n = 1000;
  std::mt19937 random(18 * 100 + dsub);
  std::normal_distribution<float> normal;
  std::vector<float> x(n * dsub * batches);
  std::vector<float> books(batches * k * dsub);
  for (float& value : x) value = normal(random) * 3e-22f;
  for (float& value : books) value = normal(random) * 3e-22f;
  const NearestPlan plan = plan_nearest(n, dsub, k, batches, kLimitsSm90);
  CHECK_EQ(int(plan.screen), int(NearestScreen::kRegisters4));
  check_codes(encode(plan, x, 0, books, 0xff), plan, x, 0, books);
}

TEST(means_add_rows_in_order) {
  const std::vector<int64_t> rows = {0, 1, -2, -1, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 2500};  // as above
  const std::vector<int64_t> ks = {1, 3, 31, 32, 33, 200, 256, 257, 4096};
  const std::vector<int64_t> dims = {1, 20, 129};
  const auto avoid = [](const simt::Values& v) { return v[1] == 8 && v[2] == 2; };  // sums of 4,096 rows of 129 elements
  const auto cases = simt::pairwise({17, 9, 3, int{kDataKinds}, 2, 3}, avoid);
  unsigned seed = 300;
  for (const std::vector<int>& f : cases) {
    const int64_t k = ks[static_cast<size_t>(f[1])];
    const int64_t picked = rows[static_cast<size_t>(f[0])];
    const int64_t n = picked < 0 ? k + picked + 1 : picked;
    const int64_t dim = dims[static_cast<size_t>(f[2])];
    const bool spherical = f[4] == 1;
    const std::vector<float> x = numbers(f[3], n * dim, ++seed);
    const std::vector<float> centroids = numbers(kNormal, k * dim, ++seed);
    std::vector<int32_t> index(static_cast<size_t>(n));
    std::mt19937 random(seed);
    for (int32_t& c : index) {
      c = static_cast<int32_t>(random() % static_cast<unsigned>(k));
      if (f[5] == 1) c = static_cast<int32_t>(k - 1);  // one cluster has all
      if (f[5] == 2) c /= 2;                           // half of them are empty
    }
    const Updated got = update(x, n, dim, index, centroids, k, spherical);
    Updated expected{plain_update(x, n, dim, index, centroids, k, spherical), std::vector<int64_t>(static_cast<size_t>(k))};
    for (const int32_t c : index) ++expected.sizes[static_cast<size_t>(c)];
    CHECK(got == expected);
  }
  std::printf("     %zu cases\n", cases.size());
}

TEST(plans_fit_every_device) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{1000000}, int64_t{3000000000}}) {
      for (const int64_t k : {1, 16, 256, 65536}) {
        for (const int64_t batches : {1, 96, 4096}) {
          for (const int64_t dim : {8, 768, 1536, 4096}) {
            const NearestPlan plan = plan_nearest(n, dim, k, batches, limits);
            CHECK(plan.shared_bytes <= (nearest_by_halves(plan.screen) ? limits.shared_per_block : 48 * 1024));
            CHECK(plan.chunk_rows * batches <= 2 * kNearestEntries);
            CHECK(plan.workspace_bytes < (int64_t{1} << 31) + 8 * k * batches + (batches == 1 ? 2 * k * halves_dim(dim) : 0));
            if (nearest_by_halves(plan.screen) && plan.chunk_rows < n)
              CHECK(rounded_bytes(plan.chunk_rows, dim) < 2 * kRoundedBytes && plan.chunk_rows % kHalvesRows == 0);
            if (n > 0) CHECK(plan.screen_blocks > 0 && plan.settle_blocks > 0);
            if (nearest_by_halves(plan.screen)) CHECK(batches == 1 && plan.again_blocks > 0);
          }
        }
      }
    }
  }
  CHECK_EQ(describe(plan_nearest(1000000, 768, 1024, 1, kLimitsSm90)),
           "nearest of 1024 centroids: 1000000 rows in chunks of 168960, 1 batches, halves, tiles of 128, 132 blocks");
  // What a multiprocessor has room for, and a few rows for all multiprocessors.
  CHECK_EQ(int(choose_halves(1000000, 768, kLimitsSm80)), int(NearestScreen::kHalves64));
  CHECK_EQ(int(choose_halves(1000000, 1536, kLimitsSm90)), int(NearestScreen::kHalves64));
  CHECK_EQ(int(choose_halves(1000000, 768, kLimitsSm120)), int(NearestScreen::kHalves32));
  CHECK_EQ(int(choose_halves(8000, 768, kLimitsSm90)), int(NearestScreen::kHalves64));
  CHECK_EQ(int(choose_halves(4000, 768, kLimitsSm90)), int(NearestScreen::kHalves32));
  CHECK_EQ(int(choose_halves(1000000, 4096, kLimitsSm90)), int(NearestScreen::kTiles8));
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
