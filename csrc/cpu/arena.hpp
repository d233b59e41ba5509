// Memory for pages. Scans stream the coarse planes of one page after the other, and memory gives its full rate only to long runs: pages are therefore carved from
// chunks in which the same pieces of all pages lie together,
//
//   | coarse planes of page 0, 1, .. n-1 | fine planes | column 0 of page 0, 1, .. n-1 | column 1 | .. | row ids | ordinals | rows |
//
// and the system is asked for huge pages. A pool's first chunk holds one page and each further one twice as many, up to 64 pages or kChunkBytes. A chunk
// is given back when its last page is.
//
// Thread-safe: pages are allocated by the writer and freed by whoever lets go of them last. The arena lives until its pool and its last page are gone.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "../core/page.hpp"

namespace warpmem {

constexpr int64_t kChunkBytes = int64_t{8} << 20;
constexpr int kChunkPageLimit = 64;  // one word says which are free

class PageArena {
 public:
  struct Chunk {
    unsigned char* memory = nullptr;
    int pages = 0;
    uint64_t free = 0;
  };

  explicit PageArena(const PageLayout& layout);
  ~PageArena();
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;

  // A page whose columns, row ids and ordinals are zero. Throws std::bad_alloc and changes nothing when there is no memory.
  PageMemory allocate(Chunk** chunk);
  void release(Chunk* chunk, const PageMemory& page) noexcept;

  const PageLayout& layout() const noexcept { return layout_; }

 private:
  Chunk* grow();

  const PageLayout layout_;
  std::mutex mutex_;
  std::vector<Chunk*> chunks_;
  Chunk* current_ = nullptr;  // where the last page came from
  int64_t pages_ = 0;         // of all chunks
};

}  // namespace warpmem
