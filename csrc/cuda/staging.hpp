// Pinned host memory between pages and the copy stream: two halves, of which one is filled while the other is read by the device. What was copied is not kept:
// wipe() and the destructor overwrite it.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime.hpp"

namespace warpmem::cuda {

class Staging {
 public:
  // Where there is no pinned memory ordinary memory does the same, more slowly. Throws std::bad_alloc without either.
  Staging(Runtime& runtime, Stream stream, int64_t half_bytes);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  int64_t room() const noexcept { return half_bytes_; }
  bool pinned() const noexcept { return pinned_ != nullptr; }

  // Memory for the next copy, at most room() bytes, once the device has read what stood there. Null: the device failed.
  unsigned char* next(int64_t bytes) noexcept;
  // Enqueues the copy of what next() gave and the caller filled.
  Status send(void* to, int64_t bytes) noexcept;
  // Waits for the device and overwrites with zeros what was written here since the last time. False: the device failed.
  bool wipe() noexcept;

 private:
  Runtime& runtime_;
  const Stream stream_;
  const int64_t half_bytes_;
  std::unique_ptr<unsigned char[]> plain_;
  unsigned char* pinned_ = nullptr;
  unsigned char* memory_ = nullptr;
  Event events_[2] = {nullptr, nullptr};  // when the device is through with a half
  bool busy_[2] = {false, false};
  int half_ = 0;
  int64_t used_ = 0;             // of the half
  int64_t written_[2] = {0, 0};  // of either, since it was wiped
};

}  // namespace warpmem::cuda
