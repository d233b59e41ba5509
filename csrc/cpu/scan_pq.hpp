// The scan of a pool with product-quantisation codes: filters as ever; then an approximate score of every row from its codes alone, by which each query keeps
// the best `refine * k` rows of all its segments; then the canonical scores of these, and the k best by them.
//
//   task       filters -> sums of table entries over pages of 64 rows -> (with ranking weights: final score of the approximate similarity) -> shortlist
//   shortlist  keys of score and place. A place counts the pages of a query's segments in the order of their list ids, so that what is kept does not
//              depend on threads, on the other queries of the call, or on the instruction set
//   rescoring  the rows of a shortlist, or, for kPq storage, what their codes stand for
//
// For kPq storage the error of the quantised table is bounded, so what the shortlist dropped is looked at again where it might matter: results are
// exactly the k best of the decoded rows. For all others they are as good as the codes and `refine` are.
#pragma once

#include <cstdint>
#include <vector>

#include "pq_queries.hpp"
#include "scan_task.hpp"

namespace warpmem {

// Segments grouped by list, as scan() has them. `order` holds the indexes of segments, those of one list together; `plan` speaks of the lists by their place.
struct PqScanInput {
  const ScanPlan& plan;
  const std::vector<ScanList>& lists;
  const std::vector<ScanGroup>& sizes;  // by list
  const std::vector<uint32_t>& order;
  PqQueries& prepared;
  int64_t max_queries = 0;  // of a task
  int64_t max_pages = 0;    // of a list
};

// Throws std::bad_alloc, and std::length_error when one query scans more than 2^32 rows. Writes the output only when nothing can fail any more.
ScanCounters scan_pq(const ScanContext& context, const Pool& pool, const PqScanInput& input, const ScanOutput& output,
                     Workers* workers);

}  // namespace warpmem
