// What the scans of a pool take from Python beside segments, and the arrays that they give.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../core/pool_view.hpp"
#include "../cpu/scan.hpp"
#include "arrays.hpp"

namespace warpmem {

constexpr int64_t kMaxK = 4096;
constexpr int64_t kMaxColumns = 1024;
constexpr int64_t kMaxRefine = 4096;

struct WeightArguments {
  const py::object& min_similarity;
  const py::object& w_similarity;
  const py::object& w_recency;
  const py::object& w_priority;
  const py::object& half_life;
  const py::object& recency_column;
  const py::object& priority_column;
  const py::object& now;
};

inline int32_t column_of(const py::object& object, const char* name, int64_t n_columns, bool used) {
  const int64_t column = as_int64(object, name, 0, kMaxColumns);
  if (used && column >= n_columns) {
    throw py::value_error(std::string(name) + " is " + std::to_string(column) + ", but the pool has " +
                          std::to_string(n_columns) + " columns");
  }
  return static_cast<int32_t>(column);
}

inline void read_weights(const WeightArguments& from, int64_t n_columns, ScanRequest& request) {
  request.min_similarity = as_double(from.min_similarity, "min_similarity");
  if (std::isnan(request.min_similarity)) throw py::value_error("min_similarity must not be NaN");
  Ranking& ranking = request.ranking;
  ranking.w_similarity = as_finite(from.w_similarity, "w_similarity");
  ranking.w_recency = as_finite(from.w_recency, "w_recency");
  ranking.w_priority = as_finite(from.w_priority, "w_priority");
  ranking.half_life = as_finite(from.half_life, "half_life");
  if (!(ranking.half_life > 0.0)) throw py::value_error("half_life must be above 0 microseconds");
  ranking.recency_column = column_of(from.recency_column, "recency_column", n_columns, ranking.w_recency != 0.0);
  ranking.priority_column = column_of(from.priority_column, "priority_column", n_columns, ranking.w_priority != 0.0);
  ranking.now = as_int64(from.now, "now");
}

// queries: of the pool's dimensions; they outlive the request. Names: what the caller calls them.
inline void read_queries(const View<float>& queries, const py::object& k, const char* k_name, const py::object& refine,
                         const char* refine_name, ScanRequest& request) {
  request.queries = queries.data();
  request.n_queries = queries.shape(0);
  request.k = as_int64(k, k_name, 1, kMaxK);
  request.refine = as_int64(refine, refine_name, 1, kMaxRefine);
  require_finite(request.queries, request.n_queries, queries.shape(1), "queries");
}

// Results of a scan, of (n_queries, k) each.
class ScanArrays {
 public:
  ScanArrays(const ScanRequest& request, bool explained, bool ranked)
      : explained_(explained),
        ranked_(ranked),
        shape_{request.n_queries, request.k},
        scores_(shape_),
        similarities_(shape_),
        list_ids_(shape_),
        row_ids_(shape_),
        counts_(request.n_queries),
        groups_(ranked ? shape_ : std::vector<py::ssize_t>{0}),
        ordinals_(ranked ? shape_ : std::vector<py::ssize_t>{0}),
        output{scores_.mutable_data(),
               similarities_.mutable_data(),
               list_ids_.mutable_data(),
               row_ids_.mutable_data(),
               counts_.mutable_data(),
               ranked ? groups_.mutable_data() : nullptr,
               ranked ? ordinals_.mutable_data() : nullptr} {}

  // (scores, similarities, list_ids, row_ids, counts), and where it was asked for a dict of what the scan did. Once.
  py::tuple take(const ScanCounters& counters, const std::string& variant, const ScanPort* port) {
    if (!explained_ && !ranked_) {
      return py::make_tuple(std::move(scores_), std::move(similarities_), std::move(list_ids_), std::move(row_ids_),
                            std::move(counts_));
    }
    py::dict plan;
    plan["rows_seen"] = counters.rows_seen;
    plan["rows_rescored"] = counters.rows_rescored;
    plan["tiles"] = counters.tiles;
    plan["threads"] = counters.threads;
    plan["variant"] = variant;
    if (port != nullptr) plan["device_lists"] = counters.device_lists;
    if (port != nullptr) plan["device_failed"] = counters.device_failed;
    if (ranked_) plan["groups"] = std::move(groups_);
    if (ranked_) plan["ordinals"] = std::move(ordinals_);
    return py::make_tuple(std::move(scores_), std::move(similarities_), std::move(list_ids_), std::move(row_ids_),
                          std::move(counts_), std::move(plan));
  }

 private:
  bool explained_;
  bool ranked_;
  std::vector<py::ssize_t> shape_;
  py::array_t<float> scores_;
  py::array_t<float> similarities_;
  py::array_t<int64_t> list_ids_;
  py::array_t<int64_t> row_ids_;
  py::array_t<int32_t> counts_;
  py::array_t<uint32_t> groups_;
  py::array_t<uint32_t> ordinals_;

 public:
  const ScanOutput output;
};

}  // namespace warpmem
