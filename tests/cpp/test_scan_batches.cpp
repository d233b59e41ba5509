// csrc/cuda's launches of several callers: how much one takes, who goes without when something is missing, who waits for the driver, and what stays behind.
#include <algorithm>

#include "failing_allocations.hpp"

#include "bystander.hpp"
#include "scan_queue_cases.hpp"

namespace {

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
    {
      const Failing failing(n, true);
      t.port.finish(t.port.cache, calls[0].ticket, &found);
    }
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

// Pinned memory is the machine's: a lane keeps as much as most launches need.
TEST(a_lane_gives_back_the_pinned_memory_of_a_large_launch) {
  Searched t(1, int64_t{2} << 30);
  t.heat();
  const auto pinned = [] {
    int64_t bytes = 0;
    for (const auto& [memory, size] : fake::Device::get().pinned) bytes += size;
    return bytes;
  };
  const int64_t before = pinned();
  Search large(2, 1024, {0}, 800);
  CHECK_EQ(large.run(t.pool, &t.port).counters.device_lists, int64_t{1});
  CHECK_EQ(t.queue->stats().launches, int64_t{1});  // not one of many pieces
  CHECK(pinned() - before <= int64_t{16} << 20);
  Search small(1, 2, {0, 1, 2, 3}, 9);
  CHECK_EQ(small.run(t.pool, &t.port).counters.device_lists, int64_t{4});
}

TEST(nobody_waits_for_the_device_who_does_not_ask_it) {
  Searched t(1);
  t.heat();
  const auto ask = [queue = t.queue.get(), cache = t.cache.get()] {
    queue->stats();
    cache->stats();
  };
  const Bystander bystander(ask);
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
  CHECK_EQ(bystander.blocked, int64_t{0});
  CHECK(bystander.calls > 20);
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
  before_launch = [](Stream stream, const std::function<void()>&) {
    if (stream != nullptr) (*launching)(60 << 10, nullptr);
    return false;
  };
  char lane = 0;
  launch_with(100 << 10, reinterpret_cast<Stream>(&lane));
  before_launch = fake::before_launch;
  launch_with(80 << 10, nullptr);
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
