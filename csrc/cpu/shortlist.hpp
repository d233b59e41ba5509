// The best keys of one query, while page after page is scanned.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "../core/page.hpp"
#include "../core/select_k.hpp"
#include "op_kernels.hpp"

namespace warpmem {

// The best `keep` keys seen, in room for twice as many and some more. Nothing allocates after reserve().
class Shortlist {
 public:
  void reserve(size_t keep, int64_t rows) {
    keep_ = keep;
    const size_t wanted = 2 * keep + 256;
    keys_.resize(rows < static_cast<int64_t>(wanted) ? static_cast<size_t>(rows) + 64 : wanted);
  }

  // Keys below this cannot enter; it rises as keys come. After finish(): the least key that is kept, if any was dropped.
  uint64_t least() const { return least_; }
  bool dropped() const { return dropped_; }
  size_t size() const { return n_; }
  const uint64_t* keys() const { return keys_.data(); }

  void add(uint64_t key) {
    if (key < least_) return;
    if (n_ == keys_.size()) thin();
    keys_[n_++] = key;
  }

  // The sums of one page, all of them.
  void add_page(const SelectKernels& kernels, const uint16_t* sums, uint32_t place) {
    for (int64_t at = 0; at < kPageRows;) {
      auto n = static_cast<int64_t>(n_);
      at = kernels.collect_u16(sums, at, kPageRows, static_cast<uint16_t>(least_ >> 32), place, keys_.data(),
                               static_cast<int64_t>(keys_.size()), &n);
      n_ = static_cast<size_t>(n);
      if (at < kPageRows) thin();
    }
  }

  // Whether a sum of 0 cannot enter, so that add_page may be given 0 for rows that do not count.
  bool refuses_zero() const { return least_ >> 32 > 0; }

  // Leaves exactly the `keep` best, in descending order.
  void finish() {
    if (keep_ <= kOrdered && n_ > 0) {
      order();
    } else {
      cut();
      std::sort(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(n_), std::greater<uint64_t>());
    }
    if (dropped_ && n_ > 0) least_ = keys_[n_ - 1];
  }

  void take_all(const Shortlist& other) {
    least_ = std::max(least_, other.least_);
    dropped_ = dropped_ || other.dropped_;
    for (size_t i = 0; i < other.n_; ++i) add(other.keys_[i]);
  }

 private:
  static constexpr size_t kBuckets = 256;
  static constexpr size_t kOrdered = 512;  // keys that are put in order by way of the stack

  // How many keys have scores of each of kBuckets ranges of one size.
  struct Histogram {
    uint32_t low = UINT32_MAX;
    int shift = 0;
    uint32_t counts[kBuckets] = {};

    uint32_t bucket(uint64_t key) const { return (static_cast<uint32_t>(key >> 32) - low) >> shift; }
  };

  void count(Histogram& of) const {
    uint32_t low = UINT32_MAX;
    uint32_t high = 0;
    for (size_t i = 0; i < n_; ++i) {
      const auto score = static_cast<uint32_t>(keys_[i] >> 32);
      low = std::min(low, score);
      high = std::max(high, score);
    }
    of.low = low;
    while ((high - low) >> of.shift >= kBuckets) ++of.shift;
    for (size_t i = 0; i < n_; ++i) ++of.counts[of.bucket(keys_[i])];
  }

  // Makes room: drops keys that cannot be among the best, by a histogram of their scores, which costs a fraction of finding the best exactly. Where scores
  // crowd into one bucket, exactly.
  void thin() {
    Histogram scores;
    count(scores);
    size_t above = 0;
    uint32_t bucket = kBuckets;
    while (above < keep_) above += scores.counts[--bucket];
    if (above > keep_ + (keys_.size() - keep_) / 2) return cut();
    const uint64_t least = static_cast<uint64_t>(scores.low + (bucket << scores.shift)) << 32;
    size_t kept = 0;
    for (size_t i = 0; i < n_; ++i) {
      const uint64_t key = keys_[i];
      keys_[kept] = key;
      kept += key >= least ? 1 : 0;
    }
    dropped_ = dropped_ || kept < n_;
    n_ = kept;
    least_ = std::max(least_, least);
  }

  // finish(): keys go to the places of their buckets, and few are left to be compared with one another.
  void order() {
    Histogram scores;
    count(scores);
    const size_t keep = std::min(n_, keep_);
    uint32_t place[kBuckets];  // of the next key of each bucket that counts
    uint32_t bucket = kBuckets;
    uint32_t above = 0;
    while (above < keep) {
      place[--bucket] = above;
      above += scores.counts[bucket];
    }
    if (above > kOrdered) {  // crowded
      cut();
      std::sort(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(n_), std::greater<uint64_t>());
      return;
    }
    uint64_t ordered[kOrdered];
    for (size_t i = 0; i < n_; ++i) {
      const uint32_t of = scores.bucket(keys_[i]);
      if (of >= bucket) ordered[place[of]++] = keys_[i];
    }
    for (uint32_t of = bucket, end = above; of < kBuckets; ++of) {
      const uint32_t begin = end - scores.counts[of];
      if (end - begin > 1) std::sort(ordered + begin, ordered + end, std::greater<uint64_t>());
      end = begin;
    }
    std::copy(ordered, ordered + keep, keys_.begin());
    dropped_ = dropped_ || keep < n_;
    n_ = keep;
  }

  void cut() {
    if (n_ <= keep_) return;
    const auto middle = keys_.begin() + static_cast<std::ptrdiff_t>(keep_);
    std::nth_element(keys_.begin(), middle - 1, keys_.begin() + static_cast<std::ptrdiff_t>(n_), std::greater<uint64_t>());
    n_ = keep_;
    least_ = keys_[keep_ - 1];
    dropped_ = true;
  }

  std::vector<uint64_t> keys_;
  size_t n_ = 0;
  size_t keep_ = 0;
  uint64_t least_ = 0;
  bool dropped_ = false;
};

}  // namespace warpmem
