// A scan of which a device does a part: it takes the lists that it has in the very version of the snapshot, the host scans the others meanwhile, and the
// results of both are joined by the one total order. When the device fails the host scans its lists too.
#include "pool_view.hpp"
#include "scan.hpp"
#include "scan_task.hpp"

namespace warpmem {

namespace {

// The request as plain arrays, segments in the order of their lists.
struct Call {
  std::vector<ListView> lists;
  std::vector<int64_t> segment_begin;
  std::vector<uint32_t> queries, groups, filters;
  ScanCall call;

  Call(const ScanPort& device, const ScanRequest& request, const SegmentGroups& by_list, const std::vector<ListHead>& heads) {
    const size_t n = by_list.order.size();
    queries.reserve(n);
    groups.reserve(n);
    filters.reserve(n);
    for (const uint32_t s : by_list.order) {
      const Segment segment = request.segment(s);
      queries.push_back(segment.query);
      groups.push_back(segment.group);
      filters.push_back(segment.filter);
    }
    lists.reserve(heads.size());
    for (size_t g = 0; g < heads.size(); ++g) lists.push_back(view_of(by_list.list_ids[g], heads[g]));
    segment_begin.assign(by_list.begin.begin(), by_list.begin.end());
    call.queries = request.queries;
    call.n_queries = request.n_queries;
    call.k = request.k;
    call.min_similarity = request.min_similarity;
    call.ranking = request.ranking;
    call.n_lists = static_cast<int64_t>(lists.size());
    call.lists = lists.data();
    call.segment_begin = segment_begin.data();
    call.segment_query = queries.data();
    call.segment_group = groups.data();
    call.segment_filter = filters.data();
    call.n_filters = static_cast<int64_t>(request.filters.size());
    call.filters = request.filters.data();
    call.n_terms = static_cast<int64_t>(request.terms.size());
    call.terms = request.terms.data();
    call.n_values = static_cast<int64_t>(request.values.size());
    call.values = request.values.data();
    call.device_queries = device.queries;
  }
};

// A part of the work that a device has taken, until its end.
class Taken {
 public:
  Taken(const ScanPort& device, const ScanCall& call, uint8_t* lists)
      : device_(device), ticket_(device.begin(device.cache, &call, lists)) {}
  ~Taken() {
    if (ticket_ != nullptr) device_.end(device_.cache, ticket_);
  }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;

  explicit operator bool() const noexcept { return ticket_ != nullptr; }
  bool finish(ScanFound* found) { return device_.finish(device_.cache, ticket_, found); }

 private:
  const ScanPort& device_;
  void* const ticket_;
};

// The heads of the lists whose mark is `mark`; the others are null.
std::vector<ListHead> marked(const std::vector<ListHead>& heads, const std::vector<uint8_t>& marks, uint8_t mark) {
  std::vector<ListHead> out(heads.size());
  for (size_t g = 0; g < heads.size(); ++g) {
    if (marks[g] == mark) out[g] = heads[g];
  }
  return out;
}

}  // namespace

ScanCounters scan(const ScanPort& device, const Kernels& kernels, const Pool& pool, const ScanRequest& request,
                  const SegmentGroups& groups, const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers) {
  const Call call(device, request, groups, heads);
  std::vector<uint8_t> marks(heads.size(), 0);
  Taken taken(device, call.call, marks.data());
  if (!taken) return scan(kernels, pool, request, groups, heads, output, workers);

  const auto n_queries = static_cast<size_t>(request.n_queries);
  const auto on_host = [&](uint8_t mark, std::vector<TopK>* tops) {
    return scan_lists(kernels, pool, request, groups, marked(heads, marks, mark), output, workers, tops);
  };
  std::vector<TopK> tops;
  ScanCounters counters = on_host(0, &tops);
  std::vector<TopK> others(n_queries);
  ScanFound found;
  if (taken.finish(&found)) {
    for (size_t q = 0; q < n_queries; ++q) {
      tops[q].expect(found.counts[q]);
      tops[q].reserve(request.k);
      const Candidate* const first = found.candidates + static_cast<int64_t>(q) * found.k;
      for (int32_t i = 0; i < found.counts[q]; ++i) tops[q].offer(first[i]);
    }
    counters.rows_seen += found.rows_seen;
    counters.rows_rescored += found.rows_rescored;
    for (const uint8_t mark : marks) counters.device_lists += mark;
  } else {
    const ScanCounters more = on_host(1, &others);
    for (size_t q = 0; q < n_queries; ++q) {
      others[q].expect(static_cast<int64_t>(tops[q].size()));
      others[q].reserve(request.k);
      others[q].take_all(tops[q]);
    }
    tops.swap(others);
    counters.rows_seen += more.rows_seen;
    counters.rows_rescored += more.rows_rescored;
    counters.tiles += more.tiles;
    counters.threads = more.threads > counters.threads ? more.threads : counters.threads;
    counters.screened = counters.screened || more.screened;
    counters.device_failed = true;
  }
  write_output(tops, static_cast<size_t>(request.k), output);
  return counters;
}

}  // namespace warpmem
