// What scans of two pools share of the same queries: cells are chosen by the codebooks that their rows have.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/page.hpp"
#include "../core/pq_bound.hpp"
#include "op_kernels.hpp"
#include "pq_books.hpp"

namespace warpmem {

// Filled by the first scan that is given it, for pools of one dimension and metric, with the same codebooks or none.
struct PqQueries {
  std::vector<double> wide;   // (n_queries, padded), zero behind dim
  std::vector<uint8_t> luts;  // by query, and behind its subspaces zeros
  std::vector<PqTable> tables;
};

struct PqScratch {
  std::vector<float> query, piece, lut;

  PqScratch(const PqBooks& books, int64_t padded)
      : query(static_cast<size_t>(padded)),
        piece(static_cast<size_t>(books.luts().scratch())),
        lut(static_cast<size_t>(books.shape().pq_dim * 16)) {}
};

// The table of one query of `padded` elements.
inline void fill_table(const PqBooks& books, const PqKernels& kernels, bool l2, int64_t padded, const double* query,
                       PqScratch& scratch, uint8_t* quantized, PqTable* table) {
  double magnitudes[kLanes] = {};  // by lane: independent chains
  const float* const largest = books.largest().data();
  for (int64_t first = 0; first < padded; first += kLanes) {
    for (int64_t i = first; i < first + kLanes; ++i) {
      scratch.query[static_cast<size_t>(i)] = static_cast<float>(query[i]);
      magnitudes[i - first] += pq_magnitude(static_cast<float>(query[i]), largest[i], l2);
    }
  }
  const double magnitude = fold_lanes(magnitudes);
  *table = PqTable{};
  if (!(magnitude < kPqMagnitudeLimit)) return;
  books.luts().table(scratch.query.data(), l2, scratch.piece.data(), scratch.lut.data());
  kernels.quantize(scratch.lut.data(), books.shape().pq_dim, quantized, &table->scale, &table->bias);
  table->error = pq_table_error(table->scale, books.shape().pq_dim, magnitude);
}

}  // namespace warpmem
