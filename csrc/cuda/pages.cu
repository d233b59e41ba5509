#include "pages.hpp"

#include "kernels/pages.cuh"
#include "launch.cuh"
#include "workspace.hpp"

namespace warpmem::cuda {

void pages_append(const AppendArguments& arguments, const DeviceLimits& limits, Stream stream) {
  if (arguments.n == 0) return;
  const AppendParams params{*arguments.layout, arguments.pages,    arguments.places,  arguments.vectors,
                            arguments.row_ids, arguments.ordinals, arguments.columns, arguments.n};
  launch("pages_append", pages_append_kernel, Grid{append_blocks(arguments.n, limits), kPagesThreads, 0}, stream, params);
}

void pages_remove(DevicePage* pages, const int64_t* places, int64_t n, uint64_t* removed, const DeviceLimits& limits,
                  Stream stream) {
  if (n == 0) return;
  const RemoveParams params{pages, places, n, removed};
  launch("pages_remove", pages_remove_kernel, Grid{remove_blocks(n, limits), kPagesThreads, 0}, stream, params);
}

void pages_compact(const CompactPlan& plan, const CompactArguments& arguments, Stream stream) {
  if (plan.moves == 0) return;
  Workspace workspace(arguments.workspace);
  CompactParams params{};
  params.layout = *arguments.layout;
  params.pages = arguments.pages;
  params.moves = arguments.moves;
  params.n_moves = plan.moves;
  params.n_pages = plan.pages;
  params.firsts = workspace.take<uint32_t>(plan.pages);
  params.rows = arguments.rows;
  launch("pages_count", pages_count_kernel, Grid{plan.count_blocks, kPagesThreads, plan.shared_bytes}, stream, params);
  if (plan.pages == 0) return;
  launch("pages_move", pages_move_kernel, Grid{plan.move_blocks, kPagesThreads, 0}, stream, params);
}

}  // namespace warpmem::cuda
