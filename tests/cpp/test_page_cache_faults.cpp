// csrc/cuda's cache of pages: a device that fails at any call, hit rates beside the best possible, and readers beside a writer (also under ThreadSanitizer).
#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "page_cache_cases.hpp"

namespace {

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

// Nor do those that go then ask for a place for their codes: so many refusals at once would bring the limit back.
TEST(a_device_out_of_memory_is_asked_for_no_codes) {
  Tiered t(64 << 20, Storage::kF32, true, true, 1 << 20, 1 << 22);
  for (int64_t id = 0; id < 12; ++id) t.grow(id, 640);
  for (int64_t id = 0; id < 6; ++id) t.ask(id);
  t.load_all();
  fake::Device::get().capacity = fake::Device::get().allocated;
  CHECK(t.cache->reserve(4 << 20, nullptr) == nullptr);
  CHECK(t.cache->stats().memory_failures > 0 && t.cache->stats().evictions >= 3);
  CHECK(!t.cache->waiting());
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
