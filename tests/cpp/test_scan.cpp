// Whole scans with and without screen, threads and writers (the last also under ThreadSanitizer).
#include <atomic>
#include <cmath>
#include <random>
#include <thread>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/pool.hpp"
#include "../../csrc/cpu/scan.hpp"
#include "../../csrc/cpu/workers.hpp"
#include "check.hpp"

using namespace warpmem;

namespace {

using Random = std::mt19937_64;
using Vector = std::vector<float>;

double normal(Random& random) { return std::normal_distribution<double>()(random); }

struct Result {
  Vector scores, similarities;
  std::vector<int64_t> list_ids, row_ids;
  std::vector<int32_t> counts;
  ScanCounters counters;
  bool operator==(const Result& other) const {
    return scores == other.scores && similarities == other.similarities && list_ids == other.list_ids &&
           row_ids == other.row_ids && counts == other.counts;
  }
};

constexpr int64_t kDim = 70;

// added: of every other segment, by row id; empty for nothing.
Result scan_all(const Kernels& kernels, const Pool& pool, const Vector& queries, int64_t k, bool ranked, Workers* workers,
                const Vector& added = {}) {
  ScanRequest request;
  request.queries = queries.data();
  request.n_queries = static_cast<int64_t>(queries.size()) / kDim;
  request.k = k;
  request.min_similarity = ranked ? -3.0 : -INFINITY;
  if (ranked) {
    request.ranking.w_similarity = 0.5;
    request.ranking.w_recency = 2.0;
    request.ranking.w_priority = -1.0;
    request.ranking.half_life = 300.0;
    request.ranking.priority_column = 1;
    request.ranking.now = 1000;
  }
  request.terms = {Term{0, kRange, 100, 1000000}};
  std::vector<int64_t> list_ids;
  request.filters.resize(2);
  request.filters[1].terms_end = 1;
  for (int64_t q = 0; q < request.n_queries; ++q) {
    for (int64_t list_id = 0; list_id < 2; ++list_id) {
      request.segment_queries.push_back(static_cast<uint32_t>(q));
      request.segment_filters.push_back(q % 3 == 2 ? 1 : 0);
      list_ids.push_back(list_id);
      if (added.empty()) continue;
      const bool some = list_ids.size() % 2 == 0;
      request.segment_added.push_back(some ? Added{added.data(), static_cast<int64_t>(added.size())} : Added{});
    }
  }
  const SegmentGroups groups = group_segments(list_ids.data(), list_ids.size());
  std::vector<ListHead> heads(groups.list_ids.size());
  pool.snapshot(groups.list_ids.data(), heads.size(), heads.data());
  const auto n = static_cast<size_t>(request.n_queries * k);
  Result r{
      Vector(n), Vector(n), std::vector<int64_t>(n), std::vector<int64_t>(n), std::vector<int32_t>(n / static_cast<size_t>(k)),
      {}};
  r.counters =
      scan(kernels, pool, request, groups, heads,
           ScanOutput{r.scores.data(), r.similarities.data(), r.list_ids.data(), r.row_ids.data(), r.counts.data()}, workers);
  return r;
}

void fill(Pool& pool, int64_t n, int64_t first, float shift, unsigned seed) {
  Random random(seed);
  std::vector<int64_t> list_ids, row_ids, columns;
  std::vector<uint32_t> ordinals(static_cast<size_t>(n), 7);
  Vector vectors;
  for (int64_t i = 0; i < n; ++i) {
    list_ids.push_back(i % 10 == 0 ? 1 : 0);
    row_ids.push_back(first + i);
    columns.push_back(i % 1000);
    columns.push_back(f64_to_key(static_cast<double>(i % 17)));
    for (int64_t d = 0; d < kDim; ++d) vectors.push_back(shift + static_cast<float>(normal(random)));
  }
  pool.apply(pool.lock_writer(), {},
             Appends{n, list_ids.data(), row_ids.data(), ordinals.data(), columns.data(), vectors.data()});
}

}  // namespace

// Every live row lies within its page's spans, after appends, removals and compactions; and they are no wider than the rows ever written.
TEST(spans_hold_the_rows_of_their_pages) {
  Pool pool(kDim, 2, Storage::kF32, Metric::kDot, true);
  fill(pool, 9000, 0, 0.0f, 2);
  const auto check = [&] {
    const int64_t list_ids[2] = {0, 1};
    ListHead heads[2];
    pool.snapshot(list_ids, 2, heads);
    int64_t rows = 0;
    for (const ListHead& head : heads) {
      for (const auto& block : head->blocks) {
        CHECK_EQ(block->spans.size(), size_t{2 * kBlockPages});
        for (size_t p = 0; p < kBlockPages; ++p) {
          Span seen[2];
          for (uint64_t bits = block->valid[p]; bits != 0; bits &= bits - 1, ++rows) {
            for (int64_t c = 0; c < 2; ++c) {
              const int64_t cell = pool.layout().column(block->pages[p]->memory(), c)[__builtin_ctzll(bits)];
              const Span& span = block->spans[p * 2 + static_cast<size_t>(c)];
              CHECK(span.lo <= cell && cell <= span.hi);
              seen[c] = Span{std::min(seen[c].lo, cell), std::max(seen[c].hi, cell)};
            }
          }
          for (size_t c = 0; c < 2 && block->valid[p] == ~uint64_t{0}; ++c) {
            CHECK(seen[c].lo == block->spans[p * 2 + c].lo && seen[c].hi == block->spans[p * 2 + c].hi);
          }
        }
      }
    }
    return rows;
  };
  CHECK_EQ(check(), 9000);
  Removes removes;
  for (int64_t i = 0; i < 9000; i += 3) removes.emplace_back(i % 10 == 0 ? 1 : 0, i);
  pool.apply(pool.lock_writer(), removes, Appends{});
  CHECK_EQ(check(), 6000);
  for (const int64_t list_id : {0, 1}) pool.compact(pool.lock_writer(), list_id);
  CHECK_EQ(check(), 6000);
  fill(pool, 700, 8600, 0.0f, 3);  // some replace
  CHECK(check() > 6000);
}

TEST(segments_of_a_list_stand_together) {
  Random random(3);
  for (const size_t n : {size_t{0}, size_t{1}, size_t{500}}) {
    std::vector<int64_t> list_ids;
    for (size_t s = 0; s < n; ++s) list_ids.push_back(static_cast<int64_t>(random() % 40) * (INT64_MAX / 40) - 7);
    const SegmentGroups groups = group_segments(list_ids.data(), n);
    CHECK_EQ(groups.begin.size(), groups.list_ids.size() + 1);
    CHECK_EQ(groups.begin.back(), n);
    std::vector<bool> seen(n);
    for (size_t g = 0; g < groups.list_ids.size(); ++g) {
      CHECK(groups.begin[g] < groups.begin[g + 1]);
      for (size_t at = groups.begin[g]; at < groups.begin[g + 1]; ++at) {
        CHECK_EQ(list_ids[groups.order[at]], groups.list_ids[g]);
        CHECK(at == groups.begin[g] || groups.order[at - 1] < groups.order[at]);
        CHECK(!seen[groups.order[at]]);
        seen[groups.order[at]] = true;
      }
    }
  }
}

TEST(screened_scans_equal_plain_ones) {
  Random random(8);
  Vector queries;
  for (int64_t i = 0; i < 70 * kDim; ++i) queries.push_back(static_cast<float>(normal(random)));
  Vector some;  // added to scores of the first rows: much to few
  for (int64_t i = 0; i < 4000; ++i) some.push_back(i % 37 == 0 ? static_cast<float>(normal(random)) * 20.0f : 0.0f);
  Workers workers(3);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
    for (const Metric metric : {Metric::kDot, Metric::kL2}) {
      Pool plain(kDim, 2, storage, metric, false);
      Pool screened(kDim, 2, storage, metric, true);
      for (Pool* pool : {&plain, &screened}) fill(*pool, 4500, 0, 0.0f, 1);
      Removes removes;
      for (int64_t i = 0; i < 4500; i += 3) removes.emplace_back(i % 10 == 0 ? 1 : 0, i);
      for (Pool* pool : {&plain, &screened}) pool->apply(pool->lock_writer(), removes, Appends{});
      for (const int way : {0, 1, 2, 3}) {
        const bool ranked = way % 2 == 1;
        const Vector added = way < 2 ? Vector{} : some;
        const Result expected = scan_all(*find_kernels("serial"), plain, queries, 10, ranked, nullptr, added);
        CHECK(!expected.counters.screened);
        for (const Kernels* kernels : supported_kernels()) {
          for (Workers* shared : {static_cast<Workers*>(nullptr), &workers}) {
            const Result found = scan_all(*kernels, screened, queries, 10, ranked, shared, added);
            CHECK(found == expected);
            CHECK(found.counters.screened && found.counters.rows_seen >= expected.counters.rows_seen);  // filters may come later
            CHECK(found.counters.rows_rescored * 2 < found.counters.rows_seen);
            CHECK_EQ(found.counters.threads, shared != nullptr ? 3 : 1);
          }
        }
      }
    }
  }
}

// Rows are replaced while scans with threads run over the pages that the writer fills. Every scan must see one generation.
TEST(screened_scans_beside_a_writer) {
  Pool pool(kDim, 2, Storage::kF32, Metric::kDot, true);
  fill(pool, 900, 0, 1.0f, 1);
  const Vector one(static_cast<size_t>(kDim), 1.0f);
  Vector queries;
  for (int i = 0; i < 40; ++i) queries.insert(queries.end(), one.begin(), one.end());
  Workers workers(2);
  std::atomic<bool> stop{false};
  std::atomic<int> scans{0};
  std::atomic<int> torn{0};
  const auto read = [&](bool ranked) {
    while (!stop) {
      const Result found = scan_all(*find_kernels("auto"), pool, queries, 5, ranked, &workers);
      for (size_t q = 3; q < 40; q += 3) {
        for (size_t i = 0; i < 5; ++i) {
          if (found.row_ids[q * 5 + i] != found.row_ids[i] || found.scores[q * 5 + i] != found.scores[i]) ++torn;
        }
      }
      ++scans;
    }
  };
  std::thread first(read, false);
  std::thread second(read, true);
  for (int round = 0; round < 40 || (scans < 40 && round < 4000); ++round) {
    fill(pool, 900, 0, static_cast<float>(round % 5), static_cast<unsigned>(round));
    if (round % 8 == 0) pool.compact(pool.lock_writer(), 0);
  }
  stop = true;
  first.join();
  second.join();
  CHECK_EQ(torn.load(), 0);
  CHECK(scans >= 40);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
