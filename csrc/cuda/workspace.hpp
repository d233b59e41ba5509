// Cuts a caller's workspace into arrays, each aligned to 16 bytes; the plans in core/ count the same way.
#pragma once

#include <cstdint>

namespace warpmem::cuda {

class Workspace {
 public:
  explicit Workspace(void* memory) : next_(static_cast<unsigned char*>(memory)) {}

  template <typename T>
  T* take(int64_t count) {
    T* const out = reinterpret_cast<T*>(next_);
    next_ += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return out;
  }

 private:
  unsigned char* next_;
};

}  // namespace warpmem::cuda
