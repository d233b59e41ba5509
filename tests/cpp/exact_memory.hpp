// Outputs and workspaces of emulated kernels, poisoned before they are written.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

template <typename T>
inline std::vector<T> filled(int64_t n, unsigned char fill) {
  std::vector<T> out(static_cast<size_t>(n));
  if (n > 0) std::memset(static_cast<void*>(out.data()), fill, out.size() * sizeof(T));
  return out;
}

// Workspaces are aligned to 16 bytes and exactly as large as planned: the sanitizer sees a byte too many.
struct Memory {
  Memory(int64_t bytes, unsigned char fill) : data(static_cast<unsigned char*>(::operator new(static_cast<size_t>(bytes)))) {
    std::memset(data, fill, static_cast<size_t>(bytes));
  }
  ~Memory() { ::operator delete(data); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  unsigned char* data;
};
