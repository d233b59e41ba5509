// Pools with product-quantisation codes: scans on every instruction set, files, failed allocations, and scans beside a writer (also under ThreadSanitizer).
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pool_file.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "../../csrc/cpu/workers.hpp"
#include "check.hpp"
#include "failing_allocations.hpp"

using namespace warpmem;

namespace {

using Random = std::mt19937_64;
using Vector = std::vector<float>;

constexpr int64_t kDim = 70;  // not a multiple of 32: the last pieces hold zeros
constexpr int64_t kPadded = 96;
constexpr int64_t kLists = 3;

Vector normals(int64_t n, unsigned seed) {
  Random random(seed);
  Vector out(static_cast<size_t>(n));
  for (float& x : out) x = static_cast<float>(std::normal_distribution<double>()(random));
  return out;
}

// Codebooks for pieces of `dsub` elements: entries drawn as rows are.
std::shared_ptr<const PqBooks> books(int64_t dsub, float scale = 1.0f) {
  Vector entries = normals(kPadded * 16, 77);
  for (float& x : entries) x *= scale;
  return std::make_shared<const PqBooks>(*find_op_kernels("auto"), kPadded / dsub, dsub, kDim, entries.data());
}

struct Rows {
  std::vector<int64_t> list_ids, row_ids, columns;
  std::vector<uint32_t> ordinals;
  Vector vectors;

  Rows(int64_t n, int64_t first, unsigned seed) : vectors(normals(n * kDim, seed)) {
    for (int64_t i = 0; i < n; ++i) {
      list_ids.push_back(i % kLists);
      row_ids.push_back(first + i);
      ordinals.push_back(static_cast<uint32_t>(i % 50));
      columns.push_back(i % 1000);
      columns.push_back(f64_to_key(static_cast<double>(i % 17)));
    }
  }
  Appends view() const {
    return Appends{
        static_cast<int64_t>(list_ids.size()), list_ids.data(), row_ids.data(), ordinals.data(), columns.data(), vectors.data()};
  }
};

struct Result {
  Vector scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
  ScanCounters counters;
  bool operator==(const Result& other) const {
    return scores == other.scores && similarities == other.similarities && list_ids == other.list_ids &&
           row_ids == other.row_ids && counts == other.counts;
  }
};

Result scan_all(const Kernels& kernels, const Pool& pool, const Vector& queries, bool ranked, int64_t refine,
                Workers* workers = nullptr, bool filtered = true) {
  ScanRequest request;
  request.queries = queries.data();
  request.n_queries = static_cast<int64_t>(queries.size()) / kDim;
  request.k = 10;
  request.refine = refine;
  request.min_similarity = -INFINITY;
  if (ranked) {
    request.ranking.w_similarity = 0.5;
    request.ranking.w_recency = 2.0;
    request.ranking.w_priority = -1.0;
    request.ranking.half_life = 300.0;
    request.ranking.priority_column = 1;
    request.ranking.now = 1000;
  }
  request.terms = {Term{0, kRange, 100, 900}};
  request.filters.resize(2);
  request.filters[1].terms_end = 1;
  std::vector<int64_t> list_ids;
  for (int64_t q = 0; q < request.n_queries; ++q) {
    for (int64_t list_id = kLists; list_id >= 0; --list_id) {  // the first is unknown
      request.segment_queries.push_back(static_cast<uint32_t>(q));
      request.segment_filters.push_back(filtered && q % 3 == 2 ? 1 : 0);
      list_ids.push_back(list_id);
    }
  }
  const SegmentGroups groups = group_segments(list_ids.data(), list_ids.size());
  std::vector<ListHead> heads(groups.list_ids.size());
  pool.snapshot(groups.list_ids.data(), heads.size(), heads.data());
  const auto n = static_cast<size_t>(request.n_queries * request.k);
  Result r{Vector(n), Vector(n), std::vector<int64_t>(n), std::vector<int64_t>(n), std::vector<int32_t>(n / 10), {}};
  r.counters =
      scan(kernels, pool, request, groups, heads,
           ScanOutput{r.scores.data(), r.similarities.data(), r.list_ids.data(), r.row_ids.data(), r.counts.data()}, workers);
  return r;
}

// Rows in three lists, a third of them removed.
void fill(Pool& pool, int64_t n, unsigned seed) {
  pool.apply(pool.lock_writer(), {}, Rows(n, 0, seed).view());
  Removes removes;
  for (int64_t i = 0; i < n; i += 3) removes.emplace_back(i % kLists, i);
  for (int64_t i = 1; i < n; i += 7) removes.emplace_back(i % kLists, i);
  pool.apply(pool.lock_writer(), removes, Appends{});
}

// A plain pool with the rows that a pool of codes decodes to.
void copy_decoded(Pool& from, Pool& to, int64_t n, unsigned seed) {
  Rows rows(n, 0, seed);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = i;
    CHECK_EQ(from.vectors(i % kLists, &row, 1, rows.vectors.data() + i * kDim), -1);
  }
  to.apply(to.lock_writer(), {}, rows.view());
}

}  // namespace

TEST(sums_of_a_page) {
  Random random(4);
  for (const int64_t pairs : {int64_t{1}, int64_t{3}, int64_t{24}, int64_t{128}}) {
    std::vector<uint8_t> plane(static_cast<size_t>(pairs * 64)), lut(static_cast<size_t>(pairs * 32));
    for (const int fill_all : {0, 1}) {
      for (uint8_t& x : plane) x = fill_all ? 0xff : static_cast<uint8_t>(random());
      for (uint8_t& x : lut) x = fill_all ? 0xff : static_cast<uint8_t>(random());
      for (const OpKernels* ops : supported_op_kernels()) {
        uint16_t sums[64];
        ops->pq->page4(plane.data(), pairs, lut.data(), sums);
        for (int64_t slot = 0; slot < 64; ++slot) {
          uint32_t expected = 0;
          for (int64_t s = 0; s < 2 * pairs; ++s)
            expected += lut[static_cast<size_t>(s * 16 + pq_page_get(plane.data(), slot, s))];
          CHECK_EQ(static_cast<uint32_t>(sums[slot]), expected);
        }
      }
    }
  }
}

TEST(nearest_entry) {
  Vector book(4 * 16, 0.0f);
  const float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  CHECK_EQ(static_cast<int>(pq_nearest(book.data(), x, 4)), 0);  // all alike: the smallest number
  for (int64_t i = 0; i < 4; ++i) book[static_cast<size_t>(i * 16 + 9)] = book[static_cast<size_t>(i * 16 + 13)] = x[i];
  CHECK_EQ(static_cast<int>(pq_nearest(book.data(), x, 4)), 9);
  const Vector entries = normals(4 * 16, 3);
  for (unsigned seed = 0; seed < 50; ++seed) {
    const Vector row = normals(4, seed);
    int best = 0;
    double least = INFINITY;
    for (int c = 0; c < 16; ++c) {
      double distance = 0.0;
      for (size_t i = 0; i < 4; ++i)
        distance += std::pow(static_cast<double>(row[i]) - static_cast<double>(entries[i * 16 + static_cast<size_t>(c)]), 2);
      if (distance < least) best = c, least = distance;
    }
    CHECK_EQ(static_cast<int>(pq_nearest(entries.data(), row.data(), 4)), best);
  }
}

// With a refine that covers all rows, scans are those of a pool without codes.
TEST(rescoring_everything_is_exact) {
  const Vector queries = normals(20 * kDim, 9);
  Workers workers(3);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
    for (const Metric metric : {Metric::kDot, Metric::kL2}) {
      Pool plain(kDim, 2, storage, metric, false);
      Pool coded(kDim, 2, storage, metric, false, books(storage == Storage::kInt8 ? 3 : 4));
      for (Pool* pool : {&plain, &coded}) fill(*pool, 4500, 1);
      for (const bool ranked : {false, true}) {
        const Result expected = scan_all(*find_kernels("serial"), plain, queries, ranked, 1);
        for (const Kernels* kernels : supported_kernels()) {
          const Result found = scan_all(*kernels, coded, queries, ranked, 450);
          CHECK(found == expected);
          CHECK(found.counters.rows_seen == expected.counters.rows_seen);
          CHECK(scan_all(*kernels, coded, queries, ranked, 450, &workers) == expected);
        }
      }
      Vector row(static_cast<size_t>(kDim)), other(static_cast<size_t>(kDim));
      for (const int64_t id : {int64_t{2}, int64_t{5}, int64_t{4499}}) {
        const int64_t known = plain.vectors(id % kLists, &id, 1, row.data());
        CHECK_EQ(coded.vectors(id % kLists, &id, 1, other.data()), known);
        CHECK(row == other);
      }
    }
  }
}

// A small refine gives the same rows on every instruction set, with any number of threads, and whatever else is asked in the same call.
TEST(what_is_rescored_depends_on_nothing_else) {
  const Vector queries = normals(30 * kDim, 10);
  Workers workers(3);
  Pool pool(kDim, 2, Storage::kF32, Metric::kDot, false, books(4));
  fill(pool, 60000, 2);
  for (const bool ranked : {false, true}) {
    const Result expected = scan_all(*find_kernels("serial"), pool, queries, ranked, 3);
    CHECK(expected.counters.rows_rescored == 30 * 30);
    for (const Kernels* kernels : supported_kernels()) {
      CHECK(scan_all(*kernels, pool, queries, ranked, 3) == expected);
      const Result shared = scan_all(*kernels, pool, queries, ranked, 3, &workers);
      CHECK(shared == expected);
      CHECK_EQ(shared.counters.threads, 3);
      for (size_t q = 0; q < 30; q += 7) {
        const auto first = queries.begin() + static_cast<std::ptrdiff_t>(q) * kDim;
        const Result alone = scan_all(*kernels, pool, Vector(first, first + kDim), ranked, 3, nullptr, q % 3 == 2);
        const auto begin = expected.row_ids.begin() + static_cast<std::ptrdiff_t>(q) * 10;
        if (q % 3 != 2) CHECK(std::equal(alone.row_ids.begin(), alone.row_ids.end(), begin));
      }
    }
  }
}

// Codes alone: the k best of what they stand for, even with refine 1 and where many rows are alike.
TEST(codes_alone_are_exact) {
  const Vector queries = normals(12 * kDim, 12);
  Workers workers(2);
  for (const float scale : {1.0f, 0.01f, 1e18f}) {
    for (const Metric metric : {Metric::kDot, Metric::kL2}) {
      if (scale > 1e6f && metric == Metric::kL2) continue;  // distances overflow
      Pool coded(kDim, 2, Storage::kPq, metric, false, books(8, scale));
      Pool decoded(kDim, 2, Storage::kF32, metric, false);
      Rows rows(6000, 0, 5);
      for (float& x : rows.vectors) x *= scale;
      coded.apply(coded.lock_writer(), {}, rows.view());
      copy_decoded(coded, decoded, 6000, 5);
      for (const bool ranked : {false, true}) {
        const Result expected = scan_all(*find_kernels("serial"), decoded, queries, ranked, 1);
        for (const Kernels* kernels : supported_kernels()) {
          const Result found = scan_all(*kernels, coded, queries, ranked, 1);
          CHECK(found == expected);
          CHECK(scan_all(*kernels, coded, queries, ranked, 1, &workers) == expected);
          if (!ranked && metric == Metric::kDot) CHECK(found.counters.rows_rescored < 6000 * 12 / 2);
        }
      }
    }
  }
  Pool coded(kDim, 2, Storage::kPq, Metric::kDot, false, books(8));
  Pool decoded(kDim, 2, Storage::kF32, Metric::kDot, false);
  Rows alike(3000, 0, 6);
  for (int64_t i = 0; i < 3000; ++i) std::copy_n(alike.vectors.begin(), kDim, alike.vectors.begin() + i * kDim);
  coded.apply(coded.lock_writer(), {}, alike.view());
  copy_decoded(coded, decoded, 3000, 6);
  CHECK(scan_all(*find_kernels("auto"), coded, queries, false, 1) ==
        scan_all(*find_kernels("serial"), decoded, queries, false, 1));
}

TEST(queries_that_overflow_the_table) {
  const Vector queries(static_cast<size_t>(2 * kDim), 3e38f);
  for (const Storage storage : {Storage::kF32, Storage::kPq}) {
    Pool pool(kDim, 2, storage, Metric::kDot, false, books(4));
    fill(pool, 1000, 1);
    const Result expected = scan_all(*find_kernels("serial"), pool, queries, false, 100);
    CHECK_EQ(expected.counts[0], 10);
    for (const Kernels* kernels : supported_kernels()) CHECK(scan_all(*kernels, pool, queries, false, 100) == expected);
  }
}

TEST(changes_keep_codes_beside_their_rows) {
  const Vector queries = normals(9 * kDim, 20);
  Pool pool(kDim, 2, Storage::kF16, Metric::kL2, false, books(4));
  fill(pool, 5000, 3);
  const int64_t bytes = pool.stats().bytes;
  const Result before = scan_all(*find_kernels("auto"), pool, queries, false, 5);
  pool.trim(pool.lock_writer());
  CHECK(pool.stats().bytes < bytes);
  CHECK(scan_all(*find_kernels("auto"), pool, queries, false, 5) == before);
  for (int64_t list_id = 0; list_id < kLists; ++list_id) pool.compact(pool.lock_writer(), list_id);
  CHECK_EQ(pool.stats().dead, 0);
  CHECK(scan_all(*find_kernels("auto"), pool, queries, false, 5) == before);
  pool.apply(pool.lock_writer(), {}, Rows(200, 100000, 8).view());  // maps are built again
  pool.apply(pool.lock_writer(), {{0, 100000}}, Appends{});
  CHECK_EQ(pool.stats().dead, 1);
}

TEST(files) {
  const std::string path = "/tmp/warpmem_test_pq_" + std::to_string(::getpid()) + ".index";
  const Vector queries = normals(9 * kDim, 21);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8, Storage::kPq}) {
    Pool pool(kDim, 2, storage, Metric::kDot, false, books(4));
    fill(pool, 3000, 3);
    const std::string note = "a section";
    save_pool(pool, path, {Section{"note", note.data(), note.size()}});
    const PoolFile file(path);
    CHECK_EQ(file.sections().size(), size_t{2});
    CHECK(file.codebooks() == pool.books()->codebooks());
    const PqView pq = file.layout().pq;
    CHECK(pq.pq_dim == kPadded / 4 && pq.dsub == 4);
    Pool opened(kDim, 2, storage, Metric::kDot, false,
                std::make_shared<const PqBooks>(*find_op_kernels("auto"), pq.pq_dim, pq.dsub, kDim, file.codebooks().data()));
    file.load(opened);
    for (const bool ranked : {false, true}) {
      CHECK(scan_all(*find_kernels("auto"), opened, queries, ranked, 4) ==
            scan_all(*find_kernels("auto"), pool, queries, ranked, 4));
    }
    opened.apply(opened.lock_writer(), {}, Rows(300, 50000, 4).view());  // the pages that are written to are copied
    pool.apply(pool.lock_writer(), {}, Rows(300, 50000, 4).view());
    CHECK(scan_all(*find_kernels("auto"), opened, queries, false, 4) == scan_all(*find_kernels("auto"), pool, queries, false, 4));
  }
  std::remove(path.c_str());
}

TEST(every_failed_allocation_changes_nothing) {
  const Vector queries = normals(3 * kDim, 30);
  for (const Storage storage : {Storage::kInt8, Storage::kPq}) {
    Pool pool(kDim, 2, storage, Metric::kDot, false, books(4));
    fill(pool, 700, 1);
    const Result expected = scan_all(*find_kernels("auto"), pool, queries, false, 2);
    const Rows more(150, 90000, 2);
    int refused = 0;
    for (int64_t n = 0;; ++n) {
      allocations_left = n;
      try {
        const Result found = scan_all(*find_kernels("auto"), pool, queries, false, 2);
        allocations_left = -1;
        CHECK(found == expected);
        break;
      } catch (const std::bad_alloc&) {
        ++refused;
      }
    }
    allocations_left = -1;
    CHECK(refused > 15);
    for (int64_t n = 0;; ++n) {
      allocations_left = n;
      try {
        pool.apply(pool.lock_writer(), {{1, 1}}, more.view());
        allocations_left = -1;
        break;
      } catch (const std::bad_alloc&) {
        allocations_left = -1;
        CHECK(scan_all(*find_kernels("auto"), pool, queries, false, 2) == expected);
      }
    }
    CHECK_EQ(pool.stats().rows, static_cast<int64_t>(700 - 234 - 67 + 150));
  }
}

// Rows are replaced while scans with threads read the pages that the writer fills. Every scan must see one generation.
TEST(scans_beside_a_writer) {
  for (const Storage storage : {Storage::kF32, Storage::kPq}) {
    Pool pool(kDim, 2, storage, Metric::kDot, false, books(4));
    const auto write = [&](float value) {
      Rows rows(900, 0, 1);
      for (int64_t i = 0; i < 900; ++i) {
        rows.columns[static_cast<size_t>(2 * i)] = 500;
        std::fill_n(rows.vectors.begin() + i * kDim, kDim, value);
      }
      pool.apply(pool.lock_writer(), {}, rows.view());
    };
    write(1.0f);
    Vector queries(static_cast<size_t>(30 * kDim), 1.0f);
    Workers workers(2);
    std::atomic<bool> stop{false};
    std::atomic<int> scans{0};
    std::atomic<int> torn{0};
    std::vector<std::thread> readers;
    for (int t = 0; t < 2; ++t) {
      readers.emplace_back([&, t] {
        while (!stop) {
          const Result found = scan_all(*find_kernels("auto"), pool, queries, t == 1, 2, t == 0 ? &workers : nullptr);
          for (const float similarity : found.similarities) torn += similarity != found.similarities[0];
          for (const int32_t count : found.counts) torn += count != 10;
          ++scans;
        }
      });
    }
    for (int generation = 2; generation < 30 || scans < 10; ++generation) write(static_cast<float>(generation % 7 + 1));
    stop = true;
    for (std::thread& reader : readers) reader.join();
    CHECK_EQ(torn.load(), 0);
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
