// warpmem._cpu.IdMap: int64 -> int64, for the ids of an index and the lists that their rows are in.
#include "id_map.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <optional>
#include <utility>

#include "../cpu/flat_map.hpp"
#include "arrays.hpp"

namespace warpmem {
namespace {

constexpr int64_t kNoValue = INT64_MIN;  // marks a free slot, so it is the one value that cannot be stored
constexpr int64_t kMaxKeys = int64_t{1} << 40;
constexpr int64_t kMapReleaseKeys = 4096;  // below, the GIL would take longer to give away and take back

class IdMap {
 public:
  // Returns how many keys are new.
  int64_t put(const py::object& keys_arg, const py::object& values_arg) {
    if (is_one(keys_arg)) {
      const int64_t key = as_int64(keys_arg, "keys");
      const int64_t value = value_of(values_arg);
      const Hold hold(*this, 1);
      map_.reserve(map_.size() + 1);
      return map_.put(key, value) == kNoValue ? 1 : 0;
    }
    const View<int64_t> keys(keys_arg, "keys", {-1});
    const int64_t n = keys.shape(0);
    const View<int64_t> values(values_arg, "values", {n});
    const std::vector<int64_t> own(values.data(), values.data() + n);  // read once: others may write to the array
    for (int64_t i = 0; i < n; ++i) {
      if (own[static_cast<size_t>(i)] == kNoValue)
        throw py::value_error("value " + std::to_string(i) + " is -2**63, which cannot be stored");
    }
    const Hold hold(*this, n);
    map_.reserve(map_.size() + static_cast<size_t>(n));  // all that can fail
    int64_t fresh = 0;
    for (int64_t i = 0; i < n; ++i) fresh += map_.put(keys.data()[i], own[static_cast<size_t>(i)]) == kNoValue ? 1 : 0;
    return fresh;
  }

  py::object get(const py::object& keys, const py::object& absent) {
    return look_up(keys, absent, [this](int64_t key) { return map_.find(key); });
  }

  py::object pop(const py::object& keys, const py::object& absent) {
    return look_up(keys, absent, [this](int64_t key) { return map_.erase(key); });
  }

  py::object contains(const py::object& keys_arg) {
    if (is_one(keys_arg)) {
      const int64_t key = as_int64(keys_arg, "keys");
      const Hold hold(*this, 1);
      return py::bool_(map_.find(key) != kNoValue);
    }
    const View<int64_t> keys(keys_arg, "keys", {-1});
    const int64_t n = keys.shape(0);
    py::array_t<bool> found(n);
    bool* const to = found.mutable_data();
    const Hold hold(*this, n);
    for (int64_t i = 0; i < n; ++i) to[i] = map_.find(keys.data()[i]) != kNoValue;
    return std::move(found);
  }

  void reserve(const py::object& n_arg) {
    const int64_t n = as_int64(n_arg, "n", 0, kMaxKeys);
    const Hold hold(*this, n);
    map_.reserve(static_cast<size_t>(n));
  }

  int64_t size() {
    const Hold hold(*this, 1);
    return static_cast<int64_t>(map_.size());
  }

  py::tuple items() {
    for (int64_t n = size();;) {
      py::array_t<int64_t> keys(n);
      py::array_t<int64_t> values(n);
      int64_t* to_keys = keys.mutable_data();
      int64_t* to_values = values.mutable_data();
      int64_t now;
      {
        const Hold hold(*this, n);
        now = static_cast<int64_t>(map_.size());
        if (now == n) {
          map_.for_each([&](int64_t key, int64_t value) {
            *to_keys++ = key;
            *to_values++ = value;
          });
        }
      }
      if (now == n) return py::make_tuple(std::move(keys), std::move(values));
      n = now;  // changed since it was counted
    }
  }

 private:
  // The mutex, and for long work without the GIL. A thread that holds the GIL never waits for the mutex: its owner may want the GIL back first.
  class Hold {
   public:
    Hold(IdMap& map, int64_t keys) : lock_(map.mutex_, std::defer_lock) {
      if (keys < kMapReleaseKeys && lock_.try_lock()) return;
      release_.emplace();
      lock_.lock();
    }
    ~Hold() {
      if (lock_.owns_lock()) lock_.unlock();  // before the GIL is taken back
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    std::optional<py::gil_scoped_release> release_;
    std::unique_lock<std::mutex> lock_;
  };

  static bool is_one(const py::object& keys) {
    return PyLong_Check(keys.ptr()) || (PyIndex_Check(keys.ptr()) && !py::isinstance<py::array>(keys));
  }

  static int64_t value_of(const py::object& argument) {
    const int64_t value = as_int64(argument, "values");
    if (value == kNoValue) throw py::value_error("value 0 is -2**63, which cannot be stored");
    return value;
  }

  template <typename F>
  py::object look_up(const py::object& keys_arg, const py::object& absent_arg, const F& f) {
    const int64_t absent = as_int64(absent_arg, "default");
    const auto known = [absent](int64_t value) { return value == kNoValue ? absent : value; };
    if (is_one(keys_arg)) {
      const int64_t key = as_int64(keys_arg, "keys");
      const Hold hold(*this, 1);
      return py::int_(known(f(key)));
    }
    const View<int64_t> keys(keys_arg, "keys", {-1});
    const int64_t n = keys.shape(0);
    py::array_t<int64_t> values(n);
    int64_t* const to = values.mutable_data();
    {
      const Hold hold(*this, n);
      for (int64_t i = 0; i < n; ++i) to[i] = known(f(keys.data()[i]));
    }
    return std::move(values);
  }

  std::mutex mutex_;
  FlatMap<int64_t, kNoValue> map_;
};

}  // namespace

void bind_id_map(py::module_& m) {
  py::class_<IdMap>(
      m, "IdMap",
      "A hash map from int64 to int64. Keys and values are int64 arrays of one axis, or single integers. Thread-safe: "
      "each call happens whole or, when memory runs out, not at all.")
      .def(py::init<>())
      .def("put", &IdMap::put, py::arg("keys"), py::arg("values"),
           "Set values (any but -2**63); of equal keys the last one stays. Returns how many keys are new.")
      .def("get", &IdMap::get, py::arg("keys"), py::arg("default"), "Values of keys, or the default where one is absent.")
      .def("pop", &IdMap::pop, py::arg("keys"), py::arg("default"), "As get, and removes the keys.")
      .def("contains", &IdMap::contains, py::arg("keys"), "Which keys are there.")
      .def("reserve", &IdMap::reserve, py::arg("n"), "Make room for n keys in all.")
      .def("items", &IdMap::items, "(keys, values) of one moment, in no order.")
      .def("__len__", &IdMap::size);
}

}  // namespace warpmem
