// Postings under random changes: the bits of postings made anew of what is there, and BM25 in plain double.
#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../../csrc/cpu/postings.hpp"
#include "check.hpp"

using namespace warpmem;

namespace {

using Random = std::mt19937_64;

struct Row {
  int64_t run;
  uint32_t ordinal;
  std::string text;
};

using Rows = std::map<int64_t, Row>;

// Letters of one to four bytes; a word's first four end at any of them. Some texts are empty, some repeat one word.
std::string random_text(Random& random) {
  static const char* const kLetters[] = {"a", "b", "7", "\xc3\xa9", "\xe6\x9d\xb1", "\xf0\x9d\x94\x98"};
  static const char* const kGaps[] = {" ", "-", "\x01", "  "};
  std::string text;
  for (uint64_t word = random() % 7; word > 0; --word) {
    std::string letters;
    for (uint64_t i = 1 + random() % 6; i > 0; --i) letters += kLetters[random() % (word % 2 == 0 ? 2 : 6)];
    for (uint64_t times = random() % 8 == 0 ? 9 : 1; times > 0; --times) text += letters + kGaps[random() % 4];
  }
  return text;
}

bool same_scores(const std::vector<Postings::Score>& left, const std::vector<Postings::Score>& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(), [](const auto& a, const auto& b) {
    return a.total == b.total && a.lexical == b.lexical && a.adjacent == b.adjacent;
  });
}

void check_equal(const Postings& postings, const Rows& rows, int64_t ids, Random& random) {
  Postings anew;
  for (const auto& [row, what] : rows) anew.put(row, what.run, what.ordinal, what.text);
  CHECK_EQ(postings.rows(), static_cast<int64_t>(rows.size()));
  CHECK(postings.terms() >= anew.terms());
  std::vector<int64_t> also{-1, ids + 5};
  for (int64_t row = 0; row < ids; ++row) {
    CHECK_EQ(postings.has(row), rows.count(row) != 0);
    CHECK_EQ(postings.ordinal(row), rows.count(row) != 0 ? rows.at(row).ordinal : 0u);
    also.push_back(row);
  }
  for (int query = 0; query < 4; ++query) {
    const std::string text = random_text(random);
    const auto all = anew.score(text, 2.0f, 0.7f, static_cast<size_t>(ids), also);
    CHECK(all.all);
    for (const auto& score : all.also) CHECK(score.lexical >= 0.0f && score.lexical < 1.0f);
    for (const size_t most : {size_t{0}, size_t{1}, size_t{5}, static_cast<size_t>(ids)}) {
      const auto found = postings.score(text, 2.0f, 0.7f, most, also);
      CHECK(same_scores(found.also, all.also));
      CHECK_EQ(found.all, all.best.size() <= most);
      CHECK_EQ(found.best.size(), std::min(most, all.best.size()));
      CHECK(std::is_sorted(found.best.begin(), found.best.end(),
                           [](const auto& a, const auto& b) { return a.total != b.total ? a.total > b.total : a.row < b.row; }));
      if (found.best.size() > all.best.size()) continue;  // said above
      const auto end = all.best.begin() + static_cast<std::ptrdiff_t>(found.best.size());
      CHECK(same_scores(found.best, {all.best.begin(), end}));
      CHECK(std::equal(found.best.begin(), found.best.end(), all.best.begin(), end,
                       [](const auto& a, const auto& b) { return a.row == b.row; }));
    }
  }
}

}  // namespace

TEST(random_changes_leave_what_is_there) {
  Random random(41);
  constexpr int64_t kIds = 60;
  Postings postings;
  Rows rows;
  for (int step = 0; step < 6000; ++step) {
    const auto row = static_cast<int64_t>(random() % kIds);
    CHECK_EQ(postings.remove(row), rows.erase(row) != 0);
    if (random() % 3 != 0) {
      const Row made{static_cast<int64_t>(random() % 5) - 2, static_cast<uint32_t>(random() % 90), random_text(random)};
      postings.put(row, made.run, made.ordinal, made.text);
      rows[row] = made;
    }
    if (step % 150 == 0) check_equal(postings, rows, kIds, random);
  }
  check_equal(postings, rows, kIds, random);
}

TEST(rows_that_never_come_back_are_forgotten) {
  Random random(42);
  Postings postings;
  Rows rows;
  int64_t most_bytes = 0;
  for (int64_t row = 0; row < 8000; ++row) {
    const Row made{row % 3 - 1, static_cast<uint32_t>(row), "w" + std::to_string(row) + " " + random_text(random)};
    postings.put(row, made.run, made.ordinal, made.text);
    rows[row] = made;
    if (row >= 30) {
      CHECK(postings.remove(row - 30));
      rows.erase(row - 30);
    }
    most_bytes = std::max(most_bytes, postings.bytes());
  }
  check_equal(postings, rows, 8000, random);
  CHECK(postings.terms() < 8000);
  CHECK(most_bytes < int64_t{8000} * 40 * 2 + (1 << 20));
  while (!rows.empty()) {
    CHECK(postings.remove(rows.begin()->first));
    rows.erase(rows.begin());
  }
  CHECK_EQ(postings.rows(), 0);
  CHECK(postings.score("w7999 aaaa", 1.0f, 1.0f, 9, {7999}).best.empty());
}

TEST(scores_are_bm25) {
  Postings postings;
  postings.put(0, Postings::kNoRun, 0, "tower tower tea");
  postings.put(1, Postings::kNoRun, 0, "tea");
  postings.put(2, Postings::kNoRun, 0, "");
  const auto weight = [](double n) { return std::pow(std::log(1.0 + (3.0 - n + 0.5) / (n + 0.5)), 2.0); };
  const auto share = [](double count, double length) { return count / (count + 1.2 * (0.6 + 0.4 * length / 2.0)); };
  const double whole = 3 * weight(1) + weight(2);  // tower, its first four letters, unheard; tea
  const auto found = postings.score("tea tower tea unheard", 1.0f, 0.0f, 9, {});
  CHECK_EQ(found.best.size(), size_t{2});
  CHECK(std::abs(found.best[0].lexical - (2 * weight(1) * share(2, 5) + weight(2) * share(1, 5)) / whole) < 1e-6);
  CHECK(std::abs(found.best[1].lexical - weight(2) * share(1, 1) / whole) < 1e-6);
}

TEST(a_word_of_four_letters_is_what_longer_ones_begin_with) {
  Postings postings;
  postings.put(0, Postings::kNoRun, 0, "playing");
  postings.put(1, Postings::kNoRun, 0, "play tea");
  postings.put(2, Postings::kNoRun, 0, "tea");
  CHECK_EQ(postings.score("play", 1.0f, 0.0f, 9, {}).best.size(), size_t{2});
  CHECK_EQ(postings.score("plays", 1.0f, 0.0f, 9, {}).best.size(), size_t{2});
  CHECK_EQ(postings.score("pla", 1.0f, 0.0f, 9, {}).best.size(), size_t{0});
}

TEST(words_that_no_row_holds_take_their_share_whoever_held_them) {
  Postings postings;
  postings.put(0, Postings::kNoRun, 0, "tea");
  postings.put(1, Postings::kNoRun, 0, "milk");
  const float alone = postings.score("tea", 1.0f, 0.0f, 9, {}).best[0].lexical;
  const float among = postings.score("tea unheard", 1.0f, 0.0f, 9, {}).best[0].lexical;
  CHECK(std::abs(among - 0.5f * alone) < 1e-6f);  // as if one row held it, as one holds tea
  CHECK(postings.score("tea unheard plays play plays", 1.0f, 0.0f, 9, {}).best[0].lexical ==
        postings.score("tea unheard play plays", 1.0f, 0.0f, 9, {}).best[0].lexical);
  postings.put(2, Postings::kNoRun, 0, "unheard");
  postings.remove(2);
  CHECK(postings.score("tea unheard", 1.0f, 0.0f, 9, {}).best[0].lexical == among);
}

TEST(a_word_with_a_digit_counts_for_two) {
  Postings postings;
  postings.put(0, Postings::kNoRun, 0, "x7");
  postings.put(1, Postings::kNoRun, 0, "tea");
  const auto found = postings.score("tea x7", 1.0f, 0.0f, 9, {});
  CHECK_EQ(found.best.size(), size_t{2});
  CHECK_EQ(found.best[0].row, 0u);
  CHECK(std::abs(found.best[0].lexical - 2 * found.best[1].lexical) < 1e-6);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
