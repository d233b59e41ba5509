// Limits and checks of the arguments of select_k, kmeans, pq and mmr.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "../core/pq_code.hpp"
#include "../cpu/pq.hpp"
#include "arrays.hpp"

namespace warpmem {

constexpr int64_t kMaxDim = 65536;
constexpr int64_t kMaxCentroids = int64_t{1} << 24;
constexpr int64_t kMaxRows = int64_t{1} << 31;
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxIterations = 100000;

// require_finite, but one branch for the whole array: an infinity or a NaN has all bits of the exponent set.
inline void require_all_finite(const float* data, int64_t rows, int64_t dim, const char* name) {
  int64_t at = 0;
  while (at < rows * dim) {
    const int64_t end = std::min(rows * dim, at + 4096);
    int32_t largest = 0;
    for (; at < end; ++at) {
      int32_t bits;
      std::memcpy(&bits, data + at, sizeof bits);
      bits &= 0x7fffffff;
      largest = bits > largest ? bits : largest;
    }
    if (largest >= 0x7f800000) require_finite(data, rows, dim, name);
  }
}

inline int64_t threads_of(const py::object& object) { return as_int64(object, "threads", 1, kMaxThreads); }

inline int64_t bits_of(const py::object& object) {
  const int64_t bits = as_int64(object, "pq_bits", 4, 8);
  if (bits != 4 && bits != 8) throw py::value_error("pq_bits must be 4 or 8, not " + std::to_string(bits));
  return bits;
}

inline bool flag_of(const py::object& object, const char* name) {
  if (!PyBool_Check(object.ptr()))
    throw py::type_error(std::string(name) + " must be a bool, not " + Py_TYPE(object.ptr())->tp_name);
  return object.ptr() == Py_True;
}

// A number in [0, 1].
inline double weight_of(const py::object& object) {
  if (PyBool_Check(object.ptr()) || (!PyFloat_Check(object.ptr()) && !PyLong_Check(object.ptr())))
    throw py::type_error(std::string("weight must be a number, not ") + Py_TYPE(object.ptr())->tp_name);
  const double weight = PyFloat_AsDouble(object.ptr());
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (!(weight >= 0.0 && weight <= 1.0)) throw py::value_error("weight must be within 0 and 1, not " + std::to_string(weight));
  return weight;
}

// -inf marks a place without a candidate; other infinities and NaN are refused.
inline void require_relevance(const float* data, int64_t problems, int64_t candidates) {
  for (int64_t i = 0; i < problems * candidates; ++i) {
    if (data[i] < std::numeric_limits<float>::infinity()) continue;
    throw py::value_error("relevance: row " + std::to_string(i / candidates) + " holds a NaN or an infinity");
  }
}

inline void require_rows(int64_t n, const char* name) {
  if (n > kMaxRows)
    throw py::value_error(std::string(name) + ": at most " + std::to_string(kMaxRows) + " rows, not " + std::to_string(n));
}

inline void require_dim(int64_t dim, const char* name) {
  if (dim < 1 || dim > kMaxDim) {
    throw py::value_error(std::string(name) + ": expected 1 to " + std::to_string(kMaxDim) + " dimensions, not " +
                          std::to_string(dim));
  }
}

inline PqShape shape_of(const View<float>& codebooks) {
  PqShape shape;
  shape.pq_dim = codebooks.shape(0);
  shape.dsub = codebooks.shape(2);
  const int64_t entries = codebooks.shape(1);
  if (entries != 16 && entries != 256) {
    throw py::value_error("codebooks: expected 16 or 256 entries a subspace, not " + std::to_string(entries));
  }
  shape.bits = entries == 16 ? 4 : 8;
  if (shape.pq_dim < 1 || shape.pq_dim > kPqMaxDim) {
    throw py::value_error("codebooks: expected 1 to " + std::to_string(kPqMaxDim) + " subspaces, not " +
                          std::to_string(shape.pq_dim));
  }
  require_dim(shape.dsub, "codebooks");
  require_all_finite(codebooks.data(), shape.pq_dim * entries, shape.dsub, "codebooks");
  return shape;
}

inline void require_training_rows(int64_t n, int64_t k) {
  if (n >= k) return;
  throw py::value_error("x: " + std::to_string(n) + " rows are too few for " + std::to_string(k) + " centroids; give at least " +
                        std::to_string(k));
}

inline int64_t bits_of_group(int64_t bytes) {
  if (bytes != 16 && bytes != 32)
    throw py::value_error("blocks: expected groups of 16 or 32 bytes, not " + std::to_string(bytes));
  return bytes == 16 ? 4 : 8;
}

inline void require_blocks(int64_t rows, int64_t blocks) {
  if (pq_blocks(rows) == blocks) return;
  throw py::value_error(std::to_string(rows) + " rows need " + std::to_string(pq_blocks(rows)) + " blocks, not " +
                        std::to_string(blocks));
}

// No sum over a table can overflow, so none is NaN.
inline void require_luts(const View<float>& luts) {
  const int64_t pq_dim = luts.shape(1);
  const int64_t entries = luts.shape(2);
  if (pq_dim < 1 || pq_dim > kPqMaxDim) {
    throw py::value_error("luts: expected 1 to " + std::to_string(kPqMaxDim) + " subspaces, not " + std::to_string(pq_dim));
  }
  for (int64_t q = 0; q < luts.shape(0); ++q) {
    double total = 0.0;
    for (int64_t s = 0; s < pq_dim; ++s) {
      float largest = 0.0f;
      bool number = true;
      for (int64_t c = 0; c < entries; ++c) {
        const float magnitude = std::fabs(luts.data()[(q * pq_dim + s) * entries + c]);
        number = number && magnitude == magnitude;
        largest = magnitude > largest ? magnitude : largest;
      }
      total += number ? static_cast<double>(largest) : std::numeric_limits<double>::infinity();
    }
    if (!(total <= 3e38)) {
      throw py::value_error("luts: table " + std::to_string(q) + " holds a NaN or an infinity, or its sums could overflow");
    }
  }
}

}  // namespace warpmem
