// csrc/cuda's searches of many callers on one device: which launches they share, and that answers are the host's bits whatever the device does. Kernels run
// in the emulator, everything else of the device is fake_device.hpp.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <random>
#include <thread>

#include "failing_allocations.hpp"

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "../../csrc/cuda/scan.cu"
#include "../../csrc/cuda/scan_batch.cpp"
#include "../../csrc/cuda/scan_lane.cpp"
#include "../../csrc/cuda/scan_queue.cpp"
#include "page_cache_cases.hpp"

namespace {

struct Found {
  std::vector<float> scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
  ScanCounters counters;
  bool operator==(const Found& o) const {
    const auto same = [](const auto& a, const auto& b) { return std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0; };
    return same(scores, o.scores) && same(similarities, o.similarities) && list_ids == o.list_ids && row_ids == o.row_ids &&
           counts == o.counts;
  }
};

// A search: some queries over some lists.
struct Search {
  std::vector<float> queries;
  std::vector<int64_t> lists;  // of each segment
  ScanRequest request;
  std::vector<uint64_t> bitmap;

  Search(unsigned seed, int64_t n_queries, const std::vector<int64_t>& list_ids, int64_t k) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < n_queries * kDim; ++i)
      queries.push_back(static_cast<float>(static_cast<int32_t>(random())) / 2147483648.0f);
    request.n_queries = n_queries;
    request.queries = queries.data();
    request.k = k;
    request.min_similarity = -INFINITY;
    request.filters.emplace_back();
    for (int64_t q = 0; q < n_queries; ++q) {
      for (const int64_t id : list_ids) {
        request.segment_queries.push_back(static_cast<uint32_t>(q));
        request.segment_groups.push_back(static_cast<uint32_t>(id % 3));
        request.segment_filters.push_back(0);
        lists.push_back(id);
      }
    }
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  void filter() {
    request.terms = {Term{0, kRange, 100, 4000}, Term{1, kMembership, 0, 3}, Term{0, kOr, 0, 0}};
    request.values = {1, 21, 4001};
    bitmap.assign(8, 0x5555777755557777u);
    request.filters.push_back(Filter{0, 3, 0, 3, true, bitmap.data(), 8});
    for (size_t s = 0; s < request.segment_filters.size(); s += 2) request.segment_filters[s] = 1;
  }

  Found run(const Pool& pool, const ScanPort* port) const {
    const SegmentGroups groups = group_segments(lists.data(), lists.size());
    std::vector<ListHead> heads(groups.list_ids.size());
    pool.snapshot(groups.list_ids.data(), heads.size(), heads.data());
    const auto n = static_cast<size_t>(request.n_queries * request.k);
    Found found{std::vector<float>(n),
                std::vector<float>(n),
                std::vector<int64_t>(n),
                std::vector<int64_t>(n),
                std::vector<int32_t>(static_cast<size_t>(request.n_queries)),
                {}};
    const ScanOutput output{found.scores.data(), found.similarities.data(), found.list_ids.data(), found.row_ids.data(),
                            found.counts.data()};
    const Kernels& kernels = *find_kernels("auto");
    found.counters = port != nullptr ? scan(*port, kernels, pool, request, groups, heads, output, nullptr)
                                     : scan(kernels, pool, request, groups, heads, output, nullptr);
    return found;
  }
};

struct Searched : Tiered {
  explicit Searched(int32_t lanes = 1, int64_t limit = 64 << 20, Storage storage = Storage::kF32, bool screen = true,
                    int64_t pinned_bytes = 0)
      : Tiered(limit, storage, screen, true, 1 << 20, pinned_bytes) {
    before_launch = fake::before_launch;
    queue = std::make_unique<ScanQueue>(*cache, lanes);
    port = queue->port(0);
    for (int64_t id = 0; id < 4; ++id) grow(id, 70 * (id + 1), static_cast<float>(id));
  }
  void heat() {
    for (int64_t id = 0; id < 4; ++id) ask(id);
    load_all();
  }
  std::unique_ptr<ScanQueue> queue;
  ScanPort port;
};

// A call of the port by hand, over one list with its own queries.
struct Call {
  Search search;
  ListView list;
  std::vector<int64_t> begin;
  ScanCall call;
  uint8_t taken = 9;
  void* ticket = nullptr;

  Call(const Searched& t, unsigned seed, int64_t list_id, int64_t k = 5, int64_t n_queries = 2)
      : search(seed, n_queries, {list_id}, k), list(t.view(list_id)) {
    begin = {0, n_queries};
    call.queries = search.queries.data();
    call.n_queries = n_queries;
    call.k = k;
    call.min_similarity = -INFINITY;
    call.n_lists = 1;
    call.lists = &list;
    call.segment_begin = begin.data();
    call.segment_query = search.request.segment_queries.data();
    call.segment_group = search.request.segment_groups.data();
    call.segment_filter = search.request.segment_filters.data();
    call.n_filters = 1;
    call.filters = search.request.filters.data();
  }
  void start(const ScanPort& port) { ticket = port.begin(port.cache, &call, &taken); }
  void check(const Searched& t) const { CHECK(done(t)); }
  // False when the device has not answered; what it answers is compared.
  bool done(const Searched& t) const {
    const Found wanted = search.run(t.pool, nullptr);
    ScanFound found;
    if (!t.port.finish(t.port.cache, ticket, &found)) return false;
    for (int64_t q = 0; q < call.n_queries; ++q) {
      CHECK_EQ(found.counts[q], wanted.counts[static_cast<size_t>(q)]);
      for (int64_t i = 0; i < found.counts[q]; ++i) {
        CHECK_EQ(found.candidates[q * found.k + i].row_id, wanted.row_ids[static_cast<size_t>(q * call.k + i)]);
      }
    }
    return true;
  }
  void end(const ScanPort& port) const { port.end(port.cache, ticket); }
};

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

// --------------------------------------------------------------------------------------------- launches of several callers

TEST(a_launch_takes_so_much_and_no_more) {
  Searched t(1);
  t.heat();
  Call first(t, 1, 0), second(t, 2, 0, 5, 500), third(t, 3, 0, 5, 500), fourth(t, 4, 0, 5, 500), fifth(t, 5, 0);
  Call* const calls[] = {&first, &second, &third, &fourth, &fifth};
  for (Call* call : calls) call->start(t.port);
  for (Call* call : calls) call->check(t);
  CHECK_EQ(t.queue->stats().launches, int64_t{3});  // the first; 500, 500 and 2 queries; 500
  CHECK_EQ(t.queue->stats().shared, int64_t{2});
  for (Call* call : calls) call->end(t.port);

  BatchSize size;
  ScanCall call = first.call;
  const std::vector<int64_t> segments{kBatchSegments * 2};
  call.n_lists = 0;
  call.segment_begin = segments.data();
  CHECK(size.add(call));  // alone it may be as large as it likes
  CHECK(!size.add(first.call));
  BatchSize other;
  CHECK(other.add(first.call) && !other.add(call));
  call = first.call;
  call.k = 4096;
  call.n_queries = 1000;
  CHECK(!other.add(call));
  CHECK(other.add(first.call));
  CHECK_EQ(other.queries, int64_t{4});
}

// What one caller asks for does not fit into the device's memory; those who came along have their answers from the device.
TEST(one_who_asks_too_much_is_the_only_one_without_an_answer) {
  for (const size_t large : {size_t{0}, size_t{1}, size_t{3}}) {
    Searched t(1, 16 << 20);
    t.heat();
    Call first(t, 1, 0);
    std::vector<std::unique_ptr<Call>> calls;
    for (size_t i = 0; i < 4; ++i) {
      calls.push_back(
          std::make_unique<Call>(t, static_cast<unsigned>(i + 2), static_cast<int64_t>(i % 3), 512, i == large ? 120 : 1));
    }
    first.start(t.port);
    for (const auto& call : calls) call->start(t.port);
    first.check(t);
    for (size_t i = 0; i < 4; ++i) CHECK_EQ(calls[i]->done(t), i != large);
    CHECK_EQ(t.queue->stats().fallbacks, int64_t{1});
    CHECK(t.cache->failure().empty());
    first.end(t.port);
    for (const auto& call : calls) call->end(t.port);
  }
}

// One allocation of the host fails, whichever: at most one caller goes to the host for it.
TEST(missing_memory_of_the_host_costs_one_caller) {
  int fell_back = 0;
  for (int64_t n = 0, failed = 1; failed > 0; ++n) {
    Searched t(1);
    t.heat();
    Call first(t, 1, 0);
    Call calls[] = {{t, 2, 0}, {t, 3, 1}, {t, 4, 2}};
    first.start(t.port);
    for (Call& call : calls) call.start(t.port);
    first.check(t);
    ScanFound found;
    allocations_failed = 0;
    fail_once = true;
    allocations_left = n;
    t.port.finish(t.port.cache, calls[0].ticket, &found);
    allocations_left = -1;
    fail_once = false;
    failed = allocations_failed;
    int without = 0;
    for (Call& call : calls) without += call.done(t) ? 0 : 1;
    CHECK(without <= 1);
    CHECK_EQ(t.queue->stats().fallbacks, int64_t{without});
    fell_back += without;
    first.end(t.port);
    for (Call& call : calls) call.end(t.port);
  }
  CHECK(fell_back > 2);
}

// A thread that cannot enter the device launches nothing; the host answers.
TEST(a_search_whose_thread_cannot_enter_is_the_hosts) {
  for (int64_t n = 0; n < 6; ++n) {
    Searched t(1);
    t.heat();
    Search search(1, 2, {0, 1, 2, 3}, 9);
    fake::Device::get().refuse_enter = n;
    const Found found = search.run(t.pool, &t.port);
    CHECK(found == search.run(t.pool, nullptr));
    fake::Device::get().heal();
    fake::Device::get().strangers = 0;
  }
}

// Device and pinned memory, once all that was enqueued is done.
TEST(nothing_of_a_launch_stays) {
  Searched t(2);
  t.heat();
  Search search(7, 3, {0, 1, 2, 3}, 9);
  search.filter();
  for (int round = 0; round < 2; ++round) {
    CHECK_EQ(search.run(t.pool, &t.port).counters.device_lists, int64_t{4});
    fake::Device& device = fake::Device::get();
    for (auto& stream : device.streams) device.run_all(stream.first);
    const auto* const query = reinterpret_cast<const unsigned char*>(search.queries.data() + kDim);
    const auto* const words = reinterpret_cast<const unsigned char*>(search.bitmap.data());
    for (const auto* const memories : {&device.memory, &device.pinned}) {
      for (const auto& [memory, size] : *memories) {
        CHECK(std::search(memory, memory + size, query, query + kDim * sizeof(float)) == memory + size);
        CHECK(std::search(memory, memory + size, words, words + search.bitmap.size() * 8) == memory + size);
      }
    }
    Search larger(8, 20, {0, 1}, 300);  // for which the lane takes another block
    CHECK_EQ(larger.run(t.pool, &t.port).counters.device_lists, int64_t{2});
  }
}

TEST(nobody_waits_for_the_device_who_does_not_ask_it) {
  Searched t(1);
  t.heat();
  int64_t calls = 0, blocked = 0;
  bool inside = false;
  fake::Device::get().on_call = [&] {
    if (inside || blocked > 0) return;
    inside = true;
    ++calls;
    struct Answer {
      std::mutex mutex;
      std::condition_variable came;
      bool there = false;
    };
    const auto answer = std::make_shared<Answer>();
    std::thread other([queue = t.queue.get(), cache = t.cache.get(), answer] {
      queue->stats();
      cache->stats();
      const std::lock_guard<std::mutex> lock(answer->mutex);
      answer->there = true;
      answer->came.notify_all();
    });
    {
      std::unique_lock<std::mutex> lock(answer->mutex);
      blocked += answer->came.wait_for(lock, std::chrono::seconds(10), [&] { return answer->there; }) ? 0 : 1;
    }
    blocked > 0 ? other.detach() : other.join();
    inside = false;
  };
  Search large(2, 64, {0, 1, 2, 3}, 4096);  // more than there is
  large.run(t.pool, &t.port);
  Call waiting[] = {{t, 1, 0}, {t, 2, 1}, {t, 3, 2}};
  for (Call& call : waiting) call.start(t.port);
  for (Call& call : waiting) call.check(t);
  fake::Device::get().fail_from = 3;
  Search small(1, 2, {0, 1, 2, 3}, 9);
  small.run(t.pool, &t.port);
  fake::Device::get().heal();
  for (Call& call : waiting) call.end(t.port);
  CHECK_EQ(blocked, int64_t{0});
  CHECK(calls > 20);
}

// --------------------------------------------------------------------------------------------- shared memory of kernels

struct NoParams {};
WARPMEM_KERNEL(32) idle_kernel(NoParams) {}

// Between a lane's permission and its launch another lane asks for less.
TEST(lanes_share_what_a_kernel_is_allowed) {
  const auto launch_with = [](int64_t shared_bytes, Stream stream) {
    launch("idle", idle_kernel, Grid{1, 32, shared_bytes}, stream, NoParams{});
  };
  static const auto* launching = &launch_with;
  before_launch = [](Stream stream) {
    if (stream != nullptr) (*launching)(60 << 10, nullptr);
  };
  char lane = 0;
  launch_with(100 << 10, reinterpret_cast<Stream>(&lane));
  before_launch = fake::before_launch;
  launch_with(80 << 10, nullptr);
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
