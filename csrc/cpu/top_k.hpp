// The k best candidates seen, as a heap whose front is the worst of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/keys.hpp"

namespace warpmem {

class TopK {
 public:
  void expect(int64_t rows) { expected_ += rows; }

  // Room for k candidates, or for all that are expected. Nothing allocates after this.
  void reserve(int64_t k) {
    k_ = static_cast<size_t>(k);
    heap_.reserve(std::min(k_, static_cast<size_t>(expected_)));
  }

  size_t size() const { return heap_.size(); }

  // A score below this cannot enter.
  float threshold() const { return heap_.size() == k_ ? heap_.front().score : -INFINITY; }

  void offer(const Candidate& candidate) {
    if (heap_.size() < k_) {
      heap_.push_back(candidate);
      if (heap_.size() == k_) std::make_heap(heap_.begin(), heap_.end(), kBetter);  // nobody asks for the worst before
    } else if (better(candidate, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), kBetter);
      heap_.back() = candidate;
      std::push_heap(heap_.begin(), heap_.end(), kBetter);
    }
  }

  void take_all(const TopK& other) {
    for (const Candidate& candidate : other.heap_) offer(candidate);
  }

  const std::vector<Candidate>& sorted() {
    std::sort(heap_.begin(), heap_.end(), kBetter);
    return heap_;
  }

 private:
  // The address of a function would not be inlined.
  static constexpr auto kBetter = [](const Candidate& a, const Candidate& b) { return better(a, b); };

  std::vector<Candidate> heap_;
  size_t k_ = 0;
  int64_t expected_ = 0;
};

}  // namespace warpmem
