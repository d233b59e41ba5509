#include "scan_pq.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "../core/pq_bound.hpp"
#include "op_dispatch.hpp"
#include "share.hpp"
#include "shortlist.hpp"

namespace warpmem {
namespace {

constexpr int64_t kMaxPages = int64_t{1} << 26;  // of one query: a place is a number of 32 bits
constexpr size_t kAhead = 12;                    // rows that are fetched while one is rescored
constexpr size_t kFindAhead = 8;                 // and rows whose page is looked up while one is fetched

// By eight bits of a mask: a word of ones for each bit that is set, so that the words of eight rows are taken or left at once.
struct Wanted {
  uint16_t words[256][8] = {};

  constexpr Wanted() {
    for (int bits = 0; bits < 256; ++bits) {
      for (int row = 0; row < 8; ++row) words[bits][row] = (bits >> row & 1) != 0 ? uint16_t{0xffff} : uint16_t{0};
    }
  }
};
constexpr Wanted kWanted;

// What all tasks share.
struct Shared {
  const OpKernels& ops;
  const PqBooks& books;
  const PqScanInput& input;
  bool exact;          // kPq storage
  bool use_extras;     // Kernels::extras bounds what ranking adds
  size_t sure;         // rows of each query that are taken without rescoring
  size_t table_bytes;  // of one query
  const std::vector<uint8_t>& luts;
  const std::vector<PqTable>& tables;
  std::vector<uint32_t> first_page;     // by position in `order`: the number of its first page among the pages of its query
  std::vector<uint32_t> group;          // by position
  std::vector<const Page*> pages;       // of all lists, one after the other, so that a place leads to its page in one step
  std::vector<size_t> pages_begin;      // by group
  std::vector<size_t> positions_begin;  // by query, and the end of the last
  std::vector<uint32_t> positions;      // of each query, by the number of the first page
  std::vector<uint32_t> starts;         // and that number, side by side: they are searched for every row that is rescored
};

class PqWorker : public ScanWorker {
 public:
  PqWorker(const ScanContext& context, const Shared& shared, const PqScanInput& input)
      : ScanWorker(context, input.max_queries, input.max_pages), shared_(shared) {
    shortlists.resize(static_cast<size_t>(context.request.n_queries));
    row_.resize(static_cast<size_t>(context.layout.padded));
  }

  std::vector<Shortlist> shortlists;

  // after: the first page of what is likely to be scanned next; null: not known.
  void run(const ScanTask& task, const ScanList& list, const Page* after = nullptr) noexcept {
    const std::vector<std::shared_ptr<const Block>>& blocks = list.list->blocks;
    int64_t numbers[kChunkPages];
    for (int64_t next = task.page_begin; next < task.page_end;) {
      n_pages_ = 0;
      for (; next < task.page_end && static_cast<int64_t>(n_pages_) < kChunkPages &&
             static_cast<int64_t>(n_pages_) * kPageRows < chunk_rows_;
           ++next) {
        const Block& block = *blocks[static_cast<size_t>(next / kBlockPages)];
        const auto p = static_cast<size_t>(next % kBlockPages);
        if (block.valid[p] == 0) continue;
        take_source(n_pages_, *block.pages[p]);
        spans_[n_pages_] = block.spans.empty() ? nullptr : block.spans.data() + p * static_cast<size_t>(layout_.n_columns);
        valid_[n_pages_] = block.valid[p];
        numbers[n_pages_++] = next;
      }
      filter_chunk(task, list);
      if (context_.ranked && shared_.use_extras) extras_chunk();
      for (int64_t at = task.query_begin; at < task.query_end; ++at) {
        const auto position = static_cast<size_t>(list.segments - shared_.input.order.data() + at);
        const Segment segment = context_.request.segment(list.segments[at]);
        const uint64_t* const masks = masks_.data() + (at - task.query_begin) * kChunkPages;
        const bool first = at == task.query_begin;  // for the others the codes are near already
        for (size_t p = 0; p < n_pages_; ++p) {
          if (first && p + 1 < n_pages_) {
            fetch_codes(pages_[p + 1]);
          } else if (first && after != nullptr && next >= task.page_end) {
            fetch_codes(after->memory());
          }
          if (masks[p] == 0) continue;
          const uint32_t place = (shared_.first_page[position] + static_cast<uint32_t>(numbers[p])) * kPageRows;
          take_page(segment, list.list_id, p, masks[p], place);
        }
      }
    }
  }

  // Canonical scores of the rows of a query's shortlist; then, for kPq storage, of any row that was dropped and may yet be among the k best.
  void rescore(size_t query) noexcept {
    Shortlist& shortlist = shortlists[query];
    shortlist.finish();
    const size_t sure = std::min(shared_.sure, shortlist.size());
    for (size_t i = 0; i < sure; ++i) {
      const Found known = find(query, key_index(shortlist.keys()[i]));
      take_source(0, *known.page);
      offer(known.segment, known.list_id, pages_[0], known.slot, INFINITY);
    }
    const uint64_t* const keys = shortlist.keys() + sure;
    const size_t n = shortlist.size() - sure;
    const double* const wide = context_.queries + static_cast<int64_t>(query) * layout_.padded;
    constexpr size_t kRing = kAhead + kFindAhead;
    const auto likely = static_cast<size_t>(2 * context_.request.k);  // rows that become results, and whose ids are asked for too
    Found found[kRing];
    // A row is three steps in memory away: what a page is, where it lies, and the row. Each is asked for well before it is needed.
    for (size_t i = 0; i < n + kRing; ++i) {
      if (i >= kRing) {
        const size_t at = i % kRing;
        const size_t slot_of = (i - kFindAhead) % kAhead;
        ++rows_rescored;
        offer(found[at].segment, found[at].list_id, pages_[slot_of], found[at].slot,
              similarity_of(pages_[slot_of], found[at].slot, wide));
      }
      if (i >= kFindAhead && i - kFindAhead < n) {
        const Found& next = found[(i - kFindAhead) % kRing];
        const size_t slot_of = (i - kFindAhead) % kAhead;
        take_source(slot_of, *next.page);
        fetch(pages_[slot_of], next.slot);
        if (i - kFindAhead < likely) {
          __builtin_prefetch(layout_.row_ids(pages_[slot_of]) + next.slot);
          __builtin_prefetch(layout_.ordinals(pages_[slot_of]) + next.slot);
        }
      }
      if (i < n) {
        found[i % kRing] = find(query, key_index(keys[i]));
        __builtin_prefetch(found[i % kRing].page);
      }
    }
    if (!shared_.exact || !shortlist.dropped()) return;
    const double last = static_cast<double>(score_of(query, shortlist.least()));
    if (above(query, last) < static_cast<double>(tops[query].threshold())) return;
    const int64_t seen = rows_seen;
    completing_ = true;
    for (size_t i = shared_.positions_begin[query]; i < shared_.positions_begin[query + 1]; ++i) {
      const uint32_t position = shared_.positions[i];
      const ScanList& list = shared_.input.lists[shared_.group[position]];
      const int64_t at = static_cast<int64_t>(position) - (list.segments - shared_.input.order.data());
      run(ScanTask{static_cast<int32_t>(shared_.group[position]), 0, (list.list->slots + kPageRows - 1) / kPageRows, at, at + 1},
          list);
    }
    completing_ = false;
    rows_seen = seen;
  }

 private:
  struct Found {
    Segment segment;
    int64_t list_id = 0;
    const Page* page = nullptr;
    int slot = 0;
  };

  // Codes of two pages lie a page apart, where no processor looks for them by itself: those of one are asked for while another is summed.
  void fetch_codes(const ConstPage& page) const noexcept {
    for (int64_t i = 0; i < layout_.coarse_bytes; i += 64) __builtin_prefetch(page.coarse + i);
  }

  void take_source(size_t p, const Page& source) noexcept {
    pages_[p] = source.memory();
    sources_[p] = &source;
    unchecked_[p] = static_cast<unsigned char>(source.unchecked());
  }

  void take_page(const Segment& segment, int64_t list_id, size_t p, uint64_t mask, uint32_t place) noexcept {
    const auto query = static_cast<size_t>(segment.query);
    Shortlist& shortlist = shortlists[query];
    uint16_t sums[kPageRows];
    touch(pages_[p], context_.plain ? kCoarsePlane : kCoarsePlane | kHeadPlane);
    shared_.ops.pq->page4(pages_[p].coarse, pq_pairs(shared_.books.shape().pq_dim),
                          shared_.luts.data() + query * shared_.table_bytes, sums);
    if (completing_) {
      const double* const wide = context_.queries + segment.query * layout_.padded;
      for (; mask != 0; mask &= mask - 1) {
        const int slot = __builtin_ctzll(mask);
        const uint64_t key = key_of(query, p, slot, sums[slot], place);
        if (key >= shortlist.least()) continue;  // is in the shortlist
        if (above(query, static_cast<double>(score_of(query, key))) < static_cast<double>(tops[query].threshold())) continue;
        ++rows_rescored;
        offer(segment, list_id, pages_[p], slot, similarity_of(pages_[p], slot, wide));
      }
    } else if (context_.plain && mask == ~uint64_t{0}) {
      shortlist.add_page(*shared_.ops.select, sums, place);
    } else if (context_.plain && shortlist.refuses_zero()) {
      for (int part = 0; part < 8; ++part) {
        for (int row = 0; row < 8; ++row) sums[8 * part + row] &= kWanted.words[mask >> (8 * part) & 255][row];
      }
      shortlist.add_page(*shared_.ops.select, sums, place);
    } else if (context_.plain) {
      for (; mask != 0; mask &= mask - 1) {
        const int slot = __builtin_ctzll(mask);
        shortlist.add(select_key(static_cast<uint32_t>(sums[slot]), place + static_cast<uint32_t>(slot)));
      }
    } else {
      float floor = -INFINITY;
      if (shared_.use_extras && context_.ranked && shortlist.least() != 0) floor = floor_of(key_score(shortlist.least()));
      const PqTable& table = shared_.tables[query];
      for (; mask != 0; mask &= mask - 1) {
        const int slot = __builtin_ctzll(mask);
        if (floor > -INFINITY && pq_integer_score(sums[slot], table.scale, table.bias) + extras_[p][slot] < floor) continue;
        shortlist.add(key_of(query, p, slot, sums[slot], place));
      }
    }
  }

  uint64_t key_of(size_t query, size_t p, int slot, uint32_t sum, uint32_t place) const noexcept {
    const uint32_t index = place + static_cast<uint32_t>(slot);
    if (context_.plain) return select_key(sum, index);
    const PqTable& table = shared_.tables[query];
    return select_key(final_of(pages_[p], slot, pq_integer_score(sum, table.scale, table.bias)), index);
  }

  float score_of(size_t query, uint64_t key) const noexcept { return pq_key_score(context_.plain, shared_.tables[query], key); }
  double above(size_t query, double score) const noexcept {
    return pq_score_above(context_.request.ranking, shared_.tables[query].error, score);
  }

  float similarity_of(const ConstPage& page, int slot, const double* query) noexcept {
    if (layout_.storage == Storage::kF32 || layout_.storage == Storage::kF16) return exact(page, slot, query);
    touch(page, row_planes(layout_));
    for (int64_t first = 0; first < layout_.padded; first += kLanes) layout_.load(page, slot, first, row_.data() + first);
    float similarities[kPageRows];
    (context_.l2 ? context_.kernels.distances : context_.kernels.dots)(row_.data(), layout_.padded, 1, query, similarities);
    return similarities[0];
  }

  Found find(size_t query, uint32_t place) const noexcept {
    const uint32_t number = place / kPageRows;
    const size_t begin = shared_.positions_begin[query];
    const uint32_t* start = shared_.starts.data() + begin;
    for (size_t n = shared_.positions_begin[query + 1] - begin; n > 1;) {  // without a branch that nobody can foresee
      const size_t half = n / 2;
      start += start[half] <= number ? half : 0;
      n -= half;
    }
    const uint32_t position = shared_.positions[static_cast<size_t>(start - shared_.starts.data())];
    const int64_t page = number - *start;
    const ScanList& list = shared_.input.lists[shared_.group[position]];
    return Found{context_.request.segment(shared_.input.order[position]), list.list_id,
                 shared_.pages[shared_.pages_begin[shared_.group[position]] + static_cast<size_t>(page)],
                 static_cast<int>(place % kPageRows)};
  }

  const Shared& shared_;
  bool completing_ = false;
};

// Numbers the pages of each query's segments in the order of `order`.
void number_pages(const ScanContext& context, Shared& shared) {
  const PqScanInput& input = shared.input;
  const auto n_queries = static_cast<size_t>(context.request.n_queries);
  shared.first_page.resize(input.order.size());
  shared.group.resize(input.order.size());
  shared.positions.resize(input.order.size());
  shared.starts.resize(input.order.size());
  shared.positions_begin.assign(n_queries + 1, 0);
  std::vector<int64_t> pages(n_queries, 0);
  shared.pages_begin.reserve(input.lists.size());
  int64_t all = 0;
  for (const ScanGroup& size : input.sizes) all += size.pages;
  shared.pages.reserve(static_cast<size_t>(all));
  for (size_t g = 0; g < input.lists.size(); ++g) {
    shared.pages_begin.push_back(shared.pages.size());
    int64_t left = input.sizes[g].pages;
    for (const std::shared_ptr<const Block>& block : input.lists[g].list->blocks) {
      for (int64_t p = 0; p < kBlockPages && left > 0; ++p, --left) {
        shared.pages.push_back(block->pages[static_cast<size_t>(p)].get());
      }
    }
  }
  std::vector<size_t> by_id(input.lists.size());
  std::iota(by_id.begin(), by_id.end(), size_t{0});
  std::sort(by_id.begin(), by_id.end(), [&](size_t a, size_t b) { return input.lists[a].list_id < input.lists[b].list_id; });
  for (const size_t g : by_id) {
    const auto first = static_cast<size_t>(input.lists[g].segments - input.order.data());
    for (size_t position = first; position < first + static_cast<size_t>(input.sizes[g].queries); ++position) {
      const size_t query = context.request.segment_queries[input.order[position]];
      shared.group[position] = static_cast<uint32_t>(g);
      shared.first_page[position] = static_cast<uint32_t>(pages[query]);
      pages[query] += input.sizes[g].pages;
      if (pages[query] > kMaxPages) throw std::length_error("one query scans more than 2^32 rows of pq codes; use fewer lists");
      ++shared.positions_begin[query + 1];
    }
  }
  for (size_t q = 0; q < n_queries; ++q) shared.positions_begin[q + 1] += shared.positions_begin[q];
  std::vector<size_t> next(shared.positions_begin.begin(), shared.positions_begin.end() - 1);
  for (const size_t g : by_id) {
    const auto first = static_cast<size_t>(input.lists[g].segments - input.order.data());
    for (size_t position = first; position < first + static_cast<size_t>(input.sizes[g].queries); ++position) {
      const size_t at = next[context.request.segment_queries[input.order[position]]]++;
      shared.positions[at] = static_cast<uint32_t>(position);
      shared.starts[at] = shared.first_page[position];
    }
  }
}

}  // namespace

ScanCounters scan_pq(const ScanContext& context, const Pool& pool, const PqScanInput& input, const ScanOutput& output,
                     Workers* workers) {
  const ScanRequest& request = context.request;
  const Ranking& ranking = request.ranking;
  const PageLayout& layout = pool.layout();
  const PqBooks& books = *pool.books();
  const int64_t pq_dim = books.shape().pq_dim;
  const auto n_queries = static_cast<size_t>(request.n_queries);
  const auto threads = static_cast<size_t>(input.plan.threads);
  const bool use_extras = ranking.w_similarity > 0.0 && std::isfinite(1.0 / ranking.half_life) &&
                          std::isfinite(ranking.w_recency / ranking.w_similarity) &&
                          std::isfinite(ranking.w_priority / ranking.w_similarity);
  const bool unordered = request.unordered && context.plain && layout.storage != Storage::kPq;
  PqQueries& prepared = input.prepared;
  const bool known = !prepared.tables.empty();
  Shared shared{*find_op_kernels(context.kernels.name),
                books,
                input,
                layout.storage == Storage::kPq,
                use_extras,
                unordered ? static_cast<size_t>(request.k - (request.k + 3) / 4) : 0,
                static_cast<size_t>(pq_pairs(pq_dim) * 32),
                prepared.luts,
                prepared.tables,
                {},
                {},
                {},
                {},
                {},
                {},
                {}};
  number_pages(context, shared);
  if (!known) {
    prepared.luts.resize(n_queries * shared.table_bytes);
    prepared.tables.resize(n_queries);
  }

  std::vector<int64_t> rows(n_queries, 0);
  const auto each_segment = [&](const auto& body) {
    for (size_t g = 0; g < input.lists.size(); ++g) {
      for (int64_t at = 0; at < input.sizes[g].queries; ++at) body(g, request.segment_queries[input.lists[g].segments[at]]);
    }
  };
  each_segment([&](size_t g, size_t query) { rows[query] += input.sizes[g].pages * kPageRows; });
  std::vector<PqWorker> states;
  states.reserve(threads);
  const auto keep = static_cast<size_t>(unordered ? request.k + (request.k + 1) / 2 : request.k * request.refine);
  for (size_t t = 0; t < threads; ++t) {
    PqWorker& state = states.emplace_back(context, shared, input);
    each_segment([&](size_t g, size_t query) { state.tops[query].expect(input.lists[g].list->live); });
    for (size_t q = 0; q < n_queries; ++q) {
      state.tops[q].reserve(request.k);
      state.shortlists[q].reserve(keep, rows[q]);
    }
  }
  std::vector<PqScratch> scratch(known ? 0 : threads, PqScratch(books, layout.padded));
  share(workers, input.plan.threads, known ? 0 : n_queries, [&](size_t t, size_t q) {
    fill_table(books, *shared.ops.pq, context.l2, layout.padded, context.queries + static_cast<int64_t>(q) * layout.padded,
               scratch[t], prepared.luts.data() + q * shared.table_bytes, &prepared.tables[q]);
  });
  share(workers, input.plan.threads, input.plan.tasks.size(), [&](size_t t, size_t i) {
    const ScanTask& task = input.plan.tasks[i];
    const Page* after = nullptr;
    if (i + 1 < input.plan.tasks.size()) {
      const ScanTask& next = input.plan.tasks[i + 1];
      after = shared.pages[shared.pages_begin[static_cast<size_t>(next.group)] + static_cast<size_t>(next.page_begin)];
      __builtin_prefetch(after);
    }
    states[t].run(task, input.lists[static_cast<size_t>(task.group)], after);
  });
  for (size_t t = 1; t < threads; ++t) {
    for (size_t q = 0; q < n_queries; ++q) states[0].shortlists[q].take_all(states[t].shortlists[q]);
  }
  share(workers, input.plan.threads, n_queries, [&](size_t t, size_t q) {
    if (t > 0) std::swap(states[t].shortlists[q], states[0].shortlists[q]);
    states[t].rescore(q);
  });

  for (const PqWorker& state : states) {
    if (state.damaged != nullptr) throw state.damaged->damage(state.damaged_planes);
  }
  ScanCounters counters;
  counters.tiles = input.plan.tiles;
  counters.threads = input.plan.threads;
  counters.screened = true;
  for (size_t t = 0; t < threads; ++t) {
    counters.rows_seen += states[t].rows_seen;
    counters.rows_rescored += states[t].rows_rescored;
    for (size_t q = 0; t > 0 && q < n_queries; ++q) states[0].tops[q].take_all(states[t].tops[q]);
  }
  write_output(states[0].tops, static_cast<size_t>(request.k), output);
  return counters;
}

}  // namespace warpmem
