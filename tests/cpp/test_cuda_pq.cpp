// Product quantisation's kernels in the emulator: equal, bit for bit, to the CPU core, which test_kernels compares with plain loops.
#include <algorithm>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pq.hpp"
#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/pq.cu"
#include "../../csrc/cuda/select_k.cu"
#include "check.hpp"
#include "exact_memory.hpp"
#include "number_kinds.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using simt::Machine;

namespace {

constexpr Data kKinds[] = {kNormal, kLevels, kEqual, kZero, kDenormal, kNegative};
constexpr int kKindsHere = static_cast<int>(sizeof kKinds / sizeof kKinds[0]);

std::vector<uint8_t> random_codes(int64_t n, int64_t pq_dim, int64_t bits, unsigned seed) {
  std::mt19937 random(seed);
  const int64_t size = pq_code_size(pq_dim, bits);
  std::vector<uint8_t> out(static_cast<size_t>(n * size));
  for (uint8_t& x : out) x = static_cast<uint8_t>(random());
  if (bits == 4 && pq_dim % 2 == 1) {
    for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>((i + 1) * size - 1)] &= 15;
  }
  return out;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

const OpKernels& ops() { return *find_op_kernels("auto"); }

struct Found {
  std::vector<float> values;
  std::vector<int64_t> indexes;
  bool operator==(const Found& other) const { return indexes == other.indexes && same_bits(values, other.values); }
};

Found scan(const PqScanPlan& plan, const std::vector<uint8_t>& blocks, const std::vector<float>& luts) {
  return simt::run_twice([&](unsigned char fill) {
    Found out{filled<float>(plan.queries * plan.k, fill), filled<int64_t>(plan.queries * plan.k, fill)};
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::pq_scan(plan, blocks.data(), luts.data(), out.values.data(), out.indexes.data(), workspace.data, nullptr);
    return out;
  });
}

struct CodedRows {
  int64_t bits;
  int64_t pq_dim;
  int64_t rows;
  int64_t queries;
  std::vector<uint8_t> blocks;
  std::vector<float> luts;

  CodedRows(int64_t bits_, int64_t pq_dim_, int64_t rows_, int64_t queries_, Data data, unsigned seed)
      : bits(bits_), pq_dim(pq_dim_), rows(rows_), queries(queries_), luts(numbers(data, queries_ * pq_dim_ << bits_, seed)) {
    blocks.resize(static_cast<size_t>(pq_blocks(rows) * pq_dim * pq_group_bytes(bits)));
    pq_interleave_all(pq_dim, bits, random_codes(rows, pq_dim, bits, seed).data(), rows, 1, blocks.data());
  }

  PqScan scan(int64_t k) const {
    PqScan out;
    out.pq_dim = pq_dim;
    out.bits = bits;
    out.codes = blocks.data();
    out.rows = rows;
    out.luts = luts.data();
    out.queries = queries;
    out.k = k;
    return out;
  }
  Found room(int64_t k) const {
    return {std::vector<float>(static_cast<size_t>(queries * k)), std::vector<int64_t>(static_cast<size_t>(queries * k))};
  }
  Found on_host(int64_t k) const {
    Found out = room(k);
    pq_scan(ops(), scan(k), out.values.data(), out.indexes.data());
    return out;
  }
  Found on_host(int64_t k, int64_t refine, const Rescoring& rescoring) const {
    Found out = room(k);
    pq_scan_refined(ops(), scan(k), refine, rescoring, out.values.data(), out.indexes.data());
    return out;
  }
};

void check_scans(int64_t bits, const std::vector<int64_t>& pq_dims) {
  const std::vector<int64_t> rows = {0, 1, -2, -1, 63, 64, 65, 1023, 1025, 2047, 2048, 2049, 5000};  // -2, -1: k - 1, k
  const std::vector<int64_t> ks = {1, 31, 32, 33, 256, 257, 4096};
  const std::vector<int64_t> queries = {1, 3};
  const std::vector<int64_t> parts = {0, 1, 2};
  const std::vector<int64_t> chunks = {0, 3};
  const std::vector<DeviceLimits> limits = {kLimitsSm80, kLimitsSm120};
  const auto cases = simt::pairwise({static_cast<int>(pq_dims.size()), 13, 7, 2, 3, 2, 2, kKindsHere, 2});
  const std::string kernel = "pq_scan" + std::to_string(bits);
  unsigned seed = 400;
  for (const std::vector<int>& f : cases) {
    const int64_t pq_dim = pq_dims[static_cast<size_t>(f[0])];
    const int64_t k = ks[static_cast<size_t>(f[2])];
    const int64_t picked = rows[static_cast<size_t>(f[1])];
    const int64_t n = picked < 0 ? k + picked + 1 : picked;
    const int64_t q = queries[static_cast<size_t>(f[3])];
    PqScanPlan plan = plan_pq_scan(q, n, pq_dim, bits, k, limits[static_cast<size_t>(f[5])], parts[static_cast<size_t>(f[4])],
                                   chunks[static_cast<size_t>(f[6])]);
    if (f[8] == 1) plan.blocks = 1;
    const CodedRows coded(bits, pq_dim, n, q, kKinds[f[7]], ++seed);
    const int64_t before = Machine::get().launches[kernel];
    const Found got = scan(plan, coded.blocks, coded.luts);
    CHECK_EQ(Machine::get().launches[kernel] - before, 2);
    const Found expected = coded.on_host(k);
    if (!(got == expected)) std::printf("seed %u, k %d, data %d: %s\n", seed, static_cast<int>(k), f[7], describe(plan).c_str());
    CHECK(got == expected);
  }
  std::printf("     %zu cases of %s\n", cases.size(), kernel.c_str());
}

// n rows of one storage, and queries. Elements are numbers of a kind, as far as the storage tells them apart.
struct Stored {
  std::vector<unsigned char> bytes;
  std::vector<float> queries;
  Rescoring rescoring;

  Stored(Storage storage, Data data, int64_t n, int64_t dim, int64_t n_queries, unsigned seed)
      : queries(numbers(data, n_queries * dim, seed + 1)) {
    rescoring.storage = storage;
    rescoring.dim = dim;
    const auto size = static_cast<size_t>(rescoring.layout().row_bytes());
    bytes.resize(static_cast<size_t>(n) * size);
    const std::vector<float> plain = numbers(data, n * dim, seed);
    for (int64_t i = 0; i < n * dim; ++i) {
      const float x = plain[static_cast<size_t>(i)];
      unsigned char* const row = bytes.data() + static_cast<size_t>(i / dim) * size;
      const auto at = static_cast<size_t>(i % dim);
      if (storage == Storage::kF32) std::memcpy(row + 4 * at, &x, 4);
      const uint16_t half = float_to_half(std::min(std::max(x, -60000.0f), 60000.0f));
      if (storage == Storage::kF16) std::memcpy(row + 2 * at, &half, 2);
      if (storage != Storage::kInt8) continue;
      const float scale = data == kLevels ? 1.0f : 0.07f;
      std::memcpy(row, &scale, 4);
      row[4 + at] = static_cast<unsigned char>(static_cast<int8_t>(std::min(std::max(x / scale, -127.0f), 127.0f)));
    }
    rescoring.rows = bytes.data();
    rescoring.queries = queries.data();
  }
};

Found scan_refined(const PqRefinePlan& plan, const std::vector<uint8_t>& blocks, const std::vector<float>& luts,
                   const Rescoring& rescoring) {
  return simt::run_twice([&](unsigned char fill) {
    const int64_t n = plan.scan.queries * plan.k;
    Found out{filled<float>(n, fill), filled<int64_t>(n, fill)};
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::pq_scan_refined(plan, blocks.data(), luts.data(), rescoring, out.values.data(), out.indexes.data(), workspace.data,
                          nullptr);
    return out;
  });
}

constexpr Storage kStorages[] = {Storage::kF32, Storage::kF16, Storage::kInt8};

}  // namespace

TEST(scans_of_8_bits) { check_scans(8, {1, 3, 4, 17, 48}); }
TEST(scans_of_4_bits) { check_scans(4, {1, 2, 5, 16, 257}); }

// Of small whole numbers, whose sums are exact in any order.
TEST(refined_scans_of_the_host_are_those_of_plain_loops) {
  constexpr int64_t kDim = 40;
  unsigned seed = 700;
  int64_t changed = 0;
  for (const Storage storage : kStorages) {
    for (const bool l2 : {false, true}) {
      for (const int64_t n : {0, 1, 33, 500}) {
        for (const int64_t refine : {1, 3}) {
          const CodedRows coded(8, 6, n, 3, kNormal, ++seed);
          Stored stored(storage, kLevels, n, kDim, 3, ++seed);
          stored.rescoring.l2 = l2;
          const std::vector<float> plain = numbers(kLevels, n * kDim, seed);
          const Found shortlists = coded.on_host(10 * refine);
          Found expected = coded.room(10);
          for (int64_t q = 0; q < 3; ++q) {
            std::vector<std::pair<int, int64_t>> best;  // the negated score, which is a whole number, and the row
            for (int64_t i = 0; i < 10 * refine; ++i) {
              const int64_t row = shortlists.indexes[static_cast<size_t>(q * 10 * refine + i)];
              if (row < 0) continue;
              int score = 0;
              for (int64_t j = 0; j < kDim; ++j) {
                const auto x = static_cast<int>(plain[static_cast<size_t>(row * kDim + j)]);
                const auto y = static_cast<int>(stored.queries[static_cast<size_t>(q * kDim + j)]);
                score += l2 ? -(x - y) * (x - y) : x * y;
              }
              best.emplace_back(-score, row);
            }
            changed += std::is_sorted(best.begin(), best.end()) ? 0 : 1;
            std::sort(best.begin(), best.end());
            for (size_t i = 0; i < 10; ++i) {
              const size_t at = static_cast<size_t>(q) * 10 + i;
              expected.values[at] =
                  i < best.size() ? static_cast<float>(-best[i].first) : -std::numeric_limits<float>::infinity();
              expected.indexes[at] = i < best.size() ? best[i].second : -1;
            }
          }
          CHECK(coded.on_host(10, refine, stored.rescoring) == expected);
          PqScan shared = coded.scan(10);
          shared.threads = 2;
          Found again = coded.room(10);
          pq_scan_refined(ops(), shared, refine, stored.rescoring, again.values.data(), again.indexes.data());
          CHECK(again == expected);
        }
      }
    }
  }
  CHECK(changed > 20);
}

TEST(refined_scans) {
  const std::vector<int64_t> rows = {0, 1, -2, -1, 31, 32, 33, 63, 64, 65, 2047, 2048, 2049};  // -2, -1: k - 1, k
  // k, refine: their product is at most kSelectMaxK
  const std::vector<std::pair<int64_t, int64_t>> keeps = {{1, 1},  {1, 4},   {10, 4},  {31, 1},   {32, 4},
                                                          {33, 4}, {256, 1}, {257, 4}, {1024, 4}, {4096, 1}};
  const std::vector<int64_t> pq_dims = {8, 24, 96};
  const std::vector<int64_t> dims = {1, 40, 64};
  const std::vector<Data> kinds = {kNormal, kLevels, kEqual, kZero, kDenormal, kNegative};
  unsigned seed = 800;
  // rows, k and refine, subspaces, storage, kind, l2, bits, queries, parts, dimensions
  const auto cases = simt::pairwise({13, 10, 3, 3, 6, 2, 2, 2, 2, 3});
  for (const std::vector<int>& f : cases) {
    const auto pick = [&](const std::vector<int64_t>& of, int factor) { return of[static_cast<size_t>(f[factor])]; };
    const Data kind = kinds[static_cast<size_t>(f[4])];
    const auto [k, refine] = keeps[static_cast<size_t>(f[1])];
    const int64_t n = pick(rows, 0) < 0 ? k + pick(rows, 0) + 1 : pick(rows, 0), queries = f[7] == 0 ? 1 : 3;
    const CodedRows coded(f[6] == 0 ? 8 : 4, pick(pq_dims, 2), n, queries, kind, ++seed);
    Stored stored(kStorages[f[3]], kind, n, pick(dims, 9), queries, seed += 2);
    stored.rescoring.l2 = f[5] == 1;
    const PqRefinePlan plan =
        plan_pq_scan_refined(queries, n, coded.pq_dim, coded.bits, k, refine, kLimitsSm90, f[8] == 0 ? 0 : 2, f[8] == 0 ? 0 : 5);
    CHECK(plan.fits);
    const int64_t before = Machine::get().launches["pq_rescore"];
    const Found got = scan_refined(plan, coded.blocks, coded.luts, stored.rescoring);
    CHECK_EQ(Machine::get().launches["pq_rescore"] - before, 2);
    const bool same = got == coded.on_host(k, refine, stored.rescoring);
    if (!same) std::printf("seed %u, kind %d: %s\n", seed, f[4], describe(plan).c_str());
    CHECK(same);
  }
  std::printf("     %zu cases\n", cases.size());
}

TEST(encoding_layouts_and_decoding) {
  const std::vector<int64_t> dims = {1, 2, 5, 8};
  const std::vector<int64_t> dsubs = {1, 3, 16, 20};
  const std::vector<int64_t> rows = {0, 1, 31, 32, 33, 63, 64, 65, 70, 2047, 2048, 2049};  // there is no k
  // Many rows have the fewest subspaces, entries and ties: one of these that is more, not two.
  const auto avoid = [&](const simt::Values& v) {
    return v[2] >= 0 && rows[static_cast<size_t>(v[2])] > 70 &&
           (v[0] > 0 ? 1 : 0) + (v[1] > 1 ? 1 : 0) + (v[3] > 0 ? 1 : 0) + (v[4] > 1 ? 1 : 0) > 1;
  };
  const auto cases = simt::pairwise({4, 4, 12, 2, kKindsHere}, avoid);
  unsigned seed = 500;
  for (const std::vector<int>& f : cases) {
    PqShape shape;
    shape.pq_dim = dims[static_cast<size_t>(f[0])];
    shape.dsub = dsubs[static_cast<size_t>(f[1])];
    shape.bits = f[3] == 0 ? 4 : 8;
    const int64_t n = rows[static_cast<size_t>(f[2])];
    const std::vector<float> x = numbers(kKinds[f[4]], n * shape.dim(), ++seed);
    const std::vector<float> codebooks = numbers(kKinds[f[4]], shape.pq_dim * shape.entries() * shape.dsub, ++seed);
    const cuda::PqBooks books{codebooks.data(), shape.pq_dim, shape.bits, shape.dsub};
    const int64_t size = pq_code_size(shape.pq_dim, shape.bits);

    const PqEncodePlan plan = plan_pq_encode(n, shape.pq_dim, shape.bits, shape.dsub, kLimitsSm90);
    const auto codes = simt::run_twice([&](unsigned char fill) {
      std::vector<uint8_t> out = filled<uint8_t>(n * size, fill);
      const Memory workspace(plan.workspace_bytes, fill);
      cuda::pq_encode(plan, books, x.data(), out.data(), workspace.data, nullptr);
      return out;
    });
    std::vector<uint8_t> expected(static_cast<size_t>(n * size));
    pq_encode(ops(), shape, codebooks.data(), x.data(), n, 1, expected.data());
    CHECK(codes == expected);

    const int64_t bytes = pq_blocks(n) * shape.pq_dim * pq_group_bytes(shape.bits);
    const auto blocks = simt::run_twice([&](unsigned char fill) {
      std::vector<uint8_t> out = filled<uint8_t>(bytes, fill);
      cuda::pq_interleave(shape.pq_dim, shape.bits, codes.data(), n, out.data(), nullptr);
      return out;
    });
    std::vector<uint8_t> expected_blocks(static_cast<size_t>(bytes));
    pq_interleave_all(shape.pq_dim, shape.bits, codes.data(), n, 1, expected_blocks.data());
    CHECK(blocks == expected_blocks);

    const auto decoded = simt::run_twice([&](unsigned char fill) {
      std::vector<float> out = filled<float>(n * shape.dim(), fill);
      cuda::pq_decode(books, codes.data(), n, out.data(), nullptr);
      return out;
    });
    std::vector<float> expected_rows(static_cast<size_t>(n * shape.dim()));
    pq_decode(shape, codebooks.data(), codes.data(), n, 1, expected_rows.data());
    CHECK(same_bits(decoded, expected_rows));
  }
  std::printf("     %zu cases\n", cases.size());
}

TEST(tables_are_canonical) {
  const std::vector<int64_t> dsubs = {1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 32, 33, 70};
  const std::vector<int64_t> queries = {0, 1, 2, 63, 64, 65};
  // elements of a subspace, queries, subspaces, bits, l2, kind; queries are the rows here, and there is no k
  const auto cases = simt::pairwise({13, 6, 2, 2, 2, kKindsHere});
  unsigned seed = 600;
  for (const std::vector<int>& f : cases) {
    PqShape shape;
    shape.dsub = dsubs[static_cast<size_t>(f[0])];
    shape.pq_dim = f[2] == 0 ? 1 : 3;
    shape.bits = f[3] == 0 ? 4 : 8;
    const int64_t n = queries[static_cast<size_t>(f[1])];
    const bool l2 = f[4] == 1;
    const std::vector<float> codebooks = numbers(kKinds[f[5]], shape.pq_dim * shape.entries() * shape.dsub, ++seed);
    const std::vector<float> rows = numbers(kKinds[f[5]], n * shape.dim(), ++seed);
    const auto luts = simt::run_twice([&](unsigned char fill) {
      std::vector<float> out = filled<float>(n * shape.pq_dim * shape.entries(), fill);
      cuda::pq_lut({codebooks.data(), shape.pq_dim, shape.bits, shape.dsub}, rows.data(), n, l2, out.data(), nullptr);
      return out;
    });
    std::vector<float> expected(luts.size());
    pq_lut(ops(), shape, codebooks.data(), rows.data(), n, l2, 1, expected.data());
    CHECK(same_bits(luts, expected));
  }
  CHECK(Machine::get().launches["pq_lut_warp"] > 0 && Machine::get().launches["pq_lut"] > 0);
  std::printf("     %zu cases\n", cases.size());
}

TEST(plans_fit_every_device) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    for (const int64_t bits : {4, 8}) {
      for (const int64_t pq_dim : {1, 96, 768, 4096}) {
        for (const int64_t k : {1, 256, 4096}) {
          for (const int64_t rows : {int64_t{0}, int64_t{1000}, int64_t{41000000}, int64_t{1} << 31}) {
            const PqScanPlan plan = plan_pq_scan(7, rows, pq_dim, bits, k, limits);
            const bool small = limits.shared_per_block < (128 << 10);
            CHECK_EQ(plan.fits, !(bits == 4 && pq_dim == 4096 && k == 4096 && small));
            CHECK_EQ(plan.fits, plan.shared_bytes <= limits.shared_per_block);
            CHECK(plan.chunk >= 1 && plan.capacity >= k + kPqThreads * kSelectUnroll);
            CHECK(plan.part_rows * plan.parts >= rows && plan.part_rows % pq_tile_rows(bits) == 0);
          }
        }
      }
    }
  }
  bool thrown = false;
  try {
    cuda::pq_scan(plan_pq_scan(1, 10, 4096, 4, 4096, kLimitsSm120), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  CHECK(thrown);
  CHECK_EQ(describe(plan_pq_scan(1, 1000000, 96, 8, 100, kLimitsSm90)),
           "pq scan of 1000000 rows, 96 codes of 8 bits: 30 parts of 33792, 30 blocks, 96 tables at a time");
}

TEST(plans_of_refined_scans_say_what_does_not_fit) {
  CHECK(plan_pq_scan_refined(3, 1000000, 96, 8, 1024, 4, kLimitsSm120).fits);
  for (const PqRefinePlan& plan :
       {plan_pq_scan_refined(3, 1000, 96, 8, 1025, 4, kLimitsSm90), plan_pq_scan_refined(3, 1000, 96, 8, 1, 4097, kLimitsSm90),
        plan_pq_scan_refined(3, 1000, 96, 8, 4096, INT64_MAX, kLimitsSm90),
        plan_pq_scan_refined(3, 10, 4096, 4, 1024, 4, kLimitsSm120)}) {
    CHECK(!plan.fits);
    bool thrown = false;
    try {
      cuda::pq_scan_refined(plan, nullptr, nullptr, Rescoring{}, nullptr, nullptr, nullptr, nullptr);
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    CHECK(thrown);
  }
  CHECK_EQ(describe(plan_pq_scan_refined(1, 1000000, 96, 8, 10, 4, kLimitsSm90)),
           "pq scan of 1000000 rows, 96 codes of 8 bits: 30 parts of 33792, 30 blocks, 96 tables at a time; 40 rows a query "
           "rescored by 5 blocks, of which the 10 best are kept");
  CHECK_EQ(describe(plan_pq_scan_refined(1, 1000, 96, 8, 4096, 2, kLimitsSm90)), "pq scan with refine: not on the device");
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
