#include "kmeans.hpp"

#include "kernels/kmeans.cuh"
#include "kernels/nearest.cuh"
#include "kernels/nearest_halves.cuh"
#include "kernels/nearest_registers.cuh"
#include "launch.cuh"
#include "workspace.hpp"

namespace warpmem::cuda {
namespace {

int64_t blocks_for(int64_t work, int64_t per_block) {
  return std::max<int64_t>(1, std::min((work + per_block - 1) / per_block, int64_t{1} << 20));
}

// The screen by halves, the rows of which it leaves few candidates, and the float32 screen of the others where they are many.
void launch_halves(const NearestPlan& plan, const HalvesParams& params, Stream stream) {
  const Grid grid{plan.screen_blocks, kNearestThreads, plan.shared_bytes};
  if (plan.screen == NearestScreen::kHalves128) {
    launch("nearest_halves_128", nearest_halves_kernel<128>, grid, stream, params);
  } else if (plan.screen == NearestScreen::kHalves64) {
    launch("nearest_halves_64", nearest_halves_kernel<64>, grid, stream, params);
  } else {
    launch("nearest_halves_32", nearest_halves_kernel<32>, grid, stream, params);
  }
  launch("nearest_few", nearest_few_kernel, Grid{plan.few_blocks, kNearestThreads, 0}, stream, params);
  launch("nearest_screen_8", nearest_screen_kernel<8, true>,
         Grid{plan.again_blocks, kNearestThreads, nearest_shared_bytes(NearestScreen::kTiles8, plan.dim, true)}, stream,
         params.nearest);
}

void launch_screen(const NearestPlan& plan, const NearestParams& params, Stream stream) {
  const Grid grid{plan.screen_blocks, kNearestThreads, plan.shared_bytes};
  const Grid by_threads{plan.screen_blocks, kRegisterThreads, 0};
  if (plan.screen == NearestScreen::kTiles8) {
    launch("nearest_screen_8", nearest_screen_kernel<8, false>, grid, stream, params);
  } else if (plan.screen == NearestScreen::kTiles4) {
    launch("nearest_screen_4", nearest_screen_kernel<4, false>, grid, stream, params);
  } else if (plan.screen == NearestScreen::kRegisters4) {
    launch("nearest_registers_4", nearest_registers_kernel<4>, by_threads, stream, params);
  } else {
    launch("nearest_registers_8", nearest_registers_kernel<8>, by_threads, stream, params);
  }
}

}  // namespace

void round_rows(const float* rows, int64_t row_stride, int64_t n, int64_t dim, const RoundedRows& to, Stream stream) {
  if (n == 0) return;
  HalvesParams params{};
  params.nearest.rows = rows;
  params.nearest.row_stride = row_stride;
  params.nearest.n = n;
  params.nearest.dim = dim;
  params.rows = reinterpret_cast<Bytes16*>(to.halves);
  params.measures = to.measures;
  launch("nearest_round_rows", nearest_round_rows_kernel, Grid{blocks_for(halves_rows(n) / 2, 8), kNearestThreads, 0}, stream,
         params);
}

void nearest(const NearestPlan& plan, const AssignArguments& arguments, Stream stream) {
  if (plan.rows == 0) return;
  const bool halves = nearest_by_halves(plan.screen);
  const int64_t entries = plan.batches * plan.chunk_rows;
  Workspace workspace(arguments.workspace);
  NearestParams params{};
  params.row_stride = arguments.row_stride;
  params.batch_step = arguments.batch_step;
  params.batches = plan.batches;
  params.centroids = arguments.centroids;
  params.k = plan.k;
  params.dim = plan.dim;
  params.inner = arguments.inner;
  params.out_row = arguments.out_row;
  params.out_batch = arguments.out_batch;
  const int64_t chunks = nearest_chunks(plan);
  auto* counts = workspace.take<NearestCounts>(chunks);  // those of the last chunk first
  fill_bytes(counts, 0, chunks * kNearestCountBytes, stream);
  counts += chunks - 1;
  params.longest = workspace.take<uint64_t>(plan.batches);
  params.bias = workspace.take<float>(halves ? halves_columns(plan.k) : plan.batches * plan.k);
  params.doubtful = workspace.take<int64_t>(entries);
  params.limits = workspace.take<float>(entries);
  fill_bytes(params.longest, 0, 8 * plan.batches, stream);
  HalvesParams by_halves{};
  RoundedRows rounded = arguments.rounded;
  if (halves) {
    auto* const measures = workspace.take<uint64_t>(2);
    by_halves.roughest = measures;
    params.largest = reinterpret_cast<uint32_t*>(measures + 1);
    fill_bytes(measures, 0, 16, stream);
    by_halves.halves = workspace.take<uint32_t>(halves_columns(plan.k) * halves_dim(plan.dim) / 2);
    by_halves.few_rows = workspace.take<int64_t>(entries);
    by_halves.few = workspace.take<int32_t>(kHalvesCandidates * entries);
    by_halves.many = workspace.take<int64_t>(entries);
    by_halves.many_limits = workspace.take<float>(entries);
    if (!plan.rounded)
      rounded = RoundedRows(workspace.take<unsigned char>(rounded_bytes(plan.chunk_rows, plan.dim)), plan.chunk_rows, plan.dim);
    params.listed = by_halves.many;
    params.listed_limits = by_halves.many_limits;
  }
  launch("nearest_measure", nearest_measure_kernel, Grid{blocks_for(plan.batches * plan.k, 8), kNearestThreads, 0}, stream,
         params);
  if (halves) {
    by_halves.nearest = params;
    launch("nearest_round", nearest_round_kernel, Grid{blocks_for(halves_columns(plan.k), 8), kNearestThreads, 0}, stream,
           by_halves);
  }
  for (int64_t first = 0; first < plan.rows; first += plan.chunk_rows, --counts) {
    params.rows = arguments.rows + first * arguments.row_stride;
    params.n = std::min(plan.chunk_rows, plan.rows - first);
    params.index = arguments.index == nullptr ? nullptr : arguments.index + first * arguments.out_row;
    params.codes = arguments.codes == nullptr ? nullptr : arguments.codes + first * arguments.out_row;
    params.n_doubtful = &counts->doubtful;
    if (halves) {
      by_halves.n_few = &counts->few;
      params.n_listed = by_halves.n_many = &counts->many;
      by_halves.nearest = params;
      const RoundedRows of_chunk = plan.rounded ? rounded.from(first, plan.dim) : rounded;
      if (!plan.rounded) round_rows(params.rows, params.row_stride, params.n, plan.dim, rounded, stream);
      by_halves.rows = reinterpret_cast<Bytes16*>(of_chunk.halves);
      by_halves.measures = of_chunk.measures;
      launch_halves(plan, by_halves, stream);
    } else {
      launch_screen(plan, params, stream);
    }
    if (settled_by_blocks(plan)) {
      launch("nearest_settle_block", nearest_settle_kernel<true>,
             Grid{plan.settle_blocks, kNearestThreads, 16 * (kNearestThreads / 32)}, stream, params);
    } else {
      launch("nearest_settle", nearest_settle_kernel<false>, Grid{plan.settle_blocks, kNearestThreads, 0}, stream, params);
    }
  }
  if (arguments.values == nullptr) return;
  nearest_values(plan.rows, plan.dim,
                 ValuesArguments{arguments.rows, arguments.row_stride, arguments.centroids, arguments.inner, arguments.index,
                                 arguments.values},
                 stream);
}

void nearest_values(int64_t n, int64_t dim, const ValuesArguments& arguments, Stream stream) {
  if (n == 0) return;
  const NearestValuesParams params{arguments.rows,  arguments.row_stride, n, arguments.centroids, dim, arguments.inner,
                                   arguments.index, arguments.values};
  launch("nearest_values", nearest_values_kernel, Grid{blocks_for(n, 8), kNearestThreads, 0}, stream, params);
}

void kmeans_update(const UpdatePlan& plan, const UpdateArguments& arguments, Stream stream) {
  Workspace workspace(arguments.workspace);
  UpdateParams params{};
  params.rows = arguments.rows;
  params.n = plan.rows;
  params.dim = plan.dim;
  params.k = plan.k;
  params.index = arguments.index;
  params.centroids = arguments.centroids;
  params.means = arguments.spherical ? arguments.means : arguments.centroids;
  params.tiles = plan.tiles;
  params.counts = workspace.take<uint32_t>(plan.tiles * plan.k);
  params.starts = workspace.take<int64_t>(plan.k);
  params.sizes = workspace.take<int64_t>(plan.k);
  params.order = workspace.take<uint32_t>(plan.rows);
  if (arguments.sizes != nullptr) params.sizes = arguments.sizes;
  fill_bytes(params.counts, 0, 4 * plan.tiles * plan.k, stream);
  constexpr int64_t kWarps = kUpdateThreads / 32;
  const Grid by_tile{blocks_for(plan.tiles, kWarps), kUpdateThreads, 0};
  launch("kmeans_count", kmeans_count_kernel, by_tile, stream, params);
  launch("kmeans_offsets", kmeans_offsets_kernel, Grid{blocks_for(plan.k, kUpdateThreads), kUpdateThreads, 0}, stream, params);
  launch("kmeans_starts", kmeans_starts_kernel, Grid{1, kUpdateThreads, 8 * kUpdateThreads}, stream, params);
  launch("kmeans_scatter", kmeans_scatter_kernel, by_tile, stream, params);
  const int64_t slabs = (plan.dim + kUpdateThreads - 1) / kUpdateThreads;
  launch("kmeans_mean", kmeans_mean_kernel, Grid{blocks_for(plan.k * slabs, 1), kUpdateThreads, 0}, stream, params);
  if (!arguments.spherical) return;
  launch("kmeans_normalize", kmeans_normalize_kernel, Grid{blocks_for(plan.k, kWarps), kUpdateThreads, 0}, stream, params);
}

}  // namespace warpmem::cuda
