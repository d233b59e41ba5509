// What the tests of training on a device train: k-means and codebooks, on either side; and how a device is left behind them.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "failing_allocations.hpp"

#include "../../csrc/cpu/kmeans.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pq.hpp"
#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/kmeans_train.cpp"
#include "../../csrc/cuda/staging.cpp"
#include "check.hpp"
#include "fake_device.hpp"
#include "number_kinds.hpp"

namespace training {

using namespace warpmem;

inline fake::Device& device() { return fake::Device::get(); }

inline int64_t launches_left = -1;  // before one fails; -1: none does

inline bool before(cuda::Stream stream, const std::function<void()>& work) {
  const Spared unharmed;
  if (launches_left == 0) throw std::runtime_error("a launch was told to fail");
  if (launches_left > 0) --launches_left;
  return fake::before_launch(stream, work);
}

struct Result {
  std::vector<float> centroids;
  std::vector<int32_t> index;
  double objective = 0.0;
  bool operator==(const Result& other) const {
    return centroids.size() == other.centroids.size() && index == other.index && objective == other.objective &&
           std::memcmp(centroids.data(), other.centroids.data(), 4 * centroids.size()) == 0;
  }
};

struct Case {
  std::vector<float> rows;
  int64_t n = 0;
  int64_t dim = 0;
  KmeansOptions options;

  Result room() const {
    return {std::vector<float>(static_cast<size_t>(options.k * dim)), std::vector<int32_t>(static_cast<size_t>(n)), 0.0};
  }
  Result on_host() const {
    Result out = room();
    out.objective = kmeans(*find_op_kernels("auto"), rows.data(), n, dim, options, out.centroids.data(), out.index.data());
    return out;
  }
  void on_device(cuda::Runtime& runtime, Result* out, const cuda::TrainSettings& settings = {}) const {
    out->objective = cuda::kmeans(runtime, rows.data(), n, dim, options, settings, out->centroids.data(), out->index.data());
  }
};

inline Case make_case(int data, int64_t n, int64_t dim, int64_t k, unsigned seed) {
  Case out{numbers(data, n * dim, seed), n, dim, {}};
  out.options.k = k;
  out.options.iterations = 6;
  out.options.seed = seed;
  return out;
}

struct Books {
  PqShape shape;
  std::vector<float> rows;
  int64_t n = 0;
  uint64_t seed = 0;
  int64_t iterations = 0;

  std::vector<float> room() const { return std::vector<float>(static_cast<size_t>(shape.entries() * shape.dim()), -7.0f); }
  std::vector<float> on_host() const {
    std::vector<float> out = room();
    pq_train(*find_op_kernels("auto"), shape, rows.data(), n, seed, iterations, 1, out.data());
    return out;
  }
  void on_device(cuda::Runtime& runtime, std::vector<float>* out, const cuda::TrainSettings& settings = {}) const {
    cuda::pq_train(runtime, shape, rows.data(), n, seed, iterations, settings, out->data());
  }
};

inline Books make_books(int data, int64_t n, const PqShape& shape, unsigned seed) {
  return {shape, numbers(data, n * shape.dim(), seed), n, seed, 3};
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

// A call that may fail, of either kind. right(): the last one made what the host makes.
struct Call {
  std::function<void(cuda::Runtime&, const cuda::TrainSettings&)> run;
  std::function<bool()> right;
};

inline Call call_of(const Case& made) {
  const auto found = std::make_shared<Result>(made.room());
  const auto wanted = std::make_shared<Result>(made.on_host());
  return {[=](cuda::Runtime& runtime, const cuda::TrainSettings& settings) {
            std::fill(found->centroids.begin(), found->centroids.end(), -7.0f);
            made.on_device(runtime, found.get(), settings);
          },
          [=] { return *found == *wanted; }};
}

inline Call call_of(const Books& made) {
  const auto found = std::make_shared<std::vector<float>>(made.room());
  const auto wanted = std::make_shared<std::vector<float>>(made.on_host());
  return {[=](cuda::Runtime& runtime, const cuda::TrainSettings& settings) {
            *found = made.room();
            made.on_device(runtime, found.get(), settings);
          },
          [=] { return same_bits(*found, *wanted); }};
}

inline std::vector<Call> calls() {
  return {call_of(make_case(kNormal, 40, 9, 5, 4)), call_of(make_books(kNormal, 40, PqShape{2, 4, 3}, 4))};
}

// Around a test: the device has nothing before and behind it, and was called by nobody who had not entered.
struct Clean {
  Clean() {
    cuda::before_launch = before;
    launches_left = -1;
    device().heal();
  }
  ~Clean() {
    check_empty();
    CHECK_EQ(device().strangers, strangers);
    device().on_call = nullptr;
  }
  Clean(const Clean&) = delete;
  Clean& operator=(const Clean&) = delete;

  static void check_empty() {
    CHECK(device().memory.empty());
    CHECK(device().pinned.empty());
    CHECK(device().streams.empty());
  }
  const int64_t strangers = device().strangers;
};

inline bool nothing_is_under_way() {
  return std::all_of(device().streams.begin(), device().streams.end(),
                     [](const auto& stream) { return stream.second.operations.empty(); });
}

}  // namespace training
