// select_k on a device. No CUDA header is needed to include this.
#pragma once

#include <cstdint>

#include "../core/select_plan.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

// All pointers are to device memory.
struct SelectArguments {
  const float* scores = nullptr;       // (rows, columns), row r begins at r * row_stride
  int64_t row_stride = 0;              // elements
  const uint32_t* ordinals = nullptr;  // (columns); needed when the plan is ordered
  float* values = nullptr;             // (rows, k), -inf behind the columns
  int64_t* indexes = nullptr;          // (rows, k), -1 behind the columns
  uint64_t* bad_row = nullptr;  // receives the first row that holds a NaN (whose outputs are then unspecified), else UINT64_MAX
  void* workspace = nullptr;    // plan.workspace_bytes, aligned to 8 bytes; contents do not matter
};

// Enqueues the selection on `stream` and returns. Results are those of cpu/select_k, bit for bit. Throws std::runtime_error when a launch fails.
void select_k(const SelectPlan& plan, const SelectArguments& arguments, Stream stream);

// The second launch alone: the k best of `keys` (rows, stage.items), 0 where there is none. `scales` is null, or (rows, 2): scale and bias by which
// integer scores become numbers (core/pq_code.hpp).
void select_keys(const SelectStage& stage, int64_t rows, int64_t k, const uint64_t* keys, const double* scales, float* values,
                 int64_t* indexes, Stream stream);

}  // namespace warpmem::cuda
