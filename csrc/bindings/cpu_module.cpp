// warpmem._cpu: the native pool, canonical normalisation and CRC-32C. Arguments are checked and converted here; the arithmetic is in core/ and cpu/.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "../core/fp16.hpp"
#include "../core/score.hpp"
#include "../cpu/dispatch.hpp"
#include "../cpu/pool.hpp"
#include "../cpu/pq_queries.hpp"
#include "../cpu/scan.hpp"
#include "../cpu/workers.hpp"
#include "arrays.hpp"
#include "id_map.hpp"
#include "kernels.hpp"
#include "nearest_lists.hpp"
#include "pool_file.hpp"
#include "pool_options.hpp"
#include "pool_port.hpp"
#include "pool_reads.hpp"
#include "pool_scan.hpp"
#include "postings.hpp"
#include "pq_pool.hpp"
#include "rows.hpp"
#include "segments.hpp"

namespace {

using namespace warpmem;

constexpr int64_t kMaxDim = 65536;
constexpr int64_t kMaxThreads = 1024;
// screen="auto": from here on codes save more than they cost. The serial kernels take longer over a code than over a float32, but not than over a
// float16 that they must convert.
constexpr int64_t kScreenDim = 64;

// Work below these sizes takes a few tens of microseconds at most. Releasing the GIL around it would cost more than it gives: taking it back from a
// busy thread can wait for a whole switch interval (5 ms by default).
constexpr int64_t kScanReleaseElements = 65536;  // rows * padded dimension
constexpr int64_t kScreenReleaseElements = 1 << 19;
constexpr int64_t kApplyReleaseElements = 65536;

class NativePool {
 public:
  NativePool(const py::object& dim, const py::object& n_columns, const py::object& isa, const py::object& storage,
             const py::object& metric, const py::object& screen, const py::object& threads, const py::object& codebooks)
      : kernels_(kernels_named(isa)),
        storage_(one_of(storage, "storage", {"f32", "f16", "int8", "pq"})),
        metric_(one_of(metric, "metric", {"dot", "l2"})),
        pool_(as_int64(dim, "dim", 1, kMaxDim), as_int64(n_columns, "n_columns", 0, kMaxColumns), storage_value(storage_),
              metric_ == "l2" ? Metric::kL2 : Metric::kDot,
              screens(one_of(screen, "screen", {"auto", "int8", "pq", "none"}), as_int64(dim, "dim", 1, kMaxDim)),
              books_of(codebooks, as_int64(dim, "dim", 1, kMaxDim), screen, storage_, *kernels_), kernels_),
        workers_(static_cast<int32_t>(as_int64(threads, "threads", 1, kMaxThreads))) {}

  // An opened file's lists, in place.
  NativePool(const py::object& isa, const PoolFile& file, const py::object& threads)
      : kernels_(kernels_named(isa)),
        storage_(storage_name(file.layout().storage)),
        metric_(file.metric() == Metric::kL2 ? "l2" : "dot"),
        pool_(file.layout().dim, file.layout().n_columns, file.layout().storage, file.metric(), file.screen(),
              books_of(file, *kernels_), kernels_),
        workers_(static_cast<int32_t>(as_int64(threads, "threads", 1, kMaxThreads))) {
    const py::gil_scoped_release release;
    file.load(pool_);
  }

  static py::capsule port(const py::object& self) { return pool_port_capsule(self.cast<NativePool&>().pool_, self); }

  void save(const py::object& path, const py::object& sections) const { pool_save(pool_, path, sections); }

  int64_t dim() const { return pool_.layout().dim; }
  int64_t n_columns() const { return pool_.layout().n_columns; }
  std::string isa() const { return kernels_->name; }
  std::string storage() const { return storage_; }
  std::string metric() const { return metric_; }
  std::string screen() const { return pool_.books() != nullptr ? "pq" : pool_.screened() ? "int8" : "none"; }
  py::object codebooks() const { return codebooks_of(pool_); }
  int32_t threads() const { return workers_.threads(); }

  void apply(const py::object& removes_arg, const py::object& list_ids_arg, const py::object& row_ids_arg,
             const py::object& ordinals_arg, const py::object& columns_arg, const py::object& vectors_arg) {
    const View<int64_t> list_ids(list_ids_arg, "list_ids", {-1});
    const int64_t n = list_ids.shape(0);
    const View<int64_t> row_ids(row_ids_arg, "row_ids", {n});
    const View<uint32_t> ordinals(ordinals_arg, "ordinals", {n});
    const View<int64_t> columns(columns_arg, "columns", {n, n_columns()});
    const View<float> vectors(vectors_arg, "vectors", {n, dim()});
    const Items pairs(removes_arg.ptr(), "removes");
    Removes removes;
    removes.reserve(pairs.size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      const Items pair(pairs[i], "removes", 2);
      removes.emplace_back(as_int64(pair[0], "list_id"), as_int64(pair[1], "row_id"));
    }
    const Appends appends{n, list_ids.data(), row_ids.data(), ordinals.data(), columns.data(), vectors.data()};

    const bool big = (n + static_cast<int64_t>(removes.size())) * pool_.layout().padded >= kApplyReleaseElements;
    if (!big) {
      require_storable(vectors.data(), n);
      const Pool::WriterLock writer = pool_.try_lock_writer();
      if (writer.owns_lock() && pool_.mapped(writer, removes, appends)) {
        pool_.apply(writer, removes, appends);
        return;
      }
    }
    const py::gil_scoped_release release;
    if (big) require_storable(vectors.data(), n);
    pool_.apply(pool_.lock_writer(), removes, appends);
  }

  void drop(const py::object& list_ids_arg) {
    const Items items(list_ids_arg.ptr(), "list_ids");
    std::vector<int64_t> list_ids;
    list_ids.reserve(items.size());
    for (size_t i = 0; i < items.size(); ++i) list_ids.push_back(as_int64(items[i], "list_id"));
    const py::gil_scoped_release release;
    pool_.drop(pool_.lock_writer(), list_ids);
  }

  void trim() {
    const py::gil_scoped_release release;
    pool_.trim(pool_.lock_writer());
  }

  void compact(const py::object& list_id_arg) {
    const int64_t list_id = as_int64(list_id_arg, "list_id");
    const py::gil_scoped_release release;
    pool_.compact(pool_.lock_writer(), list_id);
  }

  py::tuple scan(const py::object& queries_arg, const py::object& segments_arg, const py::object& k_arg,
                 const py::object& min_similarity, const py::object& w_similarity, const py::object& w_recency,
                 const py::object& w_priority, const py::object& half_life, const py::object& recency_column,
                 const py::object& priority_column, const py::object& now, const py::object& refine, const py::object& explain,
                 const py::object& ranks_arg, const py::object& device, const py::object& added, const py::object& unordered) {
    const View<float> queries(queries_arg, "queries", {-1, dim()});
    ScanRequest request;
    read_weights({min_similarity, w_similarity, w_recency, w_priority, half_life, recency_column, priority_column, now},
                 n_columns(), request);
    read_queries(queries, k_arg, "k", request);
    request.refine = as_int64(refine, "refine", 1, kMaxRefine);
    request.unordered = flag_of(unordered, "unordered");
    SegmentParser parser(n_columns(), request);
    const SegmentGroups groups = parser.parse(segments_arg.ptr());
    parser.parse_added(added.ptr());
    if (!request.segment_added.empty() && pool_.books() != nullptr) throw py::value_error("codes take no added scores");
    ScanArrays found(request, flag_of(explain, "explain"), flag_of(ranks_arg, "ranks"));
    const ScanPort* const port = request.segment_added.empty() ? scan_port_of(device, pool_) : nullptr;
    const ScanCounters counters = run(request, groups, heads_of(groups), found.output, port);
    return found.take(counters, variant(counters), port);
  }

  // scan() without a filter of each query over the lists that `coarse`, a pool whose row ids name lists of this one, finds nearest to it.
  py::tuple scan_nearest(const py::object& queries_arg, NativePool& coarse, const py::object& owner_arg,
                         const py::object& group_arg, const py::object& n_lists, const py::object& k_arg,
                         const py::object& refine, const py::object& explain, const py::object& min_similarity,
                         const py::object& w_similarity, const py::object& w_recency, const py::object& w_priority,
                         const py::object& half_life, const py::object& recency_column, const py::object& priority_column,
                         const py::object& now) {
    const View<float> queries(queries_arg, "queries", {-1, dim()});
    if (coarse.dim() != dim()) throw py::value_error("coarse must have the dimensions of this pool");
    const int64_t owner = as_int64(owner_arg, "owner");
    const auto group = static_cast<uint32_t>(as_int64(group_arg, "group", 0, UINT32_MAX));
    ScanRequest request;
    read_weights({min_similarity, w_similarity, w_recency, w_priority, half_life, recency_column, priority_column, now},
                 n_columns(), request);
    read_queries(queries, k_arg, "k", request);
    request.refine = as_int64(refine, "refine", 1, kMaxRefine);
    ScanArrays found(request, flag_of(explain, "explain"), false);

    ScanRequest nearest;
    nearest.min_similarity = -std::numeric_limits<double>::infinity();
    nearest.unordered = true;
    nearest.queries = request.queries;
    nearest.n_queries = request.n_queries;
    nearest.k = as_int64(n_lists, "n_lists", 1, kMaxK);
    NearestLists lists(owner, group, dim(), nearest, request);
    const bool shared = has_books_of(coarse);
    for (size_t part = 0; part < lists.parts(); ++part) {
      const SegmentGroups asked = lists.ask(part, shared);
      coarse.run(nearest, asked, coarse.heads_of(asked), lists.output(), nullptr);
      lists.keep();
    }
    lists.see(pool_);
    ScanCounters counters;
    for (size_t part = 0; part < lists.parts(); ++part) {
      const SegmentGroups cells = lists.cells(part, shared);
      const ScanOutput output = found.output.from(lists.first(), request.k);
      counters.add(run(request, cells, lists.heads(cells), output, nullptr));
      for (int64_t q = 0; q < request.n_queries; ++q) std::fill_n(output.list_ids + q * request.k, output.counts[q], owner);
    }
    return found.take(counters, variant(counters), nullptr);
  }

  py::array_t<float> vectors(const py::object& list_id, const py::object& row_ids) {
    return pool_vectors(pool_, list_id, row_ids);
  }
  py::array_t<int64_t> lists() const { return pool_lists(pool_); }
  py::tuple rows(const py::object& list_id) const { return pool_rows(pool_, list_id); }

  py::dict stats() const {
    const PoolStats stats = pool_.stats();
    py::dict out;
    out["lists"] = stats.lists;
    out["rows"] = stats.rows;
    out["dead"] = stats.dead;
    out["pages"] = stats.pages;
    out["bytes"] = stats.bytes;
    return out;
  }

 private:
  bool has_books_of(NativePool& coarse) const {
    const PqBooks* const mine = pool_.books();
    const PqBooks* const theirs = coarse.pool_.books();
    if (mine == nullptr || theirs == nullptr || metric_ != coarse.metric_) return false;
    if (coarse.same_books_.load(std::memory_order_relaxed) == mine->serial()) return true;
    if (!mine->same(*theirs)) return false;
    coarse.same_books_.store(mine->serial(), std::memory_order_relaxed);
    return true;
  }

  std::vector<ListHead> heads_of(const SegmentGroups& groups) const {
    std::vector<ListHead> heads(groups.list_ids.size());
    pool_.snapshot(groups.list_ids.data(), heads.size(), heads.data());
    return heads;
  }

  ScanCounters run(const ScanRequest& request, const SegmentGroups& groups, std::vector<ListHead> heads, const ScanOutput& output,
                   const ScanPort* port) {
    int64_t elements = 0;
    for (size_t g = 0; g < heads.size(); ++g) {
      const auto queries_of = static_cast<int64_t>(groups.begin[g + 1] - groups.begin[g]);
      elements += heads[g] ? heads[g]->slots * pool_.layout().padded * queries_of : 0;
    }
    const bool shared = port != nullptr && elements >= port->least_work;
    std::optional<py::gil_scoped_release> release;
    if (shared || elements >= (pool_.screened() ? kScreenReleaseElements : kScanReleaseElements)) release.emplace();
    const ScanCounters counters = shared ? warpmem::scan(*port, *kernels_, pool_, request, groups, heads, output, &workers_)
                                         : warpmem::scan(*kernels_, pool_, request, groups, heads, output, &workers_);
    heads.clear();  // may free pages that a writer has replaced meanwhile
    return counters;
  }

  std::string variant(const ScanCounters& counters) const {
    return counters.screened ? isa() + "/" + (pool_.books() != nullptr ? "pq" : kernels_->screen_name) : isa();
  }

  bool screens(const std::string& screen, int64_t dim) const {
    if (screen != "auto") return screen == "int8";
    if (kernels_ == &kSerialKernels && storage_ == "f32") return false;
    return storage_ == "int8" || dim >= kScreenDim;
  }

  // Finite, and finite once stored.
  void require_storable(const float* vectors, int64_t n) const {
    require_finite(vectors, n, dim(), "vectors");
    if (pool_.layout().storage != Storage::kF16) return;
    for (int64_t i = 0; i < n * dim(); ++i) {
      if (std::fabs(vectors[i]) >= kHalfLimit) {
        throw py::value_error("vectors: row " + std::to_string(i / dim()) + " exceeds 65504, the largest float16");
      }
    }
  }

  const Kernels* kernels_;
  const std::string storage_;
  const std::string metric_;
  Pool pool_;
  Workers workers_;
  std::atomic<uint64_t> same_books_{0};  // the serial of codebooks that are as this pool's; 0: of none yet
};

py::array_t<float> normalize(const py::object& argument) {
  const View<float> x(argument, "x", {-1, -1});
  const int64_t n = x.shape(0);
  const int64_t dim = x.shape(1);
  py::array_t<float> out({n, dim});
  float* const to = out.mutable_data();
  for (int64_t r = 0; r < n; ++r) {
    if (!normalize_row(x.data() + r * dim, dim, to + r * dim)) {
      throw py::value_error("row " + std::to_string(r) + " is all zero, or holds a NaN or an infinity");
    }
  }
  return out;
}

uint32_t crc32c_of(const py::object& data, const py::object& value_arg) {
  const auto value = static_cast<uint32_t>(as_int64(value_arg, "value", 0, UINT32_MAX));
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  const uint32_t crc = crc32c(value, view.buf, static_cast<size_t>(view.len));
  PyBuffer_Release(&view);
  return crc;
}

// The floor of a scan: reads the buffer, without the odd bytes at its end, and combines them into a number that says nothing.
uint64_t read_bytes(const py::object& data, const py::object& isa) {
  const Kernels* const kernels = find_kernels(py::str(isa).cast<std::string>());
  if (kernels == nullptr) throw py::value_error("isa is not supported here; see isas()");
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  const uint64_t combined = kernels->read(view.buf, static_cast<size_t>(view.len) / 64 * 64);
  PyBuffer_Release(&view);
  return combined;
}

py::list isas() {
  py::list names;
  for (const Kernels* table : supported_kernels()) names.append(table->name);
  return names;
}

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = "gcc " __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["version"] = WARPMEM_VERSION;
#if defined(__x86_64__)
  info["arch"] = "x86_64";
#elif defined(__aarch64__)
  info["arch"] = "aarch64";
#else
  info["arch"] = "other";
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "Native CPU search core of warpmem.";
  const py::float_ one(1.0), zero(0.0), none(-std::numeric_limits<double>::infinity());
  const py::int_ zero_int(0);
  py::class_<NativePool>(
      m, "Pool",
      "Rows in lists, with one exact scan. Thread-safe: scans see each change whole or not at all, and never wait for a writer.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&, const py::object&,
                    const py::object&, const py::object&, const py::object&>(),
           py::arg("dim"), py::arg("n_columns"), py::kw_only(), py::arg("isa") = "auto", py::arg("storage") = "f32",
           py::arg("metric") = "dot", py::arg("screen") = "auto", py::arg("threads") = 1, py::arg("codebooks") = py::none())
      .def_property_readonly("dim", &NativePool::dim)
      .def_property_readonly("n_columns", &NativePool::n_columns)
      .def_property_readonly("isa", &NativePool::isa, "Instruction set that runs.")
      .def_property_readonly("storage", &NativePool::storage, "f32, f16, int8 or pq.")
      .def_property_readonly("metric", &NativePool::metric, "dot or l2 (similarity = negated squared distance).")
      .def_property_readonly("screen", &NativePool::screen, "int8, pq or none.")
      .def_property_readonly("codebooks", &NativePool::codebooks, "(pq_dim, 16, dsub) float32 with screen pq, else None.")
      .def_property_readonly("threads", &NativePool::threads, "Threads that a large scan may use.")
      .def("apply", &NativePool::apply, py::arg("removes"), py::arg("list_ids"), py::arg("row_ids"), py::arg("ordinals"),
           py::arg("columns"), py::arg("vectors"), "Remove (list_id, row_id) pairs, then add n rows, as one change.")
      .def("drop", &NativePool::drop, py::arg("list_ids"), "Remove whole lists as one change.")
      .def("scan", &NativePool::scan, py::arg("queries"), py::arg("segments"), py::arg("k"), py::kw_only(),
           py::arg("min_similarity") = none, py::arg("w_similarity") = one, py::arg("w_recency") = zero,
           py::arg("w_priority") = zero, py::arg("half_life") = one, py::arg("recency_column") = zero_int,
           py::arg("priority_column") = zero_int, py::arg("now") = zero_int, py::arg("refine") = py::int_(10),
           py::arg("explain") = false, py::arg("ranks") = false, py::arg("device") = py::none(), py::arg("added") = py::none(),
           py::arg("unordered") = false,
           "The k best rows of each query: (scores, similarities, list_ids, row_ids, counts); with explain a dict of counters "
           "more, "
           "with ranks also the groups and ordinals of the rows in it. device: a port of warpmem._cuda, which does what it can. "
           "added: for each segment None or a float32 array by row id, added to scores; the host alone scans then. "
           "unordered: of a pool with codebooks the k best in any order, most of them by codes alone, with infinite scores.")
      .def("scan_nearest", &NativePool::scan_nearest, py::arg("queries"), py::arg("coarse"), py::arg("owner"), py::arg("group"),
           py::arg("n_lists"), py::arg("k"), py::arg("refine") = py::int_(10), py::arg("explain") = false, py::kw_only(),
           py::arg("min_similarity") = none, py::arg("w_similarity") = one, py::arg("w_recency") = zero,
           py::arg("w_priority") = zero, py::arg("half_life") = one, py::arg("recency_column") = zero_int,
           py::arg("priority_column") = zero_int, py::arg("now") = zero_int,
           "scan of each of the queries, (n, dim) float32, over the n_lists lists that are nearest to it (unordered); all "
           "see the rows at one moment. coarse, a pool, holds in its list `owner` their centroids, with the ids of the "
           "lists as row ids. The result is that of scan, its list_ids are `owner`.")
      .def("port", &NativePool::port, "What warpmem._cuda's PageCache needs of this pool: a capsule, which keeps the pool.")
      .def("vectors", &NativePool::vectors, py::arg("list_id"), py::arg("row_ids"), "Stored rows; KeyError when one is absent.")
      .def("lists", &NativePool::lists, "Ids of all lists, ascending.")
      .def("rows", &NativePool::rows, py::arg("list_id"),
           "A list's live rows in the order they lie in: (row_ids, ordinals, columns); empty for an unknown list.")
      .def("save", &NativePool::save, py::arg("path"), py::arg("sections") = py::dict(),
           "Write the pool and named bytes to one file, atomically.")
      .def("compact", &NativePool::compact, py::arg("list_id"), "Rewrite a list without its dead rows.")
      .def("trim", &NativePool::trim, "Give back memory that only changes need; they build it again, list by list.")
      .def("stats", &NativePool::stats, "lists, rows (live), dead, pages, bytes.");
  register_file_errors();
  m.def("open_section", &open_section<NativePool>, py::arg("section"), py::kw_only(), py::arg("isa") = "auto",
        py::arg("threads") = 1, "(pool, sections) of a section of an opened file that is the file of a pool itself.");
  m.def("open_pool", &open_pool<NativePool>, py::arg("path"), py::kw_only(), py::arg("isa") = "auto", py::arg("threads") = 1,
        "(Pool, sections) of a saved file, which is mapped; sections are read-only uint8 arrays by name.");
  bind_kernels(m);
  bind_id_map(m);
  bind_postings(m);
  bind_rows(m);
  m.def("normalize", &normalize, py::arg("x"), "Rows scaled to unit length by the canonical formula.");
  m.def("crc32c", &crc32c_of, py::arg("data"), py::arg("value") = zero_int, "CRC-32C of data, continued from value.");
  m.def("read_bytes", &read_bytes, py::arg("data"), py::arg("isa") = "auto",
        "Read a buffer as fast as a scan could; for benchmarks.");
  m.def("isas", &isas, "Instruction sets supported here, best first.");
  m.def("build_info", &build_info, "compiler, version, arch.");
}
