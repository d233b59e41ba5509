// The canonical sums of core/score.hpp by a warp: lane j is accumulator j, so a row is read in whole lines and folded by five exchanges.
//
//   element i -> lane i % 32, in order of i        fold: lane j += lane j + w, w = 16, 8, 4, 2, 1        all lanes get the result
//
// Compile with --fmad=false: the square of a difference is not exact and must be rounded before it is added.
#pragma once

#include "../../core/score.hpp"
#include "intrinsics.cuh"

namespace warpmem::cuda {

static_assert(kLanes == kWarpSize);

WARPMEM_DEVICE double warp_fold(double sum) {
  WARPMEM_UNROLL
  for (int width = kLanes / 2; width > 0; width /= 2) sum += shuffle_down(sum, width);
  return shuffle(sum, 0);
}

// dot_f64(a, b, n), by all lanes of a warp with the same arguments.
template <typename A, typename B>
WARPMEM_DEVICE double warp_dot_f64(const A* a, const B* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = lane_index(); i < n; i += kLanes) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return warp_fold(sum);
}

// squared_distance_f64(a, b, n)
template <typename A, typename B>
WARPMEM_DEVICE double warp_squared_distance_f64(const A* a, const B* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = lane_index(); i < n; i += kLanes) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return warp_fold(sum);
}

}  // namespace warpmem::cuda
