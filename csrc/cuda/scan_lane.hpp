// A lane of the device: a stream, device memory and pinned memory of one launch at a time. Both grow to the largest launch so far; what is larger than
// kLaneBytes, or kLaneHostBytes, is given back. Neither keeps anything of a launch: zeros are enqueued behind it, and the host's side is overwritten when it was read.
//
// Threads: that of the launch. The calling thread has entered the device; nothing here is called under a lock.
#pragma once

#include <cstdint>
#include <memory>

#include "launch_graphs.hpp"
#include "page_cache.hpp"

namespace warpmem::cuda {

constexpr int64_t kLaneBytes = int64_t{64} << 20;
constexpr int64_t kLaneHostBytes = int64_t{16} << 20;

struct ScanLane {
  Stream stream = nullptr;
  Event begin = nullptr;
  Event end = nullptr;
  std::shared_ptr<HeldBlock> block;
  int64_t block_bytes = 0;
  unsigned char* host = nullptr;  // the image, then the results
  int64_t host_bytes = 0;
  int64_t host_used = 0;                   // by the launch
  std::unique_ptr<unsigned char[]> plain;  // where there is no pinned memory
  LaunchGraphs graphs;                     // of launches in this very memory
  bool busy = false;                       // the queue's

  bool open(Runtime& runtime) noexcept;
  void close(PageCache& cache) noexcept;

  // Memory of at least so many bytes. False when the device has none, or fails. Throws std::bad_alloc.
  bool reserve(PageCache& cache, int64_t device_bytes, int64_t host_bytes);
  // Behind what a launch has enqueued: zeros over its part of the block.
  Status clean(Runtime& runtime, int64_t device_bytes) noexcept;
  // After a launch, or in place of one: nothing is under way any more.
  void tidy(PageCache& cache) noexcept;

 private:
  void release_host(Runtime& runtime) noexcept;
};

}  // namespace warpmem::cuda
