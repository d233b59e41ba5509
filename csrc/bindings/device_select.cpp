#include "device_select.hpp"

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cuda/select_k.hpp"
#include "arrays.hpp"
#include "device_array.hpp"

namespace warpmem {

namespace {

using cuda::Status;

[[noreturn]] void fail(const std::string& reason) { throw DeviceError("the CUDA device did not do select_k: " + reason); }

// One shape's plan, its memory and its stream.
class Selection {
 public:
  Selection(const py::object& rows, const py::object& columns, const py::object& k, const py::object& device)
      : columns_(as_int64(columns, "columns", 1, kSelectMaxColumns)) {
    const int64_t n = as_int64(rows, "rows", 1, int64_t{1} << 31);
    const int64_t best = as_int64(k, "k", 1, kSelectMaxK);
    const auto index = static_cast<int>(as_int64(device, "device", 0, 1 << 16));
    const py::gil_scoped_release release;
    try {
      runtime_ = cuda::make_runtime(index);
    } catch (const std::runtime_error& error) {
      fail(error.what());
    }
    const cuda::Entered entered(*runtime_);
    DeviceLimits limits;
    if (runtime_->limits(&limits) != Status::kOk) fail(runtime_->error());
    plan_ = plan_select_k(n, columns_, best, false, limits);
    // indexes | the first row with a NaN | workspace | values
    const int64_t index_bytes = n * best * 8;
    memory_ = std::make_shared<DeviceMemory>(runtime_, index_bytes + 8 + plan_.workspace_bytes + n * best * 4);
    auto* const base = static_cast<unsigned char*>(memory_->data);
    arguments_.row_stride = columns_;
    arguments_.indexes = reinterpret_cast<int64_t*>(base);
    arguments_.bad_row = reinterpret_cast<uint64_t*>(base + index_bytes);
    arguments_.workspace = base + index_bytes + 8;
    arguments_.values = reinterpret_cast<float*>(base + index_bytes + 8 + plan_.workspace_bytes);
    if (runtime_->create_stream(&stream_) != Status::kOk) fail(runtime_->error());
  }

  ~Selection() {
    const py::gil_scoped_release release;
    const cuda::Entered entered(*runtime_);
    runtime_->release_stream(stream_);
  }
  Selection(const Selection&) = delete;
  Selection& operator=(const Selection&) = delete;

  py::tuple select(const py::object& scores) {
    const ForeignArray array(scores, "scores", runtime_->device(), stream_);
    if (array.rows() != plan_.rows || array.columns() != columns_) {
      throw py::value_error("scores: expected shape (" + std::to_string(plan_.rows) + ", " + std::to_string(columns_) +
                            "), not (" + std::to_string(array.rows()) + ", " + std::to_string(array.columns()) + ")");
    }
    const uint64_t bad_row = run(array);
    if (bad_row != UINT64_MAX) throw py::value_error("scores: row " + std::to_string(bad_row) + " holds a NaN");
    const std::vector<int64_t> shape{plan_.rows, plan_.k};
    return py::make_tuple(DeviceArray{memory_, arguments_.values, shape, py::dtype::of<float>()},
                          DeviceArray{memory_, arguments_.indexes, shape, py::dtype::of<int64_t>()});
  }

 private:
  // The first row that holds a NaN, or UINT64_MAX.
  uint64_t run(const ForeignArray& array) {
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    const cuda::Entered entered(*runtime_);
    array.ready(*runtime_, stream_);
    arguments_.scores = static_cast<const float*>(array.data());
    try {
      cuda::select_k(plan_, arguments_, stream_);
    } catch (const std::runtime_error& error) {  // of a launch
      fail(error.what());
    }
    uint64_t bad_row = 0;
    const bool copied = runtime_->copy_out(&bad_row, arguments_.bad_row, 8, stream_) == Status::kOk;
    if (runtime_->synchronize(stream_) != Status::kOk || !copied) fail(runtime_->error());
    return bad_row;
  }

  const int64_t columns_;
  std::shared_ptr<cuda::Runtime> runtime_;
  SelectPlan plan_;
  std::shared_ptr<DeviceMemory> memory_;
  cuda::SelectArguments arguments_;
  cuda::Stream stream_ = nullptr;
  std::mutex mutex_;
};

}  // namespace

void bind_device_select(py::module_& m) {
  py::class_<Selection>(m, "Selection",
                        "select_k on a device, for one shape of scores, with the bits of _cpu.Kernels.select_k. The next call "
                        "overwrites the results of the last. Calls of several threads take turns.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&>(), py::arg("rows"),
           py::arg("columns"), py::arg("k"), py::kw_only(), py::arg("device") = py::int_(0))
      .def("__call__", &Selection::select, py::arg("scores"),
           "(rows, columns) float32 on the device -> (values, indexes) there, complete: -inf and -1 behind the columns.");
}

}  // namespace warpmem
