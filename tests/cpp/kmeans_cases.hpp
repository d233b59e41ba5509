// Assignments in the emulator, and what they must be.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../../csrc/core/score.hpp"
#include "../../csrc/cuda/kmeans.cu"
#include "exact_memory.hpp"

using namespace warpmem;
using simt::Machine;

struct Assigned {
  std::vector<int32_t> index;
  std::vector<double> values;
  bool operator==(const Assigned& other) const {
    return index == other.index && values.size() == other.values.size() &&
           (values.empty() || std::memcmp(values.data(), other.values.data(), values.size() * 8) == 0);
  }
};

inline Assigned assign(const NearestPlan& plan, const std::vector<float>& rows, int64_t stride,
                       const std::vector<float>& centroids, bool inner) {
  return simt::run_twice([&](unsigned char fill) {
    Assigned out{filled<int32_t>(plan.rows, fill), filled<double>(plan.rows, fill)};
    const Memory workspace(plan.workspace_bytes, fill);
    cuda::AssignArguments arguments;
    arguments.rows = rows.data();
    arguments.row_stride = stride;
    arguments.centroids = centroids.data();
    arguments.inner = inner;
    arguments.index = out.index.data();
    arguments.values = out.values.data();
    arguments.workspace = workspace.data;
    cuda::nearest(plan, arguments, nullptr);
    return out;
  });
}

inline const std::vector<NearestScreen> kScreens = {NearestScreen::kTiles4, NearestScreen::kTiles8, NearestScreen::kHalves32,
                                                    NearestScreen::kHalves64, NearestScreen::kHalves128};

inline const char* kernel_of(NearestScreen screen) {
  switch (screen) {
    case NearestScreen::kTiles4:
      return "nearest_screen_4";
    case NearestScreen::kTiles8:
      return "nearest_screen_8";
    case NearestScreen::kHalves32:
      return "nearest_halves_32";
    case NearestScreen::kHalves64:
      return "nearest_halves_64";
    case NearestScreen::kHalves128:
      return "nearest_halves_128";
    case NearestScreen::kRegisters4:
      return "nearest_registers_4";
    default:
      return "nearest_registers_8";
  }
}

// How many rows of the last chunk were doubtful, had a few candidates, had too many.
inline cuda::NearestCounts counts_of(const NearestPlan& plan, const std::vector<float>& rows, const std::vector<float>& centroids,
                                     std::vector<int32_t>* index, bool inner = false) {
  const Memory workspace(plan.workspace_bytes, 0xff);
  index->assign(static_cast<size_t>(plan.rows), -1);
  cuda::AssignArguments arguments;
  arguments.rows = rows.data();
  arguments.row_stride = plan.dim;
  arguments.centroids = centroids.data();
  arguments.index = index->data();
  arguments.inner = inner;
  arguments.workspace = workspace.data;
  cuda::nearest(plan, arguments, nullptr);
  cuda::NearestCounts counts;
  std::memcpy(&counts, workspace.data, sizeof counts);
  return counts;
}

// Every pair compared by its canonical value.
inline Assigned exhaustive(const std::vector<float>& rows, int64_t n, int64_t stride, int64_t dim,
                           const std::vector<float>& centroids, int64_t k, bool inner) {
  Assigned out;
  for (int64_t i = 0; i < n; ++i) {
    int32_t best = 0;
    double best_value = 0.0;
    for (int64_t c = 0; c < k; ++c) {
      const float* const x = rows.data() + i * stride;
      const float* const y = centroids.data() + c * dim;
      const double value = inner ? dot_f64(x, y, dim) : squared_distance_f64(x, y, dim);
      if (c == 0 || (inner ? value > best_value : value < best_value)) {
        best = static_cast<int32_t>(c);
        best_value = value;
      }
    }
    out.index.push_back(best);
    out.values.push_back(best_value);
  }
  return out;
}
