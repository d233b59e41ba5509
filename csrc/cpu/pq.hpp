// Product quantisation (Jegou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011): a row is cut into pq_dim pieces, and each
// piece is stored as the number of the nearest of 2^pq_bits trained centroids. Layouts of codes and the quantised table: core/pq_code.hpp.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/pq_code.hpp"
#include "../core/rescoring.hpp"
#include "op_kernels.hpp"

namespace warpmem {

// Trains each subspace by k-means, as pq_options() says. n >= entries. The result does not depend on `threads`.
void pq_train(const OpKernels& ops, const PqShape& shape, const float* rows, int64_t n, uint64_t seed, int64_t iterations,
              int64_t threads, float* codebooks);

// rows (n, dim) -> packed codes (n, code size). The nearest entry by canonical distance, ties to the smaller number.
void pq_encode(const OpKernels& ops, const PqShape& shape, const float* codebooks, const float* rows, int64_t n, int64_t threads,
               uint8_t* codes);

// packed codes -> rows (n, dim).
void pq_decode(const PqShape& shape, const float* codebooks, const uint8_t* codes, int64_t n, int64_t threads, float* rows);

// Codebooks prepared for tables. Immutable after construction; any number of threads may use one.
class PqLuts {
 public:
  // Throws std::bad_alloc.
  PqLuts(const OpKernels& ops, const PqShape& shape, const float* codebooks);

  // query (dim) -> out (pq_dim, entries): canonical dot products, or with `l2` negated canonical squared distances. `scratch` holds scratch() floats.
  void table(const float* query, bool l2, float* scratch, float* out) const;
  int64_t scratch() const { return padded_; }

 private:
  const PqKernels* kernels_;
  PqShape shape_;
  int64_t padded_;            // elements of a piece with zeros behind them, as PqKernels::lut wants
  std::vector<float> books_;  // [subspace][group][padded][16]
};

// Tables of n queries: lut (n, pq_dim, entries).
void pq_lut(const OpKernels& ops, const PqShape& shape, const float* codebooks, const float* queries, int64_t n, bool l2,
            int64_t threads, float* lut);

// Packed (n, code size) <-> interleaved blocks of 32 rows.
void pq_interleave_all(int64_t pq_dim, int64_t bits, const uint8_t* packed, int64_t n, int64_t threads, uint8_t* blocks);
void pq_deinterleave_all(int64_t pq_dim, int64_t bits, const uint8_t* blocks, int64_t n, int64_t threads, uint8_t* packed);

struct PqScan {
  int64_t pq_dim = 1;
  int64_t bits = 8;
  const uint8_t* codes = nullptr;
  bool interleaved = true;
  int64_t rows = 0;
  const float* luts = nullptr;  // (queries, pq_dim, entries); the sum of the largest magnitudes of a table is finite
  int64_t queries = 0;
  int64_t k = 1;
  int64_t threads = 1;
};

// The k rows of largest score of each query: values and indexes (queries, k), behind the rows -inf and -1. 8 bits: a score is the float32 sum of
// its table entries in the order of the subspaces. 4 bits: rows are ordered by the integer sum over the quantised table. Ties: smaller row first.
void pq_scan(const OpKernels& ops, const PqScan& scan, float* values, int64_t* indexes);

// The k best by their canonical similarity of the refine * k rows that pq_scan() finds for each query; outputs and ties likewise. There are rescoring.rows for
// all rows of the scan, and a query for each table. refine * k <= 2^31.
void pq_scan_refined(const OpKernels& ops, const PqScan& scan, int64_t refine, const Rescoring& rescoring, float* values,
                     int64_t* indexes);

}  // namespace warpmem
