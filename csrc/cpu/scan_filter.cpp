// What a task knows of its rows besides their codes: filters, and what else their scores are made of. See scan_task.hpp.
#include <algorithm>

#include "../core/score_bound.hpp"
#include "scan_task.hpp"

namespace warpmem {

namespace {

constexpr int64_t kLateSample = 32;  // rows tested late that say something about the filter

}  // namespace

// --------------------------------------------------------------------------------------------- filters

bool ScanWorker::same_filter(uint32_t left, uint32_t right) const noexcept {
  if (left == right) return true;
  const ScanRequest& request = context_.request;
  const Filter& a = request.filters[left];
  const Filter& b = request.filters[right];
  if (a.bitmap != b.bitmap || a.bitmap_words != b.bitmap_words || a.terms_end - a.terms_begin != b.terms_end - b.terms_begin ||
      a.values_end - a.values_begin != b.values_end - b.values_begin) {
    return false;
  }
  const auto same_term = [](const Term& x, const Term& y) {
    return x.column == y.column && x.op == y.op && x.lo == y.lo && x.hi == y.hi;
  };
  return std::equal(request.terms.begin() + static_cast<std::ptrdiff_t>(a.terms_begin),
                    request.terms.begin() + static_cast<std::ptrdiff_t>(a.terms_end),
                    request.terms.begin() + static_cast<std::ptrdiff_t>(b.terms_begin), same_term) &&
         std::equal(request.values.begin() + static_cast<std::ptrdiff_t>(a.values_begin),
                    request.values.begin() + static_cast<std::ptrdiff_t>(a.values_end),
                    request.values.begin() + static_cast<std::ptrdiff_t>(b.values_begin));
}

// What can be said of page p without a look at its rows.
Verdict ScanWorker::judge(const Filter& filter, size_t p) const noexcept {
  int8_t stack[kMaxDepth];
  int depth = 0;
  for (size_t t = filter.terms_begin; t < filter.terms_end; ++t) {
    const Term& term = context_.request.terms[t];
    if (term.op >= kAnd) {
      depth = join_verdicts(term.op, stack, depth);
    } else if (spans_[p] == nullptr) {
      stack[depth++] = kSome;
    } else {
      const Span& span = spans_[p][term.column];
      stack[depth++] = static_cast<int8_t>(judge_term(term, values_of(filter), span.lo, span.hi));
    }
    if (!filter.joined) {  // all must hold
      if (stack[0] == kNone) return kNone;
      if (depth == 2) depth = join_verdicts(kAnd, stack, depth);
    }
  }
  int8_t verdict = filter.bitmap == nullptr ? kAll : kSome;
  while (depth > 0) verdict = std::min(verdict, stack[--depth]);
  return static_cast<Verdict>(verdict);
}

uint64_t ScanWorker::test(const Filter& filter, const Term& term, size_t p, uint64_t mask) noexcept {
  const int64_t* const values = values_of(filter);
  if (spans_[p] != nullptr) {
    const Span& span = spans_[p][term.column];
    const Verdict verdict = judge_term(term, values, span.lo, span.hi);
    if (verdict != kSome) return verdict == kAll ? mask : 0;
  }
  touch(pages_[p], kHeadPlane);
  const int64_t* const column = layout_.column(pages_[p], term.column);
  if (term.op == kRange) return context_.kernels.filter_range(column, term.lo, term.hi, mask);
  return context_.kernels.filter_members(column, values + term.lo, term.hi - term.lo, mask);
}

uint64_t ScanWorker::pass(const Filter& filter, size_t p, uint64_t mask) noexcept {
  const std::vector<Term>& terms = context_.request.terms;
  if (!filter.joined) {
    for (size_t t = filter.terms_begin; t < filter.terms_end && mask != 0; ++t) mask = test(filter, terms[t], p, mask);
  } else {
    uint64_t stack[kMaxDepth];
    int depth = 0;
    for (size_t t = filter.terms_begin; t < filter.terms_end; ++t) {
      if (terms[t].op < kAnd) {
        stack[depth++] = test(filter, terms[t], p, mask);
      } else {
        depth = join_terms(terms[t].op, stack, depth, mask);
      }
    }
    while (depth > 0) mask &= stack[--depth];
  }
  if (filter.bitmap != nullptr && mask != 0) {
    touch(pages_[p], kHeadPlane);
    mask = context_.kernels.filter_bitmap(filter.bitmap, filter.bitmap_words, layout_.row_ids(pages_[p]), mask);
  }
  return mask;
}

// Segments that filter like the one before them take over its rows.
void ScanWorker::filter_chunk(const ScanTask& task, const ScanList& list) noexcept {
  if (late_filters_) {  // go on so unless the last chunk found that the filters refuse most
    late_filters_ = late_rows_ < kLateSample || late_passed_ * 2 >= late_rows_;
  }
  late_rows_ = late_passed_ = 0;
  uint32_t previous = 0;
  int64_t rows = 0;
  int64_t tested = 0;
  int64_t passed = 0;
  for (int64_t at = 0; at < task.query_end - task.query_begin; ++at) {
    const uint32_t index = context_.request.segment(list.segments[task.query_begin + at]).filter;
    const auto q = static_cast<size_t>(at);
    uint64_t* const masks = masks_.data() + at * kChunkPages;
    if (at > 0 && same_filter(previous, index)) {
      std::copy(masks - kChunkPages, masks, masks);
      untested_[q] = untested_[q - 1];
    } else {
      const Filter& filter = context_.request.filters[index];
      rows = 0;
      untested_[q] = 0;
      for (size_t p = 0; p < n_pages_; ++p) {
        const Verdict verdict = judge(filter, p);
        masks[p] = verdict == kNone ? 0 : valid_[p];
        if (verdict == kSome && late_filters_) {
          untested_[q] = static_cast<uint16_t>(untested_[q] | 1u << p);
        } else if (verdict == kSome) {
          masks[p] = pass(filter, p, valid_[p]);
          tested += __builtin_popcountll(valid_[p]);
          passed += __builtin_popcountll(masks[p]);
        }
        rows += __builtin_popcountll(masks[p]);
      }
    }
    rows_seen += rows;
    previous = index;
  }
  if (context_.bounds != nullptr && tested > 0) late_filters_ = passed * 4 >= tested * 3;
}

// Those of the rows `mask` of page p that pass the filter of segment `at`, if that is not known yet.
uint64_t ScanWorker::test_late(const Segment& segment, int64_t at, size_t p, uint64_t mask) noexcept {
  if (mask == 0 || (untested_[static_cast<size_t>(at)] >> p & 1u) == 0) return mask;
  const uint64_t passed = pass(context_.request.filters[segment.filter], p, mask);
  late_rows_ += __builtin_popcountll(mask);
  late_passed_ += __builtin_popcountll(passed);
  return passed;
}

// --------------------------------------------------------------------------------------------- recency and priority

void ScanWorker::extras_chunk() noexcept {
  const Ranking& r = context_.request.ranking;
  for (size_t p = 0; p < n_pages_; ++p) {
    touch(pages_[p], kHeadPlane);
    const ScoreExtra terms{r.w_recency != 0.0 ? layout_.column(pages_[p], r.recency_column) : nullptr,
                           r.w_priority != 0.0 ? layout_.column(pages_[p], r.priority_column) : nullptr,
                           static_cast<double>(r.now),
                           1.0 / r.half_life,
                           r.w_recency / r.w_similarity,
                           r.w_priority / r.w_similarity};
    context_.kernels.extras(terms, extras_[p]);
  }
}

// masks: the rows of the chunk's pages that are still wanted.
void ScanWorker::added_chunk(const Segment& segment, const uint64_t* masks) noexcept {
  for (size_t p = 0; p < n_pages_; ++p) {
    if (masks[p] == 0) continue;
    touch(pages_[p], kHeadPlane);
    const int64_t* const row_ids = layout_.row_ids(pages_[p]);
    for (uint64_t bits = masks[p]; bits != 0; bits &= bits - 1) {
      const int slot = __builtin_ctzll(bits);
      const float extra = context_.ranked ? extras_[p][slot] : 0.0f;
      sums_[p][slot] = add_bound(context_.request.ranking, extra, segment.added.of(row_ids[slot]));
    }
  }
}

}  // namespace warpmem
