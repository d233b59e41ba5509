// mmr on every instruction set and its kernels in the emulator: equal, bit for bit, to plain loops that share no code with them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "../../csrc/cpu/mmr.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cuda/mmr.cu"
#include "check.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using simt::Machine;

namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

enum Data { kNormal, kLevels, kEqual, kZero, kDenormal, kHuge, kDuplicates, kDataKinds };
enum Present { kAll, kSome, kNone, kFew, kPresentKinds };

struct Case {
  MmrRequest request;
  std::vector<float> rows;
  std::vector<float> relevance;
};

Case make_case(int64_t problems, int64_t n, int64_t dim, int64_t k, double weight, int data, int present, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Case c;
  c.rows.resize(static_cast<size_t>(problems * n * dim));
  c.relevance.resize(static_cast<size_t>(problems * n));
  for (float& x : c.rows) {
    x = normal(random);
    if (data == kLevels) x = static_cast<float>(static_cast<int>(random() % 3) - 1);
    if (data == kEqual) x = -0.75f;
    if (data == kZero) x = random() % 2 == 0 ? 0.0f : -0.0f;
    if (data == kDenormal) x *= 1e-41f;
    if (data == kHuge) x = std::copysign(3e38f, x);
  }
  if (data == kDuplicates) {
    for (int64_t i = 0; i < problems * n; ++i) std::copy_n(c.rows.data() + i % 7 * dim, dim, c.rows.data() + i * dim);
  }
  for (float& x : c.relevance) {
    x = data == kNormal || data == kHuge ? normal(random) : static_cast<float>(static_cast<int>(random() % 5) - 2) * 0.5f;
    if (data == kZero && x == 0.0f && random() % 2 == 0) x = -0.0f;
    if (present == kNone || (present == kSome && random() % 3 == 0) || (present == kFew && random() % 9 != 0))
      x = -std::numeric_limits<float>::infinity();
  }
  c.request.rows = c.rows.data();
  c.request.relevance = c.relevance.data();
  c.request.problems = problems;
  c.request.candidates = n;
  c.request.dim = dim;
  c.request.k = k;
  c.request.weight = weight;
  return c;
}

struct Result {
  std::vector<double> values;
  std::vector<int64_t> indexes;
  bool operator==(const Result& other) const {
    return indexes == other.indexes &&
           (values.empty() || std::memcmp(values.data(), other.values.data(), values.size() * sizeof(double)) == 0);
  }
};

double product(const float* a, const float* b, int64_t dim) {
  double lanes[32] = {};
  for (int64_t i = 0; i < dim; ++i) lanes[i % 32] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (int width = 16; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

// Every value from all that was chosen, anew at each step.
Result plain(const Case& c) {
  const MmrRequest& r = c.request;
  Result out;
  std::vector<double> products(static_cast<size_t>(r.candidates * r.candidates));
  for (int64_t p = 0; p < r.problems; ++p) {
    const float* const rows = r.rows + p * r.candidates * r.dim;
    for (int64_t i = 0; i < r.candidates; ++i) {
      for (int64_t j = 0; j < r.candidates; ++j)
        products[static_cast<size_t>(i * r.candidates + j)] = product(rows + i * r.dim, rows + j * r.dim, r.dim);
    }
    std::vector<int64_t> chosen;
    std::vector<bool> taken(static_cast<size_t>(r.candidates));
    for (int64_t step = 0; step < r.k; ++step) {
      int64_t best = -1;
      double best_order = 0.0;
      double best_value = kNothing;
      for (int64_t i = 0; i < r.candidates; ++i) {
        const double relevance = static_cast<double>(r.relevance[p * r.candidates + i]);
        if (relevance == kNothing || taken[static_cast<size_t>(i)]) continue;
        double nearest = kNothing;
        for (const int64_t j : chosen) nearest = std::max(nearest, products[static_cast<size_t>(i * r.candidates + j)]);
        const double gain = r.weight * relevance;
        const double loss = chosen.empty() ? 0.0 : (1.0 - r.weight) * nearest;
        const double value = gain - loss + 0.0;
        const double order = chosen.empty() ? relevance : value;
        if (best >= 0 && order <= best_order) continue;
        best = i;
        best_order = order;
        best_value = value;
      }
      if (best >= 0) {
        chosen.push_back(best);
        taken[static_cast<size_t>(best)] = true;
      }
      out.indexes.push_back(best);
      out.values.push_back(best_value);
    }
  }
  return out;
}

Result on_cpu(const OpKernels& ops, const Case& c, int64_t threads) {
  MmrRequest request = c.request;
  request.threads = threads;
  Result out{std::vector<double>(static_cast<size_t>(request.problems * request.k)),
             std::vector<int64_t>(static_cast<size_t>(request.problems * request.k))};
  mmr(ops, request, out.values.data(), out.indexes.data());
  return out;
}

Result run(const Case& c, const MmrPlan& plan) {
  return simt::run_twice([&](unsigned char fill) {
    Result out{std::vector<double>(static_cast<size_t>(plan.problems * plan.k)),
               std::vector<int64_t>(static_cast<size_t>(plan.problems * plan.k))};
    std::vector<double> workspace(static_cast<size_t>(plan.workspace_bytes / 8));
    if (!out.values.empty()) {
      std::memset(out.values.data(), fill, out.values.size() * 8);
      std::memset(out.indexes.data(), fill, out.indexes.size() * 8);
    }
    if (!workspace.empty()) std::memset(workspace.data(), fill, workspace.size() * 8);
    cuda::MmrArguments arguments;
    arguments.rows = c.rows.data();
    arguments.relevance = c.relevance.data();
    arguments.weight = c.request.weight;
    arguments.values = out.values.data();
    arguments.indexes = out.indexes.data();
    arguments.workspace = workspace.data();
    cuda::mmr(plan, arguments, nullptr);
    return out;
  });
}

void check_variant(MmrVariant variant) {
  const std::vector<int64_t> problems = {1, 3};
  // -2, -1: k - 1, k. There are no 2,047 to 2,049 candidates and no k of 4,096: kMmrMaxCandidates is 1,024.
  const std::vector<int64_t> candidates = {0, 1, -2, -1, 3, 4, 5, 31, 32, 33, 63, 64, 65, 130};
  const std::vector<int64_t> dims = {1, 31, 33, 70};
  const std::vector<int64_t> ks = {1, 2, 9, 31, 32, 33, 256, 257};
  const std::vector<double> weights = {0.0, 0.3, 0.5, 1.0};
  const std::vector<DeviceLimits> limits = {kLimitsSm80, kLimitsSm120};
  const std::string kernel = std::string("mmr_") + mmr_variant_name(variant);
  // Hundreds of candidates have the fewest problems and dimensions.
  const auto avoid = [&](const simt::Values& v) {
    const bool large = v[1] >= 0 && v[3] >= 0 && candidates[static_cast<size_t>(v[1])] < 0 && ks[static_cast<size_t>(v[3])] > 33;
    return large && (v[0] > 0 || v[2] > 0);
  };
  const auto cases = simt::pairwise({2, 14, 4, 8, 4, int{kDataKinds}, int{kPresentKinds}, 2, 2}, avoid);
  unsigned seed = variant == MmrVariant::kDirect ? 100 : 300;
  for (const std::vector<int>& f : cases) {
    const auto pick = [&](const auto& list, size_t factor) { return list[static_cast<size_t>(f[factor])]; };
    const int64_t k = pick(ks, 3);
    const int64_t n = pick(candidates, 1) < 0 ? k + pick(candidates, 1) + 1 : pick(candidates, 1);
    const Case c = make_case(pick(problems, 0), n, pick(dims, 2), k, pick(weights, 4), f[5], f[6], ++seed);
    MmrPlan plan = plan_mmr(c.request.problems, c.request.candidates, c.request.dim, c.request.k, pick(limits, 7),
                            static_cast<int32_t>(variant));
    if (f[8] == 1) plan.blocks = plan.product_blocks = 1;  // everything in strides
    const int64_t before = Machine::get().launches[kernel];
    const Result got = run(c, plan);
    CHECK_EQ(Machine::get().launches[kernel] - before, 2);
    const Result expected = plain(c);
    if (!(got == expected)) std::printf("seed %u: %s\n", seed, describe(plan).c_str());
    CHECK(got == expected);
    for (const OpKernels* ops : supported_op_kernels()) CHECK(on_cpu(*ops, c, 1) == expected);
  }
  std::printf("     seeds to %u: %zu cases of %s\n", seed, cases.size(), kernel.c_str());
}

}  // namespace

TEST(choosing_directly) { check_variant(MmrVariant::kDirect); }
TEST(choosing_from_a_matrix) { check_variant(MmrVariant::kMatrix); }

TEST(the_most_candidates_are_taken) {
  for (const int64_t n : {kMmrMaxCandidates - 1, kMmrMaxCandidates}) {
    const Case c = make_case(1, n, 5, 3, 0.4, kNormal, kSome, 5);
    CHECK(run(c, plan_mmr(1, n, 5, 3, kLimitsSm90, 0)) == plain(c));
  }
}

TEST(many_problems_on_the_cpu_are_shared_by_threads) {
  const Case c = make_case(400, 30, 64, 10, 0.5, kNormal, kSome, 6);
  const Result expected = plain(c);
  for (const OpKernels* ops : supported_op_kernels()) CHECK(on_cpu(*ops, c, 3) == expected);
}

TEST(a_weight_of_one_is_the_order_of_relevance) {
  const Case c = make_case(1, 50, 8, 50, 1.0, kNormal, kAll, 7);
  const Result got = on_cpu(*find_op_kernels("auto"), c, 1);
  CHECK(std::is_sorted(got.values.rbegin(), got.values.rend()));
}

TEST(plans_choose_by_shape) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    CHECK(plan_mmr(1, 300, 384, 20, limits).variant == MmrVariant::kMatrix);
    CHECK(plan_mmr(1, 20, 384, 5, limits).variant == MmrVariant::kDirect);
    CHECK(plan_mmr(10000, 100, 384, 10, limits).variant == MmrVariant::kDirect);
    for (const int64_t problems : {0, 1, 1000, 1 << 20}) {
      for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{100}, kMmrMaxCandidates}) {
        const MmrPlan plan = plan_mmr(problems, n, 768, 10, limits);
        CHECK(plan.shared_bytes <= limits.shared_per_block);
        CHECK(plan.workspace_bytes <= kMmrMatrixBytes);
        CHECK_EQ(plan.blocks > 0, problems > 0);
        CHECK_EQ(plan.product_blocks > 0, plan.variant == MmrVariant::kMatrix);
      }
    }
  }
  CHECK_EQ(describe(plan_mmr(1, 300, 384, 20, kLimitsSm90)),
           "mmr 20 of 300 in 1 problems; matrix: 1407 and 1 blocks, 720000 bytes of products");
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
