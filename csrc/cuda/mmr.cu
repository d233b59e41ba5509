#include "mmr.hpp"

#include "kernels/mmr.cuh"
#include "launch.cuh"

namespace warpmem::cuda {

void mmr(const MmrPlan& plan, const MmrArguments& arguments, Stream stream) {
  if (plan.problems == 0) return;
  MmrParams params{};
  params.rows = arguments.rows;
  params.relevance = arguments.relevance;
  params.problems = plan.problems;
  params.n = plan.candidates;
  params.dim = plan.dim;
  params.k = plan.k;
  params.weight = arguments.weight;
  params.products = static_cast<double*>(arguments.workspace);
  params.values = arguments.values;
  params.indexes = arguments.indexes;
  const Grid grid{plan.blocks, kMmrThreads, plan.shared_bytes};
  if (plan.variant == MmrVariant::kDirect) {
    launch("mmr_direct", mmr_select_kernel<false>, grid, stream, params);
    return;
  }
  launch("mmr_products", mmr_products_kernel, Grid{plan.product_blocks, kMmrThreads, 0}, stream, params);
  launch("mmr_matrix", mmr_select_kernel<true>, grid, stream, params);
}

}  // namespace warpmem::cuda
