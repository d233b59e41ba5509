// csrc/cuda's cache of pages where things go wrong in between: lists that change or go while they are loaded, host memory that is missing, threads that cannot
// enter the device or be made; who waits for the driver; what a small change costs; what stays in memory.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <thread>

#include "failing_allocations.hpp"
#include "page_cache_cases.hpp"

namespace {

fake::Device& device() { return fake::Device::get(); }

void run_streams() {
  for (auto& stream : device().streams) device().run_all(stream.first);
}

// Whether these bytes stand anywhere in device memory, or in pinned memory.
bool stands_somewhere(const void* bytes, size_t n) {
  run_streams();
  const auto* const first = static_cast<const unsigned char*>(bytes);
  for (const auto* const memories : {&device().memory, &device().pinned}) {
    for (const auto& [memory, size] : *memories) {
      if (std::search(memory, memory + size, first, first + n) != memory + size) return true;
    }
  }
  return false;
}

std::vector<float> vector_of(const Tiered& t, int64_t list_id) {
  const Rows rows = rows_in_pool(const_cast<Tiered&>(t).pool, list_id);
  return rows.rbegin()->second.vector;
}

bool stands(const std::vector<float>& vector) { return stands_somewhere(vector.data(), vector.size() * sizeof(float)); }

// Calls `act` before the n-th call of the device from now on, once.
void before_call(int64_t n, const std::function<void()>& act) {
  device().on_call = [n, act]() mutable {
    if (n-- != 0) return;
    act();
  };
}

// --------------------------------------------------------------------------------------------- room

TEST(a_device_that_had_nothing_at_first_is_asked_again) {
  for (const int64_t pinned : {int64_t{0}, int64_t{1} << 22}) {
    Tiered t(64 << 20, Storage::kF32, true, true, 1 << 20, pinned);
    device().capacity = device().allocated;
    t.grow(0, 300);
    for (int i = 0; i < 3; ++i) t.ask(0), t.load_all();
    CHECK_EQ(t.cache->stats().memory_failures, int64_t{1});
    device().heal();
    bool hot = false;
    for (int i = 0; i < 600 && !hot; ++i) {
      hot = t.ask(0);
      t.load_all();
    }
    CHECK(hot);
    CHECK_EQ(check_hot(t, 1), 1);
  }
}

// --------------------------------------------------------------------------------------------- changes during a load

// Something happens to the list before each call of the device that its load makes; returns how many calls there were.
int64_t during_a_load(const std::function<void(Tiered&)>& act, const std::function<void(Tiered&)>& look) {
  for (int64_t n = 0;; ++n) {
    Tiered t(64 << 20);
    t.grow(0, 300, 3.0f);
    t.ask(0);
    bool acted = false;
    before_call(n, [&] {
      acted = true;
      act(t);
    });
    t.cache->load_next();
    device().on_call = nullptr;
    if (!acted) return n;
    look(t);
  }
}

TEST(a_list_that_is_dropped_while_it_is_loaded_is_never_hot) {
  std::vector<float> row;
  const int64_t calls = during_a_load(
      [&](Tiered& t) {
        row = vector_of(t, 0);
        t.pool.drop(t.pool.lock_writer(), {0});
        t.cache->refresh({0});
      },
      [&](Tiered& t) {
        CHECK_EQ(t.cache->stats().lists, int64_t{0});
        CHECK(!stands(row));
      });
  CHECK(calls > 10);
}

TEST(a_list_that_is_made_anew_while_it_is_loaded_has_its_new_rows) {
  std::vector<float> row;
  during_a_load(
      [&](Tiered& t) {
        row = vector_of(t, 0);
        t.pool.drop(t.pool.lock_writer(), {0});
        t.grow(0, 70, 9.0f);
      },
      [&](Tiered& t) {
        CHECK(!stands(row));
        CHECK(t.ask(0));
        CHECK_EQ(check_hot(t, 1), 1);
      });
}

TEST(a_list_that_grows_while_it_is_loaded_is_whole) {
  during_a_load([](Tiered& t) { t.grow(0, 90, 5.0f); },
                [](Tiered& t) {
                  CHECK(t.ask(0));
                  CHECK_EQ(check_hot(t, 1), 1);
                  CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{5 + 3});  // the last page again, and two more
                });
}

// A writer who never stops keeps nobody from loading other lists.
TEST(a_list_that_always_changes_is_given_up_for_a_while) {
  Tiered t(64 << 20);
  t.grow(0, 300);
  t.grow(1, 10);
  t.ask(0);
  t.ask(1);
  bool inside = false;
  device().on_call = [&] {
    if (std::exchange(inside, true)) return;
    t.grow(0, 1);
    inside = false;
  };
  CHECK(t.cache->load_next());
  device().on_call = nullptr;
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
  CHECK(t.cache->load_next());
  CHECK(t.ask(1));
  t.load_all();
  CHECK_EQ(check_hot(t, 2), 2);
}

// --------------------------------------------------------------------------------------------- what stays

TEST(staging_memory_keeps_no_rows) {
  Tiered t(64 << 20);
  t.grow(0, 500, 2.0f);
  t.grow(1, 64, 4.0f);
  t.ask(0);
  t.ask(1);
  t.load_all();
  const std::vector<float> loaded = vector_of(t, 0);
  t.cache->evict({0});
  CHECK(!stands(loaded));
  t.grow(1, 20, 5.0f);  // by the writer, who does not wait
  const std::vector<float> written = vector_of(t, 1);
  CHECK(stands(written));
  t.pool.drop(t.pool.lock_writer(), {1});
  t.cache->refresh({1});
  CHECK(!stands(written));
  t.grow(1, 10, 6.0f);
  t.ask(1);
  t.load_all();
  t.grow(1, 10, 7.0f);
  const std::vector<float> again = vector_of(t, 1);
  t.cache->evict({1});
  CHECK(!stands(again));
}

// The writer's memory has rows of a list that goes while the loading thread has it.
TEST(staging_memory_keeps_no_rows_of_a_list_that_was_dropped_during_a_load) {
  Tiered t(64 << 20, Storage::kF32, true, true, kPageBytes);
  t.grow(0, 500, 2.0f);
  t.ask(0);
  t.load_all();
  t.grow(0, 5, 8.0f);
  const std::vector<float> written = vector_of(t, 0);
  t.grow(0, 640, 9.0f);
  CHECK(stands(written));
  before_call(3, [&] {
    t.pool.drop(t.pool.lock_writer(), {0});
    t.cache->refresh({0});
  });
  CHECK(t.cache->load_next());
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
  CHECK(!stands(written));
}

// The rows that a list is rewritten without lay there too.
TEST(staging_memory_keeps_no_rows_that_were_compacted_away) {
  Tiered t(64 << 20, Storage::kF32, true, true, kPageBytes);
  t.grow(0, 500, 2.0f);
  t.ask(0);
  t.load_all();
  t.grow(0, 5, 8.0f);
  const std::vector<float> removed = vector_of(t, 0);
  CHECK(stands(removed));
  std::vector<int64_t> most;
  for (const auto& row : rows_in_pool(t.pool, 0)) {
    if (row.first % 4 > 0 || row.second.vector == removed) most.push_back(row.first);
  }
  t.change(0, {}, most, 0);
  CHECK(t.cache->load_next());
  CHECK(!stands(removed));
  CHECK_EQ(check_hot(t, 1), 1);
}

TEST(a_cache_ends_on_a_device_that_fails) {
  for (const bool manual : {true, false}) {
    Tiered t(64 << 20, Storage::kF32, true, manual);
    for (int64_t id = 0; id < 5; ++id) t.grow(id, 100);
    t.cache->warm({0, 1, 2, 3, 4});
    t.load_all();
    t.cache->settle();
    t.cache->warm({7, 8});
    device().fail_from = 0;
  }
  device().heal();
}

// What cannot be zeroed is not given to the next; it is zeroed when the device is there again.
TEST(what_could_not_be_zeroed_is_not_used_again) {
  Tiered t(64 << 20);
  t.grow(0, 500, 2.0f);
  t.ask(0);
  t.load_all();
  const std::vector<float> row = vector_of(t, 0);
  device().fail_from = 0;
  t.pool.drop(t.pool.lock_writer(), {0});
  t.cache->refresh({0});
  CHECK(t.cache->failed());
  device().heal();
  CHECK(stands(row));
  CHECK(t.cache->rebuild());
  CHECK(!stands(row));
  t.grow(0, 500, 3.0f);
  t.ask(0);
  t.load_all();
  CHECK_EQ(check_hot(t, 1), 1);
}

// --------------------------------------------------------------------------------------------- missing memory of the host

// The n-th allocation of this thread fails from now on, and those behind it unless `once`.
struct Failing {
  explicit Failing(int64_t n, bool once = false) {
    allocations_failed = 0;
    fail_once = once;
    allocations_left = n;
  }
  ~Failing() {
    allocations_left = -1;
    fail_once = false;
  }
};

// Every allocation in turn is the first of a change's that fails, for good, or alone. The change is made, so the cache may only forget.
TEST(a_change_is_followed_up_or_forgotten) {
  for (const bool once : {false, true}) {
    for (int64_t n = 0, failed = 1; failed > 0; ++n) {
      Tiered t(64 << 20);
      t.grow(0, 300);
      t.ask(0);
      t.load_all();
      t.change(0, {1000}, {}, 2.0f);  // the writer's staging memory is there
      t.pool.apply(t.pool.lock_writer(), {{0, 5}}, Appends{});
      const int64_t changed = 0;
      {
        const Failing failing(n, once);
        t.cache->refresh(&changed, 1);
      }
      failed = allocations_failed;
      CHECK_EQ(t.cache->stats().waiting, int64_t{0});
      CHECK(t.cache->failure().empty());
      CHECK_EQ(t.cache->stats().lists, int64_t{failed > 0 ? 0 : 1});
      t.ask(0);
      t.load_all();
      CHECK_EQ(check_hot(t, 1), 1);
      CHECK_EQ(t.cache->stats().lists, int64_t{1});
    }
  }
}

TEST(a_load_that_finds_no_memory_leaves_the_list_cold) {
  for (int64_t n = 0, failed = 1; failed > 0; ++n) {
    Tiered t(64 << 20);
    for (int64_t id = 0; id < 3; ++id) t.grow(id, 300);
    Pins pins;
    const ListView list = t.view(0);
    try {
      const Failing failing(n);
      t.cache->pin(&list, 1, &pins);
      t.load_all();
    } catch (const std::bad_alloc&) {  // of the pins themselves
    }
    failed = allocations_failed;
    t.cache->unpin(&pins);
    CHECK_EQ(t.cache->stats().waiting, int64_t{0});
    for (int64_t id = 0; id < 3; ++id) t.ask(id);
    t.load_all();
    CHECK_EQ(check_hot(t, 3), 3);
  }
}

// A failure of the device that cannot even be described.
TEST(a_failure_is_one_without_its_text) {
  Tiered t(64 << 20);
  {
    const Failing failing(0);
    t.cache->fail();
  }
  CHECK(t.cache->failed() && !t.cache->failure().empty());
  CHECK(t.cache->rebuild());
  CHECK(t.cache->failure().empty());
}

// A thread's state takes host memory too: one of these times it is the thread that is not made.
TEST(who_waits_for_loads_makes_them_where_no_thread_does) {
  for (int64_t n = 0; n < 8; ++n) {
    Tiered t(64 << 20, Storage::kF32, true, false);
    t.grow(0, 100);
    t.grow(1, 100);
    const std::vector<int64_t> lists{0, 1};
    try {
      const Failing failing(n);
      t.cache->warm(lists);
    } catch (const std::bad_alloc&) {
    }
    t.cache->settle();
    CHECK_EQ(t.cache->stats().waiting, int64_t{0});
    t.cache->warm(lists);
    t.cache->settle();
    CHECK_EQ(check_hot(t, 2), 2);
  }
}

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
    device().refuse_enter = n;
    const int64_t calls = device().calls;
    history(t);
    failures += t.cache->failed() ? 1 : 0;
    CHECK(device().refuse_enter < 0 || device().calls > calls);
    device().heal();
    device().strangers = 0;  // of the one that was refused
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
  int64_t calls = 0, blocked = 0;
  bool inside = false;
  device().on_call = [&] {
    if (inside || blocked > 0) return;
    inside = true;
    ++calls;
    struct Answer {
      std::mutex mutex;
      std::condition_variable came;
      bool there = false;
    };
    const auto answer = std::make_shared<Answer>();
    std::thread other([cache = t.cache.get(), answer] {
      cache->stats();
      const std::lock_guard<std::mutex> lock(answer->mutex);
      answer->there = true;
      answer->came.notify_all();
    });
    {
      std::unique_lock<std::mutex> lock(answer->mutex);
      blocked += answer->came.wait_for(lock, std::chrono::seconds(10), [&] { return answer->there; }) ? 0 : 1;
    }
    if (blocked > 0) {
      other.detach();
    } else {
      other.join();
    }
    inside = false;
  };
  for (int64_t id = 0; id < 9; ++id) t.grow(id, 64 * 8 - 5);
  for (int round = 0; round < 2; ++round) {
    for (int64_t id = 0; id < 9; ++id) t.ask(id);
    t.load_all();
  }
  for (int64_t id = 0; id < 9; ++id) t.grow(id, 9);
  Pins pins;
  const ListView list = t.view(0);
  t.cache->pin(&list, 1, &pins);
  t.cache->evict({0, 1});
  t.cache->unpin(&pins);
  auto block = t.cache->reserve(1000, nullptr);
  t.cache->give_back(&block);
  device().capacity = device().allocated;
  t.grow(20, 64 * 20);
  t.cache->warm({20});
  t.load_all();
  device().heal();
  t.pool.drop(t.pool.lock_writer(), {2});
  t.cache->refresh({2});
  t.cache->fail("so it was told");
  CHECK(t.cache->rebuild());
  CHECK_EQ(blocked, int64_t{0});
  CHECK(calls > 100);
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
    const int64_t sent = device().sent;
    const int64_t uploaded = t.cache->stats().uploaded_pages;
    t.change(0, add, remove, 3.0f);
    CHECK(pages_looked_at <= blocks * kViewBlockPages);
    CHECK_EQ(t.cache->stats().uploaded_pages - uploaded, pages);
    CHECK(device().sent - sent <= pages * kPageBytes + blocks * kViewBlockPages * kTableEntry);
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
