// csrc/cuda's searches of many callers on one device: which launches they share, and that answers are the host's bits whatever the device does. Kernels run
// in the emulator, everything else of the device is fake_device.hpp.
#include "scan_queue_cases.hpp"

namespace {

TEST(answers_have_the_hosts_bits) {
  for (const Format& format : kFormats) {
    Searched t(2, 64 << 20, format.storage, format.screen);
    Search plain(1, 3, {0, 1, 2, 3, 77}, 9);
    Search filtered(2, 9, {3, 1}, 40);
    filtered.filter();
    Search ranked(3, 2, {2, 0}, 300);
    ranked.request.ranking = Ranking{0.7, 0.3, 0.1, 1e3, 0, 1, 5000};
    ranked.request.min_similarity = -2.5;
    int64_t on_device = 0;
    for (int round = 0; round < 3; ++round) {  // no list on the device; two; all
      for (const Search* search : {&plain, &filtered, &ranked}) {
        const Found found = search->run(t.pool, &t.port);
        CHECK(found == search->run(t.pool, nullptr));
        CHECK(!found.counters.device_failed);
        on_device += found.counters.device_lists;
      }
      t.load_all();
      if (round == 0) t.cache->evict({0, 3});
    }
    CHECK_EQ(on_device, int64_t{(2 + 1 + 1) + (4 + 2 + 2)});
    CHECK(t.cache->failure().empty());
  }
}

TEST(who_comes_while_the_device_is_busy_shares_the_next_launch) {
  Searched t(1);
  t.heat();
  Call calls[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 1}, {t, 4, 3}};
  for (Call& call : calls) {
    call.start(t.port);
    CHECK_EQ(call.taken, uint8_t{1});
  }
  CHECK_EQ(t.queue->stats().launches, int64_t{1});  // the first, at once
  calls[2].check(t);                                // completes the first's launch, then takes all that wait
  CHECK_EQ(t.queue->stats().launches, int64_t{2});
  CHECK_EQ(t.queue->stats().shared, int64_t{2});
  for (Call& call : calls) call.check(t);
  CHECK_EQ(t.queue->stats().launches, int64_t{2});
  for (Call& call : calls) call.end(t.port);
}

TEST(only_searches_that_rank_alike_share) {
  Searched t(1);
  t.heat();
  Call calls[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 2, 6}, {t, 4, 3}, {t, 5, 3}, {t, 6, 0}};
  calls[3].call.ranking.now = 77;  // matters only with recency
  calls[4].search.request.ranking.w_recency = calls[4].call.ranking.w_recency = 0.5;
  for (Call& call : calls) call.start(t.port);
  for (Call& call : calls) call.check(t);
  CHECK_EQ(t.queue->stats().launches, int64_t{4});  // the first; 1, 3 and 5; the one with k = 6; the one with recency
  CHECK_EQ(t.queue->stats().shared, int64_t{2});
  for (Call& call : calls) call.end(t.port);
}

TEST(lanes_run_side_by_side) {
  Searched t(3);
  t.heat();
  Call calls[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 2}, {t, 4, 3}};
  for (Call& call : calls) call.start(t.port);
  CHECK_EQ(t.queue->stats().launches, int64_t{3});
  for (Call& call : calls) call.check(t);
  CHECK_EQ(t.queue->stats().launches, int64_t{4});
  for (Call& call : calls) call.end(t.port);
}

TEST(a_search_that_is_given_up_leaves_the_others) {
  Searched t(1);
  t.heat();
  Call calls[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 2}};
  for (Call& call : calls) call.start(t.port);
  calls[1].end(t.port);  // waiting
  calls[0].end(t.port);  // running
  calls[2].check(t);
  calls[2].end(t.port);
  CHECK_EQ(t.queue->stats().shared, int64_t{0});
}

TEST(a_list_scanned_twice_with_one_group_is_the_hosts) {
  Searched t(1);
  t.heat();
  Search search(1, 2, {1, 2, 1}, 200);
  const Found found = search.run(t.pool, &t.port);
  CHECK(found == search.run(t.pool, nullptr));
  CHECK_EQ(found.counters.device_lists, int64_t{1});
}

TEST(rows_in_host_memory_have_the_same_answers) {
  Searched t(1, 14 * kPageBytes * 8 / 7, Storage::kF32, true, 1 << 22);
  t.heat();
  t.heat();
  CHECK(t.cache->stats().codes_lists > 0);
  Search search(1, 3, {0, 1, 2, 3}, 20);
  const Found found = search.run(t.pool, &t.port);
  CHECK(found == search.run(t.pool, nullptr));
  CHECK(found.counters.device_lists > 2);
}

// A search between a small change and the next: the device is behind by one copy, and the search's stream waits for it.
TEST(a_search_behind_a_change_waits_on_the_device) {
  Searched t(2);
  t.heat();
  Search search(1, 2, {0, 1, 2, 3}, 30);
  for (int round = 0; round < 6; ++round) {
    t.grow(round % 4, 1 + 40 * (round % 2), 9.0f);
    t.change(3, {}, {700 - 200 - round * 7}, 0);
    const Found found = search.run(t.pool, &t.port);
    CHECK(found == search.run(t.pool, nullptr));
    CHECK_EQ(found.counters.device_lists, int64_t{4});
  }
}

TEST(without_device_memory_the_host_answers) {
  Searched t(1, 48 * kPageBytes);
  t.heat();
  fake::Device& device = fake::Device::get();
  device.capacity = device.allocated;
  Search search(1, 64, {0, 1}, 4096);
  const Found found = search.run(t.pool, &t.port);
  CHECK(found == search.run(t.pool, nullptr));
  CHECK(found.counters.device_failed);
  CHECK(t.cache->failure().empty());
  device.heal();
  Search small(1, 2, {0}, 5);
  t.heat();
  CHECK_EQ(small.run(t.pool, &t.port).counters.device_lists, int64_t{1});
}

// Every call in turn is the first that fails.
TEST(a_device_that_fails_at_any_call_answers_as_the_host) {
  fake::Device& device = fake::Device::get();
  const auto history = [](Searched& t) {
    Search first(1, 2, {0, 1, 2, 3}, 7);
    Search second(2, 1, {0, 3}, 100);
    second.filter();
    bool same = first.run(t.pool, &t.port) == first.run(t.pool, nullptr);
    t.grow(1, 9);
    same = second.run(t.pool, &t.port) == second.run(t.pool, nullptr) && same;
    Call waiting[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 2}};
    for (Call& call : waiting) call.start(t.port);
    for (Call& call : waiting) {
      if (call.ticket == nullptr) continue;
      ScanFound found;
      t.port.finish(t.port.cache, call.ticket, &found);
      call.end(t.port);
    }
    return same;
  };
  int64_t calls = 0;
  {
    Searched t(1);
    t.heat();
    const int64_t before = device.calls;
    CHECK(history(t));
    calls = device.calls - before;
  }
  CHECK(calls > 30);
  int failures = 0;
  for (int64_t n = 0; n < calls; ++n) {
    Searched t(1);
    t.heat();
    device.fail_from = n;
    CHECK(history(t));
    failures += t.cache->failed() ? 1 : 0;
    device.heal();
    CHECK(t.cache->rebuild());
    t.heat();
    Search search(5, 1, {0, 1, 2, 3}, 7);
    const Found found = search.run(t.pool, &t.port);
    CHECK(found == search.run(t.pool, nullptr));
    CHECK_EQ(found.counters.device_lists, int64_t{4});
  }
  CHECK(failures > calls / 2);
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
