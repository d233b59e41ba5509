// csrc/cuda's queue of searches with many threads, for ThreadSanitizer: kernels are left out, since the emulator's fibers are not for it, and find nothing.
// What they find is the business of test_scan_queue.cpp.
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "../../csrc/cuda/scan_batch.cpp"
#include "../../csrc/cuda/scan_lane.cpp"
#include "../../csrc/cuda/scan_queue.cpp"
#include "page_cache_cases.hpp"

namespace warpmem::cuda {

void scan(const DeviceScanPlan& plan, const ScanArguments& arguments, Stream stream) {
  fake::before_launch(stream);
  std::memset(arguments.counts, 0, static_cast<size_t>(plan.shape.queries) * sizeof(int32_t));
}

}  // namespace warpmem::cuda

namespace {

struct Asker {
  std::vector<float> queries = std::vector<float>(2 * kDim, 1.0f);
  ListView lists[2];
  int64_t begin[3] = {0, 2, 4};
  uint32_t query[4] = {0, 1, 0, 1};
  uint32_t group[4] = {0, 0, 0, 0};
  uint32_t filter[4] = {0, 0, 0, 0};
  Filter none;
  ScanCall call;

  Asker(const Tiered& t, int64_t first, int64_t second, int64_t k) : lists{t.view(first), t.view(second)} {
    call.queries = queries.data();
    call.n_queries = 2;
    call.k = k;
    call.min_similarity = -INFINITY;
    call.n_lists = 2;
    call.lists = lists;
    call.segment_begin = begin;
    call.segment_query = query;
    call.segment_group = group;
    call.segment_filter = filter;
    call.n_filters = 1;
    call.filters = &none;
  }
};

TEST(many_threads_search_beside_changes_and_failures) {
  Tiered t(40 * kPageBytes, Storage::kF32, true, false, 3 * kPageBytes);
  constexpr int64_t kLists = 6;
  for (int64_t id = 0; id < kLists; ++id) t.grow(id, 100);
  ScanQueue queue(*t.cache, 2);
  const ScanPort port = queue.port(0);
  std::atomic<bool> stop{false};
  std::atomic<int64_t> answered{0}, asked{0};
  std::atomic<int> wrong{0};
  const auto search = [&](unsigned seed) {
    std::mt19937 random(seed);
    while (!stop) {
      const auto first = static_cast<int64_t>(random() % kLists);
      const Asker asker(t, first, (first + 1) % kLists, 5 + random() % 2);
      uint8_t taken[2] = {9, 9};
      void* const ticket = port.begin(port.cache, &asker.call, taken);
      ++asked;
      if (ticket == nullptr) continue;
      ScanFound found;
      if (random() % 8 > 0 && port.finish(port.cache, ticket, &found)) {
        wrong += found.counts[0] != 0 || found.counts[1] != 0 ? 1 : 0;
        ++answered;
      }
      port.end(port.cache, ticket);
    }
  };
  std::thread searches[4] = {std::thread(search, 1), std::thread(search, 2), std::thread(search, 3), std::thread(search, 4)};
  std::thread other([&] {
    std::mt19937 random(5);
    while (!stop) {
      t.cache->evict({static_cast<int64_t>(random() % kLists)});
      t.cache->warm({static_cast<int64_t>(random() % kLists)});
      t.cache->stats();
      queue.stats();
      if (random() % 50 == 0) t.cache->fail("for a while");
      if (random() % 4 == 0) t.cache->rebuild();
      std::this_thread::yield();
    }
  });
  std::mt19937 random(6);
  for (int round = 0; (round < 100 || answered < 100) && round < 20000; ++round) {
    const auto id = static_cast<int64_t>(random() % kLists);
    t.grow(id, 1 + static_cast<int64_t>(random() % 30));
    if (round % 9 == 0) t.pool.drop(t.pool.lock_writer(), {id}), t.cache->refresh({id});
  }
  stop = true;
  for (std::thread& one : searches) one.join();
  other.join();
  t.cache->rebuild();
  t.cache->settle();
  CHECK_EQ(wrong.load(), 0);
  CHECK(answered >= 100);
  const QueueStats stats = queue.stats();
  CHECK(stats.searches <= asked);
  CHECK(fake::Device::get().most <= 40 * kPageBytes);
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
