// Segments of a scan as Python gives them (records.py: a sequence of Segment, or one SegmentTable) -> ScanRequest.
//
// Each number of a table is read once, when it is checked: another thread may write to its arrays meanwhile.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "../core/predicate.hpp"
#include "../cpu/scan.hpp"
#include "arrays.hpp"

namespace warpmem {

class SegmentParser {
 public:
  SegmentParser(int64_t n_columns, ScanRequest& request) : n_columns_(n_columns), request_(request) {}

  SegmentGroups parse(PyObject* argument) {
    if (request_.n_queries > INT32_MAX) throw py::value_error("a scan takes at most 2147483647 queries");
    // A table is a named tuple; a plain tuple is a sequence of segments.
    if (PyTuple_Check(argument) && !PyTuple_CheckExact(argument) && PyObject_HasAttrString(argument, "queries") == 1) {
      return parse_table(argument);
    }
    return parse_sequence(argument);
  }

  // None, or for each segment None or an array by row id of what is added to scores.
  void parse_added(PyObject* argument) {
    if (argument == Py_None) return;
    const Items arrays(argument, "added");
    if (arrays.size() != request_.segment_queries.size()) {
      throw py::value_error("added must have one entry for each of " + std::to_string(request_.segment_queries.size()) +
                            " segments, not " + std::to_string(arrays.size()));
    }
    request_.segment_added.resize(arrays.size());
    for (size_t s = 0; s < arrays.size(); ++s) {
      if (arrays[s] == Py_None) continue;
      const View<float>& values = added_.emplace_back(arrays[s], "added", std::initializer_list<int64_t>{-1});
      require_finite(values.data(), 1, values.shape(0), "added");
      request_.segment_added[s] = Added{values.data(), values.shape(0)};
    }
  }

 private:
  SegmentGroups parse_table(PyObject* argument) {
    const Items parts(argument, "segments", 4);
    const View<int64_t> queries(parts[0], "segment queries", {-1});
    const int64_t n = queries.shape(0);
    const View<int64_t> lists(parts[1], "segment lists", {n});
    require_count(static_cast<size_t>(n));
    add_filter(parts[2], parts[3], Py_None);
    request_.segment_queries.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t query = queries.data()[i];
      if (query < 0 || query >= request_.n_queries) {
        throw py::value_error("segment " + std::to_string(i) + " names query " + std::to_string(query) + ", but there are " +
                              std::to_string(request_.n_queries) + " queries");
      }
      request_.segment_queries[static_cast<size_t>(i)] = static_cast<uint32_t>(query);
    }
    return group_segments(lists.data(), static_cast<size_t>(n));
  }

  SegmentGroups parse_sequence(PyObject* argument) {
    const Items segments(argument, "segments");
    require_count(segments.size());
    std::vector<int64_t> list_ids;
    list_ids.reserve(segments.size());
    request_.segment_queries.reserve(segments.size());
    request_.segment_groups.reserve(segments.size());
    request_.segment_filters.reserve(segments.size());
    const PyObject* last[3] = {nullptr, nullptr, nullptr};
    uint32_t filter = 0;
    std::vector<Items> kept;  // so that none of `last` is freed, and its address used again
    for (size_t s = 0; s < segments.size(); ++s) {
      Items parts(segments[s], "segments", 6);
      const int64_t query = as_int64(parts[0], "segment query", 0, std::max<int64_t>(request_.n_queries - 1, 0));
      if (request_.n_queries == 0) throw py::value_error("a segment names query 0, but there are 0 queries");
      list_ids.push_back(as_int64(parts[1], "segment list_id"));
      const auto group = static_cast<uint32_t>(as_int64(parts[2], "segment group", 0, UINT32_MAX));
      if (s == 0 || parts[3] != last[0] || parts[4] != last[1] || parts[5] != last[2]) {
        filter = add_filter(parts[3], parts[4], parts[5]);
        for (size_t i = 0; i < 3; ++i) last[i] = parts[3 + i];
        kept.push_back(std::move(parts));
      }
      request_.segment_queries.push_back(static_cast<uint32_t>(query));
      request_.segment_groups.push_back(group);
      request_.segment_filters.push_back(filter);
    }
    return group_segments(list_ids.data(), list_ids.size());
  }

  static void require_count(size_t n) {
    if (n > INT32_MAX) throw py::value_error("a scan takes at most 2147483647 segments, not " + std::to_string(n));
  }

  uint32_t add_filter(PyObject* terms_arg, PyObject* values_arg, PyObject* bitmap) {
    Filter filter;
    const Items values(values_arg, "membership values");
    filter.values_begin = request_.values.size();
    for (size_t i = 0; i < values.size(); ++i) request_.values.push_back(as_int64(values[i], "membership value"));
    filter.values_end = request_.values.size();

    const Items terms(terms_arg, "terms");
    filter.terms_begin = request_.terms.size();
    int depth = 0;
    for (size_t t = 0; t < terms.size(); ++t) {
      const Term term = parse_term(terms[t], filter);
      const int next = depth_after(term.op, depth);
      if (next < 0) {
        throw py::value_error("term " + std::to_string(t) + " meets " + std::to_string(depth) +
                              " tests on the stack: NOT needs 1, AND and OR need 2, and there is room for " +
                              std::to_string(kMaxDepth));
      }
      depth = next;
      filter.joined = filter.joined || term.op >= kAnd;
      request_.terms.push_back(term);
    }
    filter.terms_end = request_.terms.size();

    if (bitmap != Py_None) {
      bitmaps_.emplace_back(bitmap, "bitmap", std::initializer_list<int64_t>{-1});
      static const uint64_t kNoWords = 0;  // an empty array matches nothing; its pointer says nothing
      filter.bitmap_words = bitmaps_.back().shape(0);
      filter.bitmap = filter.bitmap_words > 0 ? bitmaps_.back().data() : &kNoWords;
    }
    request_.filters.push_back(filter);
    return static_cast<uint32_t>(request_.filters.size() - 1);
  }

  Term parse_term(PyObject* item, const Filter& filter) const {
    const Items parts(item, "terms", 4);
    const auto op = static_cast<int32_t>(as_int64(parts[1], "term op", kRange, kNot));
    if (op >= kAnd) {
      as_int64(parts[0], "term column of AND, OR and NOT", 0, 0);
      as_int64(parts[2], "term lo of AND, OR and NOT", 0, 0);
      as_int64(parts[3], "term hi of AND, OR and NOT", 0, 0);
      return Term{0, op, 0, 0};
    }
    if (n_columns_ == 0) throw py::value_error("a term names a column, but the pool has 0 columns");
    const auto column = static_cast<int32_t>(as_int64(parts[0], "term column", 0, n_columns_ - 1));
    const int64_t lo = as_int64(parts[2], "term lo");
    const int64_t hi = as_int64(parts[3], "term hi");
    if (op == kMembership) {
      const auto n_values = static_cast<int64_t>(filter.values_end - filter.values_begin);
      if (lo < 0 || lo > hi || hi > n_values) {
        throw py::value_error("a membership term must slice within 0 and " + std::to_string(n_values) + ", not " +
                              std::to_string(lo) + ":" + std::to_string(hi));
      }
      const int64_t* const first = request_.values.data() + filter.values_begin;
      for (int64_t i = lo + 1; i < hi; ++i) {
        if (first[i - 1] > first[i]) {
          throw py::value_error("membership values must be ascending; value " + std::to_string(i) + " is not");
        }
      }
    }
    return Term{column, op, lo, hi};
  }

  const int64_t n_columns_;
  ScanRequest& request_;
  std::vector<View<uint64_t>> bitmaps_;  // alive until the scan is done
  std::vector<View<float>> added_;
};

}  // namespace warpmem
