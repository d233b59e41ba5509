// A page and where its memory comes from: the arena, or a file that is mapped (pool_file.hpp).
//
// Pages of a file are never written. Each of their four planes has a checksum in the file, and is compared with it when it is first used:
//
//   reader    page.unchecked() & planes ? page.check(planes) : nothing       a byte and a branch; a false answer ends in page.damage(planes)
//   writer    page.require(planes)                                          before it copies from a page
//
// Threads: any number may check one page at once; its bytes do not change, so they find the same.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "../core/page.hpp"
#include "arena.hpp"

namespace warpmem {

enum Plane : unsigned char { kCoarsePlane = 1, kFinePlane = 2, kHeadPlane = 4, kRowsPlane = 8, kAllPlanes = 15 };
constexpr int kPlanes = 4;

// What went wrong with an index file. The message names the file and says what to do.
class IndexFileError : public std::runtime_error {
 public:
  enum class Kind { kDamaged, kFormat, kFull, kRefused, kFailed };

  IndexFileError(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

class MappedPages;

// A number that is given once in the life of the process. A copy of what has one gets another.
class Serial {
 public:
  Serial() noexcept : value_(next()) {}
  Serial(const Serial&) noexcept : value_(next()) {}
  Serial& operator=(const Serial&) = delete;
  uint64_t value() const noexcept { return value_; }

 private:
  static uint64_t next() noexcept {
    static std::atomic<uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  const uint64_t value_;
};

class Page {
 public:
  Page() = default;  // of a file; MappedPages fills it in
  explicit Page(std::shared_ptr<PageArena> arena) : arena_(std::move(arena)), memory_(arena_->allocate(&chunk_)) {}
  ~Page() {
    if (arena_) arena_->release(chunk_, memory_);
  }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  const PageMemory& memory() noexcept { return memory_; }
  ConstPage memory() const noexcept { return memory_; }

  bool of_file() const noexcept { return file_ != nullptr; }

  // Of this page alone, for as long as the process runs: what a copy of a page elsewhere is known by.
  uint64_t serial() const noexcept { return serial_.value(); }

  // Planes that are still to be compared with their checksums; 0 for a page of the arena.
  unsigned unchecked() const noexcept { return unchecked_.load(std::memory_order_relaxed); }

  // Compares those of `planes` that have not been compared. False when one is not what was written.
  bool check(unsigned planes) const noexcept;

  // check(), or throws damage().
  void require(unsigned planes) const {
    if ((unchecked() & planes) != 0 && !check(planes)) throw damage(planes);
  }
  IndexFileError damage(unsigned planes) const;
  uint32_t stored_checksum(int plane) const noexcept;  // of a page of a file

 private:
  friend class MappedPages;

  std::shared_ptr<PageArena> arena_;
  PageArena::Chunk* chunk_ = nullptr;
  PageMemory memory_;
  const MappedPages* file_ = nullptr;  // which owns this page
  int64_t number_ = 0;                 // in the file
  const Serial serial_;
  mutable std::atomic<unsigned char> unchecked_{0};
};

// A file in memory, read-only, until nobody uses it any more.
class MappedFile {
 public:
  // Throws IndexFileError (kFailed) when it cannot be mapped.
  explicit MappedFile(std::string path);
  // A part of a file, which stays mapped meanwhile: a section that is itself a file. The caller has made sure that it lies within.
  MappedFile(std::shared_ptr<const MappedFile> whole, const unsigned char* data, uint64_t size)
      : path_(whole->path_), whole_(std::move(whole)), data_(data), size_(size) {}
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  const unsigned char* data() const noexcept { return data_; }
  uint64_t size() const noexcept { return size_; }

 private:
  const std::string path_;
  const std::shared_ptr<const MappedFile> whole_;
  const unsigned char* data_ = nullptr;
  uint64_t size_ = 0;
};

// The pages of a mapped file, in one allocation.
class MappedPages {
 public:
  // Planes begin at byte `planes` of the file, one after the other, each for all of the n pages. `checksums` has four numbers a page. The caller has
  // made sure that all of it lies within the file.
  MappedPages(std::shared_ptr<const MappedFile> file, const PageLayout& layout, int64_t n, uint64_t planes,
              const uint32_t* checksums);

  // A page, which keeps all of them and the file.
  static std::shared_ptr<Page> page(const std::shared_ptr<MappedPages>& all, int64_t number) {
    return std::shared_ptr<Page>(all, &all->pages_[static_cast<size_t>(number)]);
  }

 private:
  friend class Page;

  bool intact(const Page& page, int plane) const noexcept;

  const std::shared_ptr<const MappedFile> file_;
  const int64_t plane_bytes_[kPlanes];  // of one page
  const uint32_t* const checksums_;
  std::unique_ptr<Page[]> pages_;
};

// Pieces of a page, by plane. Columns, row ids and ordinals are pieces of their own: only the first column is given here.
inline const unsigned char* plane_of(const ConstPage& page, int plane) {
  const unsigned char* const pieces[kPlanes] = {page.coarse, page.fine, page.columns, page.rows};
  return pieces[plane];
}
inline int64_t plane_bytes_of(const PageLayout& layout, int plane) {
  const int64_t bytes[kPlanes] = {layout.coarse_bytes, layout.fine_bytes, layout.head_bytes, layout.rows_bytes};
  return bytes[plane];
}
// The planes that hold the rows themselves: what PageLayout::load reads.
inline unsigned row_planes(const PageLayout& layout) {
  if (layout.storage == Storage::kPq) return kCoarsePlane;
  return layout.storage == Storage::kInt8 && layout.pq.pq_dim == 0 ? kCoarsePlane | kFinePlane : kRowsPlane;
}
const char* plane_name(int plane);

}  // namespace warpmem
