// Portable kernels of k-means. A block of 8 rows and a tile of 4 centroids: 32 sums, which a compiler keeps in eight registers of four.
#include <string.h>

#include "op_kernels.hpp"

namespace warpmem {
namespace {

constexpr int kRows = 8;
constexpr int kCentroids = 4;
constexpr int kLanes = 32;
typedef float Four __attribute__((vector_size(16)));  // the registers that every 64-bit processor has

void multiply(const float* block, int64_t dim, const float* tile, float (&sums)[kCentroids][kRows]) {
  Four acc[kCentroids][2] = {};
  for (int64_t i = 0; i < dim; ++i) {
    Four x[2];
    memcpy(x, block + i * kRows, sizeof x);
    for (int c = 0; c < kCentroids; ++c) {
      const float y = tile[i * kCentroids + c];
      acc[c][0] += x[0] * y;
      acc[c][1] += x[1] * y;
    }
  }
  memcpy(sums, acc, sizeof acc);
}

void nearest(const float* blocks, int64_t n_blocks, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles,
             float* best, float* second, int32_t* index) {
  for (int64_t r = 0; r < n_blocks * kRows; ++r) {
    best[r] = second[r] = -__builtin_inff();
    index[r] = 0;
  }
  for (int64_t t = 0; t < n_tiles; ++t) {
    for (int64_t b = 0; b < n_blocks; ++b) {
      float sums[kCentroids][kRows];
      multiply(blocks + b * dim * kRows, dim, tiles + t * dim * kCentroids, sums);
      for (int c = 0; c < kCentroids; ++c) {
        const int32_t centroid = static_cast<int32_t>(t * kCentroids + c);
        for (int r = 0; r < kRows; ++r) {
          const int64_t at = b * kRows + r;
          const float score = sums[c][r] + bias[centroid];
          if (score > best[at]) {
            second[at] = best[at];
            best[at] = score;
            index[at] = centroid;
          } else if (score > second[at]) {
            second[at] = score;
          }
        }
      }
    }
  }
}

int64_t near(const float* block, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles, const float* limits,
             int64_t* found) {
  int64_t n = 0;
  for (int64_t t = 0; t < n_tiles; ++t) {
    float sums[kCentroids][kRows];
    multiply(block, dim, tiles + t * dim * kCentroids, sums);
    for (int c = 0; c < kCentroids; ++c) {
      const int64_t centroid = t * kCentroids + c;
      for (int64_t r = 0; r < kRows; ++r) {
        if (sums[c][r] + bias[centroid] >= limits[r]) found[n++] = r << 32 | centroid;
      }
    }
  }
  return n;
}

double squared_distance(const float* a, const float* b, int64_t dim) {
  double acc[kLanes] = {};
  for (int64_t i = 0; i < dim; i += kLanes) {
    const int64_t width = dim - i < kLanes ? dim - i : kLanes;
    for (int64_t j = 0; j < width; ++j) {
      const double difference = static_cast<double>(a[i + j]) - static_cast<double>(b[i + j]);
      acc[j] += difference * difference;
    }
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
  }
  return acc[0];
}

double dot(const float* a, const float* b, int64_t dim) {
  double acc[kLanes] = {};
  for (int64_t i = 0; i < dim; i += kLanes) {
    const int64_t width = dim - i < kLanes ? dim - i : kLanes;
    for (int64_t j = 0; j < width; ++j) acc[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
  }
  return acc[0];
}

}  // namespace

const NearestKernels kSerialNearest = {kRows, kCentroids, nearest, near, squared_distance, dot};

}  // namespace warpmem
