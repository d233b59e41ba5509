// Arrays and numbers of the self-tests.
#pragma once

#include <cstring>
#include <vector>

#include "self_test.hpp"

namespace warpmem::cuda {

// An array in device memory. Without contents it is filled with a pattern, so that results that were not written show.
template <typename T>
class TestArray {
 public:
  TestArray(TestMemory& memory, int64_t n) : TestArray(memory, filled(n)) {}
  TestArray(TestMemory& memory, const std::vector<T>& from)
      : memory_(memory),
        bytes_(static_cast<int64_t>(from.size() * sizeof(T))),
        data_(static_cast<T*>(memory.allocate(bytes_ > 0 ? bytes_ : 1))) {
    memory_.upload(data_, from.data(), bytes_);
  }
  ~TestArray() { memory_.release(data_); }
  TestArray(const TestArray&) = delete;
  TestArray& operator=(const TestArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> get() const {
    std::vector<T> out(static_cast<size_t>(bytes_) / sizeof(T));
    memory_.download(out.data(), data_, bytes_);
    return out;
  }
  // Whether it holds these very bytes.
  bool holds(const std::vector<T>& expected) const {
    const std::vector<T> found = get();
    return found.size() == expected.size() && std::memcmp(found.data(), expected.data(), found.size() * sizeof(T)) == 0;
  }

 private:
  static std::vector<T> filled(int64_t n) {
    std::vector<T> out(static_cast<size_t>(n));
    if (n > 0) std::memset(static_cast<void*>(out.data()), 0x5a, out.size() * sizeof(T));
    return out;
  }

  TestMemory& memory_;
  const int64_t bytes_;
  T* const data_;
};

// Numbers in (-1, 1), some of them equal; the linear congruential generator of Numerical Recipes.
inline std::vector<float> test_numbers(int64_t n, uint32_t seed) {
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(static_cast<int32_t>(seed) / 65536) / 32768.0f;
  }
  return out;
}

inline void count_case(FamilyTest* test, bool same) {
  ++test->cases;
  if (!same) ++test->mismatches;
}

}  // namespace warpmem::cuda
