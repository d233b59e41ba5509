// Codebooks of a pool, from Python and back.
#pragma once

#include <memory>
#include <string>

#include "../cpu/op_dispatch.hpp"
#include "../cpu/pool.hpp"
#include "../cpu/pool_file.hpp"
#include "kernel_arguments.hpp"

namespace warpmem {

// Codebooks (pq_dim, 16, dsub) float32 of a pool of `dim` dimensions, when `screen` or `storage` is "pq"; else null.
inline std::shared_ptr<const PqBooks> books_of(const py::object& codebooks, int64_t dim, const py::object& screen,
                                               const std::string& storage, const Kernels& kernels) {
  const bool wanted = storage == "pq" || (py::isinstance<py::str>(screen) && screen.cast<std::string>() == "pq");
  if (!wanted) {
    if (!codebooks.is_none()) throw py::value_error("codebooks go with screen='pq' or storage='pq' only");
    return nullptr;
  }
  if (codebooks.is_none()) throw py::value_error("screen='pq' and storage='pq' need codebooks; train them with kernels.pq_train");
  const View<float> view(codebooks, "codebooks", {-1, 16, -1});
  const PqShape shape = shape_of(view);
  if (shape.pq_dim > kPqPageSubspaces || shape.dsub > kPqMaxPiece) {
    throw py::value_error("codebooks: at most " + std::to_string(kPqPageSubspaces) + " subspaces of " +
                          std::to_string(kPqMaxPiece) + " elements, not " + std::to_string(shape.pq_dim) + " of " +
                          std::to_string(shape.dsub));
  }
  if (shape.dim() != padded_dim(dim)) {
    throw py::value_error("codebooks: expected pieces of " + std::to_string(padded_dim(dim)) + " dimensions in all (" +
                          std::to_string(dim) + " rounded up to a multiple of 32), not " + std::to_string(shape.dim()));
  }
  return std::make_shared<const PqBooks>(*find_op_kernels(kernels.name), shape.pq_dim, shape.dsub, dim, view.data());
}

inline std::shared_ptr<const PqBooks> books_of(const PoolFile& file, const Kernels& kernels) {
  const PageLayout& layout = file.layout();
  if (layout.pq.pq_dim == 0) return nullptr;
  return std::make_shared<const PqBooks>(*find_op_kernels(kernels.name), layout.pq.pq_dim, layout.pq.dsub, layout.dim,
                                         file.codebooks().data());
}

inline py::object codebooks_of(const Pool& pool) {
  if (pool.books() == nullptr) return py::none();
  const PqShape& shape = pool.books()->shape();
  py::array_t<float> out({shape.pq_dim, int64_t{16}, shape.dsub});
  std::copy(pool.books()->codebooks().begin(), pool.books()->codebooks().end(), out.mutable_data());
  return std::move(out);
}

}  // namespace warpmem
