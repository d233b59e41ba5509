// k-means on a device from start to end: the loop of core/kmeans_loop.hpp over the kernels of kmeans.hpp, so that centroids, assignments and objective are those
// of cpu/kmeans.hpp, bit for bit; and codebooks of a product quantiser, a k-means for each subspace, as cpu/pq.hpp trains them. No CUDA header is needed to
// include this.
//
//   host                                    device, one block of memory, on a stream of its own
//   rows ------ staging, once ------------> rows
//   starts, a drawn row a centroid  ------> centroids, before the next search
//   sums of distances, in order  <--------- distances to a drawn row
//   are there changes, empty clusters? <--- assignments; values only when a cluster is empty
//                                           means
//
// Rows are users' data: what they were copied through, and the whole block, are overwritten with zeros before they are given back, also when something fails.
//
// Threads: any, each call for itself; without the interpreter's lock. Errors: std::runtime_error when the device fails or lacks the memory, std::bad_alloc when
// the host does; whatever `between` throws. Then nothing is on the device any more.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "../core/kmeans_loop.hpp"
#include "../core/pq_code.hpp"
#include "runtime.hpp"

namespace warpmem::cuda {

// In what pieces a call works, and how a long one lets others have the device meanwhile.
struct TrainSettings {
  std::function<void()> between;  // called when nothing of the call is under way, after each `unit`; may take as long as it likes
  std::chrono::microseconds unit{10'000};    // since the call began or `between` returned, when the step then at work is through
  int64_t piece_rows = 0;                    // of a step of assignment; 0: chosen (core/kmeans_plan.hpp)
  int64_t staging_bytes = int64_t{4} << 20;  // of rows that are sent, or results that are fetched, at a time; a row at least
};

// As warpmem::kmeans.
double kmeans(Runtime& runtime, const float* rows, int64_t n, int64_t dim, const KmeansOptions& options,
              const TrainSettings& settings, float* centroids, int32_t* index);

// As warpmem::kmeans_assign; `values` may be null.
void kmeans_assign(Runtime& runtime, const float* rows, int64_t n, int64_t dim, const float* centroids, int64_t k, bool inner,
                   const TrainSettings& settings, int32_t* index, double* values);

// As warpmem::pq_train. Of the rows only the elements of the subspace at work are on the device, so each is sent once and there is room for a subspace alone.
void pq_train(Runtime& runtime, const PqShape& shape, const float* rows, int64_t n, uint64_t seed, int64_t iterations,
              const TrainSettings& settings, float* codebooks);

}  // namespace warpmem::cuda
