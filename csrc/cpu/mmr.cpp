#include "mmr.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "../core/mmr.hpp"
#include "fork.hpp"

namespace warpmem {
namespace {

constexpr int64_t kForkElements = 1 << 20;  // multiplied by one thread before another is worth starting

// One problem. A candidate that was chosen loses its relevance, and is then as one that is not there.
class Problem {
 public:
  Problem(const OpKernels& ops, const MmrRequest& request)
      : ops_(ops),
        request_(request),
        relevance_(static_cast<size_t>(request.candidates)),
        nearest_(static_cast<size_t>(request.candidates)) {}

  void solve(const float* rows, const float* relevance, double* values, int64_t* indexes) {
    const int64_t n = request_.candidates;
    std::copy(relevance, relevance + n, relevance_.begin());
    MmrChoice last;
    for (int64_t step = 0; step < request_.k; ++step) {
      MmrChoice best;
      for (int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<size_t>(i);
        const float r = relevance_[at];
        if (r == -std::numeric_limits<float>::infinity()) continue;
        MmrChoice next{static_cast<double>(r), static_cast<int32_t>(i)};
        if (step > 0) {
          const double product = ops_.nearest->dot(rows + last.position * request_.dim, rows + i * request_.dim, request_.dim);
          nearest_[at] = step == 1 || product > nearest_[at] ? product : nearest_[at];
          next.value = mmr_value(request_.weight, r, nearest_[at]);
        }
        if (better(next, best)) best = next;
      }
      if (best.position == kMmrNone) {
        std::fill(values + step, values + request_.k, -std::numeric_limits<double>::infinity());
        std::fill(indexes + step, indexes + request_.k, int64_t{-1});
        return;
      }
      float& chosen = relevance_[static_cast<size_t>(best.position)];
      values[step] = step == 0 ? mmr_first_value(request_.weight, chosen) : best.value;
      indexes[step] = best.position;
      chosen = -std::numeric_limits<float>::infinity();
      last = best;
    }
  }

 private:
  const OpKernels& ops_;
  const MmrRequest& request_;
  std::vector<float> relevance_;
  std::vector<double> nearest_;  // the largest product with a row chosen before
};

}  // namespace

void mmr(const OpKernels& ops, const MmrRequest& request, double* values, int64_t* indexes) {
  const int64_t n = request.candidates;
  const int64_t each = std::max<int64_t>(1, std::min(request.k, n) * n * request.dim);
  const int64_t piece = 1 + kForkElements / each;
  fork_pieces(request.problems, piece, request.threads, [&](int64_t first, int64_t last) {
    Problem problem(ops, request);
    for (int64_t p = first; p < last; ++p) {
      problem.solve(request.rows + p * n * request.dim, request.relevance + p * n, values + p * request.k,
                    indexes + p * request.k);
    }
  });
}

}  // namespace warpmem
