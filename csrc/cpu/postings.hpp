// One owner's words: which rows hold which, how often, and which rows stand around which. Scored by BM25 (Robertson and Zaragoza, "The Probabilistic
// Relevance Framework: BM25 and Beyond", 2009) with the inverse document frequency of Lucene, which is never negative:
//
//   lexical(q, d)  = sum over the distinct terms t of q of  w(t) * tf(t, d) / (tf(t, d) + k1 * (1 - b + b * |d| / mean |d|)),      k1 = 1.2, b = 0.4
//   w(t)           = idf(t)^2, twice for a term with a digit
//   idf(t)         = ln(1 + (N - n(t) + 1/2) / (n(t) + 1/2)), n(t) at least 1: a term that no row holds weighs as much as one that one row does
//   adjacent(q, d) = lexical of the rows just before and after d in its run, and half of that of the next but one
//
// N, n(t) and mean |d| are of the rows that count, or of all where none does: rows of the past are found, and do not count, or each correction of an item
// would make its words more common.
//
// lexical is divided by the sum of w over the terms of q, so it lies in [0, 1), whatever the query's length. Words of q that no row holds are
// among these: the more there are, the less the others tell.
//
// A word is a term, and so are its first four letters if it has more and no digit: that finds inflected forms in many languages without knowing any, and
// such a word counts for two. So does a word with a digit, which has no shorter form, or ids would weigh less than ordinary words. A word of four letters
// is the same term as the first four of a longer one, so "play" and "playing" meet. First letters of a word of q that no row holds are left out.
// Text is UTF-8 in which everything but ASCII letters, digits and bytes above 0x7f separates words; ingest/words.py makes it so.
//
// Not thread-safe. A change that throws std::bad_alloc leaves the object fit for nothing but its end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace warpmem {

class Postings {
 public:
  static constexpr int64_t kNoRun = -1;
  static constexpr int64_t kPast = -2;  // no run, and does not count
  static constexpr int64_t kMaxRow = (int64_t{1} << 31) - 1;

  struct Score {
    uint32_t row;
    float total;  // w_lexical * lexical + w_adjacent * adjacent
    float lexical;
    float adjacent;
  };
  struct Found {
    std::vector<Score> best;  // total descending, then row ascending
    bool all = true;          // no other row has a total above 0
    std::vector<Score> also;
  };

  struct Sums {  // by row, all three of them
    std::vector<float> totals;
    std::vector<float> lexical;
    std::vector<float> adjacent;
  };

  // Adds a row that is not there. run: rows of one run follow one another by ordinal; kNoRun, kPast: it follows none.
  void put(int64_t row, int64_t run, uint32_t ordinal, std::string_view text);
  // False when it is not there.
  bool remove(int64_t row) noexcept;
  Sums sums(std::string_view text, float w_lexical, float w_adjacent) const;
  // The `most` best rows of those with a total above 0, and the scores of the rows in `also`.
  Found score(std::string_view text, float w_lexical, float w_adjacent, size_t most, const std::vector<int64_t>& also) const;
  uint32_t ordinal(int64_t row) const noexcept { return has(row) ? docs_[static_cast<size_t>(row)].ordinal : 0; }

  bool has(int64_t row) const noexcept { return row >= 0 && row < row_ids() && docs_[static_cast<size_t>(row)].live; }
  int64_t row_ids() const noexcept { return static_cast<int64_t>(docs_.size()); }  // all below this
  int64_t rows() const noexcept { return rows_; }
  int64_t terms() const noexcept { return static_cast<int64_t>(lists_.size()); }
  int64_t bytes() const noexcept;

 private:
  struct Posting {
    uint32_t row;
    uint32_t count;
  };
  struct List {
    std::vector<Posting> postings;  // of removed rows too, until compact()
    uint32_t live = 0;
    uint32_t counted = 0;  // of these
  };
  struct Doc {
    int64_t run = kNoRun;
    uint64_t terms = 0;  // where its terms begin in terms_
    uint32_t n_terms = 0;
    uint32_t ordinal = 0;
    bool live = false;
    bool counts = false;
  };
  struct Place {
    uint32_t ordinal;
    uint32_t row;
    bool operator<(const Place& other) const noexcept {
      return ordinal != other.ordinal ? ordinal < other.ordinal : row < other.row;
    }
  };

  void forget(Doc& doc, uint32_t row) noexcept;
  void compact();
  std::vector<float> lexical_of(std::string_view text) const;
  std::vector<float> adjacent_of(const std::vector<float>& lexical) const;

  std::unordered_map<std::string, uint32_t> names_;
  std::vector<List> lists_;        // by term
  std::vector<Doc> docs_;          // by row
  std::vector<uint32_t> lengths_;  // by row: in terms, repetitions included; 0 for one that is not there
  std::vector<uint32_t> terms_;    // of all rows, those of removed ones too, until compact()
  std::unordered_map<int64_t, std::vector<Place>> runs_;
  int64_t rows_ = 0;
  int64_t length_ = 0;  // of all rows
  int64_t counted_rows_ = 0;
  int64_t counted_length_ = 0;
  uint64_t live_ = 0;  // postings of rows that are there; terms_ has an entry for each of these and of those not yet forgotten
};

}  // namespace warpmem
