// Launches that come again as graphs: which are replayed, that none is stale, and that without captures everything is done plainly.
#include "scan_queue_cases.hpp"

namespace {

// Searches of one shape: the first plainly, the second as a graph that is then made, all others as that graph, with other queries, filters and owners.
TEST(launches_that_come_again_are_replayed) {
  Searched t(1);
  for (int64_t id = 4; id < 6; ++id) t.grow(id, 70, static_cast<float>(id));  // as long as list 0
  for (int64_t id = 0; id < 6; ++id) t.ask(id);
  t.load_all();
  const int64_t lists[] = {0, 4, 5, 0, 5};
  for (unsigned round = 0; round < 5; ++round) {
    Search search(round, 2, {lists[round]}, 9);
    search.filter();
    search.request.values[0] = round;
    const Found found = search.run(t.pool, &t.port);
    CHECK(found == search.run(t.pool, nullptr));
    CHECK_EQ(found.counters.device_lists, int64_t{1});
    CHECK_EQ(t.queue->stats().replays, std::max<int64_t>(0, int64_t{round}));
  }
  CHECK_EQ(t.queue->stats().launches, int64_t{5});
}

// Whatever differs in what is launched is another graph, and the answers are always the host's.
TEST(another_plan_is_never_an_old_graph) {
  Searched t(1);
  t.heat();
  int64_t replays = 0;
  for (int round = 0; round < 3; ++round) {  // each twice: plain, then captured
    for (int which = 0; which < 7; ++which) {
      const bool wide = which == 1;
      Search search(static_cast<unsigned>(which), wide ? 3 : 2, {which == 2 ? 1 : 0}, which == 3 ? 10 : 9);
      if (which == 4) search.request.min_similarity = -1.0;
      if (which == 5) search.request.ranking = Ranking{0.7, 0.3, 0.1, 1e3, 0, 1, 5000 + round};  // another time each time
      if (which == 6) search.filter();
      const Found found = search.run(t.pool, &t.port);
      CHECK(found == search.run(t.pool, nullptr));
      CHECK_EQ(found.counters.device_lists, int64_t{1});
    }
    // Another list is the same launch, while both are one task; one with a time of its own never is.
    CHECK_EQ(t.queue->stats().replays - replays, round == 0 ? int64_t{1} : int64_t{6});
    replays = t.queue->stats().replays;
    if (round == 1) t.change(0, {}, {3}, 0);  // other rows are live: no other plan
  }
  t.grow(0, 64, 3.0f);  // a page more
  Search longer(0, 2, {0}, 9);
  CHECK(longer.run(t.pool, &t.port) == longer.run(t.pool, nullptr));
}

TEST(graphs_are_few_and_go_with_the_lane) {
  fake::Device& device = fake::Device::get();
  const int64_t before = device.graphs;
  {
    Searched t(1);
    t.heat();
    Search first(1, 1, {0}, 64);  // the lane's memory, which graphs name, grows no more after this
    CHECK(first.run(t.pool, &t.port) == first.run(t.pool, nullptr));
    for (int64_t k = 1; k < 30; ++k) {
      for (int again = 0; again < 2; ++again) {
        Search search(1, 1, {0}, k);
        CHECK(search.run(t.pool, &t.port) == search.run(t.pool, nullptr));
      }
      CHECK(device.graphs - before <= static_cast<int64_t>(kMostGraphs));
    }
    CHECK_EQ(t.queue->stats().replays, int64_t{29});
    CHECK_EQ(device.graphs - before, static_cast<int64_t>(kMostGraphs));
    Search many(1, 65, {0}, 3);
    for (int again = 0; again < 3; ++again) CHECK(many.run(t.pool, &t.port) == many.run(t.pool, nullptr));
    CHECK_EQ(t.queue->stats().replays, int64_t{29});  // too large to gain
  }
  CHECK_EQ(device.graphs, before);
}

TEST(without_captures_launches_are_plain) {
  Searched t(1);
  t.heat();
  fake::Device::get().no_capture = true;
  Search search(1, 2, {0, 1}, 9);
  for (int again = 0; again < 4; ++again) {
    const Found found = search.run(t.pool, &t.port);
    CHECK(found == search.run(t.pool, nullptr));
    CHECK_EQ(found.counters.device_lists, int64_t{2});
  }
  CHECK_EQ(t.queue->stats().replays, int64_t{0});
  CHECK(t.cache->failure().empty());
  fake::Device::get().heal();
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
