#include "device_heap.hpp"

#include <algorithm>
#include <cstring>

namespace warpmem::cuda {

Status DeviceHeap::take(void** out, int64_t bytes) noexcept {
  return pinned_ ? runtime_.allocate_pinned(out, bytes) : runtime_.allocate(out, bytes);
}

void DeviceHeap::give(void* memory) noexcept { pinned_ ? runtime_.release_pinned(memory) : runtime_.release(memory); }

DeviceHeap::~DeviceHeap() {
  for (auto& [size, blocks] : classes_) {
    for (const auto& chunk : blocks.chunks) give(chunk->memory);
  }
}

HeapStatus DeviceHeap::allocate(int64_t size, Block* out) {
  Class& blocks = classes_[size];
  if (blocks.free.empty()) {
    HeapStatus status = grow(blocks, size);
    if (status == HeapStatus::kFull || status == HeapStatus::kNoMemory) {  // another size may have chunks that nobody uses
      trim();
      status = grow(blocks, size);
    }
    if (status != HeapStatus::kOk) return status;
  }
  *out = blocks.free.back();
  blocks.free.pop_back();
  ++out->chunk->used;
  return HeapStatus::kOk;
}

// Chunks double with what there is, so that little is held for few pages.
HeapStatus DeviceHeap::grow(Class& blocks, int64_t size) {
  const int64_t largest = std::min(kDeviceChunkBytes, limit_ / kDeviceChunksAtLeast);
  int64_t n = std::clamp<int64_t>(blocks.blocks, 1, std::clamp<int64_t>(largest / size, 1, kDeviceChunkBlocks));
  n = std::min(n, (limit_ - bytes()) / size);
  if (n < 1) return HeapStatus::kFull;
  auto chunk = std::make_unique<Chunk>();
  blocks.chunks.reserve(blocks.chunks.size() + 1);
  blocks.free.reserve(static_cast<size_t>(blocks.blocks + n));
  Status status = take(&chunk->memory, n * size);
  if (status == Status::kNoMemory && n > 1) status = take(&chunk->memory, (n = 1) * size);
  if (status != Status::kOk) return status == Status::kNoMemory ? HeapStatus::kNoMemory : HeapStatus::kFailed;
  chunk->size = size;
  chunk->blocks = n;
  for (int64_t i = n; i-- > 0;) blocks.free.push_back(Block{static_cast<unsigned char*>(chunk->memory) + i * size, chunk.get()});
  blocks.chunks.push_back(std::move(chunk));
  blocks.blocks += n;
  bytes_.fetch_add(n * size, std::memory_order_relaxed);
  return HeapStatus::kOk;
}

void DeviceHeap::release(const Block& block) noexcept {
  if (pinned_) {
    std::memset(block.memory, 0, static_cast<size_t>(block.chunk->size));
  } else {
    static_cast<void>(runtime_.fill(block.memory, 0, block.chunk->size, stream_));  // a device that fails keeps nothing either
  }
  --block.chunk->used;
  classes_.find(block.chunk->size)->second.free.push_back(block);  // there is room: grow() made it
}

bool DeviceHeap::fits(int64_t n, int64_t size, int64_t other_size) const noexcept {
  int64_t bytes = 0;
  for (const int64_t one : {size, other_size}) {
    const auto found = classes_.find(one);
    const int64_t free = found == classes_.end() ? 0 : static_cast<int64_t>(found->second.free.size());
    bytes += std::max<int64_t>(n - free, 0) * one;
  }
  return bytes <= limit_ - this->bytes();
}

void DeviceHeap::trim() noexcept {
  for (auto at = classes_.begin(); at != classes_.end(); ++at) {
    Class& blocks = at->second;
    const auto idle = [](const Chunk* chunk) { return chunk->used == 0; };
    const auto gone = [&](const std::unique_ptr<Chunk>& chunk) {
      if (!idle(chunk.get())) return false;
      give(chunk->memory);
      bytes_.fetch_sub(chunk->blocks * chunk->size, std::memory_order_relaxed);
      blocks.blocks -= chunk->blocks;
      return true;
    };
    blocks.free.erase(std::remove_if(blocks.free.begin(), blocks.free.end(), [&](const Block& b) { return idle(b.chunk); }),
                      blocks.free.end());
    blocks.chunks.erase(std::remove_if(blocks.chunks.begin(), blocks.chunks.end(), gone), blocks.chunks.end());
  }
}

}  // namespace warpmem::cuda
