#include "postings.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <unordered_set>
#include <utility>

namespace warpmem {

namespace {

constexpr double kK1 = 1.2;
constexpr double kB = 0.4;
constexpr double kDigitWeight = 2.0;
constexpr size_t kPrefix = 4;  // letters
constexpr uint64_t kLeastDead = 4096;
constexpr uint32_t kCounts = 4;
constexpr uint32_t kLengths = 256;
constexpr size_t kThinOut = 4;
constexpr size_t kSampled = 16;  // one row in so many

bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

bool is_word(unsigned char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80; }

bool begins_letter(unsigned char c) { return (c & 0xc0) != 0x80; }

enum class Form { kWord, kDigits, kShortened };

// Calls `take(std::string& term, Form form)` for every term of a text, repetitions included.
template <typename Take>
void for_each_term(std::string_view text, const Take& take) {
  std::string term;
  size_t at = 0;
  while (at < text.size()) {
    while (at < text.size() && !is_word(static_cast<unsigned char>(text[at]))) ++at;
    const size_t begin = at;
    size_t letters = 0, prefix = 0;
    bool digits = false;
    while (at < text.size() && is_word(static_cast<unsigned char>(text[at]))) {
      const auto c = static_cast<unsigned char>(text[at]);
      digits = digits || is_digit(c);
      if (begins_letter(c)) {
        if (letters == kPrefix) prefix = at - begin;
        ++letters;
      }
      ++at;
    }
    if (at == begin) break;
    term.assign(text.data() + begin, at - begin);
    take(term, digits ? Form::kDigits : Form::kWord);
    if (letters > kPrefix && !digits) {
      term.assign(text.data() + begin, prefix);
      take(term, Form::kShortened);
    }
  }
}

// A total that about twice `most` rows exceed, as a sample has it; 0 where that would not help.
float promising(const std::vector<float>& totals, size_t most) {
  const size_t rank = 2 * most / kSampled;
  if (totals.size() < 8 * most || totals.size() < kSampled * 16) return 0.0f;
  std::vector<float> sample;
  sample.reserve(totals.size() / kSampled + 1);
  for (size_t row = 0; row < totals.size(); row += kSampled) sample.push_back(totals[row]);
  const auto at = sample.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(sample.begin(), at, sample.end(), std::greater<float>());
  return *at;
}

}  // namespace

void Postings::put(int64_t row, int64_t run, uint32_t ordinal, std::string_view text) {
  if (row >= row_ids()) {
    docs_.resize(static_cast<size_t>(row) + 1);
    lengths_.resize(docs_.size());
  }
  forget(docs_[static_cast<size_t>(row)], static_cast<uint32_t>(row));
  Doc doc;
  doc.run = run;
  doc.ordinal = ordinal;
  doc.counts = run != kPast;
  doc.terms = terms_.size();
  uint32_t length = 0;
  for_each_term(text, [&](std::string& term, Form) {
    terms_.push_back(names_.try_emplace(std::move(term), static_cast<uint32_t>(names_.size())).first->second);
    ++length;
  });
  lists_.resize(names_.size());
  std::sort(terms_.begin() + static_cast<std::ptrdiff_t>(doc.terms), terms_.end());
  size_t to = doc.terms;
  for (size_t from = doc.terms; from < terms_.size();) {
    const uint32_t term = terms_[from];
    uint32_t count = 0;
    while (from < terms_.size() && terms_[from] == term) {
      ++count;
      ++from;
    }
    List& list = lists_[term];
    list.postings.push_back(Posting{static_cast<uint32_t>(row), count});
    ++list.live;
    if (doc.counts) ++list.counted;
    terms_[to++] = term;
  }
  terms_.resize(to);
  doc.n_terms = static_cast<uint32_t>(to - doc.terms);
  live_ += doc.n_terms;
  if (run >= 0) {
    std::vector<Place>& places = runs_[run];
    const Place place{ordinal, static_cast<uint32_t>(row)};
    places.insert(std::upper_bound(places.begin(), places.end(), place), place);
  }
  doc.live = true;
  docs_[static_cast<size_t>(row)] = doc;
  ++rows_;
  lengths_[static_cast<size_t>(row)] = length;
  length_ += length;
  if (doc.counts) {
    ++counted_rows_;
    counted_length_ += length;
  }
  const uint64_t dead = terms_.size() - live_;
  if (dead > kLeastDead && dead > terms_.size() / 2) compact();
}

bool Postings::remove(int64_t row) noexcept {
  if (!has(row)) return false;
  Doc& doc = docs_[static_cast<size_t>(row)];
  for (uint32_t i = 0; i < doc.n_terms; ++i) {
    List& list = lists_[terms_[doc.terms + i]];
    --list.live;
    if (doc.counts) --list.counted;
  }
  live_ -= doc.n_terms;
  if (doc.run >= 0) {
    const auto found = runs_.find(doc.run);
    std::vector<Place>& places = found->second;
    places.erase(std::lower_bound(places.begin(), places.end(), Place{doc.ordinal, static_cast<uint32_t>(row)}));
    if (places.empty()) runs_.erase(found);
  }
  --rows_;
  length_ -= lengths_[static_cast<size_t>(row)];
  if (doc.counts) {
    --counted_rows_;
    counted_length_ -= lengths_[static_cast<size_t>(row)];
  }
  lengths_[static_cast<size_t>(row)] = 0;
  doc.run = kNoRun;
  doc.ordinal = 0;
  doc.live = false;
  return true;
}

// The postings of a removed row go, because the row comes back: they would count as its own.
void Postings::forget(Doc& doc, uint32_t row) noexcept {
  for (uint32_t i = 0; i < doc.n_terms; ++i) {
    std::vector<Posting>& postings = lists_[terms_[doc.terms + i]].postings;
    const auto own =
        std::find_if(postings.rbegin(), postings.rend(), [row](const Posting& posting) { return posting.row == row; });
    postings.erase(std::next(own).base());
  }
  doc.n_terms = 0;
}

// Forgets the postings of removed rows, and terms that no row holds any more.
void Postings::compact() {
  std::vector<uint32_t> renamed(lists_.size());
  std::vector<List> lists;
  for (auto at = names_.begin(); at != names_.end();) {
    List& list = lists_[at->second];
    if (list.live == 0) {
      at = names_.erase(at);
      continue;
    }
    list.postings.erase(std::remove_if(list.postings.begin(), list.postings.end(),
                                       [this](const Posting& posting) { return !docs_[posting.row].live; }),
                        list.postings.end());
    list.postings.shrink_to_fit();
    renamed[at->second] = static_cast<uint32_t>(lists.size());
    at->second = static_cast<uint32_t>(lists.size());
    lists.push_back(std::move(list));
    ++at;
  }
  std::vector<uint32_t> terms;
  for (Doc& doc : docs_) {
    const uint64_t begin = terms.size();
    if (!doc.live) doc.n_terms = 0;
    for (uint32_t i = 0; i < doc.n_terms; ++i) terms.push_back(renamed[terms_[doc.terms + i]]);
    doc.terms = begin;
  }
  lists_.swap(lists);
  terms_.swap(terms);
}

std::vector<float> Postings::lexical_of(std::string_view text) const {
  std::vector<float> sums(docs_.size());
  if (length_ == 0) return sums;
  const bool some_count = counted_length_ > 0;
  const auto rows = static_cast<double>(some_count ? counted_rows_ : rows_);
  // In the text's order, which no history changes: so a sum is the same to the bit in every process.
  std::vector<std::pair<const List*, double>> terms;
  std::unordered_set<std::string> taken;
  double whole = 0.0;
  for_each_term(text, [&](const std::string& term, Form form) {
    const auto known = names_.find(term);
    const List* list = known == names_.end() ? nullptr : &lists_[known->second];
    const bool known_here = list != nullptr && list->live > 0;
    if ((!known_here && form == Form::kShortened) || !taken.insert(term).second) return;
    const double n = !known_here ? 0.0 : some_count ? list->counted : list->live;
    const double held = std::max(n, 1.0);  // what nothing holds weighs as much as what one row does
    const double idf = std::log(1.0 + (rows - held + 0.5) / (held + 0.5));
    const double weight = (form == Form::kDigits ? kDigitWeight : 1.0) * idf * idf;
    whole += weight;
    if (known_here) terms.emplace_back(list, weight);
  });
  const double mean = static_cast<double>(some_count ? counted_length_ : length_) / rows;
  const auto share_of = [mean](uint32_t count, uint32_t length) {
    return static_cast<float>(count / (count + kK1 * (1.0 - kB + kB * length / mean)));
  };
  // Of short rows with few repetitions, so nearly all.
  std::vector<float> shares(size_t{kCounts} * kLengths);
  for (uint32_t count = 1; count < kCounts; ++count) {
    for (uint32_t length = 1; length < kLengths; ++length) shares[count * kLengths + length] = share_of(count, length);
  }
  for (const auto& [list, part] : terms) {
    const auto weight = static_cast<float>(part / whole);
    for (const Posting& posting : list->postings) {
      const uint32_t length = lengths_[posting.row];
      if (length == 0) continue;  // a removed row
      const bool known = length < kLengths && posting.count < kCounts;
      sums[posting.row] += weight * (known ? shares[posting.count * kLengths + length] : share_of(posting.count, length));
    }
  }
  return sums;
}

std::vector<float> Postings::adjacent_of(const std::vector<float>& lexical) const {
  std::vector<float> sums(lexical.size());
  std::vector<float> values;  // of a run, between two zeros at either end
  for (const auto& [run, places] : runs_) {
    const size_t n = places.size();
    values.assign(n + 4, 0.0f);
    for (size_t i = 0; i < n; ++i) values[i + 2] = lexical[places[i].row];
    for (size_t i = 0; i < n; ++i) {
      sums[places[i].row] = 0.5f * values[i] + values[i + 1] + values[i + 3] + 0.5f * values[i + 4];
    }
  }
  return sums;
}

Postings::Sums Postings::sums(std::string_view text, float w_lexical, float w_adjacent) const {
  Sums sums;
  sums.lexical = lexical_of(text);
  const size_t n = sums.lexical.size();
  sums.adjacent = w_adjacent > 0.0f ? adjacent_of(sums.lexical) : std::vector<float>(n);
  sums.totals.resize(n);
  for (size_t row = 0; row < n; ++row) sums.totals[row] = w_lexical * sums.lexical[row] + w_adjacent * sums.adjacent[row];
  return sums;
}

Postings::Found Postings::score(std::string_view text, float w_lexical, float w_adjacent, size_t most,
                                const std::vector<int64_t>& also) const {
  const Sums found_sums = sums(text, w_lexical, w_adjacent);
  const std::vector<float>&totals = found_sums.totals, &lexical = found_sums.lexical, &adjacent = found_sums.adjacent;
  Found found;
  for (const int64_t row : also) {
    const bool known = row >= 0 && row < row_ids();
    const auto at = static_cast<size_t>(row);
    found.also.push_back(Score{});
    if (known) found.also.back() = Score{static_cast<uint32_t>(row), totals[at], lexical[at], adjacent[at]};
  }
  const auto better = [](const Score& left, const Score& right) {
    return left.total != right.total ? left.total > right.total : left.row < right.row;
  };
  // Rows that beat the worst of the best so far are gathered, and thinned out when they are too many.
  std::vector<Score>& best = found.best;
  const auto gather = [&](float least) {
    best.clear();
    found.all = true;
    for (size_t row = 0; row < totals.size(); ++row) {
      const float total = totals[row];
      if (!(total > least)) {
        found.all = found.all && total <= 0.0f;
        continue;
      }
      best.push_back(Score{static_cast<uint32_t>(row), total, lexical[row], adjacent[row]});
      if (most > 0 && best.size() < kThinOut * most) continue;
      std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(most), best.end(), better);
      best.resize(most);
      found.all = false;
      if (most > 0) least = std::max_element(best.begin(), best.end(), better)->total;
    }
  };
  const float promised = promising(totals, most);
  gather(promised);
  if (promised > 0.0f && best.size() < most) gather(0.0f);
  std::sort(best.begin(), best.end(), better);
  found.all = found.all && best.size() <= most;
  if (best.size() > most) best.resize(most);
  return found;
}

int64_t Postings::bytes() const noexcept {
  size_t total = docs_.capacity() * sizeof(Doc) + terms_.capacity() * sizeof(uint32_t) + lists_.capacity() * sizeof(List);
  total += terms_.size() * sizeof(Posting) + names_.size() * (sizeof(std::string) + 2 * sizeof(void*) + sizeof(uint32_t));
  return static_cast<int64_t>(total + static_cast<size_t>(rows_) * sizeof(Place));
}

}  // namespace warpmem
