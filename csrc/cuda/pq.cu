#include "pq.hpp"

#include "kernels/pq.cuh"
#include "kmeans.hpp"
#include "launch.cuh"
#include "select_k.hpp"
#include "workspace.hpp"

namespace warpmem::cuda {
namespace {

// A thread for each of `work` things, in strides of the grid beyond a million blocks.
Grid grid_for(int64_t work) { return Grid{std::min((work + kPqThreads - 1) / kPqThreads, int64_t{1} << 20), kPqThreads, 0}; }

template <int kTop>
void launch_lut(const PqLutParams& params, Stream stream) {
  launch("pq_lut", pq_lut_kernel<kTop>, grid_for(params.n * params.pq_dim * params.entries), stream, params);
}

}  // namespace

void pq_encode(const PqEncodePlan& plan, const PqBooks& books, const float* rows, uint8_t* codes, void* workspace,
               Stream stream) {
  const int64_t n = plan.nearest.rows;
  if (n == 0) return;
  Workspace memory(workspace);
  AssignArguments arguments;
  arguments.workspace = memory.take<unsigned char>(plan.nearest.workspace_bytes);
  arguments.rows = rows;
  arguments.row_stride = books.pq_dim * books.dsub;
  arguments.batch_step = books.dsub;
  arguments.centroids = books.codebooks;
  arguments.codes = books.bits == 8 ? codes : memory.take<uint8_t>(n * books.pq_dim);
  arguments.out_row = books.pq_dim;
  arguments.out_batch = 1;
  nearest(plan.nearest, arguments, stream);
  if (books.bits == 8) return;
  const PqLayoutParams params{arguments.codes, codes, n, books.pq_dim, 4};
  launch("pq_pack", pq_pack_kernel, grid_for(n * pq_code_size(books.pq_dim, 4)), stream, params);
}

void pq_decode(const PqBooks& books, const uint8_t* codes, int64_t n, float* rows, Stream stream) {
  if (n == 0) return;
  const PqDecodeParams params{books.codebooks, codes, rows, n, books.pq_dim, books.bits, books.dsub};
  launch("pq_decode", pq_decode_kernel, grid_for(n * books.pq_dim * books.dsub), stream, params);
}

void pq_interleave(int64_t pq_dim, int64_t bits, const uint8_t* packed, int64_t n, uint8_t* blocks, Stream stream) {
  if (n == 0) return;
  const PqLayoutParams params{packed, blocks, n, pq_dim, bits};
  launch("pq_interleave", pq_interleave_kernel, grid_for(pq_blocks(n) * pq_dim * pq_group_bytes(bits)), stream, params);
}

void pq_lut(const PqBooks& books, const float* queries, int64_t n, bool l2, float* luts, Stream stream) {
  if (n == 0) return;
  const PqLutParams params{books.codebooks, queries, luts, n, books.pq_dim, int64_t{1} << books.bits, books.dsub, l2};
  if (books.dsub == 1) return launch_lut<1>(params, stream);
  if (books.dsub == 2) return launch_lut<2>(params, stream);
  if (books.dsub <= 4) return launch_lut<4>(params, stream);
  if (books.dsub <= 8) return launch_lut<8>(params, stream);
  if (books.dsub <= 16) return launch_lut<16>(params, stream);
  const int64_t entries = n * books.pq_dim * params.entries;
  launch("pq_lut_warp", pq_lut_warp_kernel, grid_for(entries * 32), stream, params);
}

void pq_scan(const PqScanPlan& plan, const uint8_t* codes, const float* luts, float* values, int64_t* indexes, void* workspace,
             Stream stream) {
  if (plan.queries == 0) return;
  if (!plan.fits) {
    throw std::runtime_error(
        "pq scan: " + std::to_string(plan.pq_dim) + " subspaces of 4 bits with k = " + std::to_string(plan.k) + " need " +
        std::to_string(plan.shared_bytes) + " bytes of shared memory, more than the device has; scan on the CPU");
  }
  Workspace memory(workspace);
  PqScanParams params{};
  params.codes = codes;
  params.luts = luts;
  params.queries = plan.queries;
  params.rows = plan.rows;
  params.pq_dim = plan.pq_dim;
  params.parts = plan.parts;
  params.part_rows = plan.part_rows;
  params.chunk = plan.chunk;
  params.k = static_cast<int32_t>(plan.k);
  params.capacity = plan.capacity;
  params.floors = memory.take<uint64_t>(plan.queries);
  params.scales = memory.take<double>(2 * plan.queries);
  params.values = values;
  params.indexes = indexes;
  const bool two = plan.second.blocks > 0;
  if (two) {
    params.keys_out = memory.take<uint64_t>(plan.queries * plan.parts * plan.k);
    fill_bytes(params.floors, 0, 8 * plan.queries, stream);
  }
  const Grid grid{plan.blocks, kPqThreads, plan.shared_bytes};
  if (plan.bits == 8) {
    launch("pq_scan8", pq_scan8_kernel, grid, stream, params);
  } else {
    launch("pq_scan4", pq_scan4_kernel, grid, stream, params);
  }
  if (!two) return;
  select_keys(plan.second, plan.queries, plan.k, params.keys_out, plan.bits == 8 ? nullptr : params.scales, values, indexes,
              stream);
}

void pq_scan_refined(const PqRefinePlan& plan, const uint8_t* codes, const float* luts, const Rescoring& rescoring, float* values,
                     int64_t* indexes, void* workspace, Stream stream) {
  if (!plan.fits) {
    throw std::runtime_error("pq scan with refine: its shortlists for k = " + std::to_string(plan.k) +
                             " are longer than a device selects, or their scan does not fit; scan on the CPU");
  }
  const int64_t queries = plan.scan.queries;
  if (queries == 0) return;
  Workspace memory(workspace);
  PqRescoreParams params{};
  auto* const scratch = memory.take<unsigned char>(plan.scan.workspace_bytes);
  auto* const approximate = memory.take<float>(queries * plan.scan.k);
  auto* const shortlists = memory.take<int64_t>(queries * plan.scan.k);
  params.keys = memory.take<uint64_t>(queries * plan.scan.k);
  pq_scan(plan.scan, codes, luts, approximate, shortlists, scratch, stream);
  params.scan.queries = rescoring.queries;
  params.scan.dim = rescoring.dim;
  params.scan.padded = padded_dim(rescoring.dim);
  params.scan.storage = rescoring.storage;
  params.scan.l2 = rescoring.l2;
  params.rows = rescoring.page();
  params.shortlists = shortlists;
  params.queries = queries;
  params.keep = plan.scan.k;
  launch("pq_rescore", pq_rescore_kernel, Grid{plan.rescore_blocks, kPqThreads, 0}, stream, params);
  select_keys(plan.best, queries, plan.k, params.keys, nullptr, values, indexes, stream);
}

}  // namespace warpmem::cuda
