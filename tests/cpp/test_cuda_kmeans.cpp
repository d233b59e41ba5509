// The kernels of k-means in the emulator: assignments and means equal, bit for bit, to plain loops and to the CPU core.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "../../csrc/core/score.hpp"
#include "../../csrc/cpu/kmeans.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cuda/kmeans.cu"
#include "check.hpp"
#include "number_kinds.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using simt::Machine;

namespace {

template <typename T>
std::vector<T> filled(int64_t n, unsigned char fill) {
  std::vector<T> out(static_cast<size_t>(n));
  if (n > 0) std::memset(static_cast<void*>(out.data()), fill, out.size() * sizeof(T));
  return out;
}

// Workspaces are aligned to 16 bytes and exactly as large as planned: the sanitizer sees a byte too many.
struct Memory {
  Memory(int64_t bytes, unsigned char fill) : data(static_cast<unsigned char*>(::operator new(static_cast<size_t>(bytes)))) {
    std::memset(data, fill, static_cast<size_t>(bytes));
  }
  ~Memory() { ::operator delete(data); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  unsigned char* data;
};

struct Assigned {
  std::vector<int32_t> index;
  std::vector<double> values;
  bool operator==(const Assigned& other) const {
    return index == other.index && values.size() == other.values.size() &&
           (values.empty() || std::memcmp(values.data(), other.values.data(), values.size() * 8) == 0);
  }
};

Assigned assign(const NearestPlan& plan, const std::vector<float>& rows, int64_t stride, const std::vector<float>& centroids,
                bool inner) {
  return simt::run_twice([&](unsigned char fill) {
    Assigned out{filled<int32_t>(plan.rows, fill), filled<double>(plan.rows, fill)};
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::AssignArguments arguments;
    arguments.rows = rows.data();
    arguments.row_stride = stride;
    arguments.centroids = centroids.data();
    arguments.inner = inner;
    arguments.index = out.index.data();
    arguments.values = out.values.data();
    arguments.workspace = workspace.data;
    cuda::nearest(plan, arguments, nullptr);
    return out;
  });
}

// Every pair compared by its canonical value.
Assigned exhaustive(const std::vector<float>& rows, int64_t n, int64_t stride, int64_t dim, const std::vector<float>& centroids,
                    int64_t k, bool inner) {
  Assigned out;
  for (int64_t i = 0; i < n; ++i) {
    int32_t best = 0;
    double best_value = 0.0;
    for (int64_t c = 0; c < k; ++c) {
      const float* const x = rows.data() + i * stride;
      const float* const y = centroids.data() + c * dim;
      const double value = inner ? dot_f64(x, y, dim) : squared_distance_f64(x, y, dim);
      if (c == 0 || (inner ? value > best_value : value < best_value)) {
        best = static_cast<int32_t>(c);
        best_value = value;
      }
    }
    out.index.push_back(best);
    out.values.push_back(best_value);
  }
  return out;
}

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

}  // namespace

TEST(assignments_are_exact) {
  const std::vector<int64_t> rows = {0, 1, -2, -1, 63, 64, 65, 150, 2047, 2048, 2049};  // -2, -1: k - 1, k
  const std::vector<int64_t> ks = {1, 2, 31, 32, 33, 63, 64, 65, 129, 256, 257, 4096};
  const std::vector<int64_t> dims = {1, 7, 15, 16, 33, 64};
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
    return (v[3] > kNormal && work > 20000) || (v[2] != 1 && work > 600000);
  };
  const auto cases = simt::pairwise({11, 12, 6, int{kDataKinds}, 2, 2, 2, 2}, avoid);
  unsigned seed = 200;
  for (const std::vector<int>& f : cases) {
    const int64_t n = count_of(f[0], f[1]);
    const int64_t k = ks[static_cast<size_t>(f[1])];
    const int64_t dim = dims[static_cast<size_t>(f[2])];
    const bool inner = f[4] == 1;
    const int64_t stride = dim + (f[6] == 1 ? 3 : 0);
    const int32_t per = f[5] == 1 ? 8 : 4;
    const std::vector<float> x = numbers(f[3], std::max<int64_t>(0, n * stride - (stride - dim)), ++seed);
    std::vector<float> y = numbers(f[3], k * dim, ++seed);
    if (n > 0 && k > 2) std::copy_n(x.begin(), dim, y.begin() + dim);  // a row that is a centroid, twice
    if (n > 0 && k > 2) std::copy_n(x.begin(), dim, y.begin() + 2 * dim);
    const NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, per, chunks[static_cast<size_t>(f[7])]);
    const std::string kernel = "nearest_screen_" + std::to_string(per);
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
  for (const int32_t per : {4, 8}) {
    for (const bool inner : {false, true})
      CHECK(assign(plan_nearest(65, 7, 4096, 1, kLimitsSm90, per), x, 7, y, inner) == exhaustive(x, 65, 7, 7, y, 4096, inner));
  }
}

TEST(most_rows_need_no_settling) {
  // What the screen cannot decide is counted: on separated data it is little, on equal centroids everything.
  const std::vector<float> x = numbers(kNormal, 200 * 32, 1);
  for (const bool equal : {false, true}) {
    const std::vector<float> y = numbers(equal ? kEqual : kNormal, 40 * 32, 2);
    const NearestPlan plan = plan_nearest(200, 32, 40, 1, kLimitsSm90);
    const Memory workspace(plan.workspace_bytes, 0xff);
    std::vector<int32_t> index(200);
    cuda::AssignArguments arguments;
    arguments.rows = x.data();
    arguments.row_stride = 32;
    arguments.centroids = y.data();
    arguments.index = index.data();
    arguments.workspace = workspace.data;
    cuda::nearest(plan, arguments, nullptr);
    uint64_t doubtful = 0;
    std::memcpy(&doubtful, workspace.data, 8);
    CHECK(equal ? doubtful == 200 : doubtful < 10);
    if (equal) CHECK(std::count(index.begin(), index.end(), 0) == 200);
  }
}

TEST(blocks_take_tiles_in_strides) {
  const int64_t n = 300, dim = 20, k = 70;
  const std::vector<float> x = numbers(kLevels, n * dim, 6);
  const std::vector<float> y = numbers(kLevels, k * dim, 7);
  for (const int32_t per : {4, 8}) {
    NearestPlan plan = plan_nearest(n, dim, k, 1, kLimitsSm90, per);
    plan.screen_blocks = 1;
    plan.settle_blocks = 2;
    CHECK(assign(plan, x, dim, y, false) == exhaustive(x, n, dim, dim, y, k, false));
  }
}

TEST(batches_are_separate_searches) {
  // Three subspaces of 5 dimensions; codes are bytes, one row after another.
  const int64_t n = 70, dsub = 5, k = 16, batches = 3;
  const std::vector<float> rows = numbers(kNormal, n * dsub * batches, 3);
  const std::vector<float> books = numbers(kNormal, batches * k * dsub, 4);
  const NearestPlan plan = plan_nearest(n, dsub, k, batches, kLimitsSm90, 0, 32);
  const auto codes = simt::run_twice([&](unsigned char fill) {
    std::vector<uint8_t> out = filled<uint8_t>(n * batches, fill);
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::AssignArguments arguments;
    arguments.rows = rows.data();
    arguments.row_stride = dsub * batches;
    arguments.batch_step = dsub;
    arguments.centroids = books.data();
    arguments.codes = out.data();
    arguments.out_row = batches;
    arguments.out_batch = 1;
    arguments.workspace = workspace.data;
    cuda::nearest(plan, arguments, nullptr);
    return out;
  });
  for (int64_t b = 0; b < batches; ++b) {
    const std::vector<float> part(rows.begin() + b * dsub, rows.end());
    const std::vector<float> book(books.begin() + b * k * dsub, books.begin() + (b + 1) * k * dsub);
    const Assigned expected = exhaustive(part, n, dsub * batches, dsub, book, k, false);
    for (int64_t i = 0; i < n; ++i)
      CHECK_EQ(int{codes[static_cast<size_t>(i * batches + b)]}, expected.index[static_cast<size_t>(i)]);
  }
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
          const NearestPlan plan = plan_nearest(n, 8, k, batches, limits);
          CHECK(plan.shared_bytes <= 48 * 1024);
          CHECK(plan.chunk_rows * batches <= 2 * kNearestEntries);
          CHECK(plan.workspace_bytes < (int64_t{1} << 31) + 8 * k * batches);
          if (n > 0) CHECK(plan.screen_blocks > 0 && plan.settle_blocks > 0);
        }
      }
    }
  }
  CHECK_EQ(describe(plan_nearest(1000000, 768, 1024, 1, kLimitsSm90)),
           "nearest of 1024 centroids: 1000000 rows in chunks of 1000000, 1 batches, tiles of 128, 7813 blocks");
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
