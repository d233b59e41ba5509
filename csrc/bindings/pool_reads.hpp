// Reading a pool without searching it: which lists it has, what lies in one, the rows themselves.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../cpu/pool.hpp"
#include "arrays.hpp"

namespace warpmem {

constexpr int64_t kReadReleaseNumbers = 1 << 14;  // to copy fewer takes less than giving the GIL away and taking it back

inline py::array_t<int64_t> pool_lists(const Pool& pool) {
  const std::vector<int64_t> list_ids = pool.lists();
  return py::array_t<int64_t>(static_cast<py::ssize_t>(list_ids.size()), list_ids.data());
}

inline py::tuple pool_rows(const Pool& pool, const py::object& list_id_arg) {
  const int64_t list_id = as_int64(list_id_arg, "list_id");
  const int64_t n_columns = pool.layout().n_columns;
  ListHead head;
  pool.snapshot(&list_id, 1, &head);
  const int64_t n = head ? head->live : 0;
  py::array_t<int64_t> row_ids(n);
  py::array_t<uint32_t> ordinals(n);
  py::array_t<int64_t> columns({n, n_columns});
  if (n > 0) {
    int64_t* const to_row_ids = row_ids.mutable_data();
    uint32_t* const to_ordinals = ordinals.mutable_data();
    int64_t* const to_columns = columns.mutable_data();
    std::optional<py::gil_scoped_release> release;
    if (n * (n_columns + 2) >= kReadReleaseNumbers) release.emplace();
    pool.rows(*head, to_row_ids, to_ordinals, to_columns);
    head.reset();  // may free pages that a writer has replaced meanwhile
  }
  return py::make_tuple(std::move(row_ids), std::move(ordinals), std::move(columns));
}

inline py::array_t<float> pool_vectors(Pool& pool, const py::object& list_id_arg, const py::object& row_ids_arg) {
  const int64_t list_id = as_int64(list_id_arg, "list_id");
  const View<int64_t> row_ids(row_ids_arg, "row_ids", {-1});
  const int64_t n = row_ids.shape(0);
  py::array_t<float> out({n, pool.layout().dim});
  float* const to = out.mutable_data();
  int64_t missing;
  {
    std::optional<py::gil_scoped_release> release;
    if (n * pool.layout().dim >= kReadReleaseNumbers || !pool.all_mapped()) release.emplace();
    missing = pool.vectors(list_id, row_ids.data(), n, to);
  }
  if (missing >= 0) {
    throw py::key_error("row " + std::to_string(row_ids.data()[missing]) + " is not in list " + std::to_string(list_id));
  }
  return out;
}

}  // namespace warpmem
