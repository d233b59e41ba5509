// csrc/cpu: index files. Every allocation failed in turn, every byte flipped, readers and a writer over a mapped pool (also under ThreadSanitizer).
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/pool_file.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "check.hpp"
#include "failing_allocations.hpp"

using namespace warpmem;

namespace {

constexpr int64_t kDim = 5;
using Model = std::map<std::pair<int64_t, int64_t>, float>;  // list, row -> value of all elements

struct Format {
  Storage storage;
  bool screen;
  int64_t n_columns;
};
constexpr Format kFormats[] = {
    {Storage::kF32, true, 1}, {Storage::kF32, false, 0}, {Storage::kF16, true, 2}, {Storage::kInt8, true, 1}};

// A file of its own, gone with the object.
struct Scratch {
  std::string path = "/tmp/warpmem_test_file_" + std::to_string(::getpid()) + ".index";
  ~Scratch() { std::remove(path.c_str()); }

  std::string read() const {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  void write(const std::string& bytes) const { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }
};

void add(Pool& pool, int64_t list_id, int64_t first, int64_t n, float value, const Removes& removes = {}) {
  const auto count = static_cast<size_t>(n);
  std::vector<int64_t> lists(count, list_id), rows(count);
  std::vector<uint32_t> ordinals(count, 7);
  std::vector<int64_t> columns(count * static_cast<size_t>(pool.layout().n_columns), static_cast<int64_t>(value));
  const std::vector<float> vectors(count * kDim, value);
  for (size_t i = 0; i < count; ++i) rows[i] = first + static_cast<int64_t>(i);
  pool.apply(pool.lock_writer(), removes, Appends{n, lists.data(), rows.data(), ordinals.data(), columns.data(), vectors.data()});
}

// Looks at everything: rows and columns, vectors, and a scan that ranks by them.
Model contents(Pool& pool, bool filter = true) {
  Model model;
  const std::vector<float> query(kDim, 1.0f);
  std::vector<int64_t> found_rows;
  for (const int64_t list_id : pool.lists()) {
    ListHead head;
    pool.snapshot(&list_id, 1, &head);
    const auto n = static_cast<size_t>(head->live);
    std::vector<int64_t> rows(n), columns(n * static_cast<size_t>(pool.layout().n_columns));
    std::vector<uint32_t> ordinals(n);
    pool.rows(*head, rows.data(), ordinals.data(), columns.data());
    std::vector<float> vectors(n * kDim);
    CHECK_EQ(pool.vectors(list_id, rows.data(), head->live, vectors.data()), -1);

    ScanRequest request;
    request.queries = query.data();
    request.n_queries = 1;
    request.k = 4096;
    request.min_similarity = -INFINITY;
    request.segment_queries = {0};
    request.filters.resize(1);
    if (filter && pool.layout().n_columns > 0) {
      request.terms = {Term{0, kRange, -1000, 1000}};
      request.filters[0].terms_end = 1;
    }
    std::vector<float> scores(4096), similarities(4096);
    std::vector<int64_t> list_ids(4096), row_ids(4096);
    int32_t count = -1;
    scan(*find_kernels("auto"), pool, request, group_segments(&list_id, 1), {head},
         ScanOutput{scores.data(), similarities.data(), list_ids.data(), row_ids.data(), &count});
    CHECK_EQ(static_cast<size_t>(count), n);
    for (size_t i = 0; i < n; ++i) {
      CHECK_EQ(ordinals[i], 7u);
      model[{list_id, rows[i]}] = vectors[i * kDim];
    }
    for (size_t i = 0; i < n; ++i) {
      const float stored = model[{list_id, row_ids[i]}];
      CHECK(std::fabs(similarities[i] - stored * kDim) <= 1e-5f * std::fabs(stored) * kDim);
    }
  }
  return model;
}

void fill(Pool& pool) {
  add(pool, -4, 0, 70, 1.0f);
  add(pool, 9, 100, 3, 2.0f);
  add(pool, -4, 10, 2, 3.0f, {{-4, 5}, {9, 101}});
}

std::unique_ptr<Pool> open(const PoolFile& file) {
  auto pool =
      std::make_unique<Pool>(file.layout().dim, file.layout().n_columns, file.layout().storage, file.metric(), file.screen());
  file.load(*pool);
  return pool;
}

template <typename F>
bool refused(IndexFileError::Kind kind, const F& call) {
  try {
    call();
  } catch (const IndexFileError& error) {
    return error.kind() == kind;
  }
  return false;
}

}  // namespace

// --------------------------------------------------------------------------------------------- tests

TEST(files_hold_what_was_saved) {
  for (const Format& format : kFormats) {
    const Scratch file;
    Pool pool(kDim, format.n_columns, format.storage, Metric::kDot, format.screen);
    fill(pool);
    const Model model = contents(pool);
    const std::string bytes = "some bytes";
    save_pool(pool, file.path, {Section{"a", bytes.data(), bytes.size()}, Section{"empty", nullptr, 0}});
    const PoolFile opened(file.path);
    CHECK_EQ(opened.sections().size(), size_t{2});
    CHECK(std::string(static_cast<const char*>(opened.sections()[0].data), opened.sections()[0].bytes) == bytes);
    const auto copy = open(opened);
    CHECK(contents(*copy) == model);
    CHECK_EQ(copy->stats().rows, pool.stats().rows);
    CHECK_EQ(copy->stats().dead, pool.stats().dead);
    for (Pool* each : {&pool, copy.get()}) {
      add(*each, -4, 65, 200, 4.0f, {{9, 100}, {-4, 0}});
      each->compact(each->lock_writer(), -4);
      add(*each, 1, 0, 1, 5.0f);
    }
    CHECK(contents(*copy) == contents(pool));
    save_pool(*copy, file.path, {});  // over the file that it still uses
    CHECK(contents(*open(PoolFile(file.path))) == contents(pool));
    CHECK(contents(*copy) == contents(pool));
    for (Pool* each : {&pool, copy.get()}) each->drop(each->lock_writer(), {-4, 9});
    CHECK(contents(*copy) == contents(pool));
    CHECK(copy->all_mapped());
  }
  const Scratch file;
  Pool empty(kDim, 1);
  save_pool(empty, file.path, {});
  const auto opened = open(PoolFile(file.path));
  CHECK(opened->lists().empty());
  fill(*opened);
  CHECK_EQ(opened->stats().rows, 70 + 2 - 1);
}

TEST(file_of_many_blocks) {
  const Scratch file;
  Pool pool(kDim, 1, Storage::kF32, Metric::kDot, true);
  add(pool, 3, 0, kBlockRows + 100, 1.0f);
  save_pool(pool, file.path, {});
  const auto copy = open(PoolFile(file.path));
  CHECK(!copy->all_mapped());
  add(*copy, 3, 17, 1, 2.0f, {{3, kBlockRows + 50}});
  CHECK(copy->all_mapped());
  float row[kDim];
  const int64_t ids[] = {17, kBlockRows + 50};
  CHECK_EQ(copy->vectors(3, ids, 2, row), 1);
  CHECK_EQ(copy->vectors(3, ids, 1, row), -1);
  CHECK_EQ(row[0], 2.0f);
  CHECK_EQ(copy->stats().rows, kBlockRows + 99);
}

TEST(every_flipped_byte_is_refused) {
  for (const Format& format : kFormats) {
    const Scratch file;
    Pool pool(kDim, format.n_columns, format.storage, Metric::kDot, format.screen);
    add(pool, 1, 0, 2, 1.0f);
    save_pool(pool, file.path, {Section{"s", "abc", 3}});
    const std::string bytes = file.read();
    int at_open = 0;
    int at_use = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (i > 600 && i < 4000) i = 4000;  // zeros behind the tables: a few will do here, Python tests flip them all
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << i % 8));
      file.write(damaged);
      std::optional<PoolFile> opened;
      try {
        opened.emplace(file.path);
      } catch (const IndexFileError&) {
        ++at_open;
        continue;
      }
      const auto copy = open(*opened);
      CHECK(refused(IndexFileError::Kind::kDamaged, [&] { add(*copy, 1, 9, 1, 1.0f); }));
      CHECK_EQ(copy->stats().rows, 2);
      CHECK(refused(IndexFileError::Kind::kDamaged, [&] { save_pool(*copy, file.path, {}); }));
      ++at_use;
    }
    CHECK(at_open > 500);
    CHECK_EQ(at_use, static_cast<int>(pool.layout().bytes));
    for (size_t n = 0; n < bytes.size(); n += n < 300 ? 1 : 41) {
      file.write(bytes.substr(0, n));
      CHECK(refused(IndexFileError::Kind::kDamaged, [&] { PoolFile{file.path}; }));
    }
    file.write(bytes + '\0');
    CHECK(refused(IndexFileError::Kind::kDamaged, [&] { PoolFile{file.path}; }));
    file.write("something else");
    CHECK(refused(IndexFileError::Kind::kFormat, [&] { PoolFile{file.path}; }));
  }
}

TEST(every_failed_allocation_of_a_file_changes_nothing) {
  const Scratch file;
  Pool pool(kDim, 1, Storage::kF32, Metric::kDot, true);
  fill(pool);
  const Model before = contents(pool);
  save_pool(pool, file.path, {Section{"s", "abc", 3}});
  add(pool, -4, 0, 80, 6.0f, {{9, 100}});
  const Model after = contents(pool);
  const std::string bytes = file.read();

  int refusals[3] = {};
  for (int step = 0; step < 3; ++step) {  // open, the first change, save
    for (int64_t n = 0;; ++n) {
      std::unique_ptr<Pool> copy;
      if (step > 0) copy = open(PoolFile(file.path));
      bool threw = false;
      allocations_failed = 0;
      const auto attempt = [&](const std::function<void()>& call) {
        try {
          allocations_left = n;
          call();
        } catch (const std::bad_alloc&) {
          threw = true;
        }
        allocations_left = -1;
      };
      if (step == 0) attempt([&] { copy = open(PoolFile(file.path)); });
      if (step == 1) attempt([&] { add(*copy, -4, 0, 80, 6.0f, {{9, 100}}); });
      if (step == 2) attempt([&] { save_pool(*copy, file.path, {Section{"s", "abc", 3}}); });
      if (threw) {
        ++refusals[step];
        if (copy) CHECK(contents(*copy) == before);
        if (step == 1) add(*copy, -4, 0, 80, 6.0f, {{9, 100}});
        if (step == 1) CHECK(contents(*copy) == after);
      } else {
        CHECK(contents(*copy) == (step == 1 ? after : before));
      }
      CHECK(file.read() == bytes);
      CHECK(n < 2000);
      if (allocations_failed == 0) break;
    }
  }
  CHECK(refusals[0] > 10);
  CHECK(refusals[1] > 20);
  CHECK(refusals[2] > 10);
}

TEST(a_mapped_pool_beside_a_writer) {
  const Scratch file;
  constexpr int64_t kRows = 200;
  {
    Pool pool(kDim, 1, Storage::kF32, Metric::kDot, true);
    add(pool, 0, 0, kRows, 1.0f);
    save_pool(pool, file.path, {});
  }
  for (int round = 0; round < 20; ++round) {
    const auto pool = open(PoolFile(file.path));
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::atomic<int> looks{0};
    const auto read = [&] {
      while (!stop) {
        ListHead head;
        const int64_t list_id = 0;
        pool->snapshot(&list_id, 1, &head);
        const std::vector<float> query(kDim, 1.0f);
        ScanRequest request;
        request.queries = query.data();
        request.n_queries = 1;
        request.k = kRows;
        request.min_similarity = -INFINITY;
        request.segment_queries = {0};
        request.filters.resize(1);
        float scores[kRows], similarities[kRows];
        int64_t list_ids[kRows], row_ids[kRows];
        int32_t count = 0;
        scan(*find_kernels("auto"), *pool, request, group_segments(&list_id, 1), {head},
             ScanOutput{scores, similarities, list_ids, row_ids, &count});
        if (count != kRows || similarities[0] != similarities[kRows - 1]) ++wrong;
        std::vector<int64_t> rows(kRows), columns(kRows);
        std::vector<uint32_t> ordinals(kRows);
        pool->rows(*head, rows.data(), ordinals.data(), columns.data());
        if (columns[0] != columns[kRows - 1]) ++wrong;
        float row[kDim];
        const int64_t some = 17;
        if (pool->vectors(0, &some, 1, row) != -1) ++wrong;
        ++looks;
      }
    };
    std::thread first(read);
    std::thread second(read);
    for (int change = 0; change < 10 || looks < 4; ++change) {
      add(*pool, 0, 0, kRows, static_cast<float>(change));
      if (change % 4 == 3) save_pool(*pool, file.path + ".other", {});
    }
    stop = true;
    first.join();
    second.join();
    CHECK_EQ(wrong.load(), 0);
  }
  const PoolFile other(file.path + ".other");
  CHECK_EQ(open(other)->stats().rows, kRows);
  std::remove((file.path + ".other").c_str());
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
