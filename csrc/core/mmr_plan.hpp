// How mmr runs on a device. A pure function of the shape and of the device's limits.
//
//   direct   a block a problem; a step multiplies the row chosen last with the others
//   matrix   all products of a problem first, by as many blocks as the device holds; then a block a problem that only reads them
//
// Direct makes k n products on one multiprocessor, matrix n (n + 1) / 2 on all of them: one problem of a few hundred candidates wants the matrix, a
// hundred problems are served side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "device_limits.hpp"
#include "mmr.hpp"

namespace warpmem {

enum class MmrVariant : int32_t { kDirect, kMatrix };

constexpr int32_t kMmrThreads = 512;
constexpr int32_t kMmrRows = 4;                               // rows that a warp multiplies with one
constexpr int64_t kMmrHeaderBytes = 16 * (kMmrThreads / 32);  // the best of each warp
constexpr int64_t kMmrLaunchProducts = 256;                   // in whose time the second launch begins
constexpr int64_t kMmrMatrixBytes = int64_t{256} << 20;       // of all problems; beyond it the direct variant

struct MmrPlan {
  MmrVariant variant = MmrVariant::kDirect;
  int64_t problems = 0;
  int64_t candidates = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t product_blocks = 0;  // kMatrix: of the first launch
  int64_t blocks = 0;
  int64_t shared_bytes = 0;
  int64_t workspace_bytes = 0;  // kMatrix: (problems, candidates, candidates) float64
};

inline const char* mmr_variant_name(MmrVariant variant) { return variant == MmrVariant::kDirect ? "direct" : "matrix"; }

// Nearest product and relevance of each candidate.
inline int64_t mmr_shared_bytes(int64_t candidates) { return kMmrHeaderBytes + candidates * 12; }

// Warps of work: (row, next kMmrRows columns) of the lower triangle, a warp each.
WARPMEM_HD inline int64_t mmr_row_groups(int64_t candidates) { return (candidates + kMmrRows - 1) / kMmrRows; }

// candidates <= kMmrMaxCandidates. `variant` -1: chosen.
inline MmrPlan plan_mmr(int64_t problems, int64_t candidates, int64_t dim, int64_t k, const DeviceLimits& limits,
                        int32_t variant = -1) {
  MmrPlan plan;
  plan.problems = problems;
  plan.candidates = candidates;
  plan.dim = dim;
  plan.k = k;
  plan.shared_bytes = mmr_shared_bytes(candidates);
  const int64_t resident = resident_blocks(limits, kMmrThreads, plan.shared_bytes);
  plan.blocks = std::min(problems, 8 * resident);
  const int64_t steps = std::min(k, candidates);
  const int64_t multiprocessors = limits.multiprocessors;
  const int64_t direct = (problems + multiprocessors - 1) / multiprocessors * steps * candidates;
  const int64_t matrix = problems * candidates * (candidates + 1) / 2 / multiprocessors + kMmrLaunchProducts;
  const int64_t bytes = problems * candidates * candidates * 8;
  if (matrix < direct && bytes <= kMmrMatrixBytes) plan.variant = MmrVariant::kMatrix;
  if (variant >= 0) plan.variant = static_cast<MmrVariant>(variant);
  if (plan.variant == MmrVariant::kMatrix) {
    const int64_t warps = problems * candidates * mmr_row_groups(candidates);
    constexpr int64_t kWarps = kMmrThreads / 32;
    plan.product_blocks = std::clamp<int64_t>((warps + kWarps - 1) / kWarps, 1, 8 * resident_blocks(limits, kMmrThreads, 0));
    plan.workspace_bytes = bytes;
  }
  return plan;
}

inline std::string describe(const MmrPlan& plan) {
  char text[160];
  std::snprintf(text, sizeof text, "mmr %lld of %lld in %lld problems; %s: %lld and %lld blocks, %lld bytes of products",
                static_cast<long long>(plan.k), static_cast<long long>(plan.candidates), static_cast<long long>(plan.problems),
                mmr_variant_name(plan.variant), static_cast<long long>(plan.product_blocks), static_cast<long long>(plan.blocks),
                static_cast<long long>(plan.workspace_bytes));
  return text;
}

}  // namespace warpmem
