// csrc/cuda's cache of pages on a device that is not there (fake_device.hpp): what is in its memory is compared with the pool, byte by byte, through random
// histories, under faults at every call, and beside writers (also under ThreadSanitizer). Kernels have no part in it.
#include <atomic>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "../../csrc/cpu/pool_view.hpp"
#include "../../csrc/cuda/cached_list.cpp"
#include "../../csrc/cuda/device_heap.cpp"
#include "../../csrc/cuda/page_cache.cpp"
#include "../../csrc/cuda/page_loader.cpp"
#include "../../csrc/cuda/staging.cpp"
#include "check.hpp"
#include "fake_device.hpp"

using namespace warpmem;
using namespace warpmem::cuda;

namespace {

constexpr int64_t kDim = 40;
constexpr int64_t kColumns = 2;
constexpr int64_t kPageBytes = 23808;  // on the device, of float32 rows with codes

// --------------------------------------------------------------------------------------------- a pool with a cache

struct Tiered {
  Tiered(int64_t limit, Storage storage = Storage::kF32, bool screen = true, bool manual = true, int64_t inline_bytes = 1 << 20)
      : pool(kDim, kColumns, storage, Metric::kDot, screen) {
    fake::Device::get().heal();
    fake::Device::get().most = fake::Device::get().allocated;
    CacheOptions options;
    options.limit = limit;
    options.manual = manual;
    options.inline_bytes = inline_bytes;
    options.staging_bytes = 1 << 16;
    cache = std::make_unique<PageCache>(std::make_unique<fake::FakeRuntime>(), pool_port(pool), options);
  }

  // Adds rows to a list, removing others, and follows up on the device.
  void change(int64_t list_id, const std::vector<int64_t>& add, const std::vector<int64_t>& remove, float value) {
    Removes removes;
    for (const int64_t row_id : remove) removes.emplace_back(list_id, row_id);
    const size_t n = add.size();
    const std::vector<int64_t> lists(n, list_id);
    const std::vector<uint32_t> ordinals(n, static_cast<uint32_t>(value));
    std::vector<int64_t> columns(n * kColumns);
    std::vector<float> vectors(n * kDim);
    for (size_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < kColumns; ++c) columns[i * kColumns + static_cast<size_t>(c)] = add[i] * 10 + c;
      for (int64_t d = 0; d < kDim; ++d)
        vectors[i * kDim + static_cast<size_t>(d)] = value + std::sin(static_cast<float>(add[i] * kDim + d));
    }
    pool.apply(pool.lock_writer(), removes,
               Appends{static_cast<int64_t>(n), lists.data(), add.data(), ordinals.data(), columns.data(), vectors.data()});
    cache->refresh({list_id});
  }
  void grow(int64_t list_id, int64_t rows, float value = 1.0f) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < rows; ++i) ids.push_back(next_id++);
    change(list_id, ids, {}, value);
  }
  ListView view(int64_t list_id) const {
    ListHead head;
    pool.snapshot(&list_id, 1, &head);
    return view_of(list_id, head);
  }
  void load_all() const {
    while (cache->load_next()) {
    }
  }
  // Whether a search would find the list on the device.
  bool ask(int64_t list_id) const {
    Pins pins;
    const ListView list = view(list_id);
    cache->pin(&list, 1, &pins);
    const bool hot = pins[0] != nullptr;
    cache->unpin(&pins);
    return hot;
  }

  Pool pool;
  std::unique_ptr<PageCache> cache;
  int64_t next_id = 0;
};

// What the device has at an address, once all that was enqueued before `arrives` is done.
template <typename T>
std::vector<T> download(PageCache& cache, const T* from, int64_t n, const CachedList& list) {
  Runtime& runtime = cache.runtime();
  std::vector<T> out(static_cast<size_t>(n));
  Stream stream = nullptr;
  CHECK(runtime.create_stream(&stream) == Status::kOk);
  if (list.arrives != nullptr) CHECK(runtime.wait(stream, list.arrives.get()) == Status::kOk);
  CHECK(runtime.copy_out(out.data(), from, n * static_cast<int64_t>(sizeof(T)), stream) == Status::kOk);
  CHECK(runtime.synchronize(stream) == Status::kOk);
  runtime.release_stream(stream);
  return out;
}

struct Row {
  uint32_t ordinal;
  std::vector<int64_t> columns;
  std::vector<float> vector;
  bool operator==(const Row& o) const { return ordinal == o.ordinal && columns == o.columns && vector == o.vector; }
};
using Rows = std::map<int64_t, Row>;

// The live rows of a list, read from device memory: table, pages, validity words.
Rows rows_on_device(PageCache& cache, const CachedList& list) {
  const PageLayout& layout = cache.blocks().layout;
  Rows out;
  for (const DevicePage& entry : download(cache, list.device_table(), list.n_pages(), list)) {
    const auto codes = download(cache, entry.memory.coarse, cache.blocks().codes, list);
    std::vector<unsigned char> rows;
    if (cache.blocks().rows > 0) rows = download(cache, entry.memory.rows, cache.blocks().rows, list);
    ConstPage page = entry.memory;
    page.coarse = codes.data();
    page.fine = page.coarse + layout.coarse_bytes;
    page.columns = page.fine + layout.fine_bytes;
    page.rows = rows.data();
    for (int slot = 0; slot < kPageRows; ++slot) {
      if ((entry.valid >> slot & 1) == 0) continue;
      int64_t row_id = 0;
      Row row{0, std::vector<int64_t>(kColumns), std::vector<float>(kDim)};
      layout.unpack(page, slot, &row_id, &row.ordinal, row.columns.data(), row.vector.data());
      CHECK(out.emplace(row_id, row).second);
    }
  }
  return out;
}

Rows rows_in_pool(Pool& pool, int64_t list_id) {
  ListHead head;
  pool.snapshot(&list_id, 1, &head);
  Rows out;
  if (!head) return out;
  std::vector<int64_t> ids(static_cast<size_t>(head->live));
  std::vector<uint32_t> ordinals(ids.size());
  std::vector<int64_t> columns(ids.size() * kColumns);
  pool.rows(*head, ids.data(), ordinals.data(), columns.data());
  std::vector<float> vectors(ids.size() * kDim);
  CHECK_EQ(pool.vectors(list_id, ids.data(), head->live, vectors.data()), int64_t{-1});
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto column = columns.begin() + static_cast<std::ptrdiff_t>(i * kColumns);
    const auto vector = vectors.begin() + static_cast<std::ptrdiff_t>(i * kDim);
    out[ids[i]] = Row{ordinals[i], {column, column + kColumns}, {vector, vector + kDim}};
  }
  return out;
}

// Hot lists hold what the pool holds. Returns how many were.
int check_hot(Tiered& t, int64_t n_lists) {
  int hot = 0;
  for (int64_t id = 0; id < n_lists; ++id) {
    Pins pins;
    const ListView list = t.view(id);
    t.cache->pin(&list, 1, &pins);
    if (pins[0] != nullptr) {
      ++hot;
      CHECK(rows_on_device(*t.cache, *pins[0]) == rows_in_pool(t.pool, id));
    }
    t.cache->unpin(&pins);
  }
  return hot;
}

// --------------------------------------------------------------------------------------------- contents

struct Format {
  Storage storage;
  bool screen;
};
constexpr Format kFormats[] = {
    {Storage::kF32, true}, {Storage::kF32, false}, {Storage::kF16, true}, {Storage::kF16, false}, {Storage::kInt8, true}};

TEST(loaded_lists_are_copies) {
  CHECK_EQ(PageBlocks(PageLayout(kDim, kColumns, Storage::kF32, true)).bytes(), kPageBytes);
  for (const Format& format : kFormats) {
    Tiered t(64 << 20, format.storage, format.screen);
    for (int64_t id = 0; id < 6; ++id) t.grow(id, int64_t{1} << (2 * id), static_cast<float>(id));
    t.change(5, {}, {400, 401, 700}, 0);
    CHECK_EQ(check_hot(t, 6), 0);
    t.load_all();
    CHECK_EQ(check_hot(t, 6), 6);
    CHECK(!t.ask(77));  // the pool has no such list
    t.load_all();
    CHECK_EQ(t.cache->stats().lists, int64_t{6});
  }
}

TEST(a_change_copies_what_changed) {
  for (const Format& format : kFormats) {
    Tiered t(64 << 20, format.storage, format.screen);
    t.grow(0, 1000);
    t.ask(0);
    t.load_all();
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{16});
    t.grow(0, 3, 2);  // in the last page
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{17});
    CHECK_EQ(check_hot(t, 1), 1);
    t.grow(0, 64, 3);  // the rest of it, and one more
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19});
    CHECK_EQ(check_hot(t, 1), 1);
    std::vector<int64_t> gone;
    for (int64_t row = 0; row < 1000; row += 9) gone.push_back(row);
    t.change(0, {}, gone, 0);  // validity words alone
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19});
    CHECK_EQ(check_hot(t, 1), 1);
    t.pool.compact(t.pool.lock_writer(), 0);  // other pages
    CHECK(!t.ask(0));
    t.load_all();
    CHECK_EQ(check_hot(t, 1), 1);
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19 + 15});
    CHECK_EQ(t.cache->stats().lists, int64_t{1});
  }
}

TEST(a_change_too_large_for_a_writer_is_loaded_later) {
  Tiered t(64 << 20, Storage::kF32, true, true, 4 * kPageBytes);
  t.grow(0, 64);
  t.ask(0);
  t.load_all();
  t.grow(0, 640);
  CHECK(!t.ask(0));
  CHECK(t.cache->load_next());
  CHECK(t.ask(0));
  CHECK_EQ(check_hot(t, 1), 1);
}

// A search that pinned a version reads that version, whatever happens meanwhile.
TEST(a_pinned_version_stays) {
  Tiered t(64 << 20);
  t.grow(0, 100);
  t.ask(0);
  t.load_all();
  const Rows before = rows_in_pool(t.pool, 0);
  Pins pins;
  const ListView list = t.view(0);
  t.cache->pin(&list, 1, &pins);
  t.change(0, {500, 501}, {0, 1, 64}, 7);
  CHECK(t.ask(0));
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.cache->evict({0});
  CHECK(!t.ask(0));
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.pool.drop(t.pool.lock_writer(), {0});
  t.cache->refresh({0});
  t.grow(1, 3000);
  t.ask(1);
  t.load_all();
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.cache->unpin(&pins);
}

bool device_is_zero() {
  fake::Device& device = fake::Device::get();
  for (auto& stream : device.streams) device.run_all(stream.first);
  for (const auto& [memory, bytes] : device.memory) {
    // Chunks that no block was ever taken from still have the poison; a byte of either is nobody's.
    if (!std::all_of(memory, memory + bytes, [](unsigned char b) { return b == 0 || b == fake::kPoison; })) return false;
  }
  return true;
}

TEST(what_is_erased_is_zeroed) {
  Tiered t(64 << 20);
  for (int64_t id = 0; id < 5; ++id) t.grow(id, 300 * (id + 1), static_cast<float>(id + 1));
  check_hot(t, 5);
  t.load_all();
  CHECK(!device_is_zero());
  t.pool.drop(t.pool.lock_writer(), {0, 1, 2});
  t.cache->refresh({0, 1, 2});
  CHECK_EQ(t.cache->stats().lists, int64_t{2});
  std::vector<int64_t> all;
  for (const auto& row : rows_in_pool(t.pool, 3)) all.push_back(row.first);
  t.change(3, {}, all, 0);  // the last row of a list goes: so does the list
  t.cache->evict({4});
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
  CHECK(device_is_zero());
}

// --------------------------------------------------------------------------------------------- room

TEST(random_histories_stay_within_the_limit) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    const Format format = kFormats[seed % 5];
    Tiered t(60 * kPageBytes, format.storage, format.screen);
    constexpr int64_t kLists = 30;
    int hot = 0;
    for (int step = 0; step < 500; ++step) {
      const auto id = static_cast<int64_t>(random() % kLists);
      const unsigned what = random() % 10;
      if (what < 4) t.grow(id, 1 + random() % 200, static_cast<float>(step % 7));
      if (what == 4) {
        const Rows rows = rows_in_pool(t.pool, id);
        std::vector<int64_t> gone;
        for (const auto& row : rows) {
          if (random() % 3 == 0) gone.push_back(row.first);
        }
        t.change(id, {}, gone, 0);
      }
      if (what == 5) t.pool.drop(t.pool.lock_writer(), {id}), t.cache->refresh({id});
      if (what == 6) t.cache->warm({id, (id + 1) % kLists});
      if (what == 7) t.cache->evict({id});
      for (int i = 0; i < 3; ++i) t.ask(static_cast<int64_t>(random() % kLists));
      if (what != 8) t.cache->load_next();
      if (step % 25 == 0) hot += check_hot(t, kLists);
      CHECK(fake::Device::get().allocated <= 60 * kPageBytes);
    }
    CHECK(fake::Device::get().most <= 60 * kPageBytes);
    CHECK(fake::Device::get().most > 40 * kPageBytes);
    CHECK_EQ(t.cache->stats().allocated, fake::Device::get().allocated);
    CHECK(hot > 40);
    CHECK(t.cache->stats().evictions > 10);
    CHECK(t.cache->failure().empty());
  }
}

TEST(a_list_larger_than_the_limit_is_not_loaded) {
  Tiered t(20 * kPageBytes);
  t.grow(0, 64 * 30);
  t.grow(1, 64);
  for (int i = 0; i < 3; ++i) CHECK(!t.ask(0));
  t.ask(1);
  t.load_all();
  CHECK(!t.ask(0));
  CHECK(t.ask(1));
  CHECK_EQ(t.cache->warm({0}), int64_t{1});
  t.load_all();
  CHECK(!t.ask(0) && t.ask(1));
}

TEST(a_hot_list_that_outgrows_the_limit_goes_cold) {
  Tiered t(20 * kPageBytes);
  t.grow(0, 64 * 8);
  t.ask(0);
  t.load_all();
  CHECK(t.ask(0));
  t.grow(0, 64 * 30);
  t.load_all();
  CHECK(!t.ask(0));
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
}

TEST(pinned_lists_are_not_evicted) {
  Tiered t(35 * kPageBytes * 8 / 7);
  for (int64_t id = 0; id < 4; ++id) t.grow(id, 64 * 10);
  for (int64_t id = 0; id < 3; ++id) t.ask(id);
  t.load_all();
  Pins pins[3];
  for (int64_t id = 0; id < 3; ++id) {
    const ListView list = t.view(id);
    t.cache->pin(&list, 1, &pins[id]);
    CHECK(pins[id][0] != nullptr);
  }
  t.cache->warm({3});
  t.load_all();
  CHECK(!t.ask(3));
  t.cache->unpin(&pins[1]);
  t.cache->warm({3});
  t.load_all();
  CHECK(t.ask(0) && !t.ask(1) && t.ask(2) && t.ask(3));
  for (Pins& some : pins) t.cache->unpin(&some);
}

TEST(warm_loads_what_was_never_asked_for) {
  Tiered t(33 * kPageBytes * 8 / 7);
  for (int64_t id = 0; id < 8; ++id) t.grow(id, 64 * 8);
  for (int round = 0; round < 20; ++round) {
    for (int64_t id = 0; id < 4; ++id) t.ask(id);
    t.load_all();
  }
  t.ask(7);
  t.load_all();
  CHECK(!t.ask(7));  // asked for twice, the others twenty times
  CHECK_EQ(t.cache->warm({7, 0}), int64_t{1});
  t.load_all();
  CHECK(t.ask(7));
}

// --------------------------------------------------------------------------------------------- faults

TEST(a_refused_allocation_halves_the_cache) {
  for (const int64_t nth : {0, 1, 2, 3, 5, 8}) {
    Tiered t(64 << 20);
    fake::Device& device = fake::Device::get();
    for (int64_t id = 0; id < 12; ++id) t.grow(id, 640);
    for (int64_t id = 0; id < 6; ++id) t.ask(id);
    t.load_all();
    device.fail_allocation = nth;
    device.capacity = device.allocated + nth * 100000;
    for (int64_t id = 6; id < 12; ++id) t.ask(id);
    t.load_all();
    CHECK(t.cache->stats().memory_failures > 0);
    CHECK(t.cache->failure().empty());
    CHECK(device.allocated <= device.capacity);
    check_hot(t, 12);
    device.heal();
    for (int i = 0; i < 900; ++i) t.ask(i % 12), t.load_all();  // after a while it grows again
    CHECK_EQ(check_hot(t, 12), 12);
  }
}

TEST(without_pinned_memory_it_is_slower) {
  Tiered t(64 << 20);
  fake::Device::get().no_pinned = true;
  t.grow(0, 1000);
  t.ask(0);
  t.load_all();
  t.grow(0, 10);
  CHECK_EQ(check_hot(t, 1), 1);
}

// Every call in turn is the first that fails, for good: a failing device, or one that vanished.
TEST(a_device_that_fails_at_any_call_loses_nothing) {
  const auto history = [](Tiered& t) {
    for (int64_t id = 0; id < 3; ++id) t.grow(id, 200);
    for (int64_t id = 0; id < 3; ++id) t.ask(id);
    t.load_all();
    t.grow(1, 50);
    t.change(2, {}, {450, 451}, 0);
    auto block = t.cache->reserve(1000, nullptr);
    t.cache->give_back(&block);
    t.cache->evict({0});
    t.ask(0);
    t.load_all();
    for (int64_t id = 0; id < 3; ++id) t.ask(id);
  };
  fake::Device& device = fake::Device::get();
  int64_t calls = 0;
  {
    Tiered t(64 << 20);
    const int64_t before = device.calls;
    history(t);
    calls = device.calls - before;
    CHECK(t.cache->failure().empty());
  }
  CHECK(calls > 60);
  int failed = 0;
  for (int64_t n = 0; n < calls; ++n) {
    Tiered t(64 << 20);
    device.fail_from = n;
    history(t);
    failed += t.cache->failed() ? 1 : 0;
    CHECK(t.cache->failed() == !t.cache->failure().empty());
    if (t.cache->failed()) {
      CHECK_EQ(t.cache->stats().lists, int64_t{0});
      CHECK(!t.ask(0) && !t.ask(1));
      CHECK_EQ(t.cache->warm({0}), int64_t{0});
      CHECK(!t.cache->rebuild());
    }
    device.heal();
    CHECK(t.cache->rebuild());
    for (int64_t id = 0; id < 3; ++id) t.ask(id);
    t.load_all();
    CHECK_EQ(check_hot(t, 3), 3);
  }
  CHECK(failed > calls * 3 / 4);  // zeroing may fail unseen; what follows finds out
}

// --------------------------------------------------------------------------------------------- popularity

// Requests by Zipf's law over 1,000 lists, of which a quarter fits: the rate of hits beside that of Belady's rule, which knows the future, and of the best
// fixed quarter, which is the most that any rule without such knowledge reaches when requests are independent.
TEST(hit_rates_are_near_the_best_possible) {
  constexpr int kLists = 1000;
  constexpr int kFit = 250;
  constexpr int kRequests = 60000;
  for (const double exponent : {0.8, 1.0, 1.2, 1.4}) {
    Tiered t(int64_t{kFit} * kPageBytes * 8 / 7);
    std::vector<ListView> views;
    for (int64_t id = 0; id < kLists; ++id) {
      t.grow(id, 1);
      views.push_back(t.view(id));
    }
    std::vector<double> sums(kLists);
    double sum = 0;
    for (int i = 0; i < kLists; ++i) sums[static_cast<size_t>(i)] = sum += std::pow(i + 1, -exponent);
    std::mt19937_64 random(7);
    std::vector<int> trace(kRequests);
    for (int& id : trace) {
      const double at = std::uniform_real_distribution<>(0, sum)(random);
      id = static_cast<int>(std::lower_bound(sums.begin(), sums.end(), at) - sums.begin());
    }
    int hits = 0;
    int64_t fit = 0;
    for (const int id : trace) {
      Pins pins;
      t.cache->pin(&views[static_cast<size_t>(id)], 1, &pins);
      hits += pins[0] != nullptr ? 1 : 0;
      t.cache->unpin(&pins);
      t.cache->load_next();
      fit = std::max(fit, t.cache->stats().lists);
    }
    // Belady: of what is there and what is asked for, the one that is asked for last goes.
    std::vector<int> next(kRequests), last(kLists, INT32_MAX);
    for (int i = kRequests; i-- > 0;) {
      next[static_cast<size_t>(i)] = last[static_cast<size_t>(trace[static_cast<size_t>(i)])];
      last[static_cast<size_t>(trace[static_cast<size_t>(i)])] = i;
    }
    std::set<std::pair<int, int>> kept;
    std::map<int, int> when;
    int best = 0;
    for (int i = 0; i < kRequests; ++i) {
      const int id = trace[static_cast<size_t>(i)];
      const auto found = when.find(id);
      if (found != when.end()) {
        ++best;
        kept.erase({found->second, id});
      }
      when[id] = next[static_cast<size_t>(i)];
      kept.insert({when[id], id});
      if (static_cast<int64_t>(kept.size()) > fit) {
        when.erase(std::prev(kept.end())->second);
        kept.erase(std::prev(kept.end()));
      }
    }
    const double fixed = sums[static_cast<size_t>(fit - 1)] / sum * kRequests;
    std::printf("Zipf %.1f, %lld of %d lists fit: %.2f %% hits; %.1f %% of Belady's, %.1f %% of the best fixed choice's\n",
                exponent, static_cast<long long>(fit), kLists, 100.0 * hits / kRequests, 100.0 * hits / best,
                100.0 * hits / fixed);
    CHECK(fit > kFit - 8 && fit <= kFit);
    CHECK(hits > 0.95 * fixed);
    if (exponent >= 1.2) CHECK(hits > 0.95 * best);
  }
}

// --------------------------------------------------------------------------------------------- threads

// Readers compare what they pin with the one value that the writer gave all rows of the list's version; lists are evicted, warmed and dropped meanwhile.
TEST(readers_beside_a_writer) {
  Tiered t(48 * kPageBytes, Storage::kF32, true, false, 3 * kPageBytes);
  constexpr int64_t kLists = 6;
  std::atomic<bool> stop{false};
  std::atomic<int64_t> seen{0};
  std::atomic<int> wrong{0};
  for (int64_t id = 0; id < kLists; ++id) t.change(id, {0, 1, 2}, {}, 1);
  const auto read = [&](unsigned seed) {
    std::mt19937 random(seed);
    while (!stop) {
      ListView views[kLists];
      int64_t ids[kLists];
      ListHead heads[kLists];
      for (int64_t i = 0; i < kLists; ++i) ids[i] = i;
      t.pool.snapshot(ids, kLists, heads);
      for (int64_t i = 0; i < kLists; ++i) views[i] = view_of(i, heads[i]);
      Pins pins;
      t.cache->pin(views, kLists, &pins);
      for (int64_t i = 0; i < kLists; ++i) {
        const auto& list = pins[static_cast<size_t>(i)];
        if (list == nullptr || random() % 2 == 0) continue;
        const Rows rows = rows_on_device(*t.cache, *list);
        std::set<uint32_t> values;
        for (const auto& row : rows) values.insert(row.second.ordinal);
        if (static_cast<int64_t>(rows.size()) != views[i].live || values.size() != 1) ++wrong;
        ++seen;
      }
      t.cache->unpin(&pins);
    }
  };
  std::thread readers[2] = {std::thread(read, 1), std::thread(read, 2)};
  std::thread other([&] {
    std::mt19937 random(3);
    while (!stop) {
      t.cache->evict({static_cast<int64_t>(random() % kLists)});
      t.cache->warm({static_cast<int64_t>(random() % kLists)});
      t.cache->stats();
      std::this_thread::yield();
    }
  });
  std::mt19937 random(4);
  for (int round = 2; (round < 150 || seen < 60) && wrong == 0 && round < 20000; ++round) {
    const auto id = static_cast<int64_t>(random() % kLists);
    std::vector<int64_t> ids;
    const int64_t n = 1 + random() % 300;
    for (int64_t i = 0; i < n; ++i) ids.push_back(i);
    std::vector<int64_t> others;
    for (int64_t i = n; i < 301; ++i) others.push_back(i);
    t.change(id, ids, others, static_cast<float>(round));
    if (round % 20 == 0) t.pool.drop(t.pool.lock_writer(), {id}), t.cache->refresh({id});
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  other.join();
  t.cache->settle();
  CHECK_EQ(wrong.load(), 0);
  CHECK(seen >= 60);
  CHECK(t.cache->failure().empty());
  CHECK(fake::Device::get().most <= 48 * kPageBytes);
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
