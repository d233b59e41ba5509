// csrc/cuda's cache of pages: what a change costs, and whom: who waits for the driver, who may call it.
#include <utility>

#include "failing_allocations.hpp"

#include "bystander.hpp"
#include "page_cache_cases.hpp"

namespace {

// --------------------------------------------------------------------------------------------- threads

TEST(who_cannot_enter_the_device_calls_it_for_nothing) {
  const auto history = [](Tiered& t) {
    t.grow(0, 200);
    t.ask(0);
    t.load_all();
    t.grow(0, 50);
    auto block = t.cache->reserve(1000, nullptr);
    t.cache->give_back(&block);
    t.cache->evict({0});
    t.ask(0);
    t.load_all();
  };
  int failures = 0;
  for (int64_t n = 0; n < 12; ++n) {
    Tiered t(64 << 20);
    fake::Device::get().refuse_enter = n;
    const int64_t calls = fake::Device::get().calls;
    history(t);
    failures += t.cache->failed() ? 1 : 0;
    CHECK(fake::Device::get().refuse_enter < 0 || fake::Device::get().calls > calls);
    fake::Device::get().heal();
    fake::Device::get().strangers = 0;  // of the one that was refused
    CHECK(t.cache->rebuild());
    t.ask(0);
    t.load_all();
    CHECK_EQ(check_hot(t, 1), 1);
  }
  CHECK(failures > 2);
}

// During each call of the device somebody else asks for what the mutex guards.
TEST(nobody_waits_for_the_device_who_does_not_ask_it) {
  Tiered t(40 * kPageBytes, Storage::kF32, true, true, 1 << 20, 1 << 21);
  const Bystander bystander([cache = t.cache.get()] { cache->stats(); });
  for (int64_t id = 0; id < 9; ++id) t.grow(id, 64 * 8 - 5);
  for (int round = 0; round < 2; ++round) {
    for (int64_t id = 0; id < 9; ++id) t.ask(id);
    t.load_all();
  }
  for (int64_t id = 0; id < 9; ++id) t.grow(id, 9);
  Pins pins;
  int64_t hot = -1;  // the last that has it gives it back
  while (pins.empty() || pins[0] == nullptr) {
    const ListView list = t.view(++hot);
    t.cache->pin(&list, 1, &pins);
  }
  t.cache->evict({hot});
  t.cache->unpin(&pins);
  auto block = t.cache->reserve(1000, nullptr);
  t.cache->give_back(&block);
  fake::Device::get().capacity = fake::Device::get().allocated;
  t.grow(20, 64 * 20);
  t.cache->warm({20});
  t.load_all();
  fake::Device::get().heal();
  t.pool.drop(t.pool.lock_writer(), {2});
  t.cache->refresh({2});
  t.cache->fail("so it was told");
  CHECK(t.cache->rebuild());
  CHECK_EQ(bystander.blocked, int64_t{0});
  CHECK(bystander.calls > 100);
}

// --------------------------------------------------------------------------------------------- what a change costs

int64_t pages_looked_at = 0;
bool (*pages_of_pool)(const PoolView*, int64_t, int64_t, int64_t, PageView*) = nullptr;
PoolView* (*view_of_pool)(void*, const int64_t*, int64_t) = nullptr;

PoolView* counted_view(void* pool, const int64_t* list_ids, int64_t n) {
  PoolView* const view = view_of_pool(pool, list_ids, n);
  pages_of_pool = view->pages;
  view->pages = [](const PoolView* of, int64_t list, int64_t first, int64_t some, PageView* out) {
    pages_looked_at += some;
    return pages_of_pool(of, list, first, some, out);
  };
  return view;
}

TEST(what_a_change_costs_follows_the_change) {
  Tiered t(64 << 20);
  PoolPort port = pool_port(t.pool);
  view_of_pool = std::exchange(port.view, counted_view);
  CacheOptions options;
  options.limit = 128 << 20;  // a list that is compacted has all its pages twice
  options.manual = true;
  t.cache = std::make_unique<PageCache>(std::make_unique<fake::FakeRuntime>(), port, options);
  constexpr int64_t kPages = 1500;
  t.grow(0, kPages * kPageRows - 9);
  t.ask(0);
  t.load_all();
  CHECK(pages_looked_at >= kPages);
  const auto cost = [&](const std::vector<int64_t>& add, const std::vector<int64_t>& remove, int64_t blocks, int64_t pages) {
    Removes removes;
    for (const int64_t row_id : remove) removes.emplace_back(0, row_id);
    t.change(0, {}, {}, 0);  // what is made once
    pages_looked_at = 0;
    const int64_t sent = fake::Device::get().sent;
    const int64_t uploaded = t.cache->stats().uploaded_pages;
    t.change(0, add, remove, 3.0f);
    CHECK(pages_looked_at <= blocks * kViewBlockPages);
    CHECK_EQ(t.cache->stats().uploaded_pages - uploaded, pages);
    CHECK(fake::Device::get().sent - sent <= pages * kPageBytes + blocks * kViewBlockPages * kTableEntry);
    CHECK(t.ask(0));
  };
  cost({900000}, {}, 1, 1);
  cost({}, {40000}, 1, 0);
  cost({900001, 900002}, {0, 50000, 50001}, 3, 1);
  cost({40001}, {}, 2, 1);  // one that is replaced
  const int64_t before = bytes_asked_for;
  t.cache->refresh({0});
  t.pool.apply(t.pool.lock_writer(), {{0, 77}}, Appends{});
  t.cache->refresh({0});
  CHECK(bytes_asked_for - before < 64 * 1024);
  CHECK_EQ(check_hot(t, 1), 1);
  std::vector<int64_t> scattered;
  for (int64_t row = 3; row < kPages * kPageRows; row += 4500) scattered.push_back(row);
  t.change(0, {}, scattered, 0);
  CHECK_EQ(check_hot(t, 1), 1);
  t.pool.compact(t.pool.lock_writer(), 0);
  t.cache->refresh({0});
  t.load_all();
  CHECK_EQ(check_hot(t, 1), 1);
}

// To hold twice as many lists takes twice as much work.
TEST(what_a_list_costs_does_not_grow_with_their_number) {
  const auto asked_for = [](int64_t lists) {
    Tiered t(int64_t{lists} * kPageBytes * 2);
    for (int64_t id = 0; id < lists; ++id) t.grow(id, 1);
    const int64_t before = bytes_asked_for;
    for (int64_t id = 0; id < lists; ++id) t.ask(id), t.cache->load_next();
    CHECK_EQ(t.cache->stats().lists, lists);
    return bytes_asked_for - before;
  };
  const int64_t some = asked_for(1500);
  CHECK(asked_for(3000) < some * 5 / 2);
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
