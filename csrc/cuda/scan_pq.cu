#include "scan_pq.hpp"

#include "kernels/scan_pq.cuh"
#include "kernels/scan_pq_rescore.cuh"
#include "launch.cuh"
#include "pq.hpp"
#include "workspace.hpp"

namespace warpmem::cuda {

void scan_pq(const DevicePqPlan& plan, const PqPoolBooks& books, const ScanArguments& arguments, Stream stream) {
  const DeviceScanShape& shape = plan.shape.scan;
  if (shape.queries == 0) return;
  if (!plan.fits) {
    throw std::runtime_error(
        "pq scan: " + std::to_string(shape.k * plan.shape.refine) + " rows of " + std::to_string(plan.shape.pq_dim) +
        " codes are more than a shortlist on a device holds, or one query asks for 2^32 rows; scan on the CPU");
  }
  const int64_t pq_dim = plan.shape.pq_dim;
  const int64_t width = pq_dim * plan.shape.dsub;
  const auto rounds = static_cast<int64_t>(plan.parts.rounds.size());
  const PqPlanTable table(plan);
  const auto* const tables = static_cast<const unsigned char*>(arguments.table);
  Workspace workspace(arguments.workspace);

  ScanPqParams params{};
  params.scan.pages = arguments.pages;
  params.scan.queries = arguments.queries;
  params.scan.tasks = reinterpret_cast<const DeviceScanTask*>(tables + table.tasks);
  params.scan.part_numbers = reinterpret_cast<const uint32_t*>(tables + table.part_numbers);
  params.scan.parts = reinterpret_cast<const DeviceScanPart*>(tables + table.parts);
  params.scan.segments = arguments.segments;
  params.scan.filters = arguments.filters;
  params.scan.terms = arguments.terms;
  params.scan.values = arguments.values;
  params.scan.dim = shape.dim;
  params.scan.padded = padded_dim(shape.dim);
  params.scan.n_columns = shape.n_columns;
  params.scan.storage = shape.storage;
  params.scan.l2 = shape.l2;
  params.scan.ranking = shape.ranking;
  params.scan.min_similarity = arguments.min_similarity;
  params.scan.k = static_cast<int32_t>(shape.k);
  params.scan.counters = arguments.counters;
  params.queries = shape.queries;
  params.books = books.beside;
  params.largest = books.largest;
  params.pq_dim = pq_dim;
  params.dsub = plan.shape.dsub;
  params.plain = is_plain(shape.ranking);
  params.keep = static_cast<int32_t>(plan.keep);
  params.capacity = plan.capacity;
  params.query_parts = reinterpret_cast<const uint32_t*>(tables + table.query_parts);
  params.segment_shifts = reinterpret_cast<const uint32_t*>(tables + table.segment_shifts);
  params.places = reinterpret_cast<const PqPlace*>(tables + table.places);
  params.query_places = reinterpret_cast<const uint32_t*>(tables + table.query_places);

  params.scan.next = workspace.take<uint32_t>(rounds);
  params.floors = workspace.take<uint64_t>(shape.queries);
  params.padded_queries = workspace.take<float>(shape.queries * width);
  params.magnitudes = workspace.take<double>(shape.queries);
  params.luts = workspace.take<float>(shape.queries * pq_dim * 16);
  params.quantized = workspace.take<uint8_t>(shape.queries * scan_pq_table_words(pq_dim));
  params.tables = workspace.take<PqTable>(shape.queries);
  params.part_keys = workspace.take<uint64_t>(plan.parts.items);
  params.shortlists = workspace.take<uint64_t>(shape.queries * plan.keep);
  params.candidates = workspace.take<Candidate>(shape.queries * plan.keep);
  params.best = workspace.take<Candidate>(shape.queries * shape.k);
  params.scores = arguments.scores;
  params.similarities = arguments.similarities;
  params.list_ids = arguments.list_ids;
  params.row_ids = arguments.row_ids;
  params.groups = arguments.groups;
  params.ordinals = arguments.ordinals;
  params.counts = arguments.counts;

  fill_bytes(params.scan.next, 0, scan_align(4 * rounds) + 8 * shape.queries, stream);  // and the floors
  const Grid by_query{plan.query_blocks, kScanPqThreads, 0};
  launch("scan_pq_prepare", scan_pq_prepare_kernel, by_query, stream, params);
  pq_lut(PqBooks{books.codebooks, pq_dim, 4, plan.shape.dsub}, params.padded_queries, shape.queries, shape.l2, params.luts,
         stream);
  launch("scan_pq_tables", scan_pq_tables_kernel, Grid{plan.query_blocks, kScanPqThreads, scan_pq_tables_shared(pq_dim)}, stream,
         params);
  for (const ScanRound& round : plan.parts.rounds) {
    params.scan.first_task = round.first_task;
    params.scan.n_tasks = round.tasks;
    params.first = round.first_task == 0;
    const Grid grid{plan.blocks, kScanPqThreads, plan.shared_bytes};
    if (round.tasks > 0 && plan.task_segments == 1) {
      launch("scan_pq_codes_1", scan_pq_codes_kernel<1>, grid, stream, params);
    } else if (round.tasks > 0) {
      launch("scan_pq_codes_4", scan_pq_codes_kernel<kScanPqSegments>, grid, stream, params);
    }
    launch("scan_pq_merge", scan_pq_merge_kernel, Grid{plan.query_blocks, kScanPqThreads, scan_pq_merge_shared(plan.capacity)},
           stream, params);
    ++params.scan.next;
    params.query_parts += shape.queries + 1;
  }
  launch("scan_pq_rescore", scan_pq_rescore_kernel, Grid{plan.rescore_blocks, kScanPqThreads, 0}, stream, params);
  launch("scan_pq_finish", scan_pq_finish_kernel, Grid{plan.query_blocks, kScanPqThreads, scan_pq_finish_shared(pq_dim)}, stream,
         params);
}

}  // namespace warpmem::cuda
