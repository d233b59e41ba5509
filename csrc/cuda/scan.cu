#include "scan.hpp"

#include "kernels/scan_merge.cuh"
#include "kernels/scan_screen.cuh"
#include "launch.cuh"
#include "workspace.hpp"

namespace warpmem::cuda {
namespace {

void launch_stage(const DeviceScanStage& stage, const ScanParams& params, Stream stream) {
  const Grid grid{stage.blocks, kScanThreads, stage.shared_bytes};
  switch (stage.shape) {
    case ScanShape::kPlain:
      return launch("scan_plain", scan_plain_kernel, grid, stream, params);
    case ScanShape::kSmall:
      if (stage.queries == 1) return launch("scan_small_1", scan_small_kernel<1>, grid, stream, params);
      return launch("scan_small_3", scan_small_kernel<3>, grid, stream, params);
    case ScanShape::kMiddle:
      if (stage.queries <= 8) return launch("scan_middle_1", scan_middle_kernel<1, false>, grid, stream, params);
      return launch("scan_middle_4", scan_middle_kernel<4, true>, grid, stream, params);
    case ScanShape::kLarge:
      return launch("scan_large", scan_large_kernel, grid, stream, params);
  }
}

}  // namespace

void scan(const DeviceScanPlan& plan, const ScanArguments& arguments, Stream stream) {
  const DeviceScanShape& shape = plan.shape;
  if (shape.queries == 0) return;
  const auto rounds = static_cast<int64_t>(plan.parts.rounds.size());
  const ScanTable table(plan);
  const auto* const tables = static_cast<const unsigned char*>(arguments.table);
  Workspace workspace(arguments.workspace);

  ScanParams params{};
  params.pages = arguments.pages;
  params.queries = arguments.queries;
  params.tasks = reinterpret_cast<const DeviceScanTask*>(tables + table.tasks);
  params.part_numbers = reinterpret_cast<const uint32_t*>(tables + table.part_numbers);
  params.parts = reinterpret_cast<const DeviceScanPart*>(tables + table.parts);
  params.segments = arguments.segments;
  params.filters = arguments.filters;
  params.terms = arguments.terms;
  params.values = arguments.values;
  params.dim = shape.dim;
  params.padded = padded_dim(shape.dim);
  params.n_columns = shape.n_columns;
  params.storage = shape.storage;
  params.l2 = shape.l2;
  params.screened = plan.screened;
  params.ranking = shape.ranking;
  params.extra = extra_terms(shape.ranking);
  params.min_similarity = arguments.min_similarity;
  params.least = not_above(arguments.min_similarity);
  params.k = static_cast<int32_t>(shape.k);
  params.counters = arguments.counters;
  uint32_t* const next = workspace.take<uint32_t>(kScanShapes * rounds);
  params.floors = workspace.take<uint32_t>(shape.queries);
  params.items = workspace.take<ScanItem>(plan.parts.items);
  params.counts = workspace.take<uint32_t>(static_cast<int64_t>(plan.parts.parts.size()));
  Candidate* const best = workspace.take<Candidate>(shape.queries * shape.k);

  fill_bytes(next, 0, scan_align(4 * kScanShapes * rounds) + 4 * shape.queries, stream);  // and the floors
  if (plan.screened) {
    ScanPrepareParams prepare{arguments.queries, shape.queries, shape.dim, params.padded, nullptr, nullptr};
    prepare.codes = workspace.take<int8_t>(shape.queries * params.padded);
    prepare.bounds = workspace.take<ScanQueryBound>(shape.queries);
    params.codes = prepare.codes;
    params.bounds = prepare.bounds;
    const int64_t blocks = std::min((shape.queries + 7) / 8, plan.merge_blocks);
    launch("scan_prepare", scan_prepare_kernel, Grid{blocks, kScanThreads, 0}, stream, prepare);
  }

  ScanMergeParams merge{};
  merge.query_parts = reinterpret_cast<const uint32_t*>(tables + table.query_parts);
  merge.n = shape.queries;
  merge.best = best;
  merge.scores = arguments.scores;
  merge.similarities = arguments.similarities;
  merge.list_ids = arguments.list_ids;
  merge.row_ids = arguments.row_ids;
  merge.groups = arguments.groups;
  merge.ordinals = arguments.ordinals;
  merge.counts = arguments.counts;
  for (int64_t r = 0; r < rounds; ++r) {
    const ScanRound& round = plan.parts.rounds[static_cast<size_t>(r)];
    for (const DeviceScanStage& stage : plan.stages) {
      params.first_task = std::max(stage.first_task, round.first_task);
      params.n_tasks = std::min(stage.first_task + stage.tasks, round.first_task + round.tasks) - params.first_task;
      if (params.n_tasks <= 0) continue;
      params.next = next + r * kScanShapes + static_cast<int>(stage.shape);
      launch_stage(stage, params, stream);
    }
    merge.scan = params;
    merge.first = r == 0;
    launch("scan_merge", scan_merge_kernel, Grid{plan.merge_blocks, kScanThreads, kScanMergeShared}, stream, merge);
    merge.query_parts += shape.queries + 1;
  }
}

void normalize_rows(const float* from, int64_t n, int64_t dim, float* to, const DeviceLimits& limits, Stream stream) {
  if (n == 0) return;
  constexpr int64_t kWarps = kScanThreads / 32;
  const int64_t blocks = std::min((n + kWarps - 1) / kWarps, 4 * resident_blocks(limits, kScanThreads, 0));
  launch("scan_normalize", scan_normalize_kernel, Grid{blocks, kScanThreads, 0}, stream, ScanNormalizeParams{from, to, n, dim});
}

}  // namespace warpmem::cuda
