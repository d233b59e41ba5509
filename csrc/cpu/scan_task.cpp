#include "scan_task.hpp"

#include <algorithm>
#include <cmath>

#include "../core/score_bound.hpp"

namespace warpmem {

namespace {

constexpr int kFetch = 4;   // survivors of a page that are fetched ahead; of more, most will not be rescored
constexpr int kSparse = 2;  // so few wanted rows of a page are rescored without screening them

}  // namespace

ScanWorker::ScanWorker(const ScanContext& context, int64_t max_queries, int64_t max_pages)
    : tops(static_cast<size_t>(context.request.n_queries)), context_(context), layout_(context.layout) {
  const int64_t pages = std::min(max_pages, kChunkPages);
  chunk_rows_ = pages * kPageRows;
  masks_.resize(static_cast<size_t>(max_queries * kChunkPages));
  untested_.resize(static_cast<size_t>(max_queries));
  if (layout_.storage != Storage::kF32) row_.resize(static_cast<size_t>(layout_.padded));
  if (context.bounds != nullptr) {
    bounds_.resize(static_cast<size_t>(max_queries * chunk_rows_));
    candidates_.reserve(static_cast<size_t>(chunk_rows_));
  }
}

void ScanWorker::run(const ScanTask& task, const ScanList& list) noexcept {
  const std::vector<std::shared_ptr<const Block>>& blocks = list.list->blocks;
  // The first chunks are short: until k rows are known, every row must be rescored or at least ranked.
  size_t limit = 2;
  for (int64_t next = task.page_begin; next < task.page_end; limit = std::min<size_t>(2 * limit, kChunkPages)) {
    n_pages_ = 0;
    for (; next < task.page_end && n_pages_ < limit && static_cast<int64_t>(n_pages_) * kPageRows < chunk_rows_; ++next) {
      const Block& block = *blocks[static_cast<size_t>(next / kBlockPages)];
      const auto p = static_cast<size_t>(next % kBlockPages);
      if (block.valid[p] == 0) continue;
      const Page& source = *block.pages[p];
      pages_[n_pages_] = source.memory();
      sources_[n_pages_] = &source;
      unchecked_[n_pages_] = static_cast<unsigned char>(source.unchecked());
      spans_[n_pages_] = block.spans.empty() ? nullptr : block.spans.data() + p * static_cast<size_t>(layout_.n_columns);
      valid_[n_pages_++] = block.valid[p];
    }
    filter_chunk(task, list);
    if (context_.bounds != nullptr) {
      if (context_.ranked) extras_chunk();
      screen_chunk(task, list);
    }
    for (int64_t at = 0; at < task.query_end - task.query_begin; ++at) {
      const Segment segment = context_.request.segment(list.segments[task.query_begin + at]);
      if (context_.bounds != nullptr && context_.bounds[segment.query].codes != nullptr) {
        select(segment, list.list_id, at);
      } else {
        for (size_t p = 0; p < n_pages_; ++p) {
          const uint64_t mask = test_late(segment, at, p, masks_[static_cast<size_t>(at * kChunkPages) + p]);
          score_page(segment, list.list_id, pages_[p], mask);
        }
      }
    }
  }
}

void ScanWorker::check(size_t p, unsigned planes) noexcept {
  if (sources_[p]->check(planes)) {
    unchecked_[p] = static_cast<unsigned char>(sources_[p]->unchecked());
  } else if (damaged == nullptr) {
    damaged = sources_[p];
    damaged_planes = planes;
  }
}

// --------------------------------------------------------------------------------------------- screen

float ScanWorker::threshold_of(size_t query) const noexcept {
  const float own = tops[query].threshold();
  if (context_.floors == nullptr) return own;
  return std::max(own, context_.floors[query].load(std::memory_order_relaxed));
}

float ScanWorker::floor_of(float threshold) const noexcept {
  return score_floor(context_.request.ranking, context_.min_similarity, threshold, context_.added);
}

ScreenPage ScanWorker::screened(size_t p) const noexcept {
  const float* const extra = context_.added ? sums_[p] : context_.ranked ? extras_[p] : nullptr;
  return ScreenPage{pages_[p].coarse, pages_[p].fine, layout_.padded / kLineElements, extra, context_.l2};
}

// Rows lie far from each other in memory: asked for early, they arrive while the screen goes on.
void ScanWorker::fetch(const ConstPage& page, int slot) const noexcept {
  const unsigned char* const row = page.rows + slot * layout_.row_bytes();
  for (int64_t i = 0; i < layout_.row_bytes(); i += 64) __builtin_prefetch(row + i);
}

void ScanWorker::fetch_fine(const ConstPage& page, uint64_t rows) const noexcept {
  const int64_t bytes = layout_.fine_bytes / (kPageRows / kCodeRows);
  for (int group = 0; group < kPageRows; group += kCodeRows) {
    if (((rows >> group) & 0xffffu) == 0) continue;
    const unsigned char* const plane = page.fine + group / kCodeRows * bytes;
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(plane + i);
  }
}

void ScanWorker::screen_chunk(const ScanTask& task, const ScanList& list) noexcept {
  const int64_t n = task.query_end - task.query_begin;
  const int64_t together = context_.added ? 1 : kScreenQueries;  // extras are the same for all of them
  for (int64_t first = 0; first < n; first += together) {
    ScreenQuery block[kScreenQueries];
    int64_t at_of[kScreenQueries];
    int count = 0;
    for (int64_t at = first; at < std::min(n, first + together); ++at) {
      const Segment segment = context_.request.segment(list.segments[task.query_begin + at]);
      const QueryBound& query = context_.bounds[segment.query];
      if (query.codes == nullptr) continue;
      if (context_.added) added_chunk(segment, masks_.data() + at * kChunkPages);
      const float floor = floor_of(threshold_of(segment.query));
      at_of[count] = at;
      block[count++] =
          ScreenQuery{query.codes, query.sum, query.scale, query.norm, query.error, query.square, floor, context_.min_similarity,
                      0,           0,         nullptr};
    }
    for (size_t p = 0; p < n_pages_ && count > 0; ++p) {
      uint64_t any = 0;
      uint64_t sparse = 0;
      for (int j = 0; j < count; ++j) {
        const uint64_t mask = masks_[static_cast<size_t>(at_of[j] * kChunkPages) + p];
        block[j].mask = mask;
        block[j].bounds = bounds_.data() + at_of[j] * chunk_rows_ + static_cast<int64_t>(p) * kPageRows;
        any |= mask;
      }
      sparse_[p] = 0;
      if (any == 0) continue;
      touch(pages_[p], kCoarsePlane);
      if (count == 1 && __builtin_popcountll(any) <= kSparse) {
        sparse = any;
        block[0].mask = 0;
        block[0].survivors = 0;
      }
      if (block[0].mask != 0 || count > 1) context_.kernels.screen(screened(p), block, count);
      sparse_[p] = sparse;
      for (int j = 0; j < count; ++j) {
        masks_[static_cast<size_t>(at_of[j] * kChunkPages) + p] = block[j].survivors;
        if (count == 1) fetch_fine(pages_[p], block[j].survivors);
      }
    }
    for (int j = 0; j < count; ++j) {
      for (size_t p = 0; p < n_pages_; ++p) {
        uint64_t& mask = masks_[static_cast<size_t>(at_of[j] * kChunkPages) + p];
        block[j].bounds = bounds_.data() + at_of[j] * chunk_rows_ + static_cast<int64_t>(p) * kPageRows;
        if (mask != 0) {
          block[j].mask = mask;
          touch(pages_[p], kFinePlane);
          context_.kernels.refine(screened(p), block[j]);
          mask = block[j].survivors;
        }
        if (count == 1) {
          for (uint64_t bits = sparse_[p]; bits != 0; bits &= bits - 1) block[j].bounds[__builtin_ctzll(bits)] = INFINITY;
          mask |= sparse_[p];
        }
        mask = test_late(context_.request.segment(list.segments[task.query_begin + at_of[j]]), at_of[j], p, mask);
        if (count > 1) continue;
        if (__builtin_popcountll(mask) > kFetch) continue;
        for (uint64_t bits = mask; bits != 0; bits &= bits - 1) fetch(pages_[p], __builtin_ctzll(bits));
      }
    }
  }
}

// --------------------------------------------------------------------------------------------- rescoring and selection

// Rows in order of their bounds, best first, until a bound lies below the k-th best.
void ScanWorker::select(const Segment& segment, int64_t list_id, int64_t at) noexcept {
  const size_t query = segment.query;
  const float* const bounds = bounds_.data() + at * chunk_rows_;
  candidates_.clear();
  for (size_t p = 0; p < n_pages_; ++p) {
    for (uint64_t bits = masks_[static_cast<size_t>(at * kChunkPages) + p]; bits != 0; bits &= bits - 1) {
      const int slot = __builtin_ctzll(bits);
      const auto row = static_cast<uint32_t>(p * kPageRows) + static_cast<uint32_t>(slot);
      candidates_.push_back(Bounded{bounds[row] < INFINITY ? bounds[row] : INFINITY, row});
    }
  }
  if (candidates_.empty()) return;

  const auto later = [](const Bounded& a, const Bounded& b) { return a.bound < b.bound; };
  std::make_heap(candidates_.begin(), candidates_.end(), later);
  const double* const wide = context_.queries + static_cast<int64_t>(query) * layout_.padded;
  while (!candidates_.empty()) {
    const Bounded best = candidates_.front();
    if (best.bound < floor_of(threshold_of(query))) break;
    std::pop_heap(candidates_.begin(), candidates_.end(), later);
    candidates_.pop_back();
    if (!candidates_.empty()) {  // most likely the next one
      const uint32_t next = candidates_.front().row;
      fetch(pages_[next / kPageRows], static_cast<int>(next % kPageRows));
    }
    const ConstPage& page = pages_[best.row / kPageRows];
    const auto slot = static_cast<int>(best.row % kPageRows);
    ++rows_rescored;
    offer(segment, list_id, page, slot, exact(page, slot, wide));
  }
  if (context_.floors != nullptr) {
    std::atomic<float>& shared = context_.floors[query];
    const float own = tops[query].threshold();
    float known = shared.load(std::memory_order_relaxed);
    while (known < own && !shared.compare_exchange_weak(known, own, std::memory_order_relaxed)) {
    }
  }
}

// Without a screen: every row of the mask. Where the similarity has no weight, none is compared that is not good enough without it.
void ScanWorker::score_page(const Segment& segment, int64_t list_id, const ConstPage& page, uint64_t mask) noexcept {
  const double* const wide = context_.queries + static_cast<int64_t>(segment.query) * layout_.padded;
  if (context_.request.ranking.w_similarity == 0.0) {
    if (mask != 0) touch(page, kHeadPlane);
    for (; mask != 0; mask &= mask - 1) {
      const int slot = __builtin_ctzll(mask);
      if (whole_of(segment, page, slot, 0.0f) < tops[segment.query].threshold()) continue;
      ++rows_rescored;
      offer(segment, list_id, page, slot, exact(page, slot, wide));
    }
    return;
  }
  rows_rescored += __builtin_popcountll(mask);
  float similarities[kPageRows];
  if (layout_.storage == Storage::kF32) {
    if (mask != 0) touch(page, kRowsPlane);
    (context_.l2 ? context_.kernels.distances : context_.kernels.dots)(layout_.row(page, 0), layout_.padded, mask, wide,
                                                                       similarities);
  } else {
    for (uint64_t bits = mask; bits != 0; bits &= bits - 1) {
      const int slot = __builtin_ctzll(bits);
      similarities[slot] = exact(page, slot, wide);
    }
  }
  for (; mask != 0; mask &= mask - 1) {
    const int slot = __builtin_ctzll(mask);
    offer(segment, list_id, page, slot, similarities[slot]);
  }
}

float ScanWorker::exact(const ConstPage& page, int slot, const double* query) noexcept {
  const Kernels& kernels = context_.kernels;
  auto* const measure = context_.l2 ? kernels.distances : kernels.dots;
  float similarities[kPageRows];
  touch(page, row_planes(layout_));
  if (layout_.storage == Storage::kF32) {
    measure(layout_.row(page, 0), layout_.padded, uint64_t{1} << slot, query, similarities);
    return similarities[slot];
  }
  if (layout_.storage == Storage::kF16) {
    kernels.widen(layout_.half_row(page, slot), layout_.padded, row_.data());
  } else {
    kernels.decode(page.coarse, page.fine, slot, layout_.padded / kLineElements, layout_.coarse_bound(page, kScale, slot),
                   row_.data());
  }
  measure(row_.data(), layout_.padded, 1, query, similarities);
  return similarities[0];
}

float ScanWorker::final_of(const ConstPage& page, int slot, float similarity) const noexcept {
  const Ranking& r = context_.request.ranking;
  const int64_t recency = r.w_recency != 0.0 ? layout_.column(page, r.recency_column)[slot] : 0;
  const int64_t priority = r.w_priority != 0.0 ? layout_.column(page, r.priority_column)[slot] : 0;
  return final_score(r, similarity, recency, priority);
}

float ScanWorker::whole_of(const Segment& segment, const ConstPage& page, int slot, float similarity) const noexcept {
  const float score = final_of(page, slot, similarity);
  return context_.added ? add_score(score, segment.added.of(layout_.row_ids(page)[slot])) : score;
}

void ScanWorker::offer(const Segment& segment, int64_t list_id, const ConstPage& page, int slot, float similarity) noexcept {
  if (!(static_cast<double>(similarity) >= context_.request.min_similarity)) return;
  TopK& top = tops[segment.query];
  touch(page, kHeadPlane);
  const float score = whole_of(segment, page, slot, similarity);
  if (score < top.threshold()) return;
  top.offer(Candidate{score, similarity, segment.group, layout_.ordinals(page)[slot], layout_.row_ids(page)[slot], list_id});
}

}  // namespace warpmem
