// csrc/cpu: the pool against a map, every allocation failed in turn, and scans beside a writer (also run under ThreadSanitizer).
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/pool.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "check.hpp"
#include "failing_allocations.hpp"

using namespace warpmem;

namespace {

// --------------------------------------------------------------------------------------------- helpers

constexpr int64_t kDim = 3;
using Key = std::pair<int64_t, int64_t>;  // list, row
using Model = std::map<Key, float>;

struct Batch {
  std::vector<int64_t> list_ids, row_ids, columns;
  std::vector<uint32_t> ordinals;
  std::vector<float> vectors;

  void add(int64_t list_id, int64_t row_id, float value) {
    list_ids.push_back(list_id);
    row_ids.push_back(row_id);
    columns.push_back(static_cast<int64_t>(value));
    ordinals.push_back(static_cast<uint32_t>(row_id));
    vectors.insert(vectors.end(), kDim, value);
  }
  Appends view() const {
    return Appends{
        static_cast<int64_t>(list_ids.size()), list_ids.data(), row_ids.data(), ordinals.data(), columns.data(), vectors.data()};
  }
};

struct Found {
  std::vector<float> scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
};

Found scan_lists(const Pool& pool, const std::vector<int64_t>& lists, int64_t k) {
  const std::vector<float> query(kDim, 1.0f);
  ScanRequest request;
  request.queries = query.data();
  request.n_queries = 1;
  request.k = k;
  request.min_similarity = -INFINITY;
  request.filters.emplace_back();
  request.segment_queries.resize(lists.size());
  const SegmentGroups groups = group_segments(lists.data(), lists.size());
  std::vector<ListHead> heads(groups.list_ids.size());
  pool.snapshot(groups.list_ids.data(), heads.size(), heads.data());
  const auto n = static_cast<size_t>(k);
  Found found{std::vector<float>(n), std::vector<float>(n), std::vector<int64_t>(n), std::vector<int64_t>(n),
              std::vector<int32_t>(1)};
  scan(*find_kernels("auto"), pool, request, groups, heads,
       ScanOutput{found.scores.data(), found.similarities.data(), found.list_ids.data(), found.row_ids.data(),
                  found.counts.data()});
  return found;
}

// What the pool holds, through a scan of all lists and through row lookups; checks that both and the counters agree.
Model contents(Pool& pool, int64_t n_lists) {
  std::vector<int64_t> lists;
  for (int64_t i = 0; i < n_lists; ++i) lists.push_back(i);
  const Found found = scan_lists(pool, lists, 20000);
  Model model;
  std::set<int64_t> used;
  for (size_t i = 0; i < static_cast<size_t>(found.counts[0]); ++i) {
    float row[kDim];
    CHECK_EQ(pool.vectors(found.list_ids[i], &found.row_ids[i], 1, row), -1);
    CHECK_EQ(found.similarities[i], row[0] * kDim);
    model[{found.list_ids[i], found.row_ids[i]}] = row[0];
    used.insert(found.list_ids[i]);
  }
  CHECK_EQ(model.size(), static_cast<size_t>(found.counts[0]));
  CHECK_EQ(pool.stats().rows, static_cast<int64_t>(model.size()));
  CHECK_EQ(pool.stats().lists, static_cast<int64_t>(used.size()));
  return model;
}

}  // namespace

// --------------------------------------------------------------------------------------------- tests

TEST(pool_follows_a_map) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    std::mt19937_64 random(seed);
    Pool pool(kDim, 1);
    Model model;
    const uint64_t ids = seed % 2 == 0 ? 200 : 6000;
    for (int step = 0; step < 60; ++step) {
      Batch batch;
      Removes removes{{77, 1}, {0, -5}};
      for (const auto& [key, value] : model) {
        if (random() % 4 == 0) removes.push_back(key);
      }
      for (uint64_t i = random() % (step % 3 == 0 ? 900 : 5); i > 0; --i) {
        batch.add(static_cast<int64_t>(random() % 4), static_cast<int64_t>(random() % ids), static_cast<float>(random() % 100));
      }
      pool.apply(pool.lock_writer(), removes, batch.view());
      for (const auto& remove : removes) model.erase(remove);
      for (size_t i = 0; i < batch.list_ids.size(); ++i) model[{batch.list_ids[i], batch.row_ids[i]}] = batch.vectors[i * kDim];
      if (step % 7 == 3) pool.compact(pool.lock_writer(), step % 5);
      if (step % 20 == 19) {
        pool.drop(pool.lock_writer(), {1, 1, 50});
        model.erase(model.lower_bound({1, INT64_MIN}), model.lower_bound({2, INT64_MIN}));
      }
      CHECK(contents(pool, 4) == model);
    }
    pool.drop(pool.lock_writer(), {0, 1, 2, 3});
    CHECK_EQ(pool.stats().bytes, 0);
    CHECK_EQ(pool.stats().pages, 0);
  }
}

TEST(every_failed_allocation_changes_nothing) {
  // A change with everything in it: known and new lists, removed, replaced and new rows, a block boundary, and a compaction at the end.
  const auto start = [](Pool& pool) {
    Batch batch;
    for (int64_t i = 0; i < 4090; ++i) batch.add(0, i, 1.0f);
    for (int64_t i = 0; i < 300; ++i) batch.add(1, i, 2.0f);
    batch.add(2, 5, 3.0f);
    pool.apply(pool.lock_writer(), {}, batch.view());
  };
  Removes removes{{2, 5}};
  for (int64_t i = 0; i < 290; ++i) removes.emplace_back(1, i);
  Batch batch;
  for (int64_t i = 4080; i < 4110; ++i) batch.add(0, i, 9.0f);
  for (int64_t list_id = 3; list_id < 20; ++list_id) batch.add(list_id, 1, 4.0f);
  batch.add(1, 295, 8.0f);

  Pool untouched(kDim, 1);
  start(untouched);
  const Model before = contents(untouched, 20);
  untouched.apply(untouched.lock_writer(), removes, batch.view());
  const Model after = contents(untouched, 20);
  CHECK_EQ(untouched.stats().dead, 10);  // list 1 was compacted; of list 0 ten rows were replaced

  bool done = false;
  int refused = 0;
  int uncompacted = 0;
  for (int64_t n = 0; !done; ++n) {
    Pool pool(kDim, 1);
    start(pool);
    allocations_failed = 0;
    bool threw = false;
    try {
      const Pool::WriterLock writer = pool.lock_writer();
      allocations_left = n;
      pool.apply(writer, removes, batch.view());
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    allocations_left = -1;
    if (threw) {
      ++refused;
      CHECK(contents(pool, 20) == before);
      CHECK_EQ(pool.stats().dead, 0);
      pool.apply(pool.lock_writer(), removes, batch.view());  // and it still works
      CHECK(contents(pool, 20) == after);
    } else {
      CHECK(contents(pool, 20) == after);
      if (allocations_failed > 0) ++uncompacted;
      done = allocations_failed == 0;
    }
  }
  CHECK(refused > 50);
  CHECK(uncompacted > 0);

  for (int64_t n = 0;; ++n) {  // compact and drop
    Pool pool(kDim, 1);
    start(pool);
    pool.apply(pool.lock_writer(), {{0, 7}, {0, 4000}}, Appends{});
    const Model now = contents(pool, 3);
    int failed = 0;
    for (int operation = 0; operation < 2; ++operation) {
      const std::vector<int64_t> lists{1, 2};
      const Pool::WriterLock writer = pool.lock_writer();
      allocations_left = n;
      try {
        if (operation == 0) pool.compact(writer, 0);
        if (operation == 1) pool.drop(writer, lists);
      } catch (const std::bad_alloc&) {
        ++failed;
      }
      allocations_left = -1;
      if (operation == 0) CHECK_EQ(pool.stats().dead, failed > 0 ? 2 : 0);
      if (operation == 0) CHECK_EQ(pool.stats().rows, static_cast<int64_t>(now.size()));
    }
    if (failed == 0) break;
    CHECK(n < 1000);
  }
}

TEST(scan_fails_cleanly_without_memory) {
  Pool pool(kDim, 1);
  Batch batch;
  for (int64_t i = 0; i < 100; ++i) batch.add(0, i, 1.0f);
  pool.apply(pool.lock_writer(), {}, batch.view());
  int refused = 0;
  for (int64_t n = 0;; ++n) {
    allocations_left = n;
    try {
      const Found found = scan_lists(pool, {0, 1}, 10);
      allocations_left = -1;
      CHECK_EQ(found.counts[0], 10);
      break;
    } catch (const std::bad_alloc&) {
      ++refused;
    }
  }
  allocations_left = -1;
  CHECK(refused > 5);
}

TEST(readers_beside_a_writer) {
  Pool pool(kDim, 1);
  constexpr int64_t kRows = 280;
  const auto move_all = [&](float value, bool remove) {
    Batch batch;
    Removes removes;
    for (int64_t i = 0; i < kRows; ++i) {
      batch.add(i % 2, i, value);
      if (remove) removes.emplace_back(i % 2, i);
    }
    pool.apply(pool.lock_writer(), removes, batch.view());
  };
  move_all(1.0f, false);

  std::atomic<bool> stop{false};
  std::atomic<int> scans{0};
  std::atomic<int> torn{0};
  const auto read = [&] {
    while (!stop) {
      const Found found = scan_lists(pool, {0, 1, 7}, 512);
      bool whole = found.counts[0] == kRows || found.counts[0] == kRows + 1;  // list 7 has one row or none, which comes last
      for (size_t i = 1; whole && i < kRows; ++i) whole = found.similarities[i] == found.similarities[0];
      if (!whole) ++torn;
      ++scans;
      const int64_t some[3] = {0, 100, 278};
      float rows[3 * kDim];
      if (pool.vectors(0, some, 3, rows) != -1 || rows[0] != rows[kDim] || rows[0] != rows[2 * kDim]) ++torn;
      if (pool.stats().rows < kRows) ++torn;
    }
  };
  std::thread first(read);
  std::thread second(read);
  std::thread other([&] {  // a second writer, with lists that come and go
    for (int i = 0; !stop; ++i) {
      Batch batch;
      batch.add(7, 1000 + i % 5, -1000.0f);
      pool.apply(pool.lock_writer(), {}, batch.view());
      pool.drop(pool.lock_writer(), {7});
    }
  });
  for (int round = 0; round < 150 || (scans < 100 && round < 20000); ++round) {
    move_all(static_cast<float>(1 + round % 9), round % 2 == 0);
    if (round % 10 == 0) pool.compact(pool.lock_writer(), round % 20 == 0 ? 0 : 1);
  }
  stop = true;
  first.join();
  second.join();
  other.join();
  CHECK(scans >= 100);
  CHECK_EQ(torn.load(), 0);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
