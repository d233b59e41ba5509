// k-means, and the search for the nearest centroid that product quantisation shares.
//
// Assignments are exact: a row belongs to the centroid of smallest canonical squared distance (32 float64 accumulators, core/score.hpp's order;
// ties to the smaller index), or of largest canonical dot product. A float32 matrix product screens. It computes, for row x and centroid y,
//   S = fl(fl(x.y) - fl(|y|^2 / 2))         and        |x - y|^2 = |x|^2 - 2 (x.y - |y|^2 / 2),
// so the nearest centroid has the largest exact x.y - |y|^2 / 2. A float32 dot product of n terms, in any order and fused or not, errs by at most
// g(n) |x||y| with g(n) = n u / (1 - n u), u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1, with Cauchy-Schwarz), an
// underflowing product by 2^-149 more; rounding the bias and the sum errs by u (|x||y| + |y|^2) at most, times 1 + g. Hence |S - exact| <= e with
//   e = g(n + 4) (|x| C + C^2) + (n + 4) 2^-149,  C the largest |y|,
// and the canonical distance itself errs by at most (n + 8) 2^-53 (|x| + C)^2. A centroid whose S lies more than 2 (e + that) below the best S
// cannot be the canonical winner. When only one is left it is the winner; otherwise those left are compared by their canonical values. So every
// instruction set and the NumPy reference agree to the bit, although their float32 sums do not.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/kmeans_loop.hpp"
#include "op_kernels.hpp"

namespace warpmem {

// Centroids prepared for nearest(). Immutable after construction; any number of threads may use one.
class Nearest {
 public:
  // centroids (k, dim) row-major, finite; kept by reference. `inner`: largest dot product instead of smallest distance. Throws std::bad_alloc.
  Nearest(const OpKernels& ops, const float* centroids, int64_t k, int64_t dim, bool inner);

  // index[i] = the nearest centroid of row i, rows + i * stride, for n rows. Throws std::bad_alloc.
  void find(const float* rows, int64_t n, int64_t stride, int32_t* index) const;

  // The canonical value of one pair: squared distance, or dot product.
  double value(const float* row, int64_t centroid) const;

 private:
  struct Scratch;
  bool better(double a, double b) const { return inner_ ? a > b : a < b; }
  int32_t exhaustive(const float* row) const;
  void settle(Scratch& scratch, const float* rows, int64_t stride, int32_t* index) const;

  const NearestKernels& kernels_;
  const float* centroids_;
  const int64_t k_;
  const int64_t dim_;
  const bool inner_;
  int64_t n_tiles_ = 0;
  double longest_ = 0.0;  // C
  std::vector<float> tiles_;
  std::vector<float> bias_;
};

// rows (n, dim), finite, n >= k and sample >= k when not 0 -> centroids (k, dim), index (n). Returns the objective: the sum over all rows, in
// order, of the canonical squared distance to their centroid (spherical: of the dot product). The result depends on the options except `threads`.
double kmeans(const OpKernels& ops, const float* rows, int64_t n, int64_t dim, const KmeansOptions& options, float* centroids,
              int32_t* index);

// index (n) of the nearest of `centroids` (k, dim), and its canonical value, float64 (n), unless null.
void kmeans_assign(const OpKernels& ops, const float* rows, int64_t n, int64_t dim, const float* centroids, int64_t k, bool inner,
                   int64_t threads, int32_t* index, double* values);

}  // namespace warpmem
