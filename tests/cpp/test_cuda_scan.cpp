// The scan's plan, and its kernels for few queries in the emulator: equal, bit for bit, to the CPU core's scan of the same pages; every shape forced, over
// the named edges, pairwise. test_cuda_scan_wide has the shapes for many queries.
#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "scan_variants.hpp"

using namespace scan_cases;

TEST(plain) { check_variant("scan_plain", ScanShape::kPlain, {1, 2, 8, 9}, 1000); }
TEST(small_of_one) { check_variant("scan_small_1", ScanShape::kSmall, {1}, 2000); }
TEST(small) { check_variant("scan_small_3", ScanShape::kSmall, {2, 3, 5}, 3000); }

// One scan over lists of very different sizes, with as many queries on each as make all shapes run, without any force.
TEST(shapes_and_sizes_mix) {
  unsigned seed = 7000;
  for (const bool screen : {true, false}) {
    for (const int ranking : {int{kSimilarity}, int{kAllWeights}, int{kNegative}}) {
      Case c;
      c.screen = screen;
      c.ranking = ranking;
      c.dim = 40;
      c.k = 12;
      c.queries = 70;
      c.filters = kMixed;
      c.rows = {900, 3, 0, 64, 200};
      c.queries_of_list = {1, 3, 5, 20, 70};
      c.seed = ++seed;
      const bool screened = screen && ranking != kNegative;
      std::map<std::string, int64_t> before = Machine::get().launches;
      check_case(c, nullptr);
      for (const char* kernel : {"scan_small_3", "scan_middle_4", "scan_large"})
        CHECK_EQ(Machine::get().launches[kernel] - before[kernel], screened ? 2 : 0);
      CHECK_EQ(Machine::get().launches["scan_plain"] - before["scan_plain"], screened ? 0 : 2);
    }
  }
}

// More queries than any shape takes at once, with a block for all of them, and with more blocks than tasks.
TEST(blocks_take_tasks_until_none_is_left) {
  for (const int64_t blocks : {1, 2, 50}) {
    Case c;
    c.rows = {700, 650};
    c.all_lists = true;
    c.queries = 7;
    c.choice.shape = static_cast<int32_t>(ScanShape::kSmall);
    c.choice.queries = 2;
    c.choice.tile_pages = 2;
    c.choice.blocks = blocks;
    c.seed = 8000;
    check_case(c, "scan_small_3");
  }
}

TEST(a_screen_leaves_rows_out) {
  for (const Storage storage : {Storage::kF32, Storage::kInt8}) {
    for (const int64_t queries : {1, 3, 8, 16, 64}) {
      Case c;
      c.storage = storage;
      c.rows = {4000};
      c.dim = 96;
      c.k = 3;
      c.queries = queries;
      c.ranking = queries == 8 ? kAllWeights : kSimilarity;
      c.choice.tile_pages = 8;
      c.seed = 9000;
      const std::vector<uint64_t> counters = check_case(c, nullptr);
      CHECK_EQ(counters[0], static_cast<uint64_t>(4000 * queries));
      CHECK(counters[1] * 3 < counters[0]);
    }
  }
}

TEST(nothing_to_scan) {
  Case c;
  c.rows = {0};
  c.queries = 2;
  check_case(c, nullptr);
  c.queries = 0;
  check_case(c, nullptr);
}

// Every page of every list for every segment over it exactly once; each part one place; all of it within the device.
TEST(plans_cover_every_page_and_segment) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    for (const int64_t dim : {32, 384, 1536, 8192, 65536}) {
      for (const int64_t k : {1, 100, 4096}) {
        DeviceScanShape shape;
        shape.dim = dim;
        shape.codes = dim != 384 || k != 100;
        shape.queries = 1300;
        shape.k = k;
        std::vector<DeviceList> lists;
        std::vector<uint32_t> queries;
        int64_t first_page = 10;
        for (const auto& [pages, segments] : std::vector<std::pair<int64_t, int64_t>>{
                 {1, 1}, {0, 5}, {15625, 1}, {100, 3}, {2, 4}, {40, 63}, {33, 64}, {500, 1300}}) {
          lists.push_back(
              DeviceList{static_cast<int64_t>(lists.size()), first_page, pages, static_cast<int64_t>(queries.size()), segments});
          first_page += pages;
          for (int64_t s = 0; s < segments; ++s) queries.push_back(static_cast<uint32_t>(s));
        }
        const DeviceScanPlan plan = plan_device_scan(shape, lists, queries.data(), limits);
        std::vector<int64_t> pages(queries.size());
        std::vector<bool> used(plan.parts.parts.size());
        CHECK_EQ(plan.parts.rounds.size(), size_t{1});
        std::vector<bool> taken(static_cast<size_t>(plan.parts.items));
        for (size_t t = 0; t < plan.tasks.size(); ++t) {
          const DeviceScanTask& task = plan.tasks[t];
          for (int32_t at = 0; at < task.segments; ++at) {
            const auto segment = static_cast<size_t>(task.first_segment + at);
            pages[segment] += task.pages;
            const uint32_t part = plan.parts.numbers[static_cast<size_t>(task.first_part + at)];
            CHECK(!used[part]);
            used[part] = true;
            const DeviceScanPart& place = plan.parts.parts[part];
            CHECK_EQ(place.task, t);
            CHECK_EQ(place.segment, segment);
            CHECK_EQ(place.items, static_cast<uint32_t>(std::min(k, int64_t{task.pages} * kPageRows)));
            for (uint32_t i = place.first_item; i < place.first_item + place.items; ++i) {
              CHECK(!taken[i]);
              taken[i] = true;
            }
            CHECK(part >= plan.parts.query_parts[queries[segment]] && part < plan.parts.query_parts[queries[segment] + 1]);
          }
        }
        CHECK_EQ(plan.parts.query_parts.back(), plan.parts.parts.size());
        CHECK_EQ(std::count(taken.begin(), taken.end(), false), 0);
        for (const DeviceList& list : lists) {
          for (int64_t s = 0; s < list.segments; ++s) CHECK_EQ(pages[static_cast<size_t>(list.first_segment + s)], list.pages);
        }
        for (const DeviceScanStage& stage : plan.stages) {
          CHECK(stage.shared_bytes <= limits.shared_per_block);
          CHECK(stage.queries <= kScanQueries[static_cast<int>(stage.shape)]);
          CHECK(stage.blocks <= std::max<int64_t>(stage.tasks, 0));
          CHECK_EQ(stage.blocks > 0, stage.tasks > 0);
          for (int64_t t = stage.first_task + 1; t < stage.first_task + stage.tasks; ++t) {
            const auto work = [&](int64_t i) {
              return int64_t{plan.tasks[static_cast<size_t>(i)].pages} * plan.tasks[static_cast<size_t>(i)].segments;
            };
            CHECK(work(t - 1) >= work(t));
          }
        }
        const auto tasks = [&](ScanShape which) { return plan.stages[static_cast<int>(which)].tasks; };
        CHECK_EQ(tasks(ScanShape::kPlain) > 0, !shape.codes);
        if (dim <= 384 || dim == 65536) {
          CHECK_EQ(tasks(ScanShape::kMiddle) > 0, shape.codes && dim <= 384);
          CHECK_EQ(tasks(ScanShape::kLarge) > 0, shape.codes && dim <= 384);
        }
        CHECK(plan.parts.items * 16 <= kScanPartBytes);
        CHECK(!describe(plan).empty());
      }
    }
  }
}

// Many small lists and large k: room for the rows there are, not for k of each; and where that is too much, several rounds in the same memory.
TEST(plans_have_no_more_memory_than_they_may) {
  DeviceScanShape shape;
  shape.dim = 384;
  shape.codes = true;
  shape.k = 4096;
  const auto plan_of = [&](int64_t n_lists, int64_t pages, int64_t queries, int64_t part_bytes) {
    shape.queries = queries;
    std::vector<DeviceList> lists = {DeviceList{-1, 0, 15625, 0, queries}};
    std::vector<uint32_t> of_segments;
    for (int64_t l = 0; l < n_lists; ++l) lists.push_back(DeviceList{l, 15625 + pages * l, pages, (l + 1) * queries, queries});
    for (size_t l = 0; l < lists.size(); ++l) {
      for (int64_t q = 0; q < queries; ++q) of_segments.push_back(static_cast<uint32_t>(q));
    }
    DeviceScanChoice choice;
    choice.part_bytes = part_bytes;
    return plan_device_scan(shape, lists, of_segments.data(), kLimitsSm90, choice);
  };
  // A million rows and 30,000 lists of two pages: with k for each part it would be more than 2 GB.
  const DeviceScanPlan one = plan_of(30000, 2, 1, 0);
  CHECK_EQ(one.parts.rounds.size(), size_t{1});
  CHECK(one.parts.items >= 30000 * 128 && one.parts.items <= 30000 * 128 + 1000000);
  CHECK(one.workspace_bytes < 90 << 20);
  // 200 lists of 32 pages for 1,000 queries: 6.7 GB at once.
  const DeviceScanPlan many = plan_of(200, 32, 1000, 0);
  CHECK_EQ(many.parts.rounds.size(), size_t{25});
  CHECK(many.parts.items * 16 <= kScanPartBytes);
  CHECK(many.workspace_bytes < int64_t{400} << 20);
  // A task of 128 queries with 4,096 results each needs 8 MB, whatever it may take.
  const DeviceScanPlan little = plan_of(200, 32, 128, 1 << 20);
  CHECK(little.parts.items * 16 <= 8 << 20);
  int64_t next = 0;
  for (const ScanRound& round : little.parts.rounds) {
    CHECK_EQ(round.first_task, next);
    CHECK(round.tasks > 0);
    next += round.tasks;
  }
  CHECK_EQ(next, static_cast<int64_t>(little.tasks.size()));
}

TEST(rounds_change_no_bit) {
  unsigned seed = 9100;
  for (const bool screen : {true, false}) {
    for (const auto& [k, queries] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {12, 3}, {300, 9}, {40, 66}}) {
      Case c;
      c.screen = screen;
      c.rows = {500, 3, 0, 64, 130, 65};
      c.all_lists = true;
      c.queries = queries;
      c.k = k;
      c.filters = kMixed;
      c.data = kLevelRows;
      c.choice.tile_pages = 2;
      c.choice.part_bytes = 16 * k * queries;
      c.seed = ++seed;
      const int64_t before = Machine::get().launches["scan_merge"];
      check_case(c, nullptr);
      CHECK(Machine::get().launches["scan_merge"] - before >= 2 * 4);
    }
  }
}

// Rows of one list with the same score, ordinal and id: all are found, once each, in the order in which they lie there.
TEST(rows_with_one_id_are_told_apart) {
  for (const std::vector<int64_t>& rows : {std::vector<int64_t>{60, 60, 60}, {700, 700}}) {
    Case c;
    c.rows = rows;  // with the same ids
    c.all_lists = true;
    c.k = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    c.data = kLevelRows;
    c.ranking = kNoWeights;
    c.seed = 9200;
    const Result apart = Scan(c).on_cpu();  // as several lists
    std::vector<size_t> order(static_cast<size_t>(c.k));
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const auto key = [&](size_t i) { return std::make_tuple(apart.ordinals[i], apart.row_ids[i], apart.list_ids[i]); };
      return key(a) < key(b);
    });
    for (const int64_t tile : {1, 3, 40}) {
      c.choice.tile_pages = tile;
      const Scan scan(c);
      const DeviceScanPlan plan = scan.plan_joined();
      const Result got = simt::run_twice([&](unsigned char fill) { return scan.on_device(plan, fill, nullptr); });
      CHECK_EQ(got.counts[0], static_cast<int32_t>(c.k));
      for (size_t i = 0; i < order.size(); ++i) {
        CHECK_EQ(got.row_ids[i], apart.row_ids[order[i]]);
        CHECK_EQ(got.similarities[i], apart.similarities[order[i]]);
      }
    }
  }
}

TEST(rows_are_brought_to_unit_length_as_on_the_host) {
  std::mt19937 random(9300);
  for (const int64_t dim : {1, 31, 32, 33, 384}) {
    for (const int64_t n : {0, 1, 9, 70}) {
      std::vector<float> rows;
      for (int64_t i = 0; i < n * dim; ++i) rows.push_back(static_cast<float>(static_cast<int32_t>(random())) * 1e-3f);
      if (n > 4) {  // without a direction
        std::fill_n(rows.begin() + 2 * dim, dim, 0.0f);
        rows[static_cast<size_t>(3 * dim + dim / 2)] = kInfinity;
        rows[static_cast<size_t>(4 * dim)] = -NAN;
      }
      const auto found = simt::run_twice([&](unsigned char fill) {
        std::vector<float> out(rows.size());
        if (n > 0) std::memset(out.data(), fill, 4 * out.size());
        cuda::normalize_rows(rows.data(), n, dim, out.data(), kLimitsSm90, nullptr);
        for (float& x : out) x = x == x ? x : kInfinity;  // so that results can be compared
        return out;
      });
      std::vector<float> wanted(rows.size(), kInfinity);
      for (int64_t row = 0; row < n; ++row) normalize_row(rows.data() + row * dim, dim, wanted.data() + row * dim);
      CHECK(found == wanted);
    }
  }
}

TEST(plans_are_printed) {
  DeviceScanShape shape;
  shape.dim = 384;
  shape.codes = true;
  shape.queries = 1;
  shape.k = 10;
  const uint32_t query = 0;
  CHECK_EQ(describe(plan_device_scan(shape, {DeviceList{7, 0, 15625, 0, 1}}, &query, kLimitsSm90)),
           "scan of 1 queries, k 10, dim 384; 1954 parts, at most 19540 items in each of 1 rounds, workspace 321232 bytes; "
           "small: 1954 tasks of at most 1 segments, "
           "396 blocks of 256 threads, 10352 bytes shared");
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
