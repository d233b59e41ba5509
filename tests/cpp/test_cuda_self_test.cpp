// The self-test of devices, in the emulator: it passes there, and it notices any family whose results are not the host's.
#include <cstdlib>
#include <map>
#include <new>
#include <set>

#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/mmr.cu"
#include "../../csrc/cuda/pages.cu"
#include "../../csrc/cuda/pq.cu"
#include "../../csrc/cuda/scan.cu"
#include "../../csrc/cuda/scan_pq.cu"
#include "../../csrc/cuda/select_k.cu"
#include "../../csrc/cuda/self_test.cpp"
#include "../../csrc/cuda/self_test_kmeans.cpp"
#include "../../csrc/cuda/self_test_scan.cpp"
#include "check.hpp"

using namespace warpmem;

namespace {

// Host memory; with `spoil` the last byte of what is read back is another.
class HostMemory : public cuda::TestMemory {
 public:
  explicit HostMemory(bool spoil) : spoil_(spoil) {}
  void* allocate(int64_t bytes) override {
    ++held;
    return ::operator new(static_cast<size_t>(bytes), std::align_val_t{256});
  }
  void release(void* memory) noexcept override {
    --held;
    ::operator delete(memory, std::align_val_t{256});
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void download(void* to, const void* from, int64_t bytes) override {
    upload(to, from, bytes);
    if (spoil_ && bytes > 0) static_cast<unsigned char*>(to)[bytes - 1] ^= 1;
  }
  int held = 0;

 private:
  const bool spoil_;
};

const std::set<std::string> kFamilies = {"select_k", "kmeans", "pq", "mmr", "pages", "scan", "scan_pq"};

}  // namespace

TEST(every_family_passes) {
  HostMemory memory(false);
  std::set<std::string> seen;
  for (const cuda::FamilyTest& test : cuda::test_families(memory, kLimitsSm90)) {
    std::printf("     %s: %d cases\n", test.family.c_str(), static_cast<int>(test.cases));
    CHECK(test.cases > 0);
    CHECK_EQ(test.mismatches, 0);
    seen.insert(test.family);
  }
  CHECK(seen == kFamilies);
  CHECK_EQ(memory.held, 0);
  auto& launches = simt::Machine::get().launches;
  for (const char* kernel :
       {"select_warp",        "select_queue",     "select_radix",      "nearest_registers_4",  "nearest_registers_8",
        "nearest_screen_4",   "nearest_screen_8", "nearest_halves_32", "nearest_halves_64",    "nearest_halves_128",
        "nearest_round_rows", "nearest_few",      "nearest_settle",    "nearest_settle_block", "kmeans_mean",
        "pq_scan4",           "pq_scan8",         "mmr_direct",        "mmr_matrix",           "pages_move",
        "scan_plain",         "scan_large",       "scan_pq_finish"}) {
    CHECK(launches[kernel] > 0);
  }
}

TEST(a_wrong_bit_in_any_family_is_noticed) {
  HostMemory memory(true);
  for (const cuda::FamilyTest& test : cuda::test_families(memory, kLimitsSm120)) CHECK_EQ(test.mismatches, test.cases);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
