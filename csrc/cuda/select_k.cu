#include "select_k.hpp"

#include "kernels/select_k.cuh"
#include "launch.cuh"

namespace warpmem::cuda {
namespace {

template <bool kOrdered, bool kKeys>
void launch_stage(const SelectStage& stage, SelectParams params, Stream stream) {
  params.items = stage.items;
  params.parts = stage.parts;
  params.part_items = stage.part_items;
  params.warps_per_unit = stage.warps_per_unit;
  params.capacity = stage.capacity;
  const Grid grid{stage.blocks, stage.threads, stage.shared_bytes};
  switch (stage.variant) {
    case SelectVariant::kWarp:
      return launch("select_warp", select_warp_kernel<kOrdered, kKeys>, grid, stream, params);
    case SelectVariant::kQueue:
      return launch("select_queue", select_queue_kernel<kOrdered, kKeys>, grid, stream, params);
    case SelectVariant::kRadix:
      return launch("select_radix", select_radix_kernel<kOrdered, kKeys>, grid, stream, params);
  }
}

template <bool kOrdered>
void launch_plan(const SelectPlan& plan, SelectParams params, Stream stream) {
  launch_stage<kOrdered, false>(plan.first, params, stream);
  if (plan.second.blocks == 0) return;
  params.keys_in = params.keys_out;
  params.indexes_in = params.indexes_out;
  launch_stage<kOrdered, true>(plan.second, params, stream);
}

}  // namespace

void select_keys(const SelectStage& stage, int64_t rows, int64_t k, const uint64_t* keys, const double* scales, float* values,
                 int64_t* indexes, Stream stream) {
  SelectParams params{};
  params.rows = rows;
  params.k = static_cast<int32_t>(k);
  params.keys_in = keys;
  params.scales = scales;
  params.values = values;
  params.indexes = indexes;
  launch_stage<false, true>(stage, params, stream);
}

void select_k(const SelectPlan& plan, const SelectArguments& arguments, Stream stream) {
  fill_bytes(arguments.bad_row, 0xff, 8, stream);
  if (plan.rows == 0) return;
  SelectParams params{};
  params.scores = arguments.scores;
  params.row_stride = arguments.row_stride;
  params.ordinals = arguments.ordinals;
  params.rows = plan.rows;
  params.k = static_cast<int32_t>(plan.k);
  params.values = arguments.values;
  params.indexes = arguments.indexes;
  params.bad_row = arguments.bad_row;
  if (plan.second.blocks > 0) {
    const int64_t items = plan.rows * plan.first.parts * plan.k;
    params.keys_out = static_cast<uint64_t*>(arguments.workspace);
    params.floors = params.keys_out + items;
    params.indexes_out = reinterpret_cast<uint32_t*>(params.floors + plan.rows);
    fill_bytes(params.floors, 0, plan.rows * 8, stream);
  }
  if (plan.ordered) {
    launch_plan<true>(plan, params, stream);
  } else {
    launch_plan<false>(plan, params, stream);
  }
}

}  // namespace warpmem::cuda
