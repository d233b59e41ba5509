// warpmem._cpu.Kernels: select_k, kmeans, pq and mmr, one object per instruction set. Arguments are checked here; see arrays.hpp.
#include "kernels.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "../core/mmr.hpp"
#include "../core/pq_code.hpp"
#include "../core/select_k.hpp"
#include "../cpu/kmeans.hpp"
#include "../cpu/mmr.hpp"
#include "../cpu/op_dispatch.hpp"
#include "../cpu/pq.hpp"
#include "../cpu/select_k.hpp"
#include "kernel_arguments.hpp"
#include "kmeans_call.hpp"

namespace warpmem {
namespace {

class NativeKernels {
 public:
  explicit NativeKernels(const py::object& isa) {
    if (!py::isinstance<py::str>(isa))
      throw py::type_error(std::string("isa must be a string, not ") + Py_TYPE(isa.ptr())->tp_name);
    const auto name = isa.cast<std::string>();
    ops_ = find_op_kernels(name);
    if (ops_ != nullptr) return;
    std::string known = "auto";
    for (const OpKernels* table : supported_op_kernels()) known += std::string(", ") + table->name;
    throw py::value_error("isa '" + name + "' is not supported here; choose one of " + known);
  }

  std::string isa() const { return ops_->name; }

  static py::list isas() {
    py::list names;
    for (const OpKernels* table : supported_op_kernels()) names.append(table->name);
    return names;
  }

  py::tuple select(const py::object& scores_arg, const py::object& k_arg, const py::object& ordinals_arg,
                   const py::object& threads_arg) const {
    const View<float> scores(scores_arg, "scores", {-1, -1});
    const int64_t n = scores.shape(0);
    const int64_t columns = scores.shape(1);
    if (columns > kSelectMaxColumns) {
      throw py::value_error("scores: at most " + std::to_string(kSelectMaxColumns) + " columns, not " + std::to_string(columns));
    }
    const int64_t k = as_int64(k_arg, "k", 1, kSelectMaxK);
    const int64_t threads = threads_of(threads_arg);
    const uint32_t* ordinals = nullptr;
    py::object keep = ordinals_arg;
    if (!ordinals_arg.is_none()) ordinals = View<uint32_t>(ordinals_arg, "ordinals", {columns}).data();
    py::array_t<float> values({n, k});
    py::array_t<int64_t> indexes({n, k});
    float* const to_values = values.mutable_data();
    int64_t* const to_indexes = indexes.mutable_data();
    int64_t bad = -1;
    {
      const py::gil_scoped_release release;
      bad = select_k(*ops_, scores.data(), n, columns, k, ordinals, threads, to_values, to_indexes);
    }
    if (bad >= 0) throw py::value_error("scores: row " + std::to_string(bad) + " holds a NaN");
    return py::make_tuple(std::move(values), std::move(indexes));
  }

  py::tuple cluster(const py::object& x, const py::object& k, const py::object& iterations, const py::object& seed,
                    const py::object& init, const py::object& sample, const py::object& spherical,
                    const py::object& threads_arg) const {
    const int64_t threads = threads_of(threads_arg);
    const auto train = [&](const float* rows, int64_t n, int64_t dim, KmeansOptions options, float* centroids, int32_t* index) {
      options.threads = threads;
      return kmeans(*ops_, rows, n, dim, options, centroids, index);
    };
    return call_kmeans({x, k, iterations, seed, init, sample, spherical}, train);
  }

  py::tuple assign(const py::object& x, const py::object& centroids, const py::object& spherical,
                   const py::object& threads_arg) const {
    const int64_t threads = threads_of(threads_arg);
    const auto find = [&](const float* rows, int64_t n, int64_t dim, const float* to, int64_t k, bool inner, int32_t* index,
                          double* values) { kmeans_assign(*ops_, rows, n, dim, to, k, inner, threads, index, values); };
    return call_kmeans_assign(x, centroids, spherical, find);
  }

  py::array_t<float> train(const py::object& x, const py::object& pq_dim, const py::object& pq_bits, const py::object& iterations,
                           const py::object& seed, const py::object& threads_arg) const {
    const int64_t threads = threads_of(threads_arg);
    const auto make = [&](const PqShape& shape, const float* rows, int64_t n, uint64_t from, int64_t rounds, float* codebooks) {
      pq_train(*ops_, shape, rows, n, from, rounds, threads, codebooks);
    };
    return call_pq_train({x, pq_dim, pq_bits, iterations, seed}, make);
  }

  py::array_t<uint8_t> encode(const py::object& x_arg, const py::object& codebooks_arg, const py::object& threads_arg) const {
    const View<float> codebooks(codebooks_arg, "codebooks", {-1, -1, -1});
    const PqShape shape = shape_of(codebooks);
    const View<float> x(x_arg, "x", {-1, shape.dim()});
    const int64_t n = x.shape(0);
    const int64_t threads = threads_of(threads_arg);
    py::array_t<uint8_t> codes({n, pq_code_size(shape.pq_dim, shape.bits)});
    uint8_t* const to = codes.mutable_data();
    const py::gil_scoped_release release;
    require_all_finite(x.data(), n, shape.dim(), "x");
    pq_encode(*ops_, shape, codebooks.data(), x.data(), n, threads, to);
    return codes;
  }

  py::array_t<float> decode(const py::object& codes_arg, const py::object& codebooks_arg, const py::object& threads_arg) const {
    const View<float> codebooks(codebooks_arg, "codebooks", {-1, -1, -1});
    const PqShape shape = shape_of(codebooks);
    const View<uint8_t> codes(codes_arg, "codes", {-1, pq_code_size(shape.pq_dim, shape.bits)});
    const int64_t n = codes.shape(0);
    const int64_t threads = threads_of(threads_arg);
    py::array_t<float> rows({n, shape.dim()});
    float* const to = rows.mutable_data();
    const py::gil_scoped_release release;
    pq_decode(shape, codebooks.data(), codes.data(), n, threads, to);
    return rows;
  }

  py::array_t<float> lut(const py::object& queries_arg, const py::object& codebooks_arg, const py::object& metric_arg,
                         const py::object& threads_arg) const {
    const View<float> codebooks(codebooks_arg, "codebooks", {-1, -1, -1});
    const PqShape shape = shape_of(codebooks);
    const View<float> queries(queries_arg, "queries", {-1, shape.dim()});
    const int64_t n = queries.shape(0);
    const std::string metric = py::isinstance<py::str>(metric_arg) ? metric_arg.cast<std::string>() : "";
    if (metric != "ip" && metric != "l2") throw py::value_error("metric must be 'ip' or 'l2'");
    const int64_t threads = threads_of(threads_arg);
    py::array_t<float> luts({n, shape.pq_dim, shape.entries()});
    float* const to = luts.mutable_data();
    const py::gil_scoped_release release;
    require_all_finite(queries.data(), n, shape.dim(), "queries");
    pq_lut(*ops_, shape, codebooks.data(), queries.data(), n, metric == "l2", threads, to);
    return luts;
  }

  py::tuple quantize_lut(const py::object& luts_arg) const {
    const View<float> luts(luts_arg, "luts", {-1, -1, 16});
    const int64_t n = luts.shape(0);
    const int64_t pq_dim = luts.shape(1);
    require_luts(luts);
    py::array_t<uint8_t> quantized({n, pq_dim, int64_t{16}});
    py::array_t<double> scale(n);
    py::array_t<double> bias(n);
    for (int64_t q = 0; q < n; ++q) {
      pq_quantize_lut(luts.data() + q * pq_dim * 16, pq_dim, quantized.mutable_data() + q * pq_dim * 16, scale.mutable_data() + q,
                      bias.mutable_data() + q);
    }
    return py::make_tuple(std::move(quantized), std::move(scale), std::move(bias));
  }

  py::array_t<uint8_t> interleave(const py::object& codes_arg, const py::object& pq_dim_arg, const py::object& pq_bits,
                                  const py::object& threads_arg) const {
    const int64_t pq_dim = as_int64(pq_dim_arg, "pq_dim", 1, kPqMaxDim);
    const int64_t bits = bits_of(pq_bits);
    const View<uint8_t> codes(codes_arg, "codes", {-1, pq_code_size(pq_dim, bits)});
    const int64_t n = codes.shape(0);
    const int64_t threads = threads_of(threads_arg);
    py::array_t<uint8_t> blocks({pq_blocks(n), pq_dim, pq_group_bytes(bits)});
    uint8_t* const to = blocks.mutable_data();
    const py::gil_scoped_release release;
    pq_interleave_all(pq_dim, bits, codes.data(), n, threads, to);
    return blocks;
  }

  py::array_t<uint8_t> deinterleave(const py::object& blocks_arg, const py::object& rows_arg,
                                    const py::object& threads_arg) const {
    const View<uint8_t> blocks(blocks_arg, "blocks", {-1, -1, -1});
    const int64_t pq_dim = blocks.shape(1);
    const int64_t bits = bits_of_group(blocks.shape(2));
    const int64_t n = as_int64(rows_arg, "rows", 0, kMaxRows);
    require_blocks(n, blocks.shape(0));
    const int64_t threads = threads_of(threads_arg);
    py::array_t<uint8_t> codes({n, pq_code_size(pq_dim, bits)});
    uint8_t* const to = codes.mutable_data();
    const py::gil_scoped_release release;
    pq_deinterleave_all(pq_dim, bits, blocks.data(), n, threads, to);
    return codes;
  }

  py::tuple scan(const py::object& codes_arg, const py::object& luts_arg, const py::object& k_arg, const py::object& rows_arg,
                 const py::object& threads_arg) const {
    const View<float> luts(luts_arg, "luts", {-1, -1, -1});
    PqScan request;
    request.queries = luts.shape(0);
    request.pq_dim = luts.shape(1);
    request.luts = luts.data();
    if (luts.shape(2) != 16 && luts.shape(2) != 256) {
      throw py::value_error("luts: expected 16 or 256 entries a subspace, not " + std::to_string(luts.shape(2)));
    }
    request.bits = luts.shape(2) == 16 ? 4 : 8;
    request.k = as_int64(k_arg, "k", 1, kSelectMaxK);
    request.threads = threads_of(threads_arg);
    require_luts(luts);
    request.interleaved = py::isinstance<py::array>(codes_arg) && py::reinterpret_borrow<py::array>(codes_arg).ndim() == 3;
    if (request.interleaved) {
      const View<uint8_t> codes(codes_arg, "codes", {-1, request.pq_dim, pq_group_bytes(request.bits)});
      request.codes = codes.data();
      request.rows = rows_arg.is_none() ? codes.shape(0) * kPqBlockRows : as_int64(rows_arg, "rows", 0, kMaxRows);
      require_blocks(request.rows, codes.shape(0));
    } else {
      const View<uint8_t> codes(codes_arg, "codes", {-1, pq_code_size(request.pq_dim, request.bits)});
      request.codes = codes.data();
      request.rows = codes.shape(0);
      if (!rows_arg.is_none()) as_int64(rows_arg, "rows", request.rows, request.rows);
    }
    require_rows(request.rows, "codes");
    py::array_t<float> values({request.queries, request.k});
    py::array_t<int64_t> indexes({request.queries, request.k});
    float* const to_values = values.mutable_data();
    int64_t* const to_indexes = indexes.mutable_data();
    {
      const py::gil_scoped_release release;
      pq_scan(*ops_, request, to_values, to_indexes);
    }
    return py::make_tuple(std::move(values), std::move(indexes));
  }

  py::tuple diversify(const py::object& vectors_arg, const py::object& relevance_arg, const py::object& k_arg,
                      const py::object& weight_arg, const py::object& threads_arg) const {
    const View<float> vectors(vectors_arg, "vectors", {-1, -1, -1});
    MmrRequest request;
    request.problems = vectors.shape(0);
    request.candidates = vectors.shape(1);
    request.dim = vectors.shape(2);
    if (request.candidates > kMmrMaxCandidates) {
      throw py::value_error("vectors: at most " + std::to_string(kMmrMaxCandidates) + " candidates, not " +
                            std::to_string(request.candidates));
    }
    require_dim(request.dim, "vectors");
    const View<float> relevance(relevance_arg, "relevance", {request.problems, request.candidates});
    request.k = as_int64(k_arg, "k", 1, kMmrMaxCandidates);
    request.weight = weight_of(weight_arg);
    request.threads = threads_of(threads_arg);
    request.rows = vectors.data();
    request.relevance = relevance.data();
    py::array_t<double> values({request.problems, request.k});
    py::array_t<int64_t> indexes({request.problems, request.k});
    double* const to_values = values.mutable_data();
    int64_t* const to_indexes = indexes.mutable_data();
    {
      const py::gil_scoped_release release;
      require_all_finite(request.rows, request.problems, request.candidates * request.dim, "vectors");
      require_relevance(request.relevance, request.problems, request.candidates);
      mmr(*ops_, request, to_values, to_indexes);
    }
    return py::make_tuple(std::move(values), std::move(indexes));
  }

 private:
  const OpKernels* ops_ = nullptr;
};

}  // namespace

void bind_kernels(py::module_& m) {
  const py::int_ one(1), twenty(20), zero(0), twenty_five(25);
  const py::bool_ no(false);
  const py::none none;
  py::class_<NativeKernels>(m, "Kernels", "select_k, k-means, product quantisation and mmr on one instruction set. Thread-safe.")
      .def(py::init<const py::object&>(), py::kw_only(), py::arg("isa") = "auto")
      .def_property_readonly("isa", &NativeKernels::isa, "Instruction set that runs.")
      .def_static("isas", &NativeKernels::isas, "Instruction sets supported here, best first.")
      .def("select_k", &NativeKernels::select, py::arg("scores"), py::arg("k"), py::kw_only(), py::arg("ordinals") = none,
           py::arg("threads") = one, "The k best of each row: (values, indexes).")
      .def("kmeans", &NativeKernels::cluster, py::arg("x"), py::arg("k"), py::kw_only(), py::arg("iterations") = twenty,
           py::arg("seed") = zero, py::arg("init") = "k-means++", py::arg("sample") = none, py::arg("spherical") = no,
           py::arg("threads") = one, "(centroids, assignments, objective).")
      .def("kmeans_assign", &NativeKernels::assign, py::arg("x"), py::arg("centroids"), py::kw_only(), py::arg("spherical") = no,
           py::arg("threads") = one, "(assignments, canonical distances or dot products).")
      .def("pq_train", &NativeKernels::train, py::arg("x"), py::arg("pq_dim"), py::arg("pq_bits"), py::kw_only(),
           py::arg("iterations") = twenty_five, py::arg("seed") = zero, py::arg("threads") = one,
           "Codebooks (pq_dim, entries, dsub).")
      .def("pq_encode", &NativeKernels::encode, py::arg("x"), py::arg("codebooks"), py::kw_only(), py::arg("threads") = one,
           "Packed codes of rows.")
      .def("pq_decode", &NativeKernels::decode, py::arg("codes"), py::arg("codebooks"), py::kw_only(), py::arg("threads") = one,
           "Rows of packed codes.")
      .def("pq_lut", &NativeKernels::lut, py::arg("queries"), py::arg("codebooks"), py::kw_only(), py::arg("metric") = "ip",
           py::arg("threads") = one, "Tables (queries, pq_dim, entries).")
      .def("pq_quantize_lut", &NativeKernels::quantize_lut, py::arg("luts"), "4-bit tables as bytes: (quantized, scale, bias).")
      .def("pq_interleave", &NativeKernels::interleave, py::arg("codes"), py::arg("pq_dim"), py::arg("pq_bits"), py::kw_only(),
           py::arg("threads") = one, "Packed codes as blocks of 32 rows.")
      .def("pq_deinterleave", &NativeKernels::deinterleave, py::arg("blocks"), py::arg("rows"), py::kw_only(),
           py::arg("threads") = one, "The inverse of pq_interleave.")
      .def("pq_scan", &NativeKernels::scan, py::arg("codes"), py::arg("luts"), py::arg("k"), py::kw_only(),
           py::arg("rows") = none, py::arg("threads") = one, "The k best rows of each table: (values, indexes).")
      .def("mmr", &NativeKernels::diversify, py::arg("vectors"), py::arg("relevance"), py::arg("k"), py::kw_only(),
           py::arg("weight") = py::float_(0.5), py::arg("threads") = one,
           "k relevant and different candidates of each problem: (values, indexes).");
}

}  // namespace warpmem
