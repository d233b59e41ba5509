// Portable kernels: the plain statement of the canonical dot product. Accurate and slow on purpose; the others are compared with it.
#include "kernels.hpp"

namespace warpmem {
namespace {

constexpr int kLanes = 32;

float dot_row(const float* row, const double* query, int64_t padded) {
  double acc[kLanes] = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) acc[j] += static_cast<double>(row[i + j]) * query[i + j];
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
  }
  return static_cast<float>(acc[0]);
}

void dots(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (int i = 0; i < 64; ++i) {
    if (((mask >> i) & 1u) != 0) similarities[i] = dot_row(rows + i * padded, query, padded);
  }
}

}  // namespace

const Kernels kSerialKernels = {"serial", dots};

}  // namespace warpmem
