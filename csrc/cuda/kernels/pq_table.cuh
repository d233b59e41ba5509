// The quantised table of a query over codes of 4 bits: what the scans of packed codes and of pages have in common.
#pragma once

#include <cstring>

#include "../../core/pq_plan.hpp"
#include "intrinsics.cuh"

namespace warpmem::cuda {

// The quantised table of one query, by all threads of a block: pq_quantize_lut of core/pq_code.hpp, to the bit. `lows` are pq_dim floats; header[0] and
// header[1] receive scale and bias. Ends with a barrier.
WARPMEM_DEVICE void quantize_table(const float* lut, int64_t pq_dim, const Shared<uint8_t>& table, const Shared<float>& lows,
                                   const Shared<double>& header, const Shared<uint64_t>& widest) {
  const int t = thread_index();
  sync_threads();
  if (t == 0) widest[0] = 0;
  sync_threads();
  for (int64_t s = t; s < pq_dim; s += kPqThreads) {
    float low = load_readonly(lut + s * 16);
    float high = low;
    for (int c = 1; c < 16; ++c) {
      const float v = load_readonly(lut + s * 16 + c);
      low = v < low ? v : low;
      high = v > high ? v : high;
    }
    lows[s] = low;
    // Not negative, so its bits order as it does.
    const double width = static_cast<double>(high) - static_cast<double>(low) + 0.0;
    uint64_t bits;
    memcpy(&bits, &width, sizeof bits);
    atomic_max(&widest[0], bits);
  }
  sync_threads();
  if (t == 0) {
    double width;
    const uint64_t bits = widest[0];
    memcpy(&width, &bits, sizeof width);
    double sum = 0.0;
    for (int64_t s = 0; s < pq_dim; ++s) sum += static_cast<double>(lows[s]);
    header[0] = width / 255.0;
    header[1] = sum;
  }
  sync_threads();
  const double step = header[0];
  for (int64_t i = t; i < pq_dim * 16; i += kPqThreads) {
    double q = 0.0;
    if (step > 0.0) q = floor((static_cast<double>(load_readonly(lut + i)) - static_cast<double>(lows[i / 16])) / step + 0.5);
    table[i] = static_cast<uint8_t>(q);
  }
  sync_threads();
}

}  // namespace warpmem::cuda
