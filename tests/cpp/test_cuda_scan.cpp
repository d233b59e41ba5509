// The scan's plan, and its kernels for few queries in the emulator: equal, bit for bit, to the CPU core's scan of the same pages; every shape forced, over
// the named edges, pairwise. test_cuda_scan_wide has the shapes for many queries.
#include <map>

#include "scan_variants.hpp"

using namespace scan_cases;

TEST(plain) { check_variant("scan_plain", ScanShape::kPlain, {1, 2, 8, 9}, 5000, 1000); }
TEST(small_of_one) { check_variant("scan_small_1", ScanShape::kSmall, {1}, 5000, 2000); }
TEST(small) { check_variant("scan_small_3", ScanShape::kSmall, {2, 3, 5}, 5000, 3000); }

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
        std::vector<bool> used(plan.parts.size());
        for (size_t t = 0; t < plan.tasks.size(); ++t) {
          const DeviceScanTask& task = plan.tasks[t];
          CHECK(plan.keep >= std::min(k, int64_t{task.pages} * kPageRows));
          for (int32_t at = 0; at < task.segments; ++at) {
            const auto segment = static_cast<size_t>(task.first_segment + at);
            pages[segment] += task.pages;
            const uint32_t part = plan.part_numbers[static_cast<size_t>(task.first_part + at)];
            CHECK(!used[part]);
            used[part] = true;
            CHECK_EQ(plan.parts[part].task, t);
            CHECK_EQ(plan.parts[part].segment, segment);
            CHECK(part >= plan.query_parts[queries[segment]] && part < plan.query_parts[queries[segment] + 1]);
          }
        }
        CHECK_EQ(plan.query_parts.back(), plan.parts.size());
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
        CHECK(static_cast<int64_t>(plan.parts.size()) * plan.keep * 16 <= (int64_t{1} << 31));
        CHECK(!describe(plan).empty());
      }
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
           "scan of 1 queries, k 10, dim 384; 1954 parts of 10, workspace 321232 bytes; small: 1954 tasks of at most 1 segments, "
           "396 blocks of 256 threads, 10352 bytes shared");
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
