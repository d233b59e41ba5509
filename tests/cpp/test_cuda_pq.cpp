// Product quantisation's kernels in the emulator: equal, bit for bit, to the CPU core, which test_kernels compares with plain loops.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pq.hpp"
#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/pq.cu"
#include "../../csrc/cuda/select_k.cu"
#include "check.hpp"
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
std::vector<T> filled(int64_t n, unsigned char fill) {
  std::vector<T> out(static_cast<size_t>(n));
  if (n > 0) std::memset(static_cast<void*>(out.data()), fill, out.size() * sizeof(T));
  return out;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

struct Memory {
  Memory(int64_t bytes, unsigned char fill) : data(static_cast<unsigned char*>(::operator new(static_cast<size_t>(bytes)))) {
    std::memset(data, fill, static_cast<size_t>(bytes));
  }
  ~Memory() { ::operator delete(data); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  unsigned char* data;
};

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
    const std::vector<uint8_t> packed = random_codes(n, pq_dim, bits, ++seed);
    std::vector<uint8_t> blocks(static_cast<size_t>(pq_blocks(n) * pq_dim * pq_group_bytes(bits)));
    pq_interleave_all(pq_dim, bits, packed.data(), n, 1, blocks.data());
    const std::vector<float> luts = numbers(kKinds[f[7]], q * pq_dim << bits, ++seed);
    const int64_t before = Machine::get().launches[kernel];
    const Found got = scan(plan, blocks, luts);
    CHECK_EQ(Machine::get().launches[kernel] - before, 2);
    Found expected{std::vector<float>(static_cast<size_t>(q * k)), std::vector<int64_t>(static_cast<size_t>(q * k))};
    PqScan cpu;
    cpu.pq_dim = pq_dim;
    cpu.bits = bits;
    cpu.codes = blocks.data();
    cpu.rows = n;
    cpu.luts = luts.data();
    cpu.queries = q;
    cpu.k = k;
    pq_scan(ops(), cpu, expected.values.data(), expected.indexes.data());
    if (!(got == expected)) std::printf("seed %u, k %d, data %d: %s\n", seed, static_cast<int>(k), f[7], describe(plan).c_str());
    CHECK(got == expected);
  }
  std::printf("     %zu cases of %s\n", cases.size(), kernel.c_str());
}

}  // namespace

TEST(scans_of_8_bits) { check_scans(8, {1, 3, 4, 17, 48}); }
TEST(scans_of_4_bits) { check_scans(4, {1, 2, 5, 16, 257}); }

TEST(encoding_layouts_and_decoding) {
  const std::vector<int64_t> dims = {1, 2, 5, 8};
  const std::vector<int64_t> dsubs = {1, 3, 16, 20};
  const std::vector<int64_t> rows = {0, 1, 31, 32, 33, 70};
  unsigned seed = 500;
  for (const std::vector<int>& f : simt::pairwise({4, 4, 6, 2, kKindsHere})) {
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
}

TEST(tables_are_canonical) {
  unsigned seed = 600;
  for (const int64_t dsub : {1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 32, 33, 70}) {
    for (const bool l2 : {false, true}) {
      for (const int data : {int{kNormal}, int{kZero}, int{kDenormal}}) {
        PqShape shape;
        shape.pq_dim = 3;
        shape.bits = 4;
        shape.dsub = dsub;
        const std::vector<float> codebooks = numbers(data, 3 * 16 * dsub, ++seed);
        const std::vector<float> queries = numbers(data, 2 * 3 * dsub, ++seed);
        const auto luts = simt::run_twice([&](unsigned char fill) {
          std::vector<float> out = filled<float>(2 * 3 * 16, fill);
          cuda::pq_lut({codebooks.data(), 3, 4, dsub}, queries.data(), 2, l2, out.data(), nullptr);
          return out;
        });
        std::vector<float> expected(luts.size());
        pq_lut(ops(), shape, codebooks.data(), queries.data(), 2, l2, 1, expected.data());
        CHECK(same_bits(luts, expected));
      }
    }
  }
  CHECK(Machine::get().launches["pq_lut_warp"] > 0 && Machine::get().launches["pq_lut"] > 0);
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

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
