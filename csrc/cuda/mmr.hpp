// Maximal marginal relevance on a device. No CUDA header is needed to include this. All pointers are to device memory.
#pragma once

#include <cstdint>

#include "../core/mmr_plan.hpp"
#include "stream.hpp"

namespace warpmem::cuda {

struct MmrArguments {
  const float* rows = nullptr;       // (problems, candidates, dim), finite
  const float* relevance = nullptr;  // (problems, candidates), finite or -inf
  double weight = 0.5;               // of the relevance, 0 .. 1
  double* values = nullptr;          // (problems, k) in the order of choice, -inf behind the candidates
  int64_t* indexes = nullptr;        // (problems, k), -1 behind the candidates
  void* workspace = nullptr;         // plan.workspace_bytes, aligned to 8 bytes; contents do not matter
};

// Enqueues the selection on `stream` and returns. Results are those of cpu/mmr, bit for bit. Throws std::runtime_error when a launch fails.
void mmr(const MmrPlan& plan, const MmrArguments& arguments, Stream stream);

}  // namespace warpmem::cuda
