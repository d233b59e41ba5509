// A scan of which a device does a part: it takes the lists that it has in the very version of the snapshot, the host scans the others meanwhile, and the
// results of both are joined by the one total order. When the device fails the host scans its lists too. A scan with more results than the device has room
// for goes query by query, over the one snapshot. Of a pool with product-quantisation codes the device takes all lists or none.
#include <algorithm>

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
    call.refine = request.refine;
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

// What a device found, to what is known.
void offer(const ScanFound& found, int64_t k, std::vector<TopK>* tops) {
  for (size_t q = 0; q < tops->size(); ++q) {
    TopK& top = (*tops)[q];
    top.expect(found.counts[q]);
    top.reserve(k);
    const Candidate* const first = found.candidates + static_cast<int64_t>(q) * found.k;
    for (int32_t i = 0; i < found.counts[q]; ++i) top.offer(first[i]);
  }
}

// One call of the device. Marks the lists that it answered for.
ScanCounters scan_call(const ScanPort& device, const Kernels& kernels, const Pool& pool, const ScanRequest& request,
                       const SegmentGroups& groups, const std::vector<ListHead>& heads, const ScanOutput& output,
                       Workers* workers, std::vector<uint8_t>* answered) {
  const Call call(device, request, groups, heads);
  std::vector<uint8_t> marks(heads.size(), 0);
  Taken taken(device, call.call, marks.data());
  if (!taken) return scan(kernels, pool, request, groups, heads, output, workers);

  const auto n_queries = static_cast<size_t>(request.n_queries);
  if (pool.books() != nullptr) {  // all lists are the device's
    ScanFound found;
    if (!taken.finish(&found)) {
      ScanCounters counters = scan(kernels, pool, request, groups, heads, output, workers);
      counters.device_failed = true;
      return counters;
    }
    std::vector<TopK> tops(n_queries);
    offer(found, request.k, &tops);
    write_output(tops, static_cast<size_t>(request.k), output);
    ScanCounters counters;
    counters.rows_seen = found.rows_seen;
    counters.rows_rescored = found.rows_rescored;
    counters.screened = true;
    answered->swap(marks);
    return counters;
  }
  const auto on_host = [&](uint8_t mark, std::vector<TopK>* tops) {
    return scan_lists(kernels, pool, request, groups, marked(heads, marks, mark), output, workers, tops);
  };
  std::vector<TopK> tops;
  ScanCounters counters = on_host(0, &tops);
  std::vector<TopK> others(n_queries);
  ScanFound found;
  if (taken.finish(&found)) {
    offer(found, request.k, &tops);
    counters.rows_seen += found.rows_seen;
    counters.rows_rescored += found.rows_rescored;
    answered->swap(marks);
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

// Some of a scan's queries, as a scan of its own over the same snapshot.
struct QueryRange {
  ScanRequest request;
  SegmentGroups groups;
  std::vector<ListHead> heads;
  std::vector<size_t> whole;  // by list: which of the whole scan's it is
  ScanOutput output;

  // segments: of the whole request, those of queries [first, last) from `begin` to `end`; group_of: their lists.
  QueryRange(const ScanRequest& all, const SegmentGroups& all_groups, const std::vector<ListHead>& all_heads,
             const ScanOutput& all_output, int64_t dim, int64_t first, int64_t last, const uint32_t* begin, const uint32_t* end,
             const std::vector<int64_t>& group_of)
      : output(all_output) {
    request.queries = all.queries + first * dim;
    request.n_queries = last - first;
    request.k = all.k;
    request.refine = all.refine;
    request.min_similarity = all.min_similarity;
    request.ranking = all.ranking;
    request.filters = all.filters;
    request.terms = all.terms;
    request.values = all.values;
    std::vector<int64_t> lists;
    for (const uint32_t* s = begin; s != end; ++s) {
      const Segment segment = all.segment(*s);
      request.segment_queries.push_back(segment.query - static_cast<uint32_t>(first));
      request.segment_groups.push_back(segment.group);
      request.segment_filters.push_back(segment.filter);
      lists.push_back(group_of[*s]);
    }
    groups = group_segments(lists.data(), lists.size());
    for (int64_t& list : groups.list_ids) {
      const auto g = static_cast<size_t>(list);
      whole.push_back(g);
      heads.push_back(all_heads[g]);
      list = all_groups.list_ids[g];
    }
    const int64_t at = first * all.k;
    output.scores += at;
    output.similarities += at;
    output.list_ids += at;
    output.row_ids += at;
    output.counts += first;
    if (output.groups != nullptr) output.groups += at;
    if (output.ordinals != nullptr) output.ordinals += at;
  }
};

}  // namespace

ScanCounters scan(const ScanPort& device, const Kernels& kernels, const Pool& pool, const ScanRequest& request,
                  const SegmentGroups& groups, const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers) {
  std::vector<uint8_t> answered(heads.size(), 0);
  ScanCounters counters;
  const int64_t step = std::max<int64_t>(1, device.most_results / request.k);
  if (request.n_queries <= step) {
    counters = scan_call(device, kernels, pool, request, groups, heads, output, workers, &answered);
  } else {
    std::vector<int64_t> group_of(groups.order.size());
    std::vector<size_t> ends(static_cast<size_t>(request.n_queries) + 1, 0);
    for (size_t g = 0; g < groups.list_ids.size(); ++g) {
      for (size_t at = groups.begin[g]; at < groups.begin[g + 1]; ++at) {
        group_of[groups.order[at]] = static_cast<int64_t>(g);
        ++ends[request.segment_queries[groups.order[at]] + size_t{1}];
      }
    }
    for (size_t q = 1; q < ends.size(); ++q) ends[q] += ends[q - 1];
    std::vector<size_t> next(ends.begin(), ends.end() - 1);
    std::vector<uint32_t> by_query(groups.order.size());
    for (uint32_t s = 0; s < by_query.size(); ++s) by_query[next[request.segment_queries[s]]++] = s;
    for (int64_t first = 0; first < request.n_queries; first += step) {
      const int64_t last = std::min(first + step, request.n_queries);
      const QueryRange range(request, groups, heads, output, pool.layout().dim, first, last,
                             by_query.data() + ends[static_cast<size_t>(first)],
                             by_query.data() + ends[static_cast<size_t>(last)], group_of);
      ScanPort port = device;
      if (port.queries != nullptr) port.queries = static_cast<const float*>(port.queries) + first * pool.layout().dim;
      std::vector<uint8_t> marks(range.heads.size(), 0);
      const ScanCounters did =
          scan_call(port, kernels, pool, range.request, range.groups, range.heads, range.output, workers, &marks);
      for (size_t g = 0; g < marks.size(); ++g) answered[range.whole[g]] |= marks[g];
      counters.rows_seen += did.rows_seen;
      counters.rows_rescored += did.rows_rescored;
      counters.tiles += did.tiles;
      counters.threads = std::max(counters.threads, did.threads);
      counters.screened = counters.screened || did.screened;
      counters.device_failed = counters.device_failed || did.device_failed;
    }
  }
  for (const uint8_t mark : answered) counters.device_lists += mark;
  return counters;
}

}  // namespace warpmem
