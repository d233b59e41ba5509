// Maximal marginal relevance: the definition is core/mmr.hpp.
#pragma once

#include <cstdint>

#include "op_kernels.hpp"

namespace warpmem {

struct MmrRequest {
  const float* rows = nullptr;       // (problems, candidates, dim), finite
  const float* relevance = nullptr;  // (problems, candidates), finite or -inf
  int64_t problems = 0;
  int64_t candidates = 0;  // <= kMmrMaxCandidates
  int64_t dim = 0;
  int64_t k = 1;
  double weight = 0.5;  // of the relevance, 0 .. 1
  int64_t threads = 1;
};

// values and indexes (problems, k) in the order of choice, behind the candidates -inf and -1. Throws std::bad_alloc.
void mmr(const OpKernels& ops, const MmrRequest& request, double* values, int64_t* indexes);

}  // namespace warpmem
