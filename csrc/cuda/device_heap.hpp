// Device memory, or pinned host memory, under a hard limit: blocks of few sizes, cut from chunks, so that neither asking nor giving back calls the driver as a rule.
//
//   size 30,208:  chunk of 64 blocks | chunk of 64 | ...      one kind of chunk for each size that was asked for
//   size 98,304:  chunk of 64 blocks | ...
//
//   free ── allocate() ──> used ── release() ──> returned ── clean(): filled with zeros ──> free
//
// What was erased does not stay: zeros are enqueued on the heap's stream before a block is free again. Whoever gets it next writes on that stream too, or
// behind it. Nothing reads a block that is given back: its owner waits for kernels that do.
//
// Threads: any. release(), fits(), bytes() and the limit take a lock for a few instructions and never call the driver, so they may be used under any lock;
// allocate(), clean() and trim() call it and hold nothing meanwhile that the others wait for.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
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
    int64_t used = 0;  // or returned and not yet free
  };
  struct Block {
    unsigned char* memory = nullptr;  // null: none
    Chunk* chunk = nullptr;
  };

  // Pinned blocks are zeroed by the host, by clean() itself.
  DeviceHeap(Runtime& runtime, Stream stream, int64_t limit, bool pinned = false)
      : runtime_(runtime), stream_(stream), pinned_(pinned), limit_(limit) {}
  ~DeviceHeap();
  DeviceHeap(const DeviceHeap&) = delete;
  DeviceHeap& operator=(const DeviceHeap&) = delete;

  // A block of exactly `size` bytes, a multiple of 256. Throws std::bad_alloc when host memory is missing.
  HeapStatus allocate(int64_t size, Block* out);
  void release(const Block& block) noexcept;

  // When this returns, zeros are enqueued for all that was released before, whoever did that. False: the device failed, and what could not be zeroed is not free.
  bool clean() noexcept;
  // Gives chunks without a used block back to the device.
  void trim() noexcept;

  // Whether `n` blocks of each of these sizes could be had, chunks aside; 0 is no size.
  bool fits(int64_t n, int64_t size, int64_t other_size) const noexcept;

  int64_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
  void set_limit(int64_t limit) noexcept { limit_.store(limit, std::memory_order_relaxed); }
  int64_t bytes() const noexcept {
    return bytes_.load(std::memory_order_relaxed);
  }  // taken from the device, or being asked of it
  bool clean_already() const noexcept { return returned_blocks_.load(std::memory_order_acquire) == 0; }

 private:
  struct Class {
    std::list<Chunk> chunks;
    std::vector<Block> free;
    int64_t blocks = 0;    // of all chunks, and of one that is on its way
    int64_t returned = 0;  // of these, released and not yet free
  };

  Status take(void** out, int64_t bytes) noexcept;
  void give(void* memory) noexcept;
  bool zero(unsigned char* memory, int64_t bytes) noexcept;
  HeapStatus grow(int64_t size, Block* out);
  void take_free(Class& blocks, Block* out) noexcept;
  int64_t chunk_blocks(const Class& blocks, int64_t size) const noexcept;

  Runtime& runtime_;
  const Stream stream_;
  const bool pinned_;
  std::atomic<int64_t> limit_;
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> returned_blocks_{0};
  std::mutex cleaning_;       // one clean() at a time; taken before the other
  mutable std::mutex mutex_;  // guards what follows; never held during a call of the driver
  std::map<int64_t, Class> classes_;
  std::vector<Block> returned_;
  int64_t blocks_ = 0;  // of all classes: what `returned_` has room for
};

}  // namespace warpmem::cuda
