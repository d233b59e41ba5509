#include "arena.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace warpmem {

namespace {

constexpr std::align_val_t kHuge{size_t{2} << 20};
constexpr std::align_val_t kLine{64};

std::align_val_t alignment_of(int64_t bytes) { return bytes >= static_cast<int64_t>(kHuge) ? kHuge : kLine; }

}  // namespace

PageArena::PageArena(const PageLayout& layout) : layout_(layout) {}

PageArena::~PageArena() {
  for (Chunk* chunk : chunks_) {
    ::operator delete(chunk->memory, alignment_of(chunk->pages * layout_.bytes));
    delete chunk;
  }
}

PageArena::Chunk* PageArena::grow() {
  const int64_t fit = std::clamp<int64_t>(kChunkBytes / layout_.bytes, 1, kChunkPageLimit);
  const auto pages = static_cast<int>(std::clamp<int64_t>(pages_, 1, fit));
  auto chunk = std::make_unique<Chunk>();
  chunks_.reserve(chunks_.size() + 1);
  const int64_t bytes = pages * layout_.bytes;
  chunk->memory = static_cast<unsigned char*>(::operator new(static_cast<size_t>(bytes), alignment_of(bytes)));
#if defined(__linux__)
  if (alignment_of(bytes) == kHuge)
    madvise(chunk->memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish; refusal changes nothing
#endif
  chunk->pages = pages;
  chunk->free = pages == 64 ? ~uint64_t{0} : (uint64_t{1} << pages) - 1;
  chunks_.push_back(chunk.get());
  pages_ += pages;
  return chunk.release();
}

PageMemory PageArena::allocate(Chunk** from) {
  PageMemory page;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (current_ == nullptr || current_->free == 0) {
      const auto found = std::find_if(chunks_.rbegin(), chunks_.rend(), [](const Chunk* chunk) { return chunk->free != 0; });
      current_ = found != chunks_.rend() ? *found : grow();
    }
    Chunk& chunk = *current_;
    const int at = __builtin_ctzll(chunk.free);
    chunk.free &= chunk.free - 1;
    unsigned char* piece = chunk.memory;
    page.coarse = piece + at * layout_.coarse_bytes;
    piece += chunk.pages * layout_.coarse_bytes;
    page.fine = piece + at * layout_.fine_bytes;
    piece += chunk.pages * layout_.fine_bytes;
    page.columns = piece + at * kColumnBytes;
    page.stride = chunk.pages * kColumnBytes;
    piece += (layout_.n_columns + 2) * page.stride;
    page.rows = piece + at * layout_.rows_bytes;
    *from = &chunk;
  }
  // Filters read the columns and ids of empty slots before masking them, screens their codes, which may be anything.
  for (int64_t c = 0; c < layout_.n_columns + 2; ++c) std::memset(page.columns + c * page.stride, 0, kColumnBytes);
  return page;
}

void PageArena::release(Chunk* chunk, const PageMemory& page) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t at = (page.columns - chunk->memory - chunk->pages * (layout_.coarse_bytes + layout_.fine_bytes)) / kColumnBytes;
  chunk->free |= uint64_t{1} << at;
  if (__builtin_popcountll(chunk->free) < chunk->pages) return;
  chunks_.erase(std::find(chunks_.begin(), chunks_.end(), chunk));
  if (current_ == chunk) current_ = nullptr;
  pages_ -= chunk->pages;
  ::operator delete(chunk->memory, alignment_of(chunk->pages * layout_.bytes));
  delete chunk;
}

}  // namespace warpmem
