// The SIMT emulator by itself: every operation against its definition, every report provoked.
#include <chrono>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "../../csrc/cuda/kernels/intrinsics.cuh"
#include "../../csrc/cuda/kernels/self_test.cuh"
#include "check.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem::cuda;
using simt::Machine;

namespace {

// Runs a kernel and returns what the emulator reports, or "".
std::string report_of(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  try {
    Machine::get().launch("probe", blocks, threads, shared_bytes, kernel);
  } catch (const simt::Error& error) {
    return error.what();
  }
  return "";
}

void expect_clean(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  CHECK_EQ(report_of(blocks, threads, shared_bytes, kernel), "");
}

bool contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  std::printf("'%s' is not in '%s'\n", part.c_str(), text.c_str());
  return false;
}

}  // namespace

TEST(threads_know_their_places) {
  std::vector<int> seen(5 * 96, 0);
  expect_clean(5, 96, 0, [&] {
    CHECK_EQ(block_threads(), 96);
    CHECK_EQ(grid_blocks(), 5);
    CHECK_EQ(warp_index() * 32 + lane_index(), thread_index());
    ++seen[static_cast<size_t>(block_index() * 96 + thread_index())];
  });
  CHECK(std::count(seen.begin(), seen.end(), 1) == 480);
}

TEST(shuffles_and_votes) {
  expect_clean(1, 64, 0, [] {
    const int lane = lane_index();
    const int64_t value = thread_index() * 1000000007LL;
    const int64_t base = warp_index() * 32;
    CHECK_EQ(shuffle(value, 5), (base + 5) * 1000000007LL);
    CHECK_EQ(shuffle_xor(value, 16), (base + (lane ^ 16)) * 1000000007LL);
    CHECK_EQ(shuffle_up(lane, 3), lane < 3 ? lane : lane - 3);
    CHECK_EQ(shuffle_down(lane, 30), lane < 2 ? lane + 30 : lane);
    CHECK_EQ(shuffle(0.5 * lane, 31 - lane), 0.5 * (31 - lane));
    CHECK_EQ(ballot(lane % 3 == 0), 0x49249249u);
    CHECK(any_lane(lane == 7) && !any_lane(lane > 31));
    CHECK(all_lanes(lane < 32) && !all_lanes(lane != 31));
    CHECK_EQ(match_any(static_cast<uint32_t>(lane % 16)), 0x00010001u << lane % 16);
    CHECK_EQ(reduce_add(static_cast<uint32_t>(lane)), 496u);
    CHECK_EQ(reduce_max(static_cast<uint32_t>(lane ^ 21)), 31u);
    CHECK_EQ(reduce_min(static_cast<uint32_t>(lane + 4)), 4u);
  });
}

TEST(half_warps_meet_on_their_own) {
  expect_clean(1, 32, 0, [] {
    const bool low = lane_index() < 16;
    const uint32_t mask = low ? 0x0000ffffu : 0xffff0000u;
    for (int i = 0; i < (low ? 3 : 5); ++i) CHECK_EQ(reduce_add(1, mask), 16u);
    CHECK_EQ(ballot(low), 0x0000ffffu);
  });
}

TEST(barriers_count_and_order) {
  std::vector<int> got(1024);
  expect_clean(2, 1024, 4096, [&] {
    const Shared<int32_t> values = shared_array<int32_t>(0, 1024);
    for (int round = 0; round < 5; ++round) {
      values[thread_index()] = thread_index() + round;
      CHECK_EQ(sync_threads_count(thread_index() % 4 == round % 4), 256);
      CHECK(sync_threads_or(thread_index() == 1023) && !sync_threads_or(false));
      got[static_cast<size_t>(thread_index())] = values[1023 - thread_index()];
      sync_threads();
    }
  });
  for (int i = 0; i < 1024; ++i) CHECK_EQ(got[static_cast<size_t>(i)], 1023 - i + 4);
}

TEST(atomics_return_the_old_value) {
  uint64_t sum = 0;
  int32_t least = 100;
  uint32_t most = 0, bits = 0, owner = 99;
  expect_clean(3, 32, 0, [&] {
    const auto id = static_cast<uint32_t>(block_index() * 32 + thread_index());
    CHECK_EQ(atomic_add(&sum, uint64_t{1}), uint64_t{id});
    atomic_min(&least, -static_cast<int32_t>(id));
    atomic_max(&most, id);
    atomic_or(&bits, 1u << lane_index());
    CHECK_EQ(atomic_cas(&owner, 99u, id), id == 0 ? 99u : 0u);
    CHECK_EQ(atomic_exchange(&owner, 0u), 0u);
  });
  CHECK_EQ(sum, 96u);
  CHECK_EQ(least, -95);
  CHECK_EQ(most, 95u);
  CHECK_EQ(bits, 0xffffffffu);
}

TEST(asynchronous_copies_arrive_with_their_wait) {
  alignas(16) unsigned char from[2][16];
  std::memset(from[0], 1, 16);
  std::memset(from[1], 2, 16);
  expect_clean(1, 32, 64, [&] {
    if (thread_index() != 0) return;
    const Shared<unsigned char> to = shared_array<unsigned char>(0, 64);
    copy_async_16(&to[0], from[0]);
    copy_async_commit();
    copy_async_16(&to[32], from[1]);
    copy_async_commit();
    CHECK_EQ(int{to[0]}, int{Machine::get().settings.fill});
    copy_async_wait<1>();
    CHECK_EQ(int{to[15]}, 1);
    CHECK_EQ(int{to[32]}, int{Machine::get().settings.fill});
    copy_async_wait<0>();
    CHECK_EQ(int{to[47]}, 2);
    CHECK_EQ(load_16(from[1]).word[3], 0x02020202u);
  });
}

TEST(matrix_products_follow_the_layout) {
  // Every element of A and B is put where the drawing in intrinsics.cuh says; the product is compared with plain loops.
  int32_t a[16][32], b[32][8];
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 32; ++k) a[i][k] = (i * 37 + k * 11) % 15 - 7;
  }
  for (int k = 0; k < 32; ++k) {
    for (int j = 0; j < 8; ++j) b[k][j] = (k * 5 + j * 3) % 13 - 6;
  }
  const auto bf16 = [](int32_t v) { return detail::to_bits(static_cast<float>(v)) >> 16; };
  const auto f16 = [](int32_t v) -> uint64_t {  // of a small integer
    if (v == 0) return 0;
    const uint64_t bits = detail::to_bits(static_cast<float>(v));
    return (bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023);
  };
  const auto s8 = [](int32_t v) { return uint64_t{static_cast<uint8_t>(v)}; };
  expect_clean(1, 32, 0, [&] {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const auto pack = [&](int per, auto row, auto column, const auto& table, const auto& code, int run) {
      uint32_t word = 0;
      for (int p = 0; p < per; ++p) {
        const int r = run == 0 ? row : row + p;
        const int c = run == 0 ? column + p : column;
        word |= static_cast<uint32_t>(code(table[r][c]) << (32 / per * p));
      }
      return word;
    };
    const auto check = [&](int depth, const auto& d) {
      for (int i = 0; i < 4; ++i) {
        int32_t sum = 100 + i;
        for (int k = 0; k < depth; ++k) sum += a[g + 8 * (i / 2)][k] * b[k][2 * t + i % 2];
        CHECK(static_cast<int32_t>(d[i]) == sum);
      }
    };
    const auto load = [&](int per, const auto& code, uint32_t (&x)[4], uint32_t (&y)[2]) {
      for (int i = 0; i < 4; ++i) x[i] = pack(per, g + 8 * (i % 2), t * per + 4 * per * (i / 2), a, code, 0);
      for (int i = 0; i < 2; ++i) y[i] = pack(per, t * per + 4 * per * i, g, b, code, 1);
    };
    uint32_t x[4], y[2];
    float d[4] = {100, 101, 102, 103}, e[4] = {100, 101, 102, 103};
    int32_t f[4] = {100, 101, 102, 103};
    load(2, bf16, x, y);
    mma_bf16(d, x, y);
    check(16, d);
    load(2, f16, x, y);
    mma_f16(e, x, y);
    check(16, e);
    load(4, s8, x, y);
    mma_s8(f, x, y);
    check(32, f);
  });
  CHECK_EQ(detail::from_f16(0x0001), 0x1p-24f);
  CHECK_EQ(detail::from_f16(0xfc00), -std::numeric_limits<float>::infinity());
}

TEST(byte_products) {
  CHECK_EQ(dp4a(0x80ff0102u, 0x7f02fe03u, 10), 10 + 2 * 3 + 1 * -2 + -1 * 2 + -128 * 127);
  CHECK_EQ(dp4a_unsigned(0x80ff0102u, 0x7f02fe03u, 10), 10u + 2 * 3 + 1 * 254 + 255 * 2 + 128 * 127);
}

// Reports ----------------------------------------------------------------------------------------------------------------------------------------

TEST(a_barrier_that_a_thread_misses_is_reported) {
  const std::string exited = report_of(4, 64, 0, [] {
    if (block_index() == 2 && thread_index() == 40) return;
    sync_threads();
  });
  CHECK(contains(exited, "probe, block 2, thread"));
  CHECK(contains(exited, "divergent barrier at test_simt.cpp:"));
  CHECK(contains(exited, "thread 40 has exited"));
  const std::string elsewhere = report_of(1, 64, 0, [] {
    if (thread_index() < 50) {
      sync_threads();
    } else {
      sync_threads();
    }
  });
  CHECK(contains(elsewhere, "divergent barrier: this thread is at test_simt.cpp:"));
  const std::string other = report_of(1, 64, 0, [] {
    if (thread_index() == 3) {
      static_cast<void>(ballot(true));
    } else {
      sync_threads();
    }
  });
  CHECK(contains(other, "waits in"));
}

TEST(a_collective_whose_lanes_do_not_arrive_is_reported) {
  const std::string exited = report_of(1, 32, 0, [] {
    if (lane_index() == 9) return;
    static_cast<void>(ballot(true));
  });
  CHECK(contains(exited, "probe, block 0, thread"));
  CHECK(contains(exited, "ballot at test_simt.cpp:"));
  CHECK(contains(exited, "with mask ffffffff: thread 9 does not arrive, it has exited"));
  const std::string mask = report_of(1, 32, 0, [] { sync_warp(lane_index() < 4 ? 0xffffffffu : 0xfffffff0u); });
  CHECK(contains(mask, "does not arrive"));
  const std::string operation = report_of(1, 32, 0, [] {
    if (lane_index() % 2 == 0) {
      static_cast<void>(shuffle(1, 0));
    } else {
      static_cast<void>(ballot(true));
    }
  });
  CHECK(contains(operation, "does not arrive, it waits in"));
  CHECK(contains(report_of(1, 32, 0, [] { sync_warp(1u); }), "which leaves out the caller"));
  CHECK(contains(report_of(1, 32, 0,
                           [] {
                             if (lane_index() < 2) static_cast<void>(shuffle(1, 2, 3u));
                           }),
                 "reads lane 2, which is not in mask 00000003"));
  CHECK(contains(report_of(1, 40, 0, [] { sync_warp(); }), "but the warp has lanes 000000ff only"));
}

TEST(shared_memory_out_of_bounds_is_reported) {
  const std::string index = report_of(1, 64, 256, [] {
    const Shared<int32_t> values = shared_array<int32_t>(0, 64);
    sync_threads();
    values[thread_index() + 1] = 0;
  });
  CHECK(contains(index, "probe, block 0, thread 63: shared memory: index 64 of an array of 64 elements of 4 bytes"));
  CHECK(contains(report_of(1, 32, 100, [] { shared_array<int32_t>(96, 2)[0] = 1; }),
                 "bytes 96 to 104 of the 100 that the launch asked for"));
  CHECK(contains(report_of(1, 32, 100, [] { shared_array<int64_t>(4, 2)[0] = 1; }), "offset 4 is not aligned to 8 bytes"));
  alignas(16) unsigned char from[32] = {};
  CHECK(contains(report_of(1, 32, 64, [&] { copy_async_16(&shared_array<unsigned char>(0, 64)[8], from); }), "misaligned"));
  CHECK(contains(report_of(1, 32, 64, [&] { copy_async_16(&shared_array<unsigned char>(0, 64)[0], from + 1); }), "misaligned"));
#if !defined(SIMT_ASAN)  // it ends the process
  CHECK(contains(report_of(1, 32, 64, [] { (&shared_array<unsigned char>(0, 64)[63])[1] = 7; }),
                 "some thread of this block wrote outside the dynamic shared memory"));
#endif
}

TEST(impossible_launches_are_reported) {
  CHECK(contains(report_of(1, 1025, 0, [] {}), "cannot launch 1 blocks of 1025 threads"));
  CHECK(contains(report_of(0, 32, 0, [] {}), "cannot launch 0 blocks"));
}

TEST(the_machine_works_on_after_a_report) {
  for (int i = 0; i < 3; ++i) {
    CHECK(report_of(1, 128, 0, [] {
            if (thread_index() != 77) sync_threads();
          }) != "");
    int sum = 0;
    expect_clean(2, 128, 0, [&] {
      sync_threads();
      atomic_add(&sum, 1);
    });
    CHECK_EQ(sum, 256);
  }
  // A report before other threads have run, and then a block with fewer.
  CHECK(report_of(1, 64, 0, [] { sync_warp(~(1u << lane_index())); }) != "");
  int sum = 0;
  expect_clean(1, 40, 0, [&] { atomic_add(&sum, 1); });
  CHECK_EQ(sum, 40);
}

TEST(uninitialised_reads_and_races_give_two_results) {
  const auto run = [](bool initialise, bool synchronise) {
    return simt::run_twice([&](unsigned char fill) {
      std::vector<int32_t> out(32);
      std::vector<int32_t> values(32, fill);  // of global memory, whose races nothing else shows
      Machine::get().launch("probe", 1, 32, 128, [&] {
        const Shared<int32_t> shared = shared_array<int32_t>(0, 32);
        const auto t = static_cast<size_t>(thread_index());
        if (initialise || t != 5) shared[thread_index()] = thread_index();
        values[t] = thread_index();
        if (synchronise) sync_threads();
        out[t] = values[31 - t] + (synchronise ? shared[31 - thread_index()] : 0);
      });
      return out;
    });
  };
  CHECK_EQ(run(true, true)[3], 56);
  for (const bool initialise : {false, true}) {
    bool thrown = false;
    try {
      run(initialise, !initialise);
    } catch (const simt::Error& error) {
      thrown = contains(error.what(), "two runs differ");
    }
    CHECK(thrown);
  }
}

TEST(canonical_sums_by_a_warp_are_the_hosts) {
  // The kernel that doctor runs on a device, over dimensions with and without a short last chunk.
  for (const int64_t dim : {1, 31, 32, 33, 96, 100}) {
    constexpr int64_t kRows = 13;
    std::vector<float> rows(static_cast<size_t>(kRows * dim));
    std::vector<float> query(static_cast<size_t>(dim));
    std::vector<double> exponents(kRows);
    uint32_t state = 7;
    const auto next = [&state] {
      state = state * 1664525u + 1013904223u;
      return static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
    };
    for (float& x : rows) x = next();
    for (float& x : query) x = next();
    for (double& x : exponents) x = -400.0 * static_cast<double>(next() + 1.0f);
    const auto similarities = simt::run_twice([&](unsigned char) {
      std::vector<float> found(kRows);
      std::vector<double> recencies(kRows);
      const SelfTestParams params{rows.data(), query.data(), exponents.data(), found.data(), recencies.data(), kRows, dim};
      Machine::get().launch("self_test", (kRows + 3) / 4, kSelfTestThreads, 0, [&] { self_test_kernel(params); });
      for (size_t i = 0; i < recencies.size(); ++i) CHECK_EQ(recencies[i], warpmem::exp2_neg(exponents[i]));
      return found;
    });
    for (int64_t i = 0; i < kRows; ++i)
      CHECK_EQ(similarities[static_cast<size_t>(i)], warpmem::dot(rows.data() + i * dim, query.data(), dim));
    double squared = 0.0;
    Machine::get().launch("probe", 1, 32, 0, [&] {
      const double sum = warp_squared_distance_f64(rows.data(), query.data(), dim);
      if (lane_index() == 5) squared = sum;
    });
    CHECK_EQ(squared, warpmem::squared_distance_f64(rows.data(), query.data(), dim));
  }
}

TEST(pairwise_lists_hold_every_pair_and_few_of_what_costs_much) {
  const std::vector<int> sizes = {5, 1, 4, 3, 2};
  const auto avoid = [](const simt::Values& v) { return v[0] == 4 && v[2] == 3 && v[3] > 0; };  // -1 is no value
  for (const bool avoided : {false, true}) {
    const auto cases = avoided ? simt::pairwise(sizes, avoid) : simt::pairwise(sizes);
    for (size_t a = 0; a < sizes.size(); ++a) {
      for (size_t b = a + 1; b < sizes.size(); ++b) {
        for (int pair = 0; pair < sizes[a] * sizes[b]; ++pair) {
          CHECK(std::any_of(cases.begin(), cases.end(),
                            [&](const simt::Values& v) { return v[a] == pair / sizes[b] && v[b] == pair % sizes[b]; }));
        }
      }
    }
    CHECK(cases.size() < 30);
    if (avoided) CHECK(std::none_of(cases.begin(), cases.end(), avoid));
  }
}

TEST(launches_are_counted) {
  const int64_t before = Machine::get().launches["probe"];
  report_of(3, 32, 0, [] {});
  CHECK_EQ(Machine::get().launches["probe"], before + 1);
}

TEST(deep_frames_fit) {
  expect_clean(1, 1024, 0, [] {
    volatile char large[32 << 10];
    large[0] = 1;
    large[sizeof large - 1] = 2;
    sync_threads();
    CHECK_EQ(large[0] + large[sizeof large - 1], 3);
  });
}

TEST(switches_are_cheap) {
  Machine& machine = Machine::get();
  const uint64_t before = machine.switches;
  const auto began = std::chrono::steady_clock::now();
  uint32_t total = 0;
  machine.launch("probe", 8, 256, 0, [&] {
    uint32_t value = 1;
    for (int i = 0; i < 500; ++i) value = shuffle_xor(value, 1) + 1;
    if (thread_index() == 0) total += value;
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const auto switches = static_cast<double>(machine.switches - before);
  std::printf("     %.1f million switches a second\n", switches / seconds * 1e-6);
  CHECK_EQ(total, 8u * 501u);
  CHECK(switches > 8 * 256 * 480);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
