// A hash map from int64 to a small trivially copyable value: open addressing, linear probing, removal by shifting back (Knuth, TAOCP 6.4,
// algorithm R), at most 3/4 full. One value, kEmpty, marks a free slot and cannot be stored.
//
// It exists for one property that std::unordered_map lacks: after reserve(n), n insertions neither allocate nor throw, so a change can be prepared
// first and then made without failing halfway. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace warpmem {

template <typename V, V kEmpty>
class FlatMap {
 public:
  size_t size() const noexcept { return size_; }
  size_t bytes() const noexcept { return slots_.size() * sizeof(Slot); }

  // Makes room for `n` values in all. Throws std::bad_alloc and changes nothing when there is no memory.
  void reserve(size_t n) {
    size_t capacity = slots_.empty() ? 8 : slots_.size();
    while (n > capacity / 4 * 3) capacity *= 2;
    if (capacity == slots_.size()) return;
    std::vector<Slot> larger(capacity);
    larger.swap(slots_);
    size_ = 0;
    for (const Slot& slot : larger) {
      if (slot.value != kEmpty) put(slot.key, slot.value);
    }
  }

  // The value of `key`, or kEmpty.
  V find(int64_t key) const noexcept {
    if (size_ == 0) return kEmpty;
    return slots_[probe(key)].value;
  }

  // Sets the value of `key` and returns the one it had, or kEmpty. Room for a new key must have been reserved.
  V put(int64_t key, V value) noexcept {
    Slot& slot = slots_[probe(key)];
    const V old = slot.value;
    if (old == kEmpty) ++size_;
    slot = Slot{key, value};
    return old;
  }

  // Removes `key` and returns the value it had, or kEmpty.
  V erase(int64_t key) noexcept {
    if (size_ == 0) return kEmpty;
    size_t hole = probe(key);
    const V old = slots_[hole].value;
    if (old == kEmpty) return kEmpty;
    --size_;
    const size_t mask = slots_.size() - 1;
    for (size_t i = (hole + 1) & mask; slots_[i].value != kEmpty; i = (i + 1) & mask) {
      const size_t home = hash(slots_[i].key) & mask;
      if (((i - home) & mask) >= ((i - hole) & mask)) {  // its probe path passes the hole
        slots_[hole] = slots_[i];
        hole = i;
      }
    }
    slots_[hole].value = kEmpty;
    return old;
  }

  template <typename F>
  void for_each(F&& f) const {
    for (const Slot& slot : slots_) {
      if (slot.value != kEmpty) f(slot.key, slot.value);
    }
  }

  void swap(FlatMap& other) noexcept {
    slots_.swap(other.slots_);
    std::swap(size_, other.size_);
  }

 private:
  struct Slot {
    int64_t key = 0;
    V value = kEmpty;
  };

  // The finaliser of SplitMix64 (Steele, Lea and Flood 2014): ids often count up, and must not fill one run of slots.
  static size_t hash(int64_t key) noexcept {
    auto h = static_cast<uint64_t>(key);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return static_cast<size_t>(h ^ (h >> 31));
  }

  // Where `key` is, or the free slot where it would go.
  size_t probe(int64_t key) const noexcept {
    const size_t mask = slots_.size() - 1;
    size_t i = hash(key) & mask;
    while (slots_[i].value != kEmpty && slots_[i].key != key) i = (i + 1) & mask;
    return i;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace warpmem
