// Self-test kernel: core/score.hpp as the device sees it.
//
//   thread t -> row t:  similarities[t] = dot(rows + t * padded, query),  recencies[t] = exp2_neg(exponents[t])
//
// One thread per row reads its row alone, which is slow and irrelevant here: the kernel shows that the device's arithmetic gives the host's bits.
#pragma once

#include <cstdint>

#include "../../core/score.hpp"

namespace warpmem::cuda {

struct SelfTestParams {
  const float* rows;        // (n, padded)
  const float* query;       // (padded)
  const double* exponents;  // (n), <= 0
  float* similarities;      // (n)
  double* recencies;        // (n)
  int64_t n;
  int64_t padded;
};

__global__ void self_test_kernel(SelfTestParams p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= p.n) return;
  p.similarities[row] = dot(p.rows + row * p.padded, p.query, p.padded);
  p.recencies[row] = exp2_neg(p.exponents[row]);
}

}  // namespace warpmem::cuda
