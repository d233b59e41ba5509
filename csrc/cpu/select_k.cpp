#include "select_k.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>

#include "../core/select_k.hpp"
#include "fork.hpp"

namespace warpmem {
namespace {

constexpr int64_t kForkScores = 1 << 17;  // fewer scores than this are not worth another thread
constexpr int64_t kRadixMin = 512;        // sorts longer than this go by digits
constexpr int kDigitBits = 11;

// Descending sort by digits, least significant first. Only the `low_bits` lowest bits and the upper 32 differ between keys.
void sort_by_digits(uint64_t* keys, uint64_t* spare, int64_t n, int low_bits) {
  uint64_t* from = keys;
  uint64_t* to = spare;
  int shift = 0;
  while (shift < 64) {
    const int width = shift < 32 ? std::min(kDigitBits, 32 - shift) : std::min(kDigitBits, 64 - shift);
    if (shift < 32 && shift >= low_bits) {
      shift = 32;
      continue;
    }
    const uint64_t mask = (uint64_t{1} << width) - 1;
    uint32_t counts[1 << kDigitBits] = {};
    for (int64_t i = 0; i < n; ++i) ++counts[(from[i] >> shift) & mask];
    uint32_t start = 0;
    for (int64_t d = static_cast<int64_t>(mask); d >= 0; --d) {
      const uint32_t count = counts[d];
      counts[d] = start;
      start += count;
    }
    for (int64_t i = 0; i < n; ++i) to[counts[(from[i] >> shift) & mask]++] = from[i];
    std::swap(from, to);
    shift += width;
  }
  if (from != keys) std::copy(from, from + n, keys);
}

struct Ordered {
  uint64_t key;  // score and ordinal
  uint32_t index;
  bool operator<(const Ordered& other) const { return key != other.key ? key > other.key : index < other.index; }  // better first
};

int64_t select_ordered(const float* scores, int64_t columns, int64_t k, const uint32_t* ordinals, std::vector<Ordered>& kept,
                       float* values, int64_t* indexes) {
  kept.clear();
  const size_t wanted = static_cast<size_t>(k);
  const size_t capacity = static_cast<size_t>(select_capacity(k));
  float threshold = -std::numeric_limits<float>::infinity();
  const auto cut = [&] {
    std::nth_element(kept.begin(), kept.begin() + (k - 1), kept.end());
    kept.resize(wanted);
    threshold = key_score(kept.back().key);
  };
  for (int64_t i = 0; i < columns; ++i) {
    if (scores[i] < threshold) continue;  // an equal score may still win by its ordinal
    if (scores[i] != scores[i]) return i;
    kept.push_back(Ordered{select_key(scores[i], ordinals[i]), static_cast<uint32_t>(i)});
    if (kept.size() == capacity) cut();
  }
  if (kept.size() > wanted) cut();
  std::sort(kept.begin(), kept.end());
  for (size_t i = 0; i < kept.size(); ++i) {
    values[i] = key_score(kept[i].key);
    indexes[i] = kept[i].index;
  }
  std::fill(values + kept.size(), values + k, -std::numeric_limits<float>::infinity());
  std::fill(indexes + kept.size(), indexes + k, int64_t{-1});
  return -1;
}

void write_row(Selection& selection, int64_t k, float* values, int64_t* indexes) {
  int64_t n = 0;
  const uint64_t* const keys = selection.finish(&n);
  for (int64_t i = 0; i < n; ++i) {
    values[i] = key_score(keys[i]);
    indexes[i] = key_index(keys[i]);
  }
  std::fill(values + n, values + k, -std::numeric_limits<float>::infinity());
  std::fill(indexes + n, indexes + k, int64_t{-1});
}

}  // namespace

Selection::Selection(const SelectKernels& kernels, int64_t k)
    : kernels_(&kernels), k_(k), keys_(static_cast<size_t>(select_capacity(k))), spare_(static_cast<size_t>(k)) {}

void Selection::clear() noexcept {
  n_ = 0;
  full_ = false;
}

void Selection::cut() noexcept {
  std::nth_element(keys_.begin(), keys_.begin() + (k_ - 1), keys_.begin() + n_, std::greater<uint64_t>());
  n_ = k_;
  kth_ = keys_[static_cast<size_t>(k_ - 1)];
  full_ = true;
}

int64_t Selection::add(const float* scores, int64_t begin, int64_t end, uint32_t offset) noexcept {
  const int64_t capacity = static_cast<int64_t>(keys_.size());
  if (!full_) {
    // A small first sample gives a threshold early.
    const int64_t sample = 2 * k_ + 32;
    for (; begin < end && n_ < sample; ++begin) {
      if (scores[begin] != scores[begin]) return begin;
      keys_[static_cast<size_t>(n_++)] = select_key(scores[begin], static_cast<uint32_t>(begin) + offset);
    }
    if (begin == end) return -1;
    cut();
  }
  // Indexes grow, so what equals the k-th score comes too late.
  while (begin < end) {
    if (capacity - n_ < 64) cut();
    begin = kernels_->collect(scores, begin, end, key_score(kth_), offset, keys_.data(), capacity, &n_);
    if (begin < 0) return -1 - begin;
  }
  return -1;
}

void Selection::add_u16(const uint16_t* scores, int64_t begin, int64_t end, uint32_t offset) noexcept {
  const int64_t capacity = static_cast<int64_t>(keys_.size());
  while (begin < end) {
    if (capacity - n_ < 64) cut();
    const uint32_t least = full_ ? key_integer(kth_) + 1 : 0;
    if (least > UINT16_MAX) return;
    begin = kernels_->collect_u16(scores, begin, end, static_cast<uint16_t>(least), offset, keys_.data(), capacity, &n_);
  }
}

void Selection::add_u32(const uint32_t* scores, int64_t begin, int64_t end, uint32_t offset) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    if (n_ == static_cast<int64_t>(keys_.size())) cut();
    if (!full_ || scores[i] > key_integer(kth_)) {
      keys_[static_cast<size_t>(n_++)] = select_key(scores[i], static_cast<uint32_t>(i) + offset);
    }
  }
}

void Selection::merge(const Selection& other) noexcept {
  for (int64_t i = 0; i < other.n_; ++i) {
    if (n_ == static_cast<int64_t>(keys_.size())) cut();
    const uint64_t key = other.keys_[static_cast<size_t>(i)];
    if (!full_ || key > kth_) keys_[static_cast<size_t>(n_++)] = key;
  }
}

const uint64_t* Selection::finish(int64_t* n) noexcept {
  if (n_ > k_) cut();
  *n = n_;
  if (n_ < kRadixMin) {
    std::sort(keys_.begin(), keys_.begin() + n_, std::greater<uint64_t>());
  } else {
    uint64_t different = 0;
    for (int64_t i = 1; i < n_; ++i) different |= keys_[static_cast<size_t>(i)] ^ keys_[0];
    int low_bits = 0;
    while (low_bits < 32 && (different & 0xffffffffu) >> low_bits != 0) ++low_bits;
    sort_by_digits(keys_.data(), spare_.data(), n_, low_bits);
  }
  return keys_.data();
}

int64_t select_k(const OpKernels& ops, const float* scores, int64_t rows, int64_t columns, int64_t k, const uint32_t* ordinals,
                 int64_t threads, float* values, int64_t* indexes) {
  threads = std::min(threads, std::max<int64_t>(1, rows * columns / kForkScores));
  std::atomic<int64_t> bad{rows};  // the first row with a NaN
  const auto report = [&bad](int64_t row) {
    int64_t known = bad.load();
    while (row < known && !bad.compare_exchange_weak(known, row)) {
    }
  };
  if (ordinals != nullptr || rows >= threads) {
    const int64_t piece =
        std::max<int64_t>(1, std::min<int64_t>(rows / (threads * 4), 1 + kForkScores / std::max<int64_t>(columns, 1)));
    fork_pieces(rows, piece, threads, [&](int64_t first, int64_t last) {
      std::vector<Ordered> kept;
      Selection selection(*ops.select, k);
      if (ordinals != nullptr) kept.reserve(static_cast<size_t>(select_capacity(k)));
      for (int64_t r = first; r < last; ++r) {
        const float* const row = scores + r * columns;
        if (ordinals != nullptr) {
          if (select_ordered(row, columns, k, ordinals, kept, values + r * k, indexes + r * k) >= 0) report(r);
        } else {
          selection.clear();
          if (selection.add(row, 0, columns, 0) >= 0) report(r);
          write_row(selection, k, values + r * k, indexes + r * k);
        }
      }
    });
  } else {
    // Few long rows: each is cut into one part a thread, and the parts' best are merged.
    std::vector<Selection> parts(static_cast<size_t>(threads), Selection(*ops.select, k));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t piece = (columns + threads - 1) / threads;
      fork_pieces(columns, piece, threads, [&](int64_t first, int64_t last) {
        Selection& part = parts[static_cast<size_t>(first / piece)];
        part.clear();
        if (part.add(scores + r * columns, first, last, 0) >= 0) report(r);
      });
      for (size_t t = 1; t < parts.size(); ++t) {
        if (static_cast<int64_t>(t) * piece < columns) parts[0].merge(parts[t]);
      }
      write_row(parts[0], k, values + r * k, indexes + r * k);
    }
  }
  return bad.load() < rows ? bad.load() : -1;
}

}  // namespace warpmem
