#include "scan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "../core/int8.hpp"
#include "../core/planner.hpp"
#include "../core/score_bound.hpp"
#include "flat_map.hpp"
#include "scan_pq.hpp"
#include "scan_task.hpp"

namespace warpmem {

namespace {

struct Job {
  const ScanPlan& plan;
  const std::vector<ScanList>& lists;
  std::vector<ScanWorker>& workers;
  std::atomic<size_t> next{0};
};

void work(void* context, int32_t index) {
  Job& job = *static_cast<Job*>(context);
  for (;;) {
    const size_t at = job.next.fetch_add(1, std::memory_order_relaxed);
    if (at >= job.plan.tasks.size()) return;
    const ScanTask& task = job.plan.tasks[at];
    job.workers[static_cast<size_t>(index)].run(task, job.lists[static_cast<size_t>(task.group)]);
  }
}

}  // namespace

void write_output(std::vector<TopK>& tops, size_t k, const ScanOutput& output) {
  for (size_t q = 0; q < tops.size(); ++q) {
    const std::vector<Candidate>& best = tops[q].sorted();
    output.counts[q] = static_cast<int32_t>(best.size());
    for (size_t i = 0; i < k; ++i) {
      const bool found = i < best.size();
      const size_t at = q * k + i;
      output.scores[at] = found ? best[i].score : -INFINITY;
      output.similarities[at] = found ? best[i].similarity : -INFINITY;
      output.list_ids[at] = found ? best[i].list_id : -1;
      output.row_ids[at] = found ? best[i].row_id : -1;
      if (output.groups == nullptr) continue;
      output.groups[at] = found ? best[i].group : 0;
      output.ordinals[at] = found ? best[i].ordinal : 0;
    }
  }
}

SegmentGroups group_segments(const int64_t* list_ids, size_t n) {
  SegmentGroups groups;
  FlatMap<int32_t, -1> known;
  std::vector<uint32_t> group_of(n);
  for (size_t s = 0; s < n; ++s) {
    const int64_t list_id = list_ids[s];
    int32_t group = known.find(list_id);
    if (group < 0) {
      group = static_cast<int32_t>(groups.list_ids.size());
      known.reserve(known.size() + 1);
      known.put(list_id, group);
      groups.list_ids.push_back(list_id);
      groups.begin.push_back(0);
    }
    group_of[s] = static_cast<uint32_t>(group);
    ++groups.begin[group_of[s]];
  }
  size_t end = 0;  // counts become ends, and the segments, taken from the last to the first, turn these into begins
  for (size_t& count : groups.begin) count = end += count;
  groups.begin.push_back(end);
  groups.order.resize(n);
  for (size_t s = n; s-- > 0;) groups.order[--groups.begin[group_of[s]]] = static_cast<uint32_t>(s);
  return groups;
}

SegmentGroups ungrouped_segments(const int64_t* list_ids, size_t n) {
  SegmentGroups groups;
  groups.list_ids.assign(list_ids, list_ids + n);
  groups.begin.resize(n + 1);
  groups.order.resize(n);
  std::iota(groups.begin.begin(), groups.begin.end(), size_t{0});
  std::iota(groups.order.begin(), groups.order.end(), uint32_t{0});
  return groups;
}

ScanCounters scan(const Kernels& kernels, const Pool& pool, const ScanRequest& request, const SegmentGroups& groups,
                  const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers) {
  return scan_lists(kernels, pool, request, groups, heads, output, workers, nullptr);
}

ScanCounters scan_lists(const Kernels& kernels, const Pool& pool, const ScanRequest& request, const SegmentGroups& groups,
                        const std::vector<ListHead>& heads, const ScanOutput& output, Workers* workers, std::vector<TopK>* tops) {
  const PageLayout& layout = pool.layout();
  const auto n_queries = static_cast<size_t>(request.n_queries);
  const auto padded = static_cast<size_t>(layout.padded);

  std::vector<ScanList> lists;
  std::vector<ScanGroup> sizes;
  lists.reserve(heads.size());
  sizes.reserve(heads.size());
  int64_t max_pages = 0;
  int64_t max_queries = 0;
  for (size_t g = 0; g < heads.size(); ++g) {
    if (!heads[g]) continue;
    lists.push_back(ScanList{heads[g].get(), groups.list_ids[g], groups.order.data() + groups.begin[g]});
    sizes.push_back(
        ScanGroup{(heads[g]->slots + kPageRows - 1) / kPageRows, static_cast<int64_t>(groups.begin[g + 1] - groups.begin[g])});
    max_pages = std::max(max_pages, sizes.back().pages);
    max_queries = std::max(max_queries, std::min(sizes.back().queries, kPlanQueries));
  }
  const int64_t row_work = pool.books() != nullptr ? pool.books()->shape().pq_dim / 2 : layout.padded;  // of a row
  const ScanPlan plan = plan_scan(sizes, row_work, workers == nullptr ? 1 : workers->threads());

  PqQueries own;
  PqQueries& prepared = request.prepared != nullptr ? *request.prepared : own;
  if (prepared.wide.empty()) {  // widened once, zero behind dim
    prepared.wide.resize(n_queries * padded);
    for (size_t q = 0; q < n_queries; ++q) {
      const float* const from = request.queries + q * static_cast<size_t>(layout.dim);
      std::copy(from, from + layout.dim, prepared.wide.begin() + static_cast<std::ptrdiff_t>(q * padded));
    }
  }

  const Ranking& ranking = request.ranking;
  ScanContext context{kernels, layout, pool.metric() == Metric::kL2, request};
  context.ranked = ranking.w_recency != 0.0 || ranking.w_priority != 0.0;
  context.added = !request.segment_added.empty();
  context.plain = ranking.w_similarity == 1.0 && ranking.w_recency == 0.0 && ranking.w_priority == 0.0;
  context.min_similarity = not_above(request.min_similarity);
  context.queries = prepared.wide.data();
  if (pool.books() != nullptr) {
    return scan_pq(context, pool, PqScanInput{plan, lists, sizes, groups.order, prepared, max_queries, max_pages}, output,
                   workers);
  }

  std::vector<int8_t> codes;
  std::vector<QueryBound> bounds;
  if (pool.screened() && can_bound(ranking)) {
    codes.resize(n_queries * padded);
    bounds.resize(n_queries);
    for (size_t q = 0; q < n_queries; ++q) {
      quantize_query(request.queries + q * static_cast<size_t>(layout.dim), layout.dim, layout.padded, codes.data() + q * padded,
                     &bounds[q]);
    }
    context.bounds = bounds.data();
  }
  std::vector<std::atomic<float>> floors(plan.threads > 1 ? n_queries : 0);
  for (std::atomic<float>& floor : floors) floor.store(-INFINITY, std::memory_order_relaxed);
  if (!floors.empty()) context.floors = floors.data();

  std::vector<ScanWorker> states;
  states.reserve(static_cast<size_t>(plan.threads));
  for (int32_t t = 0; t < plan.threads; ++t) {
    ScanWorker& state = states.emplace_back(context, max_queries, max_pages);
    for (size_t g = 0; g < lists.size(); ++g) {
      for (int64_t at = 0; at < sizes[g].queries; ++at) {
        state.tops[request.segment_queries[lists[g].segments[at]]].expect(lists[g].list->live);
      }
    }
    for (TopK& top : state.tops) top.reserve(request.k);
  }

  Job job{plan, lists, states};
  if (plan.threads > 1) {
    workers->run(plan.threads, work, &job);
  } else {
    work(&job, 0);
  }

  for (const ScanWorker& state : states) {
    if (state.damaged != nullptr) throw state.damaged->damage(state.damaged_planes);
  }
  ScanCounters counters;
  counters.tiles = plan.tiles;
  counters.threads = plan.threads;
  counters.screened = context.bounds != nullptr;
  for (size_t t = 0; t < states.size(); ++t) {
    counters.rows_seen += states[t].rows_seen;
    counters.rows_rescored += states[t].rows_rescored;
    for (size_t q = 0; t > 0 && q < n_queries; ++q) states[0].tops[q].take_all(states[t].tops[q]);
  }
  if (tops != nullptr) {
    *tops = std::move(states[0].tops);
  } else {
    write_output(states[0].tops, static_cast<size_t>(request.k), output);
  }
  return counters;
}

}  // namespace warpmem
