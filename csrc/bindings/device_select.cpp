#include "device_select.hpp"

#include <memory>
#include <string>
#include <vector>

#include "../cuda/select_k.hpp"
#include "device_kernel.hpp"

namespace warpmem {

namespace {

// One shape's plan and its memory.
class Selection {
 public:
  Selection(const py::object& rows, const py::object& columns, const py::object& k, const py::object& device)
      : rows_(as_int64(rows, "rows", 1, int64_t{1} << 31)),
        columns_(as_int64(columns, "columns", 1, kSelectMaxColumns)),
        k_(as_int64(k, "k", 1, kSelectMaxK)),
        kernel_(device, "select_k"),
        plan_(plan_select_k(rows_, columns_, k_, false, kernel_.limits())) {
    // indexes | the first row with a NaN | workspace | values
    const int64_t index_bytes = rows_ * k_ * 8;
    {
      const py::gil_scoped_release release;
      memory_ = kernel_.memory(index_bytes + 8 + plan_.workspace_bytes + rows_ * k_ * 4);
    }
    auto* const base = static_cast<unsigned char*>(memory_->data);
    arguments_.row_stride = columns_;
    arguments_.indexes = reinterpret_cast<int64_t*>(base);
    arguments_.bad_row = reinterpret_cast<uint64_t*>(base + index_bytes);
    arguments_.workspace = base + index_bytes + 8;
    arguments_.values = reinterpret_cast<float*>(base + index_bytes + 8 + plan_.workspace_bytes);
  }

  py::tuple select(const py::object& scores) {
    const auto array = kernel_.array(scores, "scores", rows_, columns_);
    uint64_t bad_row = 0;
    kernel_.run(*array, [&](cuda::Stream stream) {
      arguments_.scores = static_cast<const float*>(array->data());
      cuda::select_k(plan_, arguments_, stream);
      return kernel_.runtime()->copy_out(&bad_row, arguments_.bad_row, 8, stream);
    });
    if (bad_row != UINT64_MAX) throw py::value_error("scores: row " + std::to_string(bad_row) + " holds a NaN");
    const std::vector<int64_t> shape{rows_, k_};
    return py::make_tuple(DeviceArray{memory_, arguments_.values, shape, py::dtype::of<float>()},
                          DeviceArray{memory_, arguments_.indexes, shape, py::dtype::of<int64_t>()});
  }

 private:
  const int64_t rows_;
  const int64_t columns_;
  const int64_t k_;
  DeviceKernel kernel_;
  const SelectPlan plan_;
  std::shared_ptr<DeviceMemory> memory_;
  cuda::SelectArguments arguments_;
};

}  // namespace

void bind_device_select(py::module_& m) {
  py::class_<Selection>(m, "Selection",
                        "select_k on a device, for one shape of scores, with the bits of _cpu.Kernels.select_k. The next call "
                        "overwrites the results of the last, so each thread needs one of its own.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&>(), py::arg("rows"),
           py::arg("columns"), py::arg("k"), py::kw_only(), py::arg("device") = py::int_(0))
      .def("__call__", &Selection::select, py::arg("scores"),
           "(rows, columns) float32 on the device -> (values, indexes) there, complete: -inf and -1 behind the columns.");
}

}  // namespace warpmem
