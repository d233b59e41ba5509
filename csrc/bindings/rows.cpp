// Stored rows by the thousand: the frames of FORMATS.md checked, headers and vectors taken apart. storage/rows.py says the same in Python, value by
// value.
#include "rows.hpp"

#include <pybind11/numpy.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../cpu/dispatch.hpp"
#include "arrays.hpp"

namespace warpmem {
namespace {

constexpr size_t kChecksumBytes = 4;
constexpr size_t kFrameBytes = 1 + kChecksumBytes;
constexpr size_t kLengthBytes = 2;
constexpr int64_t kMaxStoredDim = 65536;

struct Span {
  const unsigned char* data;
  size_t size;
};

uint32_t little_endian(const unsigned char* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
         static_cast<uint32_t>(p[3]) << 24;
}

std::vector<Span> spans_of(const Items& items, const char* name) {
  std::vector<Span> spans;
  spans.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!PyBytes_Check(items[i])) throw py::type_error(std::string(name) + " must be bytes, not " + Py_TYPE(items[i])->tp_name);
    spans.push_back(
        {reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(items[i])), static_cast<size_t>(PyBytes_GET_SIZE(items[i]))});
  }
  return spans;
}

// The header of a whole value; data == nullptr when anything about the value is wrong.
Span header_of(const Span& key, const Span& value, uint32_t seed, unsigned char version, size_t vector_bytes) {
  constexpr Span kBad{nullptr, 0};
  if (value.size < kFrameBytes + kLengthBytes + vector_bytes) return kBad;
  const size_t body = value.size - kChecksumBytes;
  if (crc32c(crc32c(seed, key.data, key.size), value.data, body) != little_endian(value.data + body)) return kBad;
  const size_t header = static_cast<size_t>(value.data[1]) | static_cast<size_t>(value.data[2]) << 8;
  if (value.data[0] != version || body != 1 + kLengthBytes + header + vector_bytes) return kBad;
  return {value.data + 1 + kLengthBytes, header};
}

py::tuple open_rows(const py::object& keys_arg, const py::object& values_arg, const py::object& seed_arg,
                    const py::object& version_arg, const py::object& dim_arg) {
  const Items key_items(keys_arg.ptr(), "keys");
  const Items value_items(values_arg.ptr(), "values");
  if (key_items.size() != value_items.size()) throw py::value_error("keys and values must be as many");
  const auto seed = static_cast<uint32_t>(as_int64(seed_arg, "seed", 0, UINT32_MAX));
  const auto version = static_cast<unsigned char>(as_int64(version_arg, "version", 0, 255));
  const auto dim = as_int64(dim_arg, "dimension", 1, kMaxStoredDim);
  const std::vector<Span> keys = spans_of(key_items, "keys");
  const std::vector<Span> values = spans_of(value_items, "values");
  const size_t vector_bytes = static_cast<size_t>(dim) * sizeof(float);

  py::array_t<float> vectors({static_cast<int64_t>(keys.size()), dim});
  auto* const out = reinterpret_cast<char*>(vectors.mutable_data());
  std::string headers;
  size_t whole = 0;
  {
    const py::gil_scoped_release release;
    for (; whole < keys.size(); ++whole) {
      const Span header = header_of(keys[whole], values[whole], seed, version, vector_bytes);
      if (header.data == nullptr) break;
      headers.append(reinterpret_cast<const char*>(header.data), header.size);
      std::memcpy(out + whole * vector_bytes, header.data + header.size, vector_bytes);
    }
  }
  return py::make_tuple(whole, py::bytes(headers), std::move(vectors));
}

}  // namespace

void bind_rows(py::module_& m) {
  m.def("open_rows", &open_rows, py::arg("keys"), py::arg("values"), py::arg("seed"), py::arg("version"), py::arg("dimension"),
        "(rows that are whole, their headers joined, vectors) of stored rows; it stops at the first that is not whole.");
}

}  // namespace warpmem
