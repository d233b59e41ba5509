// The table of one query over codes of 4 bits, and what its approximate scores say of the canonical ones.
#pragma once

#include <cmath>
#include <cstdint>

#include "hd.hpp"
#include "pq_code.hpp"
#include "score.hpp"
#include "select_k.hpp"

namespace warpmem {

constexpr double kPqMagnitudeLimit = 1e37;  // sums of products beyond it could overflow

// Beside the quantised entries. |approximate - canonical similarity of the decoded row| is at most `error`. A query whose sums could overflow has a table of
// zeros, and every row is as good as any other.
struct PqTable {
  double scale = 0.0;
  double bias = 0.0;
  double error = INFINITY;
};

// What one element adds to the magnitude of all products or squares of a query: x of the query, c the largest entry there.
WARPMEM_HD inline double pq_magnitude(float x, float c, bool l2) {
  const double a = fabs(static_cast<double>(x));
  const double b = static_cast<double>(c);
  return l2 ? (a + b) * (a + b) : a * b;
}

// Each entry of the quantised table is off by at most half a step, and is itself, like the approximate and the canonical similarity, rounded to float32 (2^-24
// of at most `magnitude`). Float64 sums add 1e-13 of it.
WARPMEM_HD inline double pq_table_error(double scale, int64_t pq_dim, double magnitude) {
  return scale * static_cast<double>(pq_dim) * (0.5 + 1e-9) + magnitude * 4e-7 + 1e-37;
}

// No row whose approximate final score is `score` has a canonical one above this.
WARPMEM_HD inline double pq_score_above(const Ranking& ranking, double error, double score) {
  const double weight = fabs(ranking.w_similarity);
  const double part = weight > 0.0 ? weight * error * (1.0 + 1e-6) : 0.0;
  const double bound = score + part + fabs(score) * 1e-6 + 1e-37;
  return bound == bound ? bound : INFINITY;
}

// Whether the final score is the similarity, so that sums order rows as approximate scores do.
WARPMEM_HD inline bool is_plain(const Ranking& r) { return r.w_similarity == 1.0 && r.w_recency == 0.0 && r.w_priority == 0.0; }

// The approximate final score of a shortlist's key, which holds a sum when the ranking is plain.
WARPMEM_HD inline float pq_key_score(bool plain, const PqTable& table, uint64_t key) {
  return plain ? pq_integer_score(key_integer(key), table.scale, table.bias) : key_score(key);
}

}  // namespace warpmem
