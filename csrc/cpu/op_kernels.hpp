// What one instruction set provides for select_k, kmeans and pq. As in kernels.hpp, the ISA files include only this and never a header with inline
// functions: they are compiled with flags of their own.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels.hpp"

namespace warpmem {

// select_k ---------------------------------------------------------------------------------------------------------------------------------------
struct SelectKernels {
  // Appends to `keys` the key (core/select_k.hpp) of each score in [begin, end) that is not <= threshold, with index = position + offset, until fewer
  // than 64 free places are left of `room`. Returns the position reached and adds to *n. A NaN ends the call: -1 - its position is returned.
  int64_t (*collect)(const float* scores, int64_t begin, int64_t end, float threshold, uint32_t offset, uint64_t* keys,
                     int64_t room, int64_t* n);
  // The same for integer scores that are >= least.
  int64_t (*collect_u16)(const uint16_t* scores, int64_t begin, int64_t end, uint16_t least, uint32_t offset, uint64_t* keys,
                         int64_t room, int64_t* n);
};

// kmeans -----------------------------------------------------------------------------------------------------------------------------------------
// Rows are packed in blocks [dim][block_rows], centroids in tiles [dim][tile_centroids]. The float32 score of row and centroid is
// fl(dot + bias[centroid]), the dot product summed along dim in order, fused or not: at most dim + 1 roundings, whichever set computes it.
struct NearestKernels {
  int64_t block_rows;
  int64_t tile_centroids;
  // Over all tiles: the largest score of each row, the first centroid that has it, and the largest score among the other centroids.
  void (*nearest)(const float* blocks, int64_t n_blocks, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles,
                  float* best, float* second, int32_t* index);
  // Of one block: every (row of the block << 32 | centroid) whose score is >= limits[row]. Returns their number, at most block_rows * centroids.
  int64_t (*near)(const float* block, int64_t dim, const float* tiles, const float* bias, int64_t n_tiles, const float* limits,
                  int64_t* found);
  // Canonical squared distance: 32 float64 accumulators over float64 differences, squared and added without fusing; core/score.hpp's fold.
  double (*squared_distance)(const float* a, const float* b, int64_t dim);
  // Canonical dot product, not rounded to float32; fused or not, as products of two float32 numbers are exact in float64.
  double (*dot)(const float* a, const float* b, int64_t dim);
};

// pq ---------------------------------------------------------------------------------------------------------------------------------------------
struct PqKernels {
  // Tables of one piece of a query: books [n_groups][padded][16] hold 16 entries side by side, `padded` being 1, 2, 4, 8, 16 or a multiple of 32;
  // the query and the books are padded with zeros. out (n_groups * 16): canonical dot products, or negated canonical squared distances.
  void (*lut)(const float* books, int64_t n_groups, int64_t padded, const float* query, bool squared, float* out);
  // A table lut [pq_dim][16] as bytes: pq_quantize_lut of core/pq_code.hpp.
  void (*quantize)(const float* lut, int64_t pq_dim, uint8_t* quantized, double* scale, double* bias);
  // Blocks of 32 interleaved rows -> 32 sums each. `stride` bytes lie between blocks; the first n_sub subspaces of each are summed.
  // 4 bits: lut [n_sub rounded up to 4][16], behind n_sub all 0; n_sub <= 256, so that a sum fits in 16 bits.
  void (*sums4)(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const uint8_t* lut, uint16_t* sums);
  // One page of 64 rows (the layout of pages in core/pq_code.hpp) -> 64 sums. lut [2 * pairs][16], pairs <= 128. May read bytes of rows that the writer is
  // about to fill: their sums mean nothing.
  void (*page4)(const uint8_t* plane, int64_t pairs, const uint8_t* lut, uint16_t* sums);
  // 8 bits: lut [n_sub][256]; a sum is ((lut_0 + lut_1) + lut_2) + ... in float32, continued from `sums` unless `start`.
  void (*sums8)(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const float* lut, bool start,
                float* sums);
};

constexpr int64_t kShortRow = 16;

struct OpKernels {
  const char* name;
  const SelectKernels* select;
  const NearestKernels* nearest;
  const NearestKernels*
      nearest_short;  // for rows of fewer than kShortRow elements, where keeping the best costs more than the products
  const PqKernels* pq;
};

extern const SelectKernels kSerialSelect;
extern const NearestKernels kSerialNearest;
extern const PqKernels kSerialPq;
#if defined(WARPMEM_HAVE_AVX2)
extern const SelectKernels kAvx2Select;
extern const NearestKernels kAvx2Nearest;
extern const PqKernels kAvx2Pq;
#endif
#if defined(WARPMEM_HAVE_AVX512)
extern const SelectKernels kAvx512Select;
extern const NearestKernels kAvx512Nearest;
extern const PqKernels kAvx512Pq;
#endif

}  // namespace warpmem
