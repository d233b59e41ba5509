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

  // Keys below this cannot enter.
  uint64_t least() const { return least_; }
  bool dropped() const { return dropped_; }
  size_t size() const { return n_; }
  const uint64_t* keys() const { return keys_.data(); }

  void add(uint64_t key) {
    if (key < least_) return;
    if (n_ == keys_.size()) cut();
    keys_[n_++] = key;
  }

  // The sums of one page, all of them.
  void add_page(const SelectKernels& kernels, const uint16_t* sums, uint32_t place) {
    for (int64_t at = 0; at < kPageRows;) {
      auto n = static_cast<int64_t>(n_);
      at = kernels.collect_u16(sums, at, kPageRows, static_cast<uint16_t>(least_ >> 32), place, keys_.data(),
                               static_cast<int64_t>(keys_.size()), &n);
      n_ = static_cast<size_t>(n);
      if (at < kPageRows) cut();
    }
  }

  void cut() {
    if (n_ <= keep_) return;
    const auto middle = keys_.begin() + static_cast<std::ptrdiff_t>(keep_);
    std::nth_element(keys_.begin(), middle - 1, keys_.begin() + static_cast<std::ptrdiff_t>(n_), std::greater<uint64_t>());
    n_ = keep_;
    least_ = keys_[keep_ - 1];
    dropped_ = true;
  }

  void take_all(const Shortlist& other) {
    least_ = std::max(least_, other.least_);
    dropped_ = dropped_ || other.dropped_;
    for (size_t i = 0; i < other.n_; ++i) add(other.keys_[i]);
  }

  void sort() { std::sort(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(n_), std::greater<uint64_t>()); }

 private:
  std::vector<uint64_t> keys_;
  size_t n_ = 0;
  size_t keep_ = 0;
  uint64_t least_ = 0;
  bool dropped_ = false;
};

}  // namespace warpmem
