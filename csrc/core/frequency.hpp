// How often keys were seen lately, in a fixed number of bytes: a count-min sketch whose counts are halved now and then.
//
// A key has a counter in each of four rows; its count is the least of them, and only counters at that least are raised, so that a count is too high only
// where all four are shared. After `kPeriod` times as many additions as a row is wide all counters are halved: what was popular once fades.
// G. Cormode, S. Muthukrishnan, An improved data stream summary: the count-min sketch, 2005; G. Einziger, R. Friedman, B. Manes, TinyLFU, 2017.
#pragma once

#include <cstdint>
#include <vector>

namespace warpmem {

class Frequency {
 public:
  static constexpr int64_t kPeriod = 16;
  static constexpr int kRows = 4;
  static constexpr int kMost = 255;

  // For about `keys` keys that matter at a time; 4 bytes for each of the next power of two.
  explicit Frequency(int64_t keys) {
    while ((int64_t{1} << bits_) < keys) ++bits_;
    counts_.resize(static_cast<size_t>(kRows) << bits_);
  }

  int count(int64_t key) const noexcept {
    int least = kMost;
    for (int row = 0; row < kRows; ++row) {
      const int here = counts_[at(key, row)];
      least = here < least ? here : least;
    }
    return least;
  }

  void add(int64_t key) noexcept {
    const int least = count(key);
    for (int row = 0; row < kRows && least < kMost; ++row) {
      uint8_t& here = counts_[at(key, row)];
      if (here == least) ++here;
    }
    if (++added_ < kPeriod << bits_) return;
    added_ = 0;
    for (uint8_t& here : counts_) here = static_cast<uint8_t>(here / 2);
  }

 private:
  size_t at(int64_t key, int row) const noexcept {
    uint64_t x = static_cast<uint64_t>(key) + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(row + 1);  // splitmix64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (static_cast<size_t>(row) << bits_) + static_cast<size_t>(x & ((uint64_t{1} << bits_) - 1));
  }

  int bits_ = 6;
  int64_t added_ = 0;
  std::vector<uint8_t> counts_;
};

}  // namespace warpmem
