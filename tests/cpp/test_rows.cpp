// What stands between rows and scans: packing on every instruction set, and the shortlist of a scan of codes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/core/page.hpp"
#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pq_books.hpp"
#include "../../csrc/cpu/shortlist.hpp"
#include "check.hpp"

using namespace warpmem;

namespace {

using Random = std::mt19937_64;
using Keys = std::vector<uint64_t>;

constexpr int64_t kDim = 70;  // not a multiple of 32
constexpr int64_t kPadded = 96;

void check_kept(Shortlist& shortlist, Keys expected, size_t keep) {
  shortlist.finish();
  std::sort(expected.begin(), expected.end(), std::greater<uint64_t>());
  const size_t kept = std::min(keep, expected.size());
  CHECK_EQ(shortlist.size(), kept);
  CHECK(std::equal(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(kept), shortlist.keys()));
  CHECK_EQ(shortlist.dropped(), kept < expected.size());
  if (shortlist.dropped()) CHECK_EQ(shortlist.least(), expected[kept - 1]);
}

}  // namespace

TEST(a_shortlist_keeps_the_best_whatever_the_order) {
  Random random(31);
  for (const size_t keep : {size_t{1}, size_t{10}, size_t{200}, size_t{7000}}) {
    for (const uint64_t levels : {uint64_t{1}, uint64_t{3}, uint64_t{1000}, uint64_t{1} << 32}) {  // many equal scores, and few
      Keys keys;
      for (uint32_t i = 0; i < 6000; ++i) keys.push_back((random() % levels) << 32 | static_cast<uint32_t>(~i));
      Shortlist one;
      Shortlist two;
      one.reserve(keep, 6000);
      two.reserve(keep, 6000);
      for (size_t i = 0; i < keys.size(); ++i) (i % 3 == 0 ? one : two).add(keys[i]);
      one.take_all(two);
      check_kept(one, keys, keep);
    }
  }
}

TEST(a_shortlist_of_pages_counts_the_rows_it_is_given) {
  Random random(32);
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const uint64_t levels : {uint64_t{1}, uint64_t{40}, uint64_t{65536}}) {
      Shortlist shortlist;
      shortlist.reserve(25, 64 * 300);
      Keys expected;
      for (uint32_t page = 0; page < 300; ++page) {
        uint16_t sums[64];
        for (uint16_t& sum : sums) sum = static_cast<uint16_t>(random() % levels);
        const uint64_t mask = page % 2 == 0 ? ~uint64_t{0} : random() & random();
        if (mask != ~uint64_t{0} && !shortlist.refuses_zero()) continue;  // such pages are added row by row
        for (uint32_t slot = 0; slot < 64; ++slot) {
          if ((mask >> slot & 1u) != 0) {
            expected.push_back(select_key(static_cast<uint32_t>(sums[slot]), page * 64 + slot));
          } else {
            sums[slot] = 0;
          }
        }
        shortlist.add_page(*ops->select, sums, page * 64);
      }
      check_kept(shortlist, expected, 25);
    }
  }
}

TEST(every_instruction_set_packs_the_bytes_of_core) {
  std::mt19937 random(33);
  std::normal_distribution<float> normal;
  std::vector<float> rows(64 * kDim);
  for (float& x : rows) x = normal(random);
  for (int64_t i = 0; i < kDim; ++i) {
    rows[static_cast<size_t>(i)] = 0.0f;
    rows[static_cast<size_t>(kDim + i)] *= 1e-41f;    // subnormal
    rows[static_cast<size_t>(2 * kDim + i)] *= 1e4f;  // near the largest float16
    rows[static_cast<size_t>(3 * kDim + i)] = i == 5 ? -1.0f : -0.0f;
  }
  std::vector<float> entries(kPadded * 16);
  for (float& x : entries) x = normal(random);
  const auto books = std::make_shared<const PqBooks>(*find_op_kernels("auto"), kPadded / 4, 4, kDim, entries.data());
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8, Storage::kPq}) {
    for (const bool codes : {false, true}) {
      if (storage == Storage::kPq && !codes) continue;
      const PageLayout layout(kDim, 2, storage, true, codes ? books->view() : PqView{});
      const auto packed = [&](const auto& pack) {
        std::vector<unsigned char> bytes(static_cast<size_t>(layout.bytes));
        PageMemory page;
        page.coarse = bytes.data();
        page.fine = page.coarse + layout.coarse_bytes;
        page.columns = page.fine + layout.fine_bytes;
        page.rows = page.columns + layout.head_bytes;
        const int64_t columns[2] = {-5, 7};
        for (int slot = 0; slot < 64; ++slot) pack(page, slot, columns, rows.data() + slot * kDim);
        return bytes;
      };
      const auto expected = packed([&](const PageMemory& page, int slot, const int64_t* columns, const float* row) {
        layout.pack(page, slot, 100 + slot, 9u, columns, row);
      });
      for (const Kernels* kernels : supported_kernels()) {
        const PackRow own = pack_of(*kernels);
        CHECK((own == kPackSerial) == (std::strcmp(kernels->name, "serial") == 0));
        CHECK(expected == packed([&](const PageMemory& page, int slot, const int64_t* columns, const float* row) {
                own(&layout, &page, slot, 100 + slot, 9u, columns, row);
              }));
      }
    }
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
