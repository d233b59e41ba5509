// The parts of the screened scan: the bound of core/int8.hpp on rows made to break it, every kernel of every instruction set against its definition, and
// the plan.
#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>

#include "../../csrc/core/page.hpp"
#include "../../csrc/core/planner.hpp"
#include "../../csrc/core/predicate.hpp"
#include "../../csrc/cpu/dispatch.hpp"
#include "check.hpp"

using namespace warpmem;

namespace {

using Random = std::mt19937_64;
using Vector = std::vector<float>;

// One page in memory of its own.
struct OwnPage {
  explicit OwnPage(const PageLayout& layout)
      : coarse(static_cast<size_t>(layout.coarse_bytes), 0xff),
        fine(static_cast<size_t>(layout.fine_bytes), 0xff),
        head(static_cast<size_t>(layout.head_bytes)),
        rows(static_cast<size_t>(layout.rows_bytes)) {}
  PageMemory memory() { return PageMemory{coarse.data(), fine.data(), head.data(), rows.data()}; }
  std::vector<unsigned char> coarse, fine, head, rows;
};

Vector stored_row(const PageLayout& layout, const ConstPage& page, int slot) {
  Vector row(static_cast<size_t>(layout.dim));
  layout.unpack_vector(page, slot, row.data());
  return row;
}

double normal(Random& random) { return std::normal_distribution<double>()(random); }

// Rows of many sizes and shapes. Kind 6 sits halfway between codes, so that every element is as wrong as it can be.
Vector odd_row(Random& random, int64_t dim, unsigned kind) {
  Vector row(static_cast<size_t>(dim));
  const double sizes[] = {1.0, 1e-3, 1e-20, 1e-38, 1e-42, 1e15, 1e18, 1e30, 3e38};
  const double size = sizes[random() % std::size(sizes)];
  for (float& x : row) {
    switch (kind % 7) {
      case 0:
        x = static_cast<float>(normal(random));
        break;
      case 1:
        x = static_cast<float>(normal(random) * size);
        break;
      case 2:
        x = random() % 50 == 0 ? static_cast<float>(size) : 0.0f;
        break;
      case 3:
        x = random() % 2 == 0 ? 1.0f : -1.0f;
        break;
      case 4:
        x = static_cast<float>(size);
        break;
      case 5:
        x = static_cast<float>(normal(random) * std::pow(10.0, static_cast<double>(random() % 60) - 40.0));
        break;
      default:
        x = (static_cast<float>(random() % 253) - 126.5f) / 127.0f;
        break;
    }
    if (!std::isfinite(x)) x = 3e38f;
  }
  if (kind % 7 == 6) row[0] = 1.0f;
  return row;
}

}  // namespace

TEST(bounds_hold_on_rows_made_to_break_them) {
  Random random(1);
  double widest = 0.0;
  for (const Kernels* kernels : supported_kernels()) {
    for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
      for (const int64_t dim : {1, 8, 33, 64, 384, 1000}) {
        for (unsigned round = 0; round < 8; ++round) {
          const PageLayout layout(dim, 0, storage, true);
          OwnPage own(layout);
          const PageMemory page = own.memory();
          std::vector<Vector> rows;
          for (int slot = 0; slot < 64; ++slot) {
            Vector row = odd_row(random, dim, round == 0 ? 0 : static_cast<unsigned>(random()));
            if (storage == Storage::kF16) {
              for (float& x : row) x = std::fabs(x) < kHalfLimit ? x : 60000.0f;
            }
            layout.pack(page, slot, slot, 0, nullptr, row.data());
            rows.push_back(stored_row(layout, page, slot));
          }
          for (unsigned q = 0; q < 12; ++q) {
            Vector query = odd_row(random, dim, round == 0 ? 0 : static_cast<unsigned>(random()));
            const size_t victim = random() % 64;
            if (q % 3 == 1) query = rows[victim];
            if (q % 3 == 2) {  // along the error of a row, where Cauchy and Schwarz are equal
              const float scale = layout.coarse_bound(page, kScale, static_cast<int>(victim));
              for (size_t i = 0; i < query.size(); ++i)
                query[i] = rows[victim][i] - scale * code_of(rows[victim][i], inverse_of(scale));
            }
            std::vector<int8_t> codes(static_cast<size_t>(layout.padded));
            QueryBound bound;
            if (!quantize_query(query.data(), dim, layout.padded, codes.data(), &bound)) continue;
            for (const bool l2 : {false, true}) {
              float exact[64];
              for (size_t slot = 0; slot < 64; ++slot) {
                exact[slot] =
                    l2 ? negated_distance(query.data(), rows[slot].data(), dim) : dot(query.data(), rows[slot].data(), dim);
              }
              const ScreenPage screen{page.coarse, page.fine, layout.padded / kLineElements, nullptr, l2};
              for (size_t slot = 0; slot < 64; slot += round == 0 ? 1 : 7) {
                float bounds[64];
                ScreenQuery query_state{bound.codes, bound.sum, bound.scale,         bound.norm, bound.error, bound.square,
                                        exact[slot], -INFINITY, uint64_t{1} << slot, 0,          bounds};
                kernels->screen(screen, &query_state, 1);
                CHECK_EQ(query_state.survivors, query_state.mask);
                kernels->refine(screen, query_state);
                CHECK_EQ(query_state.survivors, query_state.mask);
                CHECK(!(bounds[slot] < exact[slot]));
                if (round == 0 && !l2 && dim == 384 && q % 3 == 0) {
                  widest = std::max(
                      widest, (static_cast<double>(bounds[slot]) - static_cast<double>(exact[slot])) / static_cast<double>(dim));
                }
              }
            }
          }
        }
      }
    }
  }
  CHECK(widest > 0.0);
  CHECK(widest < 0.05);  // and it says something: of normal rows, whose |x||q| is about dim
}

TEST(screens_leave_only_rows_above_the_floor) {
  Random random(2);
  const PageLayout layout(96, 0, Storage::kF32, true);
  OwnPage own(layout);
  const PageMemory page = own.memory();
  for (int slot = 0; slot < 64; ++slot) layout.pack(page, slot, slot, 0, nullptr, odd_row(random, 96, 0).data());
  std::map<std::string, std::vector<uint64_t>> found;
  for (const Kernels* kernels : supported_kernels()) {
    Random same(3);
    for (int n = 1; n <= kScreenQueries; ++n) {
      std::vector<std::vector<int8_t>> codes(8, std::vector<int8_t>(96));
      std::vector<Vector> bounds(8, Vector(64));
      ScreenQuery queries[kScreenQueries];
      float extra[64];
      for (float& x : extra) x = static_cast<float>(normal(same));
      for (int j = 0; j < n; ++j) {
        const auto at = static_cast<size_t>(j);
        QueryBound bound;
        CHECK(quantize_query(odd_row(same, 96, 0).data(), 96, 96, codes[at].data(), &bound));
        queries[j] = ScreenQuery{bound.codes, bound.sum, bound.scale, bound.norm, bound.error,      bound.square,
                                 8.0f,        9.0f,      same(),      0,          bounds[at].data()};
      }
      for (const float* terms : {static_cast<const float*>(nullptr), static_cast<const float*>(extra)}) {
        const ScreenPage screen{page.coarse, page.fine, 12, terms, false};
        kernels->screen(screen, queries, n);
        for (int j = 0; j < n; ++j) {
          ScreenQuery refined = queries[j];
          CHECK_EQ(refined.survivors & ~refined.mask, 0u);
          refined.mask = refined.survivors;
          kernels->refine(screen, refined);
          CHECK_EQ(refined.survivors & ~refined.mask, 0u);
          found[kernels->name].push_back(refined.survivors);
          for (uint64_t bits = refined.survivors; bits != 0; bits &= bits - 1)
            CHECK(!(refined.bounds[__builtin_ctzll(bits)] < 8.0f));
        }
      }
    }
  }
  for (const auto& [name, survivors] : found) {
    CHECK(survivors == found["serial"]);  // these data leave no bound within a rounding error of the floor
    CHECK_EQ(survivors.size(), size_t{2 * 36});
  }
}

TEST(filters_and_conversions_agree_with_core) {
  Random random(5);
  for (const Kernels* kernels : supported_kernels()) {
    for (int round = 0; round < 100; ++round) {
      int64_t column[64];
      int64_t row_ids[64];
      for (int i = 0; i < 64; ++i) {
        column[i] = round % 3 == 0 ? static_cast<int64_t>(random()) : static_cast<int64_t>(random() % 9) - 4;
        row_ids[i] = static_cast<int64_t>(random() % 300) - 20;
        if (random() % 20 == 0) row_ids[i] = random() % 2 == 0 ? INT64_MAX : INT64_MIN;
      }
      const uint64_t mask = random() | random();
      const Term term{0, kRange, column[random() % 64], round % 4 == 0 ? INT64_MAX : column[random() % 64]};
      const uint64_t words[4] = {random(), random(), random(), random()};
      CHECK_EQ(kernels->filter_range(column, term.lo, term.hi, mask), filter_term(term, nullptr, column, mask));
      std::vector<int64_t> members;
      for (int i = 0; i < round; ++i) members.push_back(i % 4 == 0 ? static_cast<int64_t>(random()) : column[random() % 64]);
      std::sort(members.begin(), members.end());
      CHECK_EQ(kernels->filter_members(column, members.data(), round, mask),
               filter_term(Term{0, kMembership, 0, round}, members.data(), column, mask));
      for (const int64_t n_words : {0, 1, 4}) {
        CHECK_EQ(kernels->filter_bitmap(words, n_words, row_ids, mask), filter_bitmap(words, n_words, row_ids, mask));
      }
    }
    std::vector<uint16_t> halves(0x10000);
    for (size_t h = 0; h < halves.size(); ++h) halves[h] = static_cast<uint16_t>(h);
    Vector wide(halves.size());
    kernels->widen(halves.data(), 0x10000, wide.data());
    for (size_t h = 0; h < halves.size(); ++h) {
      const float expected = half_to_float(halves[h]);
      CHECK(wide[h] == expected || (wide[h] != wide[h] && expected != expected));
    }
    const PageLayout layout(65, 0, Storage::kInt8);
    OwnPage own(layout);
    for (int slot = 0; slot < 64; ++slot) {
      layout.pack(own.memory(), slot, slot, 0, nullptr, odd_row(random, 65, 0).data());
      Vector row(static_cast<size_t>(layout.padded));
      kernels->decode(own.coarse.data(), own.fine.data(), slot, layout.padded / kLineElements,
                      layout.coarse_bound(own.memory(), kScale, slot), row.data());
      row.resize(65);
      CHECK(row == stored_row(layout, own.memory(), slot));
    }
    const std::vector<uint64_t> data(64, 3);
    CHECK_EQ(kernels->read(data.data(), 512), kernels->read(data.data(), 512));
  }
}

TEST(extras_lie_above_what_they_bound) {
  Random random(6);
  const int64_t times[] = {0, 1, -1, INT64_MAX, INT64_MIN, 1750000000000000, 1750000000000001, 1600000000000000};
  for (const Kernels* kernels : supported_kernels()) {
    for (int round = 0; round < 3000; ++round) {
      int64_t recency[64];
      int64_t priority[64];
      for (int i = 0; i < 64; ++i) {
        recency[i] = random() % 4 == 0 ? times[random() % std::size(times)]
                                       : 1750000000000000 - static_cast<int64_t>(random() % 100000000000000);
        priority[i] = f64_to_key(normal(random) * (random() % 9 == 0 ? 1e30 : 1.0));
        if (random() % 50 == 0) priority[i] = static_cast<int64_t>(random());
      }
      const double half_lives[] = {1.0, 1e13, 2.6e12, 1e300, 1e-300, 1e19};
      Ranking r;
      r.w_similarity = 0.0;
      r.w_recency = round % 5 == 4 ? 0.0 : normal(random);
      r.w_priority = round % 5 == 3 ? 0.0 : normal(random);
      r.half_life = half_lives[random() % std::size(half_lives)];
      r.now = times[random() % std::size(times)];
      const ScoreExtra terms{r.w_recency != 0.0 ? recency : nullptr,
                             r.w_priority != 0.0 ? priority : nullptr,
                             static_cast<double>(r.now),
                             1.0 / r.half_life,
                             r.w_recency,
                             r.w_priority};
      float out[64];
      kernels->extras(terms, out);
      for (int i = 0; i < 64; ++i) CHECK(!(out[i] < final_score(r, 0.0f, recency[i], priority[i])));
    }
  }
}

TEST(plans_cover_everything_once) {
  Random random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<ScanGroup> groups;
    for (uint64_t i = random() % 20; i > 0; --i) {
      groups.push_back(
          ScanGroup{static_cast<int64_t>(random() % (random() % 5 == 0 ? 3000 : 40)), 1 + static_cast<int64_t>(random() % 200)});
    }
    const auto threads = static_cast<int32_t>(1 + random() % 8);
    const ScanPlan plan = plan_scan(groups, 384, threads);
    CHECK(plan.threads >= 1 && plan.threads <= threads);
    std::vector<int64_t> seen(groups.size());
    for (const ScanTask& task : plan.tasks) {
      const ScanGroup& group = groups[static_cast<size_t>(task.group)];
      CHECK(0 <= task.page_begin && task.page_begin < task.page_end && task.page_end <= group.pages);
      CHECK(0 <= task.query_begin && task.query_begin < task.query_end && task.query_end <= group.queries);
      CHECK(task.query_end - task.query_begin <= kPlanQueries);
      CHECK(task.page_end == group.pages || (task.page_end - task.page_begin) % kTilePages == 0);
      seen[static_cast<size_t>(task.group)] += (task.page_end - task.page_begin) * (task.query_end - task.query_begin);
    }
    for (size_t g = 0; g < groups.size(); ++g) CHECK_EQ(seen[g], groups[g].pages * groups[g].queries);
  }
  CHECK_EQ(plan_scan({}, 384, 4).threads, 1);
  CHECK_EQ(plan_scan({ScanGroup{10, 1}}, 384, 4).threads, 1);  // too little to wake anyone
  const ScanPlan one_list = plan_scan({ScanGroup{16000, 1}}, 384, 2);
  CHECK_EQ(one_list.threads, 2);
  CHECK(one_list.tasks.size() >= 8 && one_list.tasks.size() <= 40);
  const ScanPlan small_lists = plan_scan(std::vector<ScanGroup>(2000, ScanGroup{8, 1}), 384, 2);
  CHECK_EQ(small_lists.threads, 2);
  CHECK_EQ(small_lists.tasks.size(), size_t{2000});
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
