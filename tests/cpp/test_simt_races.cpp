// What the SIMT emulator takes for a race in shared memory, and what not.
#include <functional>
#include <string>
#include <vector>

#include "../../csrc/cuda/kernels/intrinsics.cuh"
#include "check.hpp"

using namespace warpmem::cuda;
using simt::Machine;

namespace {

// What is reported of a kernel of two blocks of 64 threads, in either order of threads, or "".
std::string report_of(const std::function<void()>& kernel) {
  std::string found[2];
  for (const bool reverse : {false, true}) {
    Machine::get().settings = simt::Settings{0, reverse, true};
    try {
      Machine::get().launch("probe", 2, 64, 1024, kernel);
    } catch (const simt::Error& error) {
      found[reverse ? 1 : 0] = error.what();
    }
  }
  Machine::get().settings = {};
  CHECK_EQ(found[0].empty(), found[1].empty());
  return found[0];
}

bool races(const std::function<void()>& kernel) {
  const std::string found = report_of(kernel);
  CHECK(found.empty() || found.find("race: byte ") != std::string::npos);
  return !found.empty();
}

Shared<uint32_t> words() { return shared_array<uint32_t>(0, 64); }

void write_own() { words()[thread_index()] = static_cast<uint32_t>(thread_index()) + 1; }
uint32_t read_other(int distance) { return words()[thread_index() ^ distance]; }

}  // namespace

TEST(a_barrier_orders_all_memory) {
  CHECK(!races([] { write_own(); }));
  CHECK(!races([] {
    write_own();
    read_other(0);
  }));
  CHECK(races([] {
    write_own();
    read_other(32);
  }));
  CHECK(!races([] {
    write_own();
    sync_threads();
    read_other(32);
  }));
  CHECK(!races([] {
    write_own();
    sync_threads_or(false);
    read_other(1);
  }));
}

TEST(sync_warp_orders_the_memory_of_its_lanes) {
  CHECK(!races([] {
    write_own();
    sync_warp();
    read_other(1);
  }));
  CHECK(races([] {
    write_own();
    sync_warp();
    read_other(32);
  }));
  const auto by_halves = [](int distance) {
    return [distance] {
      write_own();
      sync_warp(lane_index() < 16 ? 0x0000ffffu : 0xffff0000u);
      read_other(distance);
    };
  };
  CHECK(!races(by_halves(8)));
  CHECK(races([] {
    write_own();
    if (lane_index() < 16) sync_warp(0x0000ffffu);
    read_other(16);
  }));
}

TEST(shuffles_and_votes_order_none) {
  CHECK(races([] {
    write_own();
    shuffle(1, 0);
    read_other(1);
  }));
  CHECK(races([] {
    write_own();
    any_lane(true);
    read_other(1);
  }));
  CHECK(races([] {  // what was read is overwritten
    read_other(1);
    reduce_add(1);
    write_own();
  }));
  CHECK(!races([] {
    read_other(1);
    sync_warp();
    write_own();
  }));
}

// In order, and in reverse, each warp is through with a turn before the next warp begins it, and so the sums are right.
TEST(a_barrier_that_a_loop_lacks_at_its_end) {
  const auto turns = [](bool synchronised) {
    return [synchronised] {
      for (uint32_t turn = 0; turn < 3; ++turn) {
        if (thread_index() == 63) words()[0] = turn;
        sync_threads();
        const uint32_t seen = words()[0];
        CHECK(seen == turn || !synchronised);
        if (synchronised) sync_threads();
      }
    };
  };
  CHECK(!races(turns(true)));
  CHECK(races(turns(false)));
}

TEST(atomic_operations_race_with_others_alone) {
  CHECK(!races([] {
    if (thread_index() == 0) words()[0] = 0;
    sync_threads();
    atomic_add(&words()[0], 1u);
    atomic_max(&words()[0], 3u);
    sync_threads();
    CHECK(words()[0] >= 64);
  }));
  CHECK(races([] {
    if (thread_index() == 0) words()[0] = 7;
    atomic_add(&words()[0], 1u);
  }));
  CHECK(races([] {
    atomic_add(&words()[0], 1u);
    read_other(thread_index());
  }));
}

TEST(asynchronous_copies_are_writes) {
  static std::vector<Bytes16> from(64);
  const auto copies = [](bool synchronised) {
    return [synchronised] {
      const Shared<Bytes16> to = shared_array<Bytes16>(0, 64);
      copy_async_16(&to[thread_index()], &from[static_cast<size_t>(thread_index())]);
      copy_async_commit();
      copy_async_wait<0>();
      if (synchronised) sync_threads();
      const Bytes16 other = to[63 - thread_index()];
      CHECK_EQ(other.word[0], 0u);
    };
  };
  CHECK(!races(copies(true)));
  CHECK(races(copies(false)));
}

// A barrier between the beginning of a copy and the wait for it does not help who reads what was there.
TEST(asynchronous_copies_write_from_their_beginning_on) {
  static std::vector<Bytes16> from(64);
  const auto copies = [](bool synchronised) {
    return [synchronised] {
      const Shared<Bytes16> to = shared_array<Bytes16>(0, 64);
      const uint32_t before = to[63 - thread_index()].word[0];
      if (synchronised) sync_threads();  // all have read
      copy_async_16(&to[thread_index()], &from[static_cast<size_t>(thread_index())]);
      copy_async_commit();
      sync_threads();
      copy_async_wait<0>();
      CHECK(before == 0u || !synchronised);
    };
  };
  CHECK(!races(copies(true)));
  CHECK(races(copies(false)));
}

TEST(bytes_and_words_are_told_apart) {
  CHECK(!races([] {
    const Shared<uint8_t> bytes = shared_array<uint8_t>(0, 64);
    bytes[thread_index()] = static_cast<uint8_t>(thread_index() + 1);
  }));
  CHECK(!races([] {
    const Shared<uint64_t> wide = shared_array<uint64_t>(0, 64);
    wide[thread_index()] = 5;
  }));
  CHECK(races([] {
    const Shared<uint64_t> wide = shared_array<uint64_t>(0, 64);
    if (thread_index() == 1) wide[4] = uint64_t{5} << 32;
    if (thread_index() == 33) words()[9] = 6;
  }));
}

TEST(a_report_names_both) {
  const std::string found = report_of([] {
    sync_threads();
    if (thread_index() == 3) words()[2] = 9;
    if (thread_index() == 40) words()[2] = 8;
  });
  // The last to meet runs on, and its warp with it.
  for (const char* part :
       {"probe, block 0, thread 3: race: byte 8 of the shared memory: this thread, last at test_simt_races.cpp:",
        ", writes it; thread 40, last at test_simt_races.cpp:", ", wrote it"}) {
    CHECK(found.find(part) != std::string::npos);
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
