// The steps of k-means on a device. No CUDA header is needed to include this. All pointers are to device memory.
#pragma once

#include <cstdint>

#include "../core/kmeans_plan.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

// Rows in halves and what rounding did to them, in one array of rounded_bytes(n, dim), aligned to 16 bytes.
struct RoundedRows {
  RoundedRows() = default;
  RoundedRows(void* memory, int64_t n, int64_t dim)
      : halves(static_cast<unsigned char*>(memory)),
        measures(reinterpret_cast<RoundedRow*>(halves + 2 * halves_rows(n) * halves_dim(dim))) {}
  // From row `first` on, a multiple of 16.
  RoundedRows from(int64_t first, int64_t dim) const {
    RoundedRows out;
    out.halves = halves + 2 * first * halves_dim(dim);
    out.measures = measures + first;
    return out;
  }

  unsigned char* halves = nullptr;
  RoundedRow* measures = nullptr;
};

// Enqueues the rounding of rows (n, dim), row i at i * row_stride. Throws std::runtime_error when the launch fails.
void round_rows(const float* rows, int64_t row_stride, int64_t n, int64_t dim, const RoundedRows& to, Stream stream);

struct AssignArguments {
  const float* rows = nullptr;  // row i at i * row_stride; batch b adds b * batch_step
  int64_t row_stride = 0;
  int64_t batch_step = 0;
  const float* centroids = nullptr;  // (batches, k, dim), finite
  bool inner = false;                // largest dot product instead of smallest distance
  int32_t* index = nullptr;          // this or codes: element i * out_row + b * out_batch
  uint8_t* codes = nullptr;
  int64_t out_row = 1;
  int64_t out_batch = 0;
  RoundedRows rounded;        // the rows, when plan.rounded; behind the last to a multiple of 128 there may be others
  double* values = nullptr;   // (rows) or null; only with one batch and `index`: the canonical value of row and centroid
  void* workspace = nullptr;  // plan.workspace_bytes, aligned to 16 bytes
};

// What a search leaves at the beginning of its workspace, of its last chunk: rows that float32 left in doubt; of those that halves did, rows with a few
// candidates, and with too many.
struct NearestCounts {
  uint64_t doubtful = 0;
  uint64_t few = 0;
  uint64_t many = 0;
};
static_assert(sizeof(NearestCounts) == kNearestCountBytes);

// Enqueues the search for the nearest centroid. Results are those of cpu/kmeans_assign, bit for bit. Throws std::runtime_error when a launch fails.
void nearest(const NearestPlan& plan, const AssignArguments& arguments, Stream stream);

struct ValuesArguments {
  const float* rows = nullptr;  // (n, dim), row i at i * row_stride
  int64_t row_stride = 0;
  const float* centroids = nullptr;  // (k, dim)
  bool inner = false;
  const int32_t* index = nullptr;  // (n), each in [0, k)
  double* values = nullptr;        // (n): the canonical value of each row and its centroid
};

// Enqueues the values of an assignment of n rows. Throws std::runtime_error when the launch fails.
void nearest_values(int64_t n, int64_t dim, const ValuesArguments& arguments, Stream stream);

struct UpdateArguments {
  const float* rows = nullptr;     // (n, dim)
  const int32_t* index = nullptr;  // (n), each in [0, k)
  float* centroids = nullptr;      // (k, dim); those of clusters without rows stay
  float* means = nullptr;          // (k, dim) of scratch, only when spherical
  bool spherical = false;
  int64_t* sizes = nullptr;   // (k) receives the rows of each cluster; may be null
  void* workspace = nullptr;  // plan.workspace_bytes, aligned to 16 bytes
};

// Enqueues the means of the clusters, as cpu/kmeans computes them, bit for bit. Throws std::runtime_error when a launch fails.
void kmeans_update(const UpdatePlan& plan, const UpdateArguments& arguments, Stream stream);

}  // namespace warpmem::cuda
