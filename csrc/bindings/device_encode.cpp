#include "device_encode.hpp"

#include <memory>
#include <vector>

#include "../cuda/pq.hpp"
#include "device_kernel.hpp"
#include "kernel_arguments.hpp"

namespace warpmem {

namespace {

// Codebooks on the device, and memory for the codes of so many rows.
class Encoder {
 public:
  Encoder(const py::object& codebooks, const py::object& rows, const py::object& device)
      : rows_(as_int64(rows, "rows", 1, int64_t{1} << 31)), kernel_(device, "encoding") {
    const View<float> books(codebooks, "codebooks", {-1, -1, -1});
    shape_ = shape_of(books);
    plan_ = plan_pq_encode(rows_, shape_.pq_dim, shape_.bits, shape_.dsub, kernel_.limits());
    const int64_t book_bytes = align_16(shape_.dim() * shape_.entries() * static_cast<int64_t>(sizeof(float)));
    const int64_t code_bytes = align_16(rows_ * pq_code_size(shape_.pq_dim, shape_.bits));
    const py::gil_scoped_release release;
    memory_ = kernel_.memory(book_bytes + code_bytes + plan_.workspace_bytes);
    auto* const base = static_cast<unsigned char*>(memory_->data);
    books_ = cuda::PqBooks{reinterpret_cast<const float*>(base), shape_.pq_dim, shape_.bits, shape_.dsub};
    codes_ = base + book_bytes;
    workspace_ = codes_ + code_bytes;
    kernel_.copy_in(base, books.data(), shape_.dim() * shape_.entries() * static_cast<int64_t>(sizeof(float)));
  }

  DeviceArray encode(const py::object& x) {
    const auto array = kernel_.array(x, "x", rows_, shape_.dim());
    kernel_.run(*array, [&](cuda::Stream stream) {
      cuda::pq_encode(plan_, books_, static_cast<const float*>(array->data()), codes_, workspace_, stream);
      return cuda::Status::kOk;
    });
    const std::vector<int64_t> shape{rows_, pq_code_size(shape_.pq_dim, shape_.bits)};
    return DeviceArray{memory_, codes_, shape, py::dtype::of<uint8_t>()};
  }

 private:
  const int64_t rows_;
  DeviceKernel kernel_;
  PqShape shape_;
  PqEncodePlan plan_;
  std::shared_ptr<DeviceMemory> memory_;
  cuda::PqBooks books_;
  uint8_t* codes_ = nullptr;
  unsigned char* workspace_ = nullptr;
};

}  // namespace

void bind_device_encode(py::module_& m) {
  py::class_<Encoder>(
      m, "Encoder",
      "pq_encode on a device, for codebooks (pq_dim, entries, dsub) and one number of rows, with the bits of "
      "_cpu.Kernels.pq_encode. The next call overwrites the results of the last, so each thread needs one of its own.")
      .def(py::init<const py::object&, const py::object&, const py::object&>(), py::arg("codebooks"), py::arg("rows"),
           py::kw_only(), py::arg("device") = py::int_(0))
      .def("__call__", &Encoder::encode, py::arg("x"),
           "(rows, pq_dim * dsub) float32 on the device -> packed codes uint8 there, complete. What is not finite has any code.");
}

}  // namespace warpmem
