#include "scan.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace warpmem {

namespace {

// The k best candidates seen, as a heap whose front is the worst of them.
class TopK {
 public:
  void expect(int64_t rows) { expected_ += rows; }
  void reserve(int64_t k) {
    k_ = static_cast<size_t>(k);
    heap_.reserve(std::min(k_, static_cast<size_t>(expected_)));
  }

  // Cheap refusal of a score that cannot enter.
  bool refuses(float score) const { return heap_.size() == k_ && score < heap_.front().score; }

  void offer(const Candidate& candidate) {
    if (heap_.size() < k_) {
      heap_.push_back(candidate);
      std::push_heap(heap_.begin(), heap_.end(), better);
    } else if (better(candidate, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.back() = candidate;
      std::push_heap(heap_.begin(), heap_.end(), better);
    }
  }

  const std::vector<Candidate>& sorted() {
    std::sort_heap(heap_.begin(), heap_.end(), better);
    return heap_;
  }

 private:
  std::vector<Candidate> heap_;
  size_t k_ = 0;
  int64_t expected_ = 0;
};

// One page for one segment: filters, similarities of the rows that pass, selection.
void scan_page(const Kernels& kernels, const PageLayout& layout, const ScanRequest& request, const Segment& segment,
               int64_t list_id, const unsigned char* page, uint64_t mask, const double* query, TopK& top) {
  for (size_t t = segment.terms_begin; t < segment.terms_end && mask != 0; ++t) {
    const Term& term = request.terms[t];
    mask = filter_term(term, request.values.data() + segment.values_begin, layout.column(page, term.column), mask);
  }
  const int64_t* const row_ids = layout.row_ids(page);
  if (segment.bitmap != nullptr && mask != 0) mask = filter_bitmap(segment.bitmap, segment.bitmap_words, row_ids, mask);
  if (mask == 0) return;

  float similarities[kPageRows];
  kernels.dots(layout.row(page, 0), layout.padded, mask, query, similarities);

  const Ranking& ranking = request.ranking;
  const uint32_t* const ordinals = layout.ordinals(page);
  for (; mask != 0; mask &= mask - 1) {
    const int i = __builtin_ctzll(mask);
    const float similarity = similarities[i];
    if (!(static_cast<double>(similarity) >= request.min_similarity)) continue;
    const int64_t recency = ranking.w_recency != 0.0 ? layout.column(page, ranking.recency_column)[i] : 0;
    const int64_t priority = ranking.w_priority != 0.0 ? layout.column(page, ranking.priority_column)[i] : 0;
    const float score = final_score(ranking, similarity, recency, priority);
    if (top.refuses(score)) continue;
    top.offer(Candidate{score, similarity, segment.group, ordinals[i], row_ids[i], list_id});
  }
}

}  // namespace

void scan(const Kernels& kernels, const PageLayout& layout, const ScanRequest& request, const std::vector<ListHead>& heads,
          const ScanOutput& output) {
  const auto n_queries = static_cast<size_t>(request.n_queries);
  const auto padded = static_cast<size_t>(layout.padded);

  std::vector<double> queries(n_queries * padded);  // widened once, zero behind dim
  for (size_t q = 0; q < n_queries; ++q) {
    const float* const from = request.queries + q * static_cast<size_t>(layout.dim);
    std::copy(from, from + layout.dim, queries.begin() + static_cast<std::ptrdiff_t>(q * padded));
  }

  std::vector<TopK> tops(n_queries);
  for (size_t s = 0; s < request.segments.size(); ++s) {
    if (heads[s]) tops[static_cast<size_t>(request.segments[s].query)].expect(heads[s]->live);
  }
  for (TopK& top : tops) top.reserve(request.k);

  // Segments of one list run together, page by page, so that a batch of queries reads its rows from memory once.
  std::vector<size_t> order(request.segments.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return request.list_ids[a] != request.list_ids[b] ? request.list_ids[a] < request.list_ids[b] : a < b;
  });
  for (size_t first = 0; first < order.size();) {
    const int64_t list_id = request.list_ids[order[first]];
    size_t last = first + 1;
    while (last < order.size() && request.list_ids[order[last]] == list_id) ++last;
    if (const ListHead& head = heads[order[first]]) {
      for (const auto& block : head->blocks) {
        for (size_t p = 0; p < kBlockPages; ++p) {
          if (block->valid[p] == 0) continue;
          const unsigned char* const page = static_cast<const Page&>(*block->pages[p]).data();
          for (size_t i = first; i < last; ++i) {
            const Segment& segment = request.segments[order[i]];
            const auto q = static_cast<size_t>(segment.query);
            scan_page(kernels, layout, request, segment, list_id, page, block->valid[p], queries.data() + q * padded, tops[q]);
          }
        }
      }
    }
    first = last;
  }

  const auto k = static_cast<size_t>(request.k);
  for (size_t q = 0; q < n_queries; ++q) {
    const std::vector<Candidate>& best = tops[q].sorted();
    output.counts[q] = static_cast<int32_t>(best.size());
    for (size_t i = 0; i < k; ++i) {
      const bool found = i < best.size();
      const size_t at = q * k + i;
      output.scores[at] = found ? best[i].score : -INFINITY;
      output.similarities[at] = found ? best[i].similarity : -INFINITY;
      output.list_ids[at] = found ? best[i].list_id : -1;
      output.row_ids[at] = found ? best[i].row_id : -1;
    }
  }
}

}  // namespace warpmem
