// k-means and codebooks on a device from start to end: the bits of cpu/kmeans.hpp and cpu/pq.hpp, whatever their pieces and turns; and what is left of them when
// something fails.
#include <algorithm>
#include <string>
#include <vector>

#include "simt_pairwise.hpp"
#include "train_cases.hpp"

using namespace training;

TEST(a_training_is_the_hosts) {
  const std::vector<int64_t> sizes = {1, 2, 40, 70};
  const std::vector<int64_t> dims = {1, 5, 16, 33};
  const std::vector<int64_t> iterations = {0, 1, 6};
  const std::vector<int64_t> pieces = {0, 1, 50};
  const Clean clean;
  fake::FakeRuntime runtime;
  // size, dimension, data, k (1, some, nearly all, all), starts, spherical, sample, iterations, pieces, turns, staging
  const auto cases = simt::pairwise({4, 4, int{kDataKinds}, 4, 2, 2, 2, 3, 3, 2, 2});
  unsigned seed = 0;
  int64_t emptied = 0, turns_taken = 0;
  for (const std::vector<int>& f : cases) {
    const int64_t n = sizes[static_cast<size_t>(f[0])];
    const int64_t k = f[3] == 0 ? 1 : f[3] == 1 ? (n + 6) / 7 : f[3] == 2 ? std::max<int64_t>(1, n - 1) : n;
    Case made = make_case(f[2], n, dims[static_cast<size_t>(f[1])], k, ++seed);
    made.options.plus_plus = f[4] == 0;
    made.options.spherical = f[5] == 1;
    made.options.sample = f[6] == 1 ? (n + k) / 2 : 0;
    made.options.iterations = iterations[static_cast<size_t>(f[7])];
    cuda::TrainSettings settings;
    settings.piece_rows = pieces[static_cast<size_t>(f[8])];
    settings.unit = std::chrono::microseconds(0);
    if (f[10] == 1) settings.staging_bytes = 100;
    if (f[9] == 1) {
      settings.between = [&] {
        ++turns_taken;
        CHECK(nothing_is_under_way());
      };
    }
    Result found = made.room();
    made.on_device(runtime, &found, settings);
    const Result wanted = made.on_host();
    if (!(found == wanted)) std::printf("seed %u: n %d, data %d, k %d\n", seed, f[0], f[2], f[3]);
    CHECK(found == wanted);
    std::vector<bool> used(static_cast<size_t>(k));
    for (const int32_t c : found.index) used[static_cast<size_t>(c)] = true;
    emptied += std::count(used.begin(), used.end(), false) > 0 ? 1 : 0;
    clean.check_empty();
  }
  CHECK(emptied > 3);
  CHECK(turns_taken > 100);
  CHECK_EQ(device().written, int64_t{0});
  std::printf("     %zu cases, %lld with empty clusters\n", cases.size(), static_cast<long long>(emptied));
}

TEST(rows_in_halves_are_rounded_once) {
  // As few rows as a training by halves can have.
  const Clean clean;
  fake::FakeRuntime runtime;
  Case made = make_case(kNormal, 512, 2048, 256, 77);
  made.options.plus_plus = false;
  made.options.iterations = 1;
  auto& launches = simt::Machine::get().launches;
  const int64_t rounded = launches["nearest_round_rows"], screened = launches["nearest_halves_32"];
  Result found = made.room();
  made.on_device(runtime, &found, {});
  CHECK(found == made.on_host());
  CHECK_EQ(launches["nearest_round_rows"] - rounded, 1);
  CHECK_EQ(launches["nearest_halves_32"] - screened, 2);
}

TEST(without_memory_for_halves_each_search_rounds_the_rows) {
  const Clean clean;
  fake::FakeRuntime runtime;
  Case made = make_case(kNormal, 512, 2048, 256, 78);
  made.options.plus_plus = false;
  made.options.iterations = 1;
  auto& launches = simt::Machine::get().launches;
  const int64_t rounded = launches["nearest_round_rows"];
  device().fail_allocation = 0;  // the first, which is refused, is that with the halves
  Result found = made.room();
  made.on_device(runtime, &found, {});
  CHECK(found == made.on_host());
  CHECK_EQ(launches["nearest_round_rows"] - rounded, 2);
  clean.check_empty();
}

TEST(rows_are_assigned_as_by_the_host) {
  const Clean clean;
  fake::FakeRuntime runtime;
  unsigned seed = 50;
  for (const int64_t n : {0, 1, 130}) {
    for (const int64_t k : {1, 9, 80}) {
      for (const bool inner : {false, true}) {
        const std::vector<float> rows = numbers(kLevels, n * 12, ++seed);
        const std::vector<float> centroids = numbers(kLevels, k * 12, ++seed);
        std::vector<int32_t> wanted(static_cast<size_t>(n));
        std::vector<double> values(static_cast<size_t>(n));
        kmeans_assign(*find_op_kernels("auto"), rows.data(), n, 12, centroids.data(), k, inner, 1, wanted.data(), values.data());
        cuda::TrainSettings settings;
        settings.piece_rows = n / 3;
        settings.staging_bytes = 170;
        std::vector<int32_t> index(wanted.size(), -1);
        std::vector<double> found(values.size());
        cuda::kmeans_assign(runtime, rows.data(), n, 12, centroids.data(), k, inner, settings, index.data(), found.data());
        CHECK(index == wanted && found == values);
        std::fill(index.begin(), index.end(), -1);
        cuda::kmeans_assign(runtime, rows.data(), n, 12, centroids.data(), k, inner, {}, index.data(), nullptr);
        CHECK(index == wanted);
      }
    }
  }
}

TEST(codebooks_are_the_hosts) {
  const std::vector<int64_t> dims = {1, 2};
  const std::vector<int64_t> pieces = {1, 3, 5};
  const std::vector<int64_t> more = {0, 1, 40};
  const Clean clean;
  fake::FakeRuntime runtime;
  // bits, subspaces, their elements, rows more than entries, data, iterations, pieces, turns, staging
  const auto cases = simt::pairwise({2, 2, 3, 3, int{kDataKinds}, 3, 2, 2, 2});
  unsigned seed = 100;
  int64_t turns_taken = 0;
  for (const std::vector<int>& f : cases) {
    const PqShape shape{dims[static_cast<size_t>(f[1])], f[0] == 0 ? 4 : 8, pieces[static_cast<size_t>(f[2])]};
    Books made = make_books(f[4], shape.entries() + more[static_cast<size_t>(f[3])], shape, ++seed);
    made.iterations = f[5];
    cuda::TrainSettings settings;
    settings.piece_rows = f[6] == 0 ? 0 : 100;
    settings.unit = std::chrono::microseconds(0);
    if (f[7] == 1) {
      settings.between = [&] {
        ++turns_taken;
        CHECK(nothing_is_under_way());
      };
    }
    if (f[8] == 1) settings.staging_bytes = 100;
    std::vector<float> found = made.room();
    made.on_device(runtime, &found, settings);
    CHECK(same_bits(found, made.on_host()));
    clean.check_empty();
  }
  CHECK(turns_taken > 100);
  CHECK_EQ(device().written, int64_t{0});
  std::printf("     %zu cases\n", cases.size());
}

TEST(rows_are_sent_once_and_a_subspace_at_a_time) {
  const Clean clean;
  fake::FakeRuntime runtime;
  const Books made = make_books(kNormal, 2000, PqShape{6, 4, 4}, 9);
  DeviceLimits limits;
  {
    const cuda::Entered entered(runtime);
    CHECK(runtime.limits(&limits) == cuda::Status::kOk);
  }
  device().sent = device().most = 0;
  std::vector<float> found = made.room();
  made.on_device(runtime, &found);
  CHECK(same_bits(found, made.on_host()));
  CHECK_EQ(device().sent, 4 * (2000 + 16) * made.shape.dim());  // rows and starts
  CHECK_EQ(device().most, plan_train(2000, 2000, 4, 16, false, limits).bytes);
}

TEST(a_device_that_fails_at_any_call_keeps_nothing) {
  const Clean clean;
  fake::FakeRuntime runtime;
  Case made = make_case(kEqual, 60, 9, 8, 3);  // clusters are empty, so that every kind of step is made
  made.rows[0] = 9.0f;
  made.options.plus_plus = false;
  made.options.iterations = 2;
  made.options.sample = 50;
  for (const Call& call : {call_of(made), call_of(make_books(kLevels, 40, PqShape{2, 4, 2}, 3))}) {
    for (const bool pinned : {true, false}) {
      for (int64_t n = 0;; ++n) {
        device().heal();
        device().no_pinned = !pinned;
        device().fail_from = n;
        bool failed = false;
        try {
          call.run(runtime, {});
        } catch (const std::runtime_error& error) {
          failed = true;
          CHECK_EQ(std::string(error.what()), std::string("the fake device was told to fail"));
        }
        clean.check_empty();
        if (!failed) {
          CHECK(n > 20 && call.right());
          break;
        }
      }
    }
  }
}

TEST(a_launch_that_fails_leaves_zeros) {
  const Clean clean;
  fake::FakeRuntime runtime;
  const int64_t written = device().written;
  for (const Call& call : calls()) {
    for (int64_t n = 0;; ++n) {
      launches_left = n;
      try {
        call.run(runtime, {});
        CHECK(n > 20 && call.right());
        break;
      } catch (const std::runtime_error& error) {
        CHECK_EQ(std::string(error.what()), std::string("a launch was told to fail"));
      }
      clean.check_empty();
      CHECK_EQ(device().written, written);
    }
  }
}

TEST(what_between_throws_ends_the_call) {
  const Clean clean;
  fake::FakeRuntime runtime;
  const int64_t written = device().written;
  for (const Call& call : calls()) {
    for (int turns = 1; turns < 12; ++turns) {
      cuda::TrainSettings settings;
      settings.unit = std::chrono::microseconds(0);
      int left = turns;
      settings.between = [&] {
        if (--left == 0) throw turns;
      };
      bool ended = false;
      try {
        call.run(runtime, settings);
      } catch (const int thrown) {
        ended = thrown == turns;
      }
      CHECK(ended);
      clean.check_empty();
      CHECK_EQ(device().written, written);
    }
  }
}

TEST(a_device_without_memory_says_so) {
  const Clean clean;
  fake::FakeRuntime runtime;
  for (const Call& call : calls()) {
    device().fail_allocation = 0;
    bool refused = false;
    try {
      call.run(runtime, {});
    } catch (const std::runtime_error& error) {
      refused = std::string(error.what()).find("it has no ") == 0;
    }
    CHECK(refused && !call.right());
    clean.check_empty();
    call.run(runtime, {});
    CHECK(call.right());
  }
}

TEST(a_host_without_memory_leaves_nothing_on_the_device) {
  const Clean clean;
  fake::FakeRuntime runtime;
  for (const Call& call : calls()) {
    for (int64_t n = 0;; ++n) {
      bool failed = false;
      {
        const Failing failing(n);
        try {
          call.run(runtime, {});
        } catch (const std::bad_alloc&) {
          failed = true;
        }
      }
      clean.check_empty();
      if (!failed) {
        CHECK(n > 5 && call.right());
        break;
      }
    }
  }
}

TEST(a_thread_that_cannot_enter_the_device_asks_it_nothing) {
  const Clean clean;
  fake::FakeRuntime runtime;
  for (const Call& call : calls()) {
    const int64_t before_it = device().strangers;
    device().refuse_enter = 0;
    bool refused = false;
    try {
      call.run(runtime, {});
    } catch (const std::runtime_error&) {
      refused = true;
    }
    CHECK(refused);
    device().heal();
    CHECK_EQ(device().strangers - before_it, int64_t{1});  // it was told that it had not entered
    device().strangers = before_it;
  }
}

TEST(plans_have_room_for_what_is_asked) {
  for (const DeviceLimits& limits : {kLimitsSm80, kLimitsSm90, kLimitsSm100, kLimitsSm120}) {
    for (const int64_t n : {int64_t{1}, int64_t{4096}, int64_t{1} << 31}) {
      for (const int64_t k : {int64_t{1}, int64_t{600}, int64_t{1} << 24}) {
        for (const int64_t dim : {1, 768, 65536}) {
          for (const int64_t trained : {int64_t{0}, std::min(n, k), n}) {
            const TrainPlan plan = plan_train(n, trained, dim, k, true, limits);
            CHECK(plan.rows >= std::max<int64_t>(1, trained) && plan.rows <= n);
            CHECK(plan.piece_rows >= 1 && plan.piece_rows <= plan.rows);
            CHECK(plan.piece_rows == plan.rows ||
                  plan.piece_rows >= nearest_tile(NearestScreen::kTiles8) * limits.multiprocessors);
            CHECK(plan.bytes > 4 * (plan.rows + k) * dim + 12 * plan.rows && plan.means == (trained > 0));
            for (const int64_t some : {int64_t{1}, plan.piece_rows / 2 + 1, plan.piece_rows})
              CHECK(plan_train_nearest(plan, some, limits).workspace_bytes <= plan.workspace_bytes);
            const TrainPlan lesser = without_halves(plan, limits);
            CHECK(!lesser.rounded && (plan.rounded || lesser.bytes == plan.bytes));
            for (const int64_t some : {int64_t{1}, plan.piece_rows / 2 + 1, plan.piece_rows})
              CHECK(plan_train_nearest(lesser, some, limits).workspace_bytes <= lesser.workspace_bytes);
            if (plan.rounded) CHECK(trained > 0 && plan.piece_rows % (plan.piece_rows < plan.rows ? kHalvesRows : 1) == 0);
            if (trained == 0) CHECK(4 * plan.rows * dim <= kAssignBytes);
          }
        }
      }
    }
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
