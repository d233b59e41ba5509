// A scan of each query over the lists that are nearest to it: the lists of all queries first, then their rows, as they are at one moment.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../cpu/pool.hpp"
#include "../cpu/pq_queries.hpp"
#include "../cpu/scan.hpp"

namespace warpmem {

// So many queries are scanned together: their tables and shortlists, of a few kilobytes each, then stay in a second cache while list after list is read.
constexpr int64_t kQueriesTogether = 256;

class NearestLists {
 public:
  // owner: the list with the centroids. nearest, rows: the requests of the two scans, which are set to a part of the queries at a time.
  NearestLists(int64_t owner, uint32_t group, int64_t dim, ScanRequest& nearest, ScanRequest& rows)
      : owner_(owner),
        group_(group),
        dim_(dim),
        queries_(nearest.queries),
        all_(nearest.n_queries),
        nearest_(nearest),
        rows_(rows),
        prepared_(static_cast<size_t>(std::max<int64_t>(1, (all_ + kQueriesTogether - 1) / kQueriesTogether))),
        ends_(prepared_.size()) {
    const auto most = static_cast<size_t>(std::min(all_, kQueriesTogether));
    const size_t places = most * static_cast<size_t>(nearest.k);
    unused_.resize(2 * places);
    found_.resize(2 * places);
    counts_.resize(most);
    nearest.filters.emplace_back();
    rows.filters.emplace_back();
  }

  size_t parts() const { return prepared_.size(); }
  int64_t first() const { return first_; }  // query of the part at hand

  // shared: the tables of the one scan serve the other.
  SegmentGroups ask(size_t part, bool shared) {
    take(part, nearest_);
    nearest_.prepared = shared ? &prepared_[part] : nullptr;
    const auto n = static_cast<size_t>(nearest_.n_queries);
    nearest_.segment_queries.resize(n);
    for (size_t q = 0; q < n; ++q) nearest_.segment_queries[q] = static_cast<uint32_t>(q);
    const std::vector<int64_t> owners(n, owner_);
    return group_segments(owners.data(), n);
  }

  ScanOutput output() {
    int64_t* const owners = found_.data() + found_.size() / 2;
    return ScanOutput{unused_.data(), unused_.data() + unused_.size() / 2, owners, found_.data(), counts_.data()};
  }

  // Takes in the output of the part.
  void keep() {
    for (int64_t q = 0; q < nearest_.n_queries; ++q) {
      const auto from = found_.begin() + static_cast<std::ptrdiff_t>(q * nearest_.k);
      const int32_t count = counts_[static_cast<size_t>(q)];
      lists_.insert(lists_.end(), from, from + count);
      list_queries_.insert(list_queries_.end(), static_cast<size_t>(count), static_cast<uint32_t>(q));
    }
    ends_[part_] = lists_.size();
  }

  // All lists as they are now.
  void see(const Pool& pool) {
    if (all_ != 1) known_ = group_segments(lists_.data(), lists_.size()).list_ids;
    const std::vector<int64_t>& ids = all_ == 1 ? lists_ : known_;
    seen_.resize(ids.size());
    pool.snapshot(ids.data(), ids.size(), seen_.data());
    if (parts() == 1) return;
    for (size_t i = 0; i < ids.size(); ++i) by_id_.emplace_back(ids[i], i);
    std::sort(by_id_.begin(), by_id_.end());
  }

  SegmentGroups cells(size_t part, bool shared) {
    take(part, rows_);
    rows_.prepared = shared ? &prepared_[part] : nullptr;
    const size_t begin = part == 0 ? 0 : ends_[part - 1];
    const size_t n = ends_[part] - begin;
    const auto from = list_queries_.begin() + static_cast<std::ptrdiff_t>(begin);
    rows_.segment_queries.assign(from, from + static_cast<std::ptrdiff_t>(n));
    if (group_ != 0) rows_.segment_groups.assign(n, group_);
    return all_ == 1 ? ungrouped_segments(lists_.data(), n) : group_segments(lists_.data() + begin, n);
  }

  std::vector<ListHead> heads(const SegmentGroups& cells) {
    if (parts() == 1) return std::move(seen_);  // the same lists in the same order
    std::vector<ListHead> heads;
    heads.reserve(cells.list_ids.size());
    for (const int64_t id : cells.list_ids) {
      heads.push_back(seen_[std::lower_bound(by_id_.begin(), by_id_.end(), std::make_pair(id, size_t{0}))->second]);
    }
    return heads;
  }

 private:
  void take(size_t part, ScanRequest& request) {
    part_ = part;
    first_ = static_cast<int64_t>(part) * kQueriesTogether;
    request.n_queries = std::min(all_ - first_, kQueriesTogether);
    request.queries = queries_ + first_ * dim_;
  }

  const int64_t owner_;
  const uint32_t group_;
  const int64_t dim_;
  const float* const queries_;
  const int64_t all_;
  ScanRequest& nearest_;
  ScanRequest& rows_;
  std::vector<PqQueries> prepared_;  // by part
  std::vector<size_t> ends_;         // by part, in `lists_`
  size_t part_ = 0;
  int64_t first_ = 0;
  std::vector<float> unused_;
  std::vector<int64_t> found_;
  std::vector<int32_t> counts_;
  std::vector<int64_t> lists_;  // of one query after the other
  std::vector<uint32_t> list_queries_;
  std::vector<int64_t> known_;  // each list once
  std::vector<ListHead> seen_;
  std::vector<std::pair<int64_t, size_t>> by_id_;
};

}  // namespace warpmem
