// Device memory, or pinned host memory, under a hard limit: blocks of few sizes, cut from chunks, so that neither asking nor giving back calls the driver as a rule.
//
//   size 30,208:  chunk of 64 blocks | chunk of 64 | ...      one kind of chunk for each size that was asked for
//   size 98,304:  chunk of 64 blocks | ...
//
// A block is filled with zeros on its way back, enqueued on the heap's stream: what was erased does not stay. Whoever gets it next writes on that stream
// too, or behind it. Nothing reads a block that is given back: its owner waits for kernels that do.
//
// Threads: the caller serialises; one that holds no lock may ask for bytes().
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "runtime.hpp"

namespace warpmem::cuda {

constexpr int64_t kDeviceChunkBytes = int64_t{16} << 20;  // at most, but for a block that is larger
constexpr int64_t kDeviceChunkBlocks = 256;
constexpr int64_t kDeviceChunksAtLeast =
    64;  // into which the limit is cut: what a half-used chunk keeps from other sizes is little of the whole

enum class HeapStatus { kOk, kFull, kNoMemory, kFailed };  // kFull: the limit; kNoMemory: the device has less than that

class DeviceHeap {
 public:
  struct Chunk {
    void* memory = nullptr;
    int64_t size = 0;  // of a block
    int64_t blocks = 0;
    int64_t used = 0;
  };
  struct Block {
    unsigned char* memory = nullptr;  // null: none
    Chunk* chunk = nullptr;
  };

  // Pinned blocks are zeroed by the host, at once.
  DeviceHeap(Runtime& runtime, Stream stream, int64_t limit, bool pinned = false)
      : runtime_(runtime), stream_(stream), pinned_(pinned), limit_(limit) {}
  ~DeviceHeap();
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;

  // A block of exactly `size` bytes, a multiple of 256. Throws std::bad_alloc when host memory is missing.
  HeapStatus allocate(int64_t size, Block* out);
  void release(const Block& block) noexcept;

  // Gives chunks without a used block back to the device.
  void trim() noexcept;

  // Whether `n` blocks of each of these sizes could be had, chunks aside; 0 is no size.
  bool fits(int64_t n, int64_t size, int64_t other_size) const noexcept;

  int64_t limit() const noexcept { return limit_; }
  void set_limit(int64_t limit) noexcept { limit_ = limit; }
  int64_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }  // taken from the device

 private:
  struct Class {
    std::vector<std::unique_ptr<Chunk>> chunks;
    std::vector<Block> free;
    int64_t blocks = 0;
  };

  Status take(void** out, int64_t bytes) noexcept;
  void give(void* memory) noexcept;
  HeapStatus grow(Class& blocks, int64_t size);

  Runtime& runtime_;
  const Stream stream_;
  const bool pinned_;
  int64_t limit_;
  std::atomic<int64_t> bytes_{0};
  std::map<int64_t, Class> classes_;
};

}  // namespace warpmem::cuda
