#include "device_heap.hpp"

#include <algorithm>
#include <cstring>

#include "room.hpp"

namespace warpmem::cuda {

namespace {

constexpr size_t kCleanAtATime = 64;

}  // namespace

Status DeviceHeap::take(void** out, int64_t bytes) noexcept {
  return pinned_ ? runtime_.allocate_pinned(out, bytes) : runtime_.allocate(out, bytes);
}

void DeviceHeap::give(void* memory) noexcept { pinned_ ? runtime_.release_pinned(memory) : runtime_.release(memory); }

bool DeviceHeap::zero(unsigned char* memory, int64_t bytes) noexcept {
  if (!pinned_) return runtime_.fill(memory, 0, bytes, stream_) == Status::kOk;
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return true;
}

DeviceHeap::~DeviceHeap() {
  for (auto& [size, blocks] : classes_) {
    for (const Chunk& chunk : blocks.chunks) give(chunk.memory);
  }
}

HeapStatus DeviceHeap::allocate(int64_t size, Block* out) {
  for (bool trimmed = false;;) {
    bool comes = false;  // when it is clean
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Class& blocks = classes_[size];
      if (!blocks.free.empty()) {
        take_free(blocks, out);
        return HeapStatus::kOk;
      }
      comes = blocks.returned > 0;
    }
    if (comes) {
      if (!clean()) return HeapStatus::kFailed;
      continue;
    }
    const HeapStatus status = grow(size, out);
    if (status == HeapStatus::kOk || status == HeapStatus::kFailed || trimmed) return status;
    if (!clean()) return HeapStatus::kFailed;
    trim();  // another size may have chunks that nobody uses
    trimmed = true;
  }
}

// Under the mutex.
void DeviceHeap::take_free(Class& blocks, Block* out) noexcept {
  *out = blocks.free.back();
  blocks.free.pop_back();
  ++out->chunk->used;
}

// Chunks double with what there is, so that little is held for few pages. At least 1.
int64_t DeviceHeap::chunk_blocks(const Class& blocks, int64_t size) const noexcept {
  const int64_t largest = std::min(kDeviceChunkBytes, limit() / kDeviceChunksAtLeast);
  return std::clamp<int64_t>(blocks.blocks, 1, std::clamp<int64_t>(largest / size, 1, kDeviceChunkBlocks));
}

// A chunk more, and a block of it. What it will take is counted before the device is asked, so that those who ask at the same time stay below the limit.
HeapStatus DeviceHeap::grow(int64_t size, Block* out) {
  std::list<Chunk> made(1);
  Chunk& chunk = made.front();
  Class* blocks = nullptr;
  int64_t n = 0;
  const auto count = [&](int64_t more) {
    blocks->blocks += more;
    blocks_ += more;
    bytes_.fetch_add(more * size, std::memory_order_relaxed);
  };
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks = &classes_[size];
    n = std::min(chunk_blocks(*blocks, size), (limit() - bytes()) / size);
    if (n < 1) return HeapStatus::kFull;
    room_for(blocks->free, static_cast<size_t>(blocks->blocks + n));
    room_for(returned_, static_cast<size_t>(blocks_ + n));
    count(n);
  }
  Status status = take(&chunk.memory, n * size);
  if (status == Status::kNoMemory && n > 1) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      count(1 - n);
    }
    n = 1;
    status = take(&chunk.memory, size);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (status != Status::kOk) {
    count(-n);
    return status == Status::kNoMemory ? HeapStatus::kNoMemory : HeapStatus::kFailed;
  }
  chunk.size = size;
  chunk.blocks = n;
  for (int64_t i = n; i-- > 0;) blocks->free.push_back(Block{static_cast<unsigned char*>(chunk.memory) + i * size, &chunk});
  blocks->chunks.splice(blocks->chunks.end(), made);
  take_free(*blocks, out);
  return HeapStatus::kOk;
}

void DeviceHeap::release(const Block& block) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++classes_.find(block.chunk->size)->second.returned;
  returned_.push_back(block);  // there is room: grow() made it
  returned_blocks_.fetch_add(1, std::memory_order_release);
}

// Neighbours are filled together.
bool DeviceHeap::clean() noexcept {
  if (clean_already()) return true;
  const std::lock_guard<std::mutex> turn(cleaning_);
  for (;;) {
    Block some[kCleanAtATime];
    size_t n = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (; n < kCleanAtATime && !returned_.empty(); ++n) {
        some[n] = returned_.back();
        returned_.pop_back();
      }
    }
    if (n == 0) return true;
    std::sort(some, some + n, [](const Block& a, const Block& b) { return a.memory < b.memory; });
    bool zeroed = true;
    for (size_t first = 0, next = 0; first < n && zeroed; first = next) {
      int64_t bytes = 0;
      for (; next < n && some[next].chunk == some[first].chunk && some[next].memory == some[first].memory + bytes; ++next) {
        bytes += some[next].chunk->size;
      }
      zeroed = zero(some[first].memory, bytes);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!zeroed) {
      returned_.insert(returned_.end(), some, some + n);  // there is room: grow() made it
      return false;
    }
    for (size_t i = 0; i < n; ++i) {
      Class& blocks = classes_.find(some[i].chunk->size)->second;
      --some[i].chunk->used;
      --blocks.returned;
      blocks.free.push_back(some[i]);  // there is room: grow() made it
    }
    returned_blocks_.fetch_sub(static_cast<int64_t>(n), std::memory_order_release);
  }
}

bool DeviceHeap::fits(int64_t n, int64_t size, int64_t other_size) const noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t bytes = 0;
  for (const int64_t one : {size, other_size}) {
    const auto found = classes_.find(one);
    const int64_t free = found == classes_.end() ? 0 : static_cast<int64_t>(found->second.free.size()) + found->second.returned;
    bytes += std::max<int64_t>(n - free, 0) * one;
  }
  return bytes <= limit() - this->bytes();
}

void DeviceHeap::trim() noexcept {
  std::list<Chunk> gone;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [size, blocks] : classes_) {
      blocks.free.erase(
          std::remove_if(blocks.free.begin(), blocks.free.end(), [](const Block& block) { return block.chunk->used == 0; }),
          blocks.free.end());
      for (auto at = blocks.chunks.begin(); at != blocks.chunks.end();) {
        const auto chunk = at++;
        if (chunk->used > 0) continue;
        blocks.blocks -= chunk->blocks;
        blocks_ -= chunk->blocks;
        gone.splice(gone.end(), blocks.chunks, chunk);
      }
    }
  }
  for (const Chunk& chunk : gone) {
    give(chunk.memory);
    bytes_.fetch_sub(chunk.blocks * chunk.size, std::memory_order_relaxed);
  }
}

}  // namespace warpmem::cuda
