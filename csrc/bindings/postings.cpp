// warpmem._cpu.Postings: one owner's words.
#include "postings.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "../cpu/postings.hpp"
#include "arrays.hpp"

namespace warpmem {
namespace {

constexpr double kMaxWeight = 1e30;  // so that no score is infinite

std::string_view utf8(PyObject* object, const char* name) {
  if (!PyUnicode_Check(object)) throw py::type_error(std::string(name) + " must be str, not " + Py_TYPE(object)->tp_name);
  Py_ssize_t size = 0;
  const char* const data = PyUnicode_AsUTF8AndSize(object, &size);
  if (data == nullptr) {
    PyErr_Clear();
    throw py::value_error(std::string(name) + " must be Unicode without surrogates");
  }
  return {data, static_cast<size_t>(size)};
}

float as_weight(const py::object& object, const char* name) {
  const double value = as_finite(object, name);
  if (value < 0.0 || value > kMaxWeight) throw py::value_error(std::string(name) + " must be within 0 and 1e30");
  return static_cast<float>(value);
}

class NativePostings {
 public:
  void put(const py::object& rows_arg, const py::object& runs_arg, const py::object& ordinals_arg, const py::object& words_arg) {
    const View<int64_t> rows(rows_arg, "rows", {-1});
    const int64_t n = rows.shape(0);
    const View<int64_t> runs(runs_arg, "runs", {n});
    const View<uint32_t> ordinals(ordinals_arg, "ordinals", {n});
    const Items words(words_arg.ptr(), "words");
    if (static_cast<int64_t>(words.size()) != n) throw py::value_error("words must be one for each row");
    std::vector<std::string_view> texts;
    std::vector<int64_t> own(rows.data(), rows.data() + n);  // read once: others may write to the array
    for (int64_t i = 0; i < n; ++i) {
      texts.push_back(utf8(words[static_cast<size_t>(i)], "words"));
      if (own[static_cast<size_t>(i)] < 0 || own[static_cast<size_t>(i)] > Postings::kMaxRow)
        throw py::value_error("rows must be within 0 and 2**31 - 1");
    }
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = own[static_cast<size_t>(i)];
      postings_.remove(row);
      postings_.put(row, runs.data()[i], ordinals.data()[i], texts[static_cast<size_t>(i)]);
    }
  }

  int64_t remove(const py::object& rows_arg) {
    const View<int64_t> rows(rows_arg, "rows", {-1});
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    int64_t removed = 0;
    for (int64_t i = 0; i < rows.shape(0); ++i) removed += postings_.remove(rows.data()[i]) ? 1 : 0;
    return removed;
  }

  py::tuple score(const py::object& words_arg, const py::object& w_lexical_arg, const py::object& w_adjacent_arg,
                  const py::object& most_arg, const py::object& also_arg) {
    const std::string_view words = utf8(words_arg.ptr(), "words");
    const float w_lexical = as_weight(w_lexical_arg, "w_lexical");
    const float w_adjacent = as_weight(w_adjacent_arg, "w_adjacent");
    const auto most = static_cast<size_t>(as_int64(most_arg, "most", 0, Postings::kMaxRow));
    const View<int64_t> also(also_arg, "also", {-1});
    const std::vector<int64_t> own(also.data(), also.data() + also.shape(0));
    Postings::Found found;
    {
      const py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex_);
      found = postings_.score(words, w_lexical, w_adjacent, most, own);
    }
    const auto n = static_cast<py::ssize_t>(found.best.size() + found.also.size());
    py::array_t<int64_t> rows(n);
    py::array_t<float> totals(n), lexical(n), adjacent(n);
    py::ssize_t at = 0;
    const auto write = [&](int64_t row, const Postings::Score& score) {
      rows.mutable_data()[at] = row;
      totals.mutable_data()[at] = score.total;
      lexical.mutable_data()[at] = score.lexical;
      adjacent.mutable_data()[at] = score.adjacent;
      ++at;
    };
    for (const Postings::Score& score : found.best) write(score.row, score);
    for (size_t i = 0; i < own.size(); ++i) write(own[i], found.also[i]);
    return py::make_tuple(found.best.size(), found.all, std::move(rows), std::move(totals), std::move(lexical),
                          std::move(adjacent));
  }

  py::tuple sums(const py::object& words_arg, const py::object& w_lexical_arg, const py::object& w_adjacent_arg) {
    const std::string_view words = utf8(words_arg.ptr(), "words");
    const float w_lexical = as_weight(w_lexical_arg, "w_lexical");
    const float w_adjacent = as_weight(w_adjacent_arg, "w_adjacent");
    Postings::Sums sums;
    {
      const py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex_);
      sums = postings_.sums(words, w_lexical, w_adjacent);
    }
    auto totals = array_of(std::move(sums.totals));
    return py::make_tuple(std::move(totals), array_of(std::move(sums.lexical)), array_of(std::move(sums.adjacent)));
  }

  py::array_t<uint32_t> ordinals(const py::object& rows_arg) {
    const View<int64_t> rows(rows_arg, "rows", {-1});
    py::array_t<uint32_t> out(rows.shape(0));
    uint32_t* const to = out.mutable_data();
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t i = 0; i < rows.shape(0); ++i) to[i] = postings_.ordinal(rows.data()[i]);
    return out;
  }

  py::dict stats() {
    int64_t rows = 0, terms = 0, bytes = 0;
    {
      const py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex_);
      rows = postings_.rows();
      terms = postings_.terms();
      bytes = postings_.bytes();
    }
    py::dict out;
    out["rows"] = rows;
    out["terms"] = terms;
    out["bytes"] = bytes;
    return out;
  }

 private:
  // Without a copy: of a million rows that would take a millisecond of everybody's time.
  static py::array_t<float> array_of(std::vector<float>&& values) {
    auto held = std::make_unique<std::vector<float>>(std::move(values));
    const float* const data = held->data();
    const auto n = static_cast<py::ssize_t>(held->size());
    const py::capsule owner(held.get(), [](void* pointer) { delete static_cast<std::vector<float>*>(pointer); });
    held.release();
    return py::array_t<float>(n, data, owner);
  }

  std::mutex mutex_;
  Postings postings_;
};

}  // namespace

void bind_postings(py::module_& m) {
  py::class_<NativePostings>(
      m, "Postings",
      "Which rows hold which words, scored by BM25 to [0, 1), and which row follows which in its run. Thread-safe. After a "
      "MemoryError of put it must not be used any more.")
      .def(py::init<>())
      .def("put", &NativePostings::put, py::arg("rows"), py::arg("runs"), py::arg("ordinals"), py::arg("words"),
           "Add rows, in place of those with the same ids. runs: the number of each row's run, -1 for none, -2 for a row of the "
           "past, which does "
           "not count in the weights of words either. words: as "
           "ingest/words.py makes them.")
      .def("remove", &NativePostings::remove, py::arg("rows"), "Remove rows; returns how many were there.")
      .def(
          "score", &NativePostings::score, py::arg("words"), py::arg("w_lexical"), py::arg("w_adjacent"), py::arg("most"),
          py::arg("also"),
          "(n, all, rows, totals, lexical, adjacent): n best rows by w_lexical * lexical + w_adjacent * adjacent, best first and "
          "above 0, then the rows `also`. all: no other row is above 0.")
      .def("sums", &NativePostings::sums, py::arg("words"), py::arg("w_lexical"), py::arg("w_adjacent"),
           "(totals, lexical, adjacent) of all row ids below the first that was never there; totals as `score` weighs them.")
      .def("ordinals", &NativePostings::ordinals, py::arg("rows"), "Ordinals of rows, 0 for those that are not there.")
      .def("stats", &NativePostings::stats, "rows, terms, bytes.");
}

}  // namespace warpmem
