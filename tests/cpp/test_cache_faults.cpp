// csrc/cuda's cache of pages where things go wrong in between: a device that has no memory at first, lists that change or go while they are loaded, host memory
// that is missing; and what stays in memory.
#include <algorithm>
#include <functional>
#include <utility>

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

// Who has waited for the loads finds nothing of them that is still to be zeroed.
TEST(a_load_is_over_with_its_last_call) {
  for (const bool drop : {false, true}) {
    Tiered t(64 << 20);
    t.grow(0, 300);
    t.ask(0);
    int64_t calls = 0, over = 0;
    device().on_call = [&] {
      if (drop && calls == 4) t.pool.drop(t.pool.lock_writer(), {0});
      ++calls;
      over += t.cache->stats().waiting == 0 ? 1 : 0;
    };
    CHECK(t.cache->load_next());
    CHECK(calls > 8);
    CHECK_EQ(over, int64_t{0});
    device().on_call = nullptr;
  }
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

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
