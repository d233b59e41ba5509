// csrc/cuda's cache of pages on a device that is not there (fake_device.hpp): what is in its memory is compared with the pool, and stays within the limit.
// Kernels have no part in it. Faults, popularity and threads: test_page_cache_faults.cpp.
#include <algorithm>
#include <random>

#include "page_cache_cases.hpp"

namespace {

// --------------------------------------------------------------------------------------------- contents

TEST(loaded_lists_are_copies) {
  CHECK_EQ(PageBlocks(PageLayout(kDim, kColumns, Storage::kF32, true)).bytes(), kPageBytes);
  for (const Format& format : kFormats) {
    Tiered t(64 << 20, format.storage, format.screen);
    for (int64_t id = 0; id < 6; ++id) t.grow(id, int64_t{1} << (2 * id), static_cast<float>(id));
    t.change(5, {}, {400, 401, 700}, 0);
    CHECK_EQ(check_hot(t, 6), 0);
    t.load_all();
    CHECK_EQ(check_hot(t, 6), 6);
    CHECK(!t.ask(77));  // the pool has no such list
    t.load_all();
    CHECK_EQ(t.cache->stats().lists, int64_t{6});
  }
}

TEST(a_change_copies_what_changed) {
  for (const Format& format : kFormats) {
    Tiered t(64 << 20, format.storage, format.screen);
    t.grow(0, 1000);
    t.ask(0);
    t.load_all();
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{16});
    t.grow(0, 3, 2);  // in the last page
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{17});
    CHECK_EQ(check_hot(t, 1), 1);
    t.grow(0, 64, 3);  // the rest of it, and one more
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19});
    CHECK_EQ(check_hot(t, 1), 1);
    std::vector<int64_t> gone;
    for (int64_t row = 0; row < 1000; row += 9) gone.push_back(row);
    t.change(0, {}, gone, 0);  // validity words alone
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19});
    CHECK_EQ(check_hot(t, 1), 1);
    t.pool.compact(t.pool.lock_writer(), 0);  // other pages
    CHECK(!t.ask(0));
    t.load_all();
    CHECK_EQ(check_hot(t, 1), 1);
    CHECK_EQ(t.cache->stats().uploaded_pages, int64_t{19 + 15});
    CHECK_EQ(t.cache->stats().lists, int64_t{1});
  }
}

TEST(a_change_too_large_for_a_writer_is_loaded_later) {
  Tiered t(64 << 20, Storage::kF32, true, true, 4 * kPageBytes);
  t.grow(0, 64);
  t.ask(0);
  t.load_all();
  t.grow(0, 640);
  CHECK(!t.ask(0));
  CHECK(t.cache->load_next());
  CHECK(t.ask(0));
  CHECK_EQ(check_hot(t, 1), 1);
}

// A search that pinned a version reads that version, whatever happens meanwhile.
TEST(a_pinned_version_stays) {
  Tiered t(64 << 20);
  t.grow(0, 100);
  t.ask(0);
  t.load_all();
  const Rows before = rows_in_pool(t.pool, 0);
  Pins pins;
  const ListView list = t.view(0);
  t.cache->pin(&list, 1, &pins);
  t.change(0, {500, 501}, {0, 1, 64}, 7);
  CHECK(t.ask(0));
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.cache->evict({0});
  CHECK(!t.ask(0));
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.pool.drop(t.pool.lock_writer(), {0});
  t.cache->refresh({0});
  t.grow(1, 3000);
  t.ask(1);
  t.load_all();
  CHECK(rows_on_device(*t.cache, *pins[0]) == before);
  t.cache->unpin(&pins);
}

// Whoever is evicted while it waits does not come after all.
TEST(lists_that_wait_are_evicted_too) {
  Tiered t(64 << 20);
  for (int64_t id = 0; id < 3; ++id) t.grow(id, 100);
  for (int64_t id = 0; id < 3; ++id) CHECK(!t.ask(id));
  t.cache->evict({0, 2});
  CHECK_EQ(t.cache->stats().waiting, int64_t{1});
  t.load_all();
  CHECK_EQ(t.cache->stats().lists, int64_t{1});
  CHECK(t.ask(1));
  CHECK(!t.ask(0));  // and is wanted anew
  t.load_all();
  CHECK(t.ask(0));
}

bool device_is_zero() {
  fake::Device& device = fake::Device::get();
  for (auto& stream : device.streams) device.run_all(stream.first);
  // Chunks that no block was ever taken from still have the poison; a byte of either is nobody's.
  return std::all_of(device.memory.begin(), device.memory.end(), [](const auto& chunk) {
    return std::all_of(chunk.first, chunk.first + chunk.second, [](unsigned char b) { return b == 0 || b == fake::kPoison; });
  });
}

TEST(what_is_erased_is_zeroed) {
  Tiered t(64 << 20);
  for (int64_t id = 0; id < 5; ++id) t.grow(id, 300 * (id + 1), static_cast<float>(id + 1));
  check_hot(t, 5);
  t.load_all();
  CHECK(!device_is_zero());
  t.pool.drop(t.pool.lock_writer(), {0, 1, 2});
  t.cache->refresh({0, 1, 2});
  CHECK_EQ(t.cache->stats().lists, int64_t{2});
  std::vector<int64_t> all;
  for (const auto& row : rows_in_pool(t.pool, 3)) all.push_back(row.first);
  t.change(3, {}, all, 0);  // the last row of a list goes: so does the list
  t.cache->evict({4});
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
  CHECK(device_is_zero());
}

// --------------------------------------------------------------------------------------------- room

TEST(random_histories_stay_within_the_limit) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    std::printf("seed %u\n", seed);
    std::mt19937 random(seed);
    const Format format = kFormats[seed % 5];
    Tiered t(60 * kPageBytes, format.storage, format.screen);
    constexpr int64_t kLists = 30;
    int hot = 0;
    for (int step = 0; step < 500; ++step) {
      const auto id = static_cast<int64_t>(random() % kLists);
      const unsigned what = random() % 10;
      if (what < 4) t.grow(id, 1 + random() % 200, static_cast<float>(step % 7));
      if (what == 4) {
        const Rows rows = rows_in_pool(t.pool, id);
        std::vector<int64_t> gone;
        for (const auto& row : rows) {
          if (random() % 3 == 0) gone.push_back(row.first);
        }
        t.change(id, {}, gone, 0);
      }
      if (what == 5) t.pool.drop(t.pool.lock_writer(), {id}), t.cache->refresh({id});
      if (what == 6) t.cache->warm({id, (id + 1) % kLists});
      if (what == 7) t.cache->evict({id});
      for (int i = 0; i < 3; ++i) t.ask(static_cast<int64_t>(random() % kLists));
      if (what != 8) t.cache->load_next();
      if (step % 25 == 0) hot += check_hot(t, kLists);
      CHECK(fake::Device::get().allocated <= 60 * kPageBytes);
    }
    CHECK(fake::Device::get().most <= 60 * kPageBytes);
    CHECK(fake::Device::get().most > 40 * kPageBytes);
    CHECK_EQ(t.cache->stats().allocated, fake::Device::get().allocated);
    CHECK(hot > 40);
    CHECK(t.cache->stats().evictions > 10);
    CHECK(t.cache->failure().empty());
  }
}

TEST(a_list_larger_than_the_limit_is_not_loaded) {
  Tiered t(20 * kPageBytes);
  t.grow(0, 64 * 30);
  t.grow(1, 64);
  for (int i = 0; i < 3; ++i) CHECK(!t.ask(0));
  t.ask(1);
  t.load_all();
  CHECK(!t.ask(0));
  CHECK(t.ask(1));
  CHECK_EQ(t.cache->warm({0}), int64_t{1});
  t.load_all();
  CHECK(!t.ask(0) && t.ask(1));
}

TEST(a_hot_list_that_outgrows_the_limit_goes_cold) {
  Tiered t(20 * kPageBytes);
  t.grow(0, 64 * 8);
  t.ask(0);
  t.load_all();
  CHECK(t.ask(0));
  t.grow(0, 64 * 30);
  t.load_all();
  CHECK(!t.ask(0));
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
}

TEST(pinned_lists_are_not_evicted) {
  Tiered t(35 * kPageBytes * 8 / 7);
  for (int64_t id = 0; id < 4; ++id) t.grow(id, 64 * 10);
  for (int64_t id = 0; id < 3; ++id) t.ask(id);
  t.load_all();
  Pins pins[3];
  for (int64_t id = 0; id < 3; ++id) {
    const ListView list = t.view(id);
    t.cache->pin(&list, 1, &pins[id]);
    CHECK(pins[id][0] != nullptr);
  }
  t.cache->warm({3});
  t.load_all();
  CHECK(!t.ask(3));
  t.cache->unpin(&pins[1]);
  t.cache->warm({3});
  t.load_all();
  CHECK(t.ask(0) && !t.ask(1) && t.ask(2) && t.ask(3));
  for (Pins& some : pins) t.cache->unpin(&some);
}

TEST(warm_loads_what_was_never_asked_for) {
  Tiered t(33 * kPageBytes * 8 / 7);
  for (int64_t id = 0; id < 8; ++id) t.grow(id, 64 * 8);
  for (int round = 0; round < 20; ++round) {
    for (int64_t id = 0; id < 4; ++id) t.ask(id);
    t.load_all();
  }
  t.ask(7);
  t.load_all();
  CHECK(!t.ask(7));  // asked for twice, the others twenty times
  CHECK_EQ(t.cache->warm({7, 0}), int64_t{1});
  t.load_all();
  CHECK(t.ask(7));
}

// --------------------------------------------------------------------------------------------- codes alone

Keep keep_of(const Tiered& t, int64_t list_id) {
  Pins pins;
  const ListView list = t.view(list_id);
  t.cache->pin(&list, 1, &pins);
  const Keep keep = pins[0] != nullptr ? pins[0]->keep : Keep::kWhole;
  t.cache->unpin(&pins);
  return keep;
}

// Of 12 lists of 8 pages 4 fit whole; 5 more have their codes in the quarter for these, and their rows in pinned memory.
TEST(lists_without_a_whole_place_keep_their_codes_on_the_device) {
  constexpr int64_t kPinned = 40 * kPageRows * 64 * 4;
  Tiered t(50 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, kPinned);
  for (int64_t id = 0; id < 12; ++id) t.grow(id, 64 * 8 - 5, static_cast<float>(id));
  for (int round = 0; round < 3; ++round) {
    for (int64_t id = 0; id < 12; ++id) t.ask(id);
    t.load_all();
  }
  CacheStats stats = t.cache->stats();
  CHECK_EQ(stats.lists - stats.codes_lists, int64_t{4});
  CHECK_EQ(stats.codes_lists, int64_t{5});
  CHECK(stats.pinned <= kPinned && stats.pinned >= 5 * 8 * kPageRows * 64 * 4);
  CHECK(stats.allocated <= stats.limit);
  CHECK_EQ(check_hot(t, 12), 9);

  int64_t codes_list = 0;
  while (keep_of(t, codes_list) == Keep::kWhole) ++codes_list;
  t.grow(codes_list, 3, 40.0f);  // in place, and in a new page
  t.grow(codes_list, 30, 41.0f);
  t.change(codes_list, {}, {codes_list * 507 + 9}, 0);
  CHECK(keep_of(t, codes_list) == Keep::kCodes);
  CHECK(check_hot(t, 12) >= 8);

  for (int i = 0; i < 80; ++i) t.ask(codes_list), t.load_all();  // asked for more often than those that are there whole
  CHECK(keep_of(t, codes_list) == Keep::kWhole && t.ask(codes_list));
  check_hot(t, 12);
  t.load_all();
  CHECK(check_hot(t, 12) >= 8);
  CHECK(t.cache->stats().allocated <= stats.limit);

  for (int64_t id = 0; id < 12; ++id) t.pool.drop(t.pool.lock_writer(), {id});
  t.cache->refresh({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK_EQ(t.cache->stats().lists, int64_t{0});
  CHECK_EQ(t.cache->stats().codes_lists, int64_t{0});
  CHECK(device_is_zero());
  CHECK_EQ(t.cache->stats().pinned, int64_t{0});
}

TEST(host_memory_goes_back_with_the_lists_whose_rows_were_there) {
  Tiered t(50 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, 1 << 22);
  fake::Device& device = fake::Device::get();
  for (int64_t id = 0; id < 9; ++id) t.grow(id, 64 * 8, static_cast<float>(id));
  for (int64_t id = 0; id < 9; ++id) t.ask(id);
  t.load_all();
  CHECK_EQ(t.cache->stats().codes_lists, int64_t{5});
  const size_t pinned = device.pinned.size();
  std::vector<int64_t> some;
  for (int64_t id = 0; id < 9; ++id) {
    if (keep_of(t, id) == Keep::kCodes) some.push_back(id);
  }
  Pins pins;
  const ListView list = t.view(some[0]);
  t.cache->pin(&list, 1, &pins);
  t.cache->evict(some);  // but what a search reads stays
  CHECK(t.cache->stats().pinned > 0 && device.pinned.size() < pinned);
  t.cache->unpin(&pins);
  t.cache->evict({});
  CHECK_EQ(t.cache->stats().pinned, int64_t{0});
  for (const int64_t id : some) t.ask(id);
  t.load_all();
  CHECK(t.cache->stats().pinned > 0);
  CHECK_EQ(check_hot(t, 9), 9);
}

// Whoever is displaced was asked for more often, and still has his codes alone until he is hit often enough.
TEST(a_list_that_is_warmed_keeps_its_whole_place_from_those_it_displaces) {
  Tiered t(50 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, 1 << 22);
  for (int64_t id = 0; id < 6; ++id) t.grow(id, 64 * 8, static_cast<float>(id));
  for (int round = 0; round < 10; ++round) {
    for (int64_t id = 0; id < 4; ++id) t.ask(id);
    t.load_all();
  }
  for (int64_t id = 0; id < 4; ++id) CHECK(keep_of(t, id) == Keep::kWhole && t.ask(id));
  for (const int64_t warmed : {4, 5}) {
    t.cache->warm({warmed});
    t.load_all();
    CHECK(t.ask(warmed) && keep_of(t, warmed) == Keep::kWhole);
  }
  CHECK_EQ(check_hot(t, 6), 6);
  CHECK_EQ(t.cache->stats().evictions, int64_t{2});
  CHECK_EQ(t.cache->stats().codes_lists, int64_t{2});

  int64_t displaced = 0;
  while (keep_of(t, displaced) == Keep::kWhole) ++displaced;
  for (int i = 0; i < 16; ++i) t.ask(displaced), t.load_all();
  CHECK(keep_of(t, displaced) == Keep::kWhole);  // now it takes a place of those who are asked for less

  int64_t next = 0;
  while (keep_of(t, next) == Keep::kWhole) ++next;
  t.cache->evict({next});
  t.cache->warm({next});  // by which it counts as any other
  t.load_all();
  CHECK(keep_of(t, next) == Keep::kWhole && t.ask(next));
}

// A list that grows takes places too.
TEST(a_list_displaced_by_one_that_grows_keeps_its_codes) {
  Tiered t(50 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, 1 << 22);
  for (int64_t id = 0; id < 4; ++id) t.grow(id, 64 * 8, static_cast<float>(id));
  for (int64_t id = 0; id < 4; ++id) t.ask(id);
  t.load_all();
  for (int64_t id = 0; id < 4; ++id) CHECK(keep_of(t, id) == Keep::kWhole && t.ask(id));
  t.grow(0, 64 * 8);
  t.load_all();
  CHECK(keep_of(t, 0) == Keep::kWhole);
  CHECK_EQ(check_hot(t, 4), 4);
  CHECK(t.cache->stats().codes_lists > 0);
}

// So does one that goes because an older version, which is pinned, keeps the pages of the first.
TEST(a_list_displaced_for_pages_that_a_search_holds_keeps_its_codes) {
  Tiered t(50 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, 1 << 22);
  for (int64_t id = 0; id < 5; ++id) t.grow(id, 64 * 8 - 5, static_cast<float>(id));
  t.cache->warm({0, 1, 2, 3});
  t.load_all();
  Pins pins;
  const ListView list = t.view(0);
  t.cache->pin(&list, 1, &pins);
  t.grow(0, 3);
  t.grow(3, 3);  // so that the clock's hand meets the first list first
  for (int64_t id = 1; id < 4; ++id) t.ask(id);
  t.cache->warm({4});
  t.load_all();
  CHECK_EQ(t.cache->stats().evictions, int64_t{2});
  CHECK_EQ(t.cache->stats().codes_lists, int64_t{2});
  t.cache->unpin(&pins);
  CHECK_EQ(check_hot(t, 5), 5);
}

// Room on the device is not kept for codes whose rows would find no place.
TEST(little_pinned_memory_never_costs_a_list) {
  constexpr int64_t kRows = kPageRows * 64 * 4;
  const auto lists_with = [](int64_t pinned_bytes) {
    Tiered t(30 * kPageBytes * 8 / 7, Storage::kF32, true, true, 1 << 20, pinned_bytes);
    for (int64_t id = 0; id < 60; ++id) t.grow(id, 64, static_cast<float>(id));
    for (int64_t id = 0; id < 60; ++id) t.ask(id);
    t.load_all();
    const CacheStats stats = t.cache->stats();
    CHECK_EQ(stats.pinned_limit, pinned_bytes < kRows ? int64_t{0} : pinned_bytes);
    CHECK_EQ(stats.codes_lists, std::min<int64_t>(pinned_bytes / kRows, 24));
    return stats.lists;
  };
  const int64_t without = lists_with(0);
  for (const int64_t few : {int64_t{1}, int64_t{4096}, kRows - 1}) CHECK_EQ(lists_with(few), without);
  for (const int64_t pages : {1, 2, 3, 5, 8, 13, 21, 400}) CHECK(lists_with(pages * kRows + 100) >= without);
}

TEST(without_pinned_memory_lists_are_whole_or_cold) {
  for (const Storage storage : {Storage::kF32, Storage::kInt8}) {
    Tiered t(30 * kPageBytes * 8 / 7, storage, true, true, 1 << 20, 1 << 24);
    fake::Device::get().no_pinned = true;
    for (int64_t id = 0; id < 12; ++id) t.grow(id, 64 * 8);
    for (int64_t id = 0; id < 12; ++id) t.ask(id);
    t.load_all();
    CHECK_EQ(t.cache->stats().codes_lists, int64_t{0});
    CHECK(check_hot(t, 12) >= 2);
    CHECK(t.cache->failure().empty());
  }
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
