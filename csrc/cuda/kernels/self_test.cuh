// Self-test kernel: core/score.hpp as the device sees it, by the same code as the searching kernels.
//
//   warp w -> row w:  similarities[w] = dot(rows + w * padded, query),  recencies[w] = exp2_neg(exponents[w])
#pragma once

#include <cstdint>

#include "canonical.cuh"

namespace warpmem::cuda {

constexpr int32_t kSelfTestThreads = 128;

struct SelfTestParams {
  const float* rows;        // (n, padded)
  const float* query;       // (padded)
  const double* exponents;  // (n), <= 0
  float* similarities;      // (n)
  double* recencies;        // (n)
  int64_t n;
  int64_t padded;
};

WARPMEM_KERNEL(kSelfTestThreads) self_test_kernel(SelfTestParams p) {
  const int64_t row = block_index() * (block_threads() / kWarpSize) + warp_index();
  if (row >= p.n) return;
  const double sum = warp_dot_f64(p.rows + row * p.padded, p.query, p.padded);
  if (lane_index() != 0) return;
  p.similarities[row] = static_cast<float>(sum);
  p.recencies[row] = exp2_neg(p.exponents[row]);
}

}  // namespace warpmem::cuda
