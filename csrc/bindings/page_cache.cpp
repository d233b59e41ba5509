#include "page_cache.hpp"

#include <pybind11/numpy.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../cuda/page_cache.hpp"
#include "../cuda/scan.hpp"
#include "../cuda/scan_queue.hpp"
#include "arrays.hpp"
#include "device_array.hpp"
#include "ports.hpp"

namespace warpmem {

namespace {

using cuda::Status;

constexpr int64_t kLeastLimit = int64_t{1} << 16;
constexpr int64_t kMaxLanes = 64;

std::vector<int64_t> ids_of(const py::object& argument) {
  const View<int64_t> ids(argument, "list_ids", {-1});
  return {ids.data(), ids.data() + ids.shape(0)};
}

class NativeCache {
 public:
  NativeCache(const py::object& port, const py::object& device, const py::object& limit, const py::object& least_work,
              const py::object& lanes, const py::object& inline_bytes, const py::object& pinned_bytes, const py::object& manual,
              const py::object& between)
      : pool_(port), between_(between), least_work_(as_int64(least_work, "least_work", 0)) {
    const auto* const pool = port_of<PoolPort>(port, kPoolPortName);
    if (pool == nullptr) throw py::type_error("pool must be the port of a pool of this version of warpmem");
    cuda::CacheOptions options;
    options.limit = as_int64(limit, "limit", kLeastLimit);
    options.inline_bytes = as_int64(inline_bytes, "inline_bytes", 0, int64_t{1} << 30);
    options.pinned_bytes = as_int64(pinned_bytes, "pinned_bytes", 0);
    options.manual = py::cast<bool>(manual);
    if (!between.is_none()) options.between = [this] { call_between(); };
    const auto index = static_cast<int>(as_int64(device, "device", 0, 1 << 16));
    const auto n_lanes = static_cast<int32_t>(as_int64(lanes, "lanes", 1, kMaxLanes));
    const py::gil_scoped_release release;
    struct Undo {  // of what is there when something throws; also without the interpreter's lock
      NativeCache* cache;
      ~Undo() {
        if (cache != nullptr) cache->close();
      }
    } undo{this};
    try {
      runtime_ = cuda::make_runtime(index);
      cache_ = std::make_unique<cuda::PageCache>(runtime_, *pool, options);
      queue_ = std::make_unique<cuda::ScanQueue>(*cache_, n_lanes);
      const cuda::Entered entered(*runtime_);
      if (runtime_->create_stream(&stream_) != Status::kOk)
        throw DeviceError("the CUDA device does not answer: " + runtime_->error());
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::runtime_error& error) {
      throw DeviceError(error.what());
    }
    undo.cache = nullptr;
  }

  ~NativeCache() {
    const py::gil_scoped_release release;
    close();
  }
  NativeCache(const NativeCache&) = delete;
  NativeCache& operator=(const NativeCache&) = delete;

  static py::capsule port(const py::object& self) {
    auto& cache = self.cast<NativeCache&>();
    return port_capsule(cache.queue_->port(cache.least_work_), kScanPortName, self);
  }

  // Queries on the device, of unit length if that is wanted: the host's copy, and a port for a scan that uses them where they are.
  static py::tuple queries(const py::object& self, const py::object& argument, bool normalize) {
    auto& cache = self.cast<NativeCache&>();
    cuda::Runtime& runtime = *cache.runtime_;
    struct Held {
      std::unique_ptr<ForeignArray> array;
      std::unique_ptr<DeviceMemory> unit;
      py::object cache;
    };
    auto held = std::make_unique<Held>();
    held->cache = self;
    held->array = std::make_unique<ForeignArray>(argument, "queries", runtime.device(), cache.stream_);
    const ForeignArray& array = *held->array;
    {
      const py::gil_scoped_release release;
      const cuda::Entered entered(runtime);
      try {
        array.ready(runtime, cache.stream_);
      } catch (const DeviceError&) {  // or it is the other's stream that does not answer
        if (runtime.synchronize(cache.stream_) != Status::kOk) cache.cache_->fail();
        throw;
      }
    }
    py::array_t<float> host({array.rows(), array.columns()});
    float* const to = host.mutable_data();
    const void* from = array.data();
    {
      const py::gil_scoped_release release;
      const cuda::Entered entered(runtime);
      const std::lock_guard<std::mutex> lock(cache.stream_mutex_);
      bool well = true;
      std::string reason;
      if (normalize && array.bytes() > 0) {
        held->unit = cache.watched([&] { return std::make_unique<DeviceMemory>(cache.runtime_, array.bytes()); });
        from = held->unit->data;
        reason = cache.normalize(array, static_cast<float*>(held->unit->data));
        well = reason.empty();
      }
      well = well && (array.bytes() == 0 || runtime.copy_out(to, from, array.bytes(), cache.stream_) == Status::kOk);
      well = well && runtime.synchronize(cache.stream_) == Status::kOk;
      if (!well) {
        reason.empty() ? cache.cache_->fail() : cache.cache_->fail(reason);
        throw DeviceError("the CUDA device does not answer: " + cache.cache_->failure());
      }
    }
    for (int64_t row = 0; held->unit != nullptr && row < array.rows(); ++row) {
      if (std::isnan(to[row * array.columns()]))
        throw py::value_error("queries: row " + std::to_string(row) + " is all zero, or holds a NaN or an infinity");
    }
    ScanPort port = cache.queue_->port(cache.least_work_);
    port.queries = from;
    const py::capsule owner(held.release(), [](void* pointer) { delete static_cast<Held*>(pointer); });
    return py::make_tuple(std::move(host), port_capsule(port, kScanPortName, owner));
  }

  py::list put(const py::object& arrays) const {
    return watched([&] { return to_device(runtime_, arrays); });
  }

  void refresh(const py::object& list_ids) {
    const View<int64_t> ids(list_ids, "list_ids", {-1});
    const py::gil_scoped_release release;
    cache_->refresh(ids.data(), ids.shape(0));
  }
  int64_t warm(const py::object& list_ids) {
    const std::vector<int64_t> ids = ids_of(list_ids);
    const py::gil_scoped_release release;
    return cache_->warm(ids);
  }
  void evict(const py::object& list_ids) {
    const std::vector<int64_t> ids = ids_of(list_ids);
    const py::gil_scoped_release release;
    cache_->evict(ids);
  }
  bool load_next() {
    const py::gil_scoped_release release;
    return cache_->load_next();
  }
  void settle() {
    const py::gil_scoped_release release;
    cache_->settle();
  }
  bool rebuild() {
    const py::gil_scoped_release release;
    return cache_->rebuild();
  }
  py::object failure() const {
    std::string text;
    {
      const py::gil_scoped_release release;
      text = cache_->failure();
    }
    if (text.empty()) return py::none();
    return py::str(text);
  }
  int device() const { return runtime_->device(); }
  bool waiting() const { return cache_->waiting(); }
  bool failed() const { return cache_->failed(); }

  py::dict stats() const {
    cuda::CacheStats cache;
    cuda::QueueStats queue;
    {
      const py::gil_scoped_release release;
      cache = cache_->stats();
      queue = queue_->stats();
    }
    py::dict out;
    out["lists"] = cache.lists;
    out["pages"] = cache.pages;
    out["bytes"] = cache.bytes;
    out["codes_lists"] = cache.codes_lists;
    out["pinned"] = cache.pinned;
    out["pinned_limit"] = cache.pinned_limit;
    out["allocated"] = cache.allocated;
    out["limit"] = cache.limit;
    out["hits"] = cache.hits;
    out["misses"] = cache.misses;
    out["loads"] = cache.loads;
    out["refreshes"] = cache.refreshes;
    out["refused"] = cache.refused;
    out["evictions"] = cache.evictions;
    out["uploaded_pages"] = cache.uploaded_pages;
    out["uploaded_bytes"] = cache.uploaded_bytes;
    out["memory_failures"] = cache.memory_failures;
    out["waiting"] = cache.waiting;
    out["searches"] = queue.searches;
    out["launches"] = queue.launches;
    out["replays"] = queue.replays;
    out["shared"] = queue.shared;
    out["fallbacks"] = queue.fallbacks;
    out["device_ms"] = queue.device_ms;
    return out;
  }

 private:
  // Without the interpreter's lock.
  void close() noexcept {
    queue_.reset();
    cache_.reset();
    if (stream_ == nullptr) return;
    const cuda::Entered entered(*runtime_);
    runtime_->release_stream(stream_);
  }

  // What `use` returns. Where the device fails in it, so has the cache; not where it only has too little memory.
  template <typename Use>
  auto watched(const Use& use) const -> decltype(use()) {
    try {
      return use();
    } catch (const DeviceFull&) {
      throw;
    } catch (const DeviceError&) {
      cache_->fail();
      throw;
    }
  }

  // Why it failed, or nothing.
  std::string normalize(const ForeignArray& array, float* to) const {
    DeviceLimits limits;
    if (runtime_->limits(&limits) != Status::kOk) return runtime_->error();
    try {
      cuda::normalize_rows(static_cast<const float*>(array.data()), array.rows(), array.columns(), to, limits, stream_);
      return {};
    } catch (const std::runtime_error& error) {  // of a launch
      return error.what();
    }
  }

  // In the thread of load_next(), without the interpreter's lock. What it raises is nobody's: the load goes on.
  void call_between() const {
    const py::gil_scoped_acquire acquire;
    try {
      between_();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("PageCache.between");
    }
  }

  const py::object pool_;  // keeps the pool
  const py::object between_;
  const int64_t least_work_;
  std::shared_ptr<cuda::Runtime> runtime_;
  std::unique_ptr<cuda::PageCache> cache_;
  std::unique_ptr<cuda::ScanQueue> queue_;
  cuda::Stream stream_ = nullptr;  // of queries() alone
  std::mutex stream_mutex_;
};

py::dict memory_of(const py::object& device) {
  int64_t free = 0, total = 0;
  const auto index = static_cast<int>(as_int64(device, "device", 0, 1 << 16));
  const py::gil_scoped_release release;
  std::string error;
  try {
    const auto runtime = cuda::make_runtime(index);
    const cuda::Entered entered(*runtime);
    if (runtime->memory(&free, &total) != Status::kOk) error = runtime->error();
  } catch (const std::runtime_error& thrown) {
    error = thrown.what();
  }
  if (!error.empty()) throw DeviceError("the CUDA device does not answer: " + error);
  const py::gil_scoped_acquire acquire;
  py::dict out;
  out["free"] = free;
  out["total"] = total;
  return out;
}

}  // namespace

void bind_page_cache(py::module_& m) {
  register_device_errors();
  bind_device_array(m);
  py::class_<NativeCache>(
      m, "PageCache",
      "Lists of a pool in the memory of a CUDA device, under a limit of bytes, and the scan over them. Thread-safe.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&, const py::object&,
                    const py::object&, const py::object&, const py::object&, const py::object&>(),
           py::arg("pool"), py::kw_only(), py::arg("device") = py::int_(0), py::arg("limit"), py::arg("least_work") = py::int_(0),
           py::arg("lanes") = py::int_(2), py::arg("inline_bytes") = py::int_(1 << 20), py::arg("pinned_bytes") = py::int_(0),
           py::arg("manual") = false, py::arg("between") = py::none())
      .def("port", &NativeCache::port, "For Pool.scan(device=...): a capsule, which keeps the cache.")
      .def("queries", &NativeCache::queries, py::arg("x"), py::arg("normalize") = false,
           "(n, dim) float32 queries on the device, of unit length if wanted -> (a copy on the host, a port for the scan of "
           "them).")
      .def("put", &NativeCache::put, py::arg("arrays"),
           "NumPy arrays -> DeviceArrays, ready, in one piece of memory beside the limit.")
      .def("refresh", &NativeCache::refresh, py::arg("list_ids"), "After a change of these lists.")
      .def("warm", &NativeCache::warm, py::arg("list_ids"), "Load lists, asked for or not; how many are on their way.")
      .def("evict", &NativeCache::evict, py::arg("list_ids"), "Forget lists, and zero what they had.")
      .def("load_next", &NativeCache::load_next, "Load one list that waits, in this thread; False when none does.")
      .def("settle", &NativeCache::settle, "Wait until no list waits to be loaded.")
      .def("rebuild", &NativeCache::rebuild, "Start anew after a failure; False when the device still fails.")
      .def_property_readonly("failure", &NativeCache::failure, "Why the cache answers nothing, or None.")
      .def_property_readonly("failed", &NativeCache::failed, "Whether there is a failure; costs nothing to ask.")
      .def_property_readonly("device", &NativeCache::device)
      .def_property_readonly("waiting", &NativeCache::waiting, "Whether load_next has something to do.")
      .def("stats", &NativeCache::stats, "Counters of the cache and of the scans.");
  m.def("memory", &memory_of, py::arg("device") = py::int_(0), "Bytes of a device: free, total.");
}

}  // namespace warpmem
