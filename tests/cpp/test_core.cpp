// csrc/core: keys, scorer, pages, predicates, checksum; and that every instruction set gives the scorer's bits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <string>

#include "../../csrc/core/crc32c.hpp"
#include "../../csrc/core/keys.hpp"
#include "../../csrc/core/page.hpp"
#include "../../csrc/core/predicate.hpp"
#include "../../csrc/core/score.hpp"
#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/flat_map.hpp"
#include "check.hpp"

using namespace warpmem;

namespace {

template <typename T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

TEST(float_keys_keep_the_order) {
  const float inf = std::numeric_limits<float>::infinity();
  const float values[] = {-inf, -3e38f, -1.5f, -1e-45f, -0.0f, 0.0f, 1e-45f, 1e-38f, 1.0f, 1.0000001f, 3e38f, inf};
  for (size_t i = 0; i + 1 < std::size(values); ++i) CHECK(float_to_key(values[i]) < float_to_key(values[i + 1]));
  for (const float v : values) CHECK(same_bits(key_to_float(float_to_key(v)), v));
  const double doubles[] = {-1e308, -2.0, -5e-324, -0.0, 0.0, 5e-324, 0.5, 1e308};
  for (size_t i = 0; i + 1 < std::size(doubles); ++i) CHECK(f64_to_key(doubles[i]) < f64_to_key(doubles[i + 1]));
  for (const double v : doubles) CHECK(same_bits(key_to_f64(f64_to_key(v)), v));
  CHECK(same_bits(key_to_f64(INT64_MIN), 0.0));  // a missing value
  CHECK_EQ(f64_to_key(0.0), 0);
  CHECK_EQ(f64_to_key(-0.0), -1);
}

TEST(candidates_have_a_total_order) {
  std::vector<Candidate> ranked;
  for (const float score : {2.0f, 1.0f}) {
    for (const uint32_t group : {0u, 0xffffffffu}) {
      for (const uint32_t ordinal : {1u, 2u}) {
        for (const int64_t row : {int64_t{-1}, int64_t{7}}) {
          for (const int64_t list : {int64_t{3}, int64_t{4}})
            ranked.push_back(Candidate{score, score, group, ordinal, row, list});
        }
      }
    }
  }
  for (size_t i = 0; i < ranked.size(); ++i) {
    for (size_t j = 0; j < ranked.size(); ++j) CHECK_EQ(better(ranked[i], ranked[j]), i < j);
  }
}

TEST(exp2_neg_is_close_and_exact_where_it_must) {
  CHECK(same_bits(exp2_neg(0.0), 1.0));
  CHECK(same_bits(exp2_neg(-0.0), 1.0));
  CHECK(same_bits(exp2_neg(-1022.0), std::ldexp(1.0, -1022)));
  CHECK(same_bits(exp2_neg(-1022.5), 0.0));
  CHECK(same_bits(exp2_neg(-std::numeric_limits<double>::infinity()), 0.0));
  for (int i = 0; i <= 1022; ++i) CHECK(same_bits(exp2_neg(-i), std::ldexp(1.0, -i)));
  std::mt19937_64 random(1);
  for (int i = 0; i < 100000; ++i) {
    const double x = -std::uniform_real_distribution<double>(0.0, i % 2 == 0 ? 1022.0 : 3.0)(random);
    CHECK(std::fabs(exp2_neg(x) / std::exp2(x) - 1.0) < 4e-16);
  }
}

TEST(ages_saturate) {
  CHECK_EQ(age_of(5, 5), 0);
  CHECK_EQ(age_of(5, 9), 0);
  CHECK_EQ(age_of(9, 5), 4);
  CHECK_EQ(age_of(INT64_MAX, INT64_MIN), INT64_MAX);
  CHECK_EQ(age_of(0, INT64_MIN), INT64_MAX);
  CHECK_EQ(age_of(-1, INT64_MIN), INT64_MAX);
  CHECK_EQ(age_of(INT64_MIN, INT64_MAX), 0);
}

TEST(final_score_adds_the_parts) {
  Ranking r;
  CHECK(same_bits(final_score(r, -0.0f, 0, 0), 0.0f));
  r.w_similarity = 0.5;
  r.w_recency = 0.25;
  r.half_life = 10.0;
  r.w_priority = 2.0;
  r.now = 100;
  CHECK(same_bits(final_score(r, 0.5f, 90, f64_to_key(0.75)), static_cast<float>(0.25 + 0.125 + 1.5)));
  r.w_similarity = 0.0;
  CHECK(same_bits(final_score(r, INFINITY, 90, 0), -INFINITY));
}

TEST(every_instruction_set_gives_the_scorers_bits) {
  std::mt19937_64 random(7);
  std::set<std::string> ran;
  for (const Kernels* kernels : supported_kernels()) {
    CHECK_EQ(find_kernels(kernels->name), kernels);
    for (const int64_t dim : {1, 7, 31, 32, 33, 255, 384, 1000}) {
      for (const double exponent : {0.0, -42.0, 30.0}) {
        const int64_t padded = padded_dim(dim);
        std::vector<float> rows(static_cast<size_t>(64 * padded));
        std::vector<float> query(static_cast<size_t>(padded));
        const auto number = [&] {
          return static_cast<float>(std::normal_distribution<double>()(random) * std::pow(10.0, exponent));
        };
        for (int64_t i = 0; i < dim; ++i) query[static_cast<size_t>(i)] = number();
        for (int64_t r = 0; r < 64; ++r) {
          for (int64_t i = 0; i < dim; ++i) rows[static_cast<size_t>(r * padded + i)] = number();
        }
        const std::vector<double> wide(query.begin(), query.end());
        const uint64_t mask = random() | 1u;
        float similarities[64];
        for (float& s : similarities) s = 12345.0f;
        kernels->dots(rows.data(), padded, mask, wide.data(), similarities);
        float distances[64];
        kernels->distances(rows.data(), padded, mask, wide.data(), distances);
        for (int r = 0; r < 64; ++r) {
          if (((mask >> r) & 1u) != 0)
            CHECK(same_bits(distances[r], negated_distance(rows.data() + r * padded, query.data(), dim)));
          const float* const row = rows.data() + r * padded;
          const bool wanted = ((mask >> r) & 1u) != 0;
          CHECK(same_bits(similarities[r], wanted ? dot(row, query.data(), padded) : 12345.0f));
          CHECK(same_bits(dot(row, query.data(), padded), dot(row, query.data(), dim)));  // padding changes nothing
        }
        ran.insert(kernels->name);
      }
    }
  }
  CHECK(ran.count("serial") == 1);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) CHECK(ran.count("avx2") == 1);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni")) CHECK(ran.count("avx512") == 1);
#endif
  CHECK(find_kernels("mmx") == nullptr);
}

TEST(normalisation_refuses_what_has_no_direction) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> refused = {{0.0f, -0.0f}, {1.0f, inf}, {-inf, 0.0f}, {std::nanf(""), 1.0f}};
  for (const auto& row : refused) {
    float out[2] = {7.0f, 7.0f};
    CHECK(!normalize_row(row.data(), 2, out));
    CHECK_EQ(out[0], 7.0f);
  }
  const std::vector<std::vector<float>> taken = {{3.0f, 4.0f}, {3e38f, 3e38f}, {1e-45f, 0.0f}};
  for (const auto& row : taken) {
    float out[2];
    CHECK(normalize_row(row.data(), 2, out));
    CHECK(std::fabs(std::hypot(out[0], out[1]) - 1.0) < 1e-7);
  }
}

TEST(pages_pack_and_unpack) {
  std::mt19937_64 random(3);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
    for (const int64_t dim : {1, 31, 32, 33, 100}) {
      for (const int64_t n_columns : {0, 1, 5}) {
        const PageLayout layout(dim, n_columns, storage, dim != 31);
        std::vector<std::vector<unsigned char>> memory;
        const auto make = [&](unsigned char fill) {
          for (const int64_t bytes : {layout.coarse_bytes, layout.fine_bytes, layout.head_bytes, layout.rows_bytes}) {
            CHECK_EQ(bytes % 64, 0);
            memory.emplace_back(static_cast<size_t>(bytes), fill);
          }
          const size_t n = memory.size();
          return PageMemory{memory[n - 4].data(), memory[n - 3].data(), memory[n - 2].data(), memory[n - 1].data()};
        };
        const PageMemory page = make(0xa5);
        const PageMemory other = make(0x5a);
        std::vector<std::vector<float>> vectors(64, std::vector<float>(static_cast<size_t>(dim)));
        std::vector<std::vector<int64_t>> columns(64, std::vector<int64_t>(static_cast<size_t>(n_columns)));
        for (size_t slot = 0; slot < 64; ++slot) {
          for (float& x : vectors[slot]) x = static_cast<float>(static_cast<int64_t>(random() % 2000) - 1000) / 3.0f;
          for (int64_t& c : columns[slot]) c = static_cast<int64_t>(random());
          layout.pack(page, static_cast<int>(slot), INT64_MIN + static_cast<int64_t>(slot),
                      0xffffffffu - static_cast<uint32_t>(slot), columns[slot].data(), vectors[slot].data());
        }
        for (int slot = 0; slot < 64; ++slot) layout.copy_row(page, slot, other, 63 - slot);
        const auto columns_of = static_cast<size_t>(n_columns) + 2;  // and row ids and ordinals
        std::vector<unsigned char> wide(3 * columns_of * static_cast<size_t>(kColumnBytes), 0xa5);
        PageMemory apart = page;  // the same page with its columns elsewhere
        apart.columns = wide.data();
        apart.stride = 3 * kColumnBytes;
        for (size_t c = 0; c < columns_of; ++c) {
          const auto at = static_cast<int64_t>(c);
          std::copy_n(page.columns + at * page.stride, kColumnBytes, apart.columns + at * apart.stride);
        }
        for (size_t slot = 0; slot < 64; ++slot) {
          std::vector<float> stored = vectors[slot];
          float largest = 0.0f;
          for (const float x : stored) largest = std::max(largest, std::fabs(x));
          for (float& x : stored) {
            if (storage == Storage::kF16) x = half_to_float(float_to_half(x));
            if (storage == Storage::kInt8) x = scale_of(largest) * code_of(x, inverse_of(scale_of(largest)));
          }
          for (int copy = 0; copy < 3; ++copy) {
            const PageMemory& from = copy == 0 ? page : copy == 1 ? other : apart;
            const int at = copy != 1 ? static_cast<int>(slot) : 63 - static_cast<int>(slot);
            int64_t row_id = 0;
            uint32_t ordinal = 0;
            std::vector<int64_t> c(static_cast<size_t>(n_columns));
            std::vector<float> v(static_cast<size_t>(dim));
            layout.unpack(from, at, &row_id, &ordinal, c.data(), v.data());
            CHECK(row_id == INT64_MIN + static_cast<int64_t>(slot) && ordinal == 0xffffffffu - slot);
            CHECK(c == columns[slot] && v == stored);
            float last[kLanes];
            layout.load(from, at, layout.padded - kLanes, last);
            for (int64_t i = dim; i < layout.padded; ++i) CHECK_EQ(last[i - layout.padded + kLanes], 0.0f);
          }
        }
      }
    }
  }
}

TEST(halves_round_to_nearest_even) {
  for (uint32_t h = 0; h < 0x10000u; ++h) {
    const float value = half_to_float(static_cast<uint16_t>(h));
    if ((h & 0x7fffu) > 0x7c00u) {
      CHECK(value != value && (float_to_half(value) & 0x7c00u) == 0x7c00u && (float_to_half(value) & 0x3ffu) != 0);
      continue;
    }
    CHECK_EQ(float_to_half(value), h);
    if ((h & 0x7fffu) >= 0x7bffu) continue;
    const float next = half_to_float(static_cast<uint16_t>(h + 1));  // away from zero
    const float middle = value + (next - value) / 2;                 // exact
    CHECK_EQ(float_to_half(middle), (h & 1u) == 0 ? h : h + 1);
    CHECK_EQ(float_to_half(std::nextafter(middle, value)), h);
    CHECK_EQ(float_to_half(std::nextafter(middle, next)), h + 1);
  }
  CHECK_EQ(half_to_float(0x7bff), 65504.0f);
  CHECK_EQ(float_to_half(std::nextafter(kHalfLimit, 0.0f)), 0x7bff);
  CHECK_EQ(float_to_half(kHalfLimit), 0x7c00);
  CHECK_EQ(float_to_half(3e38f), 0x7c00);
}

TEST(predicates_agree_with_their_words) {
  std::mt19937_64 random(5);
  int64_t column[64];
  int64_t row_ids[64];
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 64; ++i) {
      column[i] = static_cast<int64_t>(random() % 9) - 4;
      row_ids[i] = static_cast<int64_t>(random() % 300) - 20;
    }
    std::set<int64_t> members;
    while (members.size() < 4) members.insert(static_cast<int64_t>(random() % 9) - 4);
    std::vector<int64_t> values{99};
    values.insert(values.end(), members.begin(), members.end());
    const uint64_t mask = random();
    const Term range{0, kRange, static_cast<int64_t>(random() % 9) - 4, static_cast<int64_t>(random() % 9) - 4};
    const Term membership{0, kMembership, 1, 5};
    const uint64_t words[4] = {random(), random(), random(), random()};
    const uint64_t in_range = filter_term(range, nullptr, column, mask);
    const uint64_t in_set = filter_term(membership, values.data(), column, mask);
    const uint64_t in_words = filter_bitmap(words, 4, row_ids, mask);
    for (int i = 0; i < 64; ++i) {
      const bool live = ((mask >> i) & 1u) != 0;
      CHECK_EQ(((in_range >> i) & 1u) != 0, live && range.lo <= column[i] && column[i] <= range.hi);
      CHECK_EQ(((in_set >> i) & 1u) != 0, live && members.count(column[i]) == 1);
      const int64_t id = row_ids[i];
      const bool bit = id >= 0 && id < 256 && ((words[id / 64] >> (id % 64)) & 1u) != 0;
      CHECK_EQ(((in_words >> i) & 1u) != 0, live && bit);
      CHECK_EQ(matches(range, nullptr, column[i]), range.lo <= column[i] && column[i] <= range.hi);
    }
  }
  for (int round = 0; round < 500; ++round) {  // what is said of a span holds for every value within
    const auto lo = static_cast<int64_t>(random() % 9), hi = lo + static_cast<int64_t>(random() % 4);
    const std::vector<int64_t> values{1, 2, 3, 5, 7};
    const Term range{0, kRange, static_cast<int64_t>(random() % 9), static_cast<int64_t>(random() % 9)};
    const auto first = static_cast<int64_t>(random() % 5);
    const Term membership{0, kMembership, first, first + static_cast<int64_t>(random() % static_cast<size_t>(6 - first))};
    for (const Term& term : {range, membership}) {
      int64_t held = 0;
      for (int64_t v = lo; v <= hi; ++v) held += matches(term, values.data(), v);
      const Verdict verdict = judge_term(term, values.data(), lo, hi);
      CHECK(verdict != kNone || held == 0);
      CHECK(verdict != kAll || held == hi - lo + 1);
      CHECK(lo != hi || verdict != kSome);
    }
  }
  CHECK_EQ(filter_term(Term{0, kRange, INT64_MIN, INT64_MAX}, nullptr, column, 5), 5u);
  CHECK_EQ(filter_bitmap(nullptr, 0, row_ids, ~uint64_t{0}), 0u);
}

TEST(crc32c_known_values_and_variants) {
  CHECK_EQ(crc32c_portable(0, "123456789", 9), 0xe3069283u);
  CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
  std::mt19937_64 random(9);
  std::vector<unsigned char> data(300);
  for (unsigned char& byte : data) byte = static_cast<unsigned char>(random());
  for (size_t size = 0; size < data.size(); ++size) {
    const auto start = static_cast<uint32_t>(random());
    CHECK_EQ(crc32c(start, data.data() + size % 8, size - size % 8),
             crc32c_portable(start, data.data() + size % 8, size - size % 8));
    CHECK_EQ(crc32c_portable(crc32c_portable(0, data.data(), size), data.data() + size, data.size() - size),
             crc32c_portable(0, data.data(), data.size()));
  }
  data.resize(20000);
  for (unsigned char& byte : data) byte = static_cast<unsigned char>(random());
  for (const size_t border : {3072, 6144, 9216}) {  // long data is summed up in stretches
    for (size_t size = border - 10; size < border + 3080; size += size < border + 10 ? 1 : 97) {
      const auto start = static_cast<uint32_t>(random());
      CHECK_EQ(crc32c(start, data.data() + size % 9, size), crc32c_portable(start, data.data() + size % 9, size));
    }
  }
}

TEST(flat_map_agrees_with_a_set_of_pairs) {
  std::mt19937_64 random(11);
  FlatMap<int64_t, int64_t{-1}> map;
  std::vector<int64_t> model(2000, -1);  // keys -1000 .. 999
  for (int step = 0; step < 200000; ++step) {
    const auto at = static_cast<size_t>(random() % 2000);
    const int64_t key = static_cast<int64_t>(at) - 1000;
    if (random() % 3 != 0) {
      map.reserve(map.size() + 1);
      CHECK_EQ(map.put(key, step), model[at]);
      model[at] = step;
    } else {
      CHECK_EQ(map.erase(key), model[at]);
      model[at] = -1;
    }
    const auto other = static_cast<size_t>(random() % 2000);
    CHECK_EQ(map.find(static_cast<int64_t>(other) - 1000), model[other]);
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
