#include "pages.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "dispatch.hpp"

namespace warpmem {

namespace {

// Advice about the bytes from `begin` to `end` of a mapping, which begins at a page of the system. Refusal changes nothing.
void advise(const unsigned char* begin, const unsigned char* end, int advice) noexcept {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / page * page;
  ::madvise(reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(end) - first, advice);
}

}  // namespace

const char* plane_name(int plane) {
  static const char* const names[kPlanes] = {"coarse codes", "fine codes", "columns and ids", "rows"};
  return names[plane];
}

// --------------------------------------------------------------------------------------------- the file

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const auto fail = [this](int error) {
    using Kind = IndexFileError::Kind;
    const std::string reason = std::system_category().message(error);
    return IndexFileError(Kind::kFailed,
                          "index file '" + path_ + "' cannot be opened: " + reason + "; check the path and its permissions");
  };
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw fail(errno);
  struct stat status{};
  int error = ::fstat(fd, &status) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(status.st_mode)) error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  if (error == 0 && status.st_size > 0) {
    void* const memory = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) {
      error = errno;
    } else {
      data_ = static_cast<const unsigned char*>(memory);
      size_ = static_cast<uint64_t>(status.st_size);
    }
  }
  ::close(fd);
  if (error == ENOMEM) throw std::bad_alloc();
  if (error != 0) throw fail(error);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr && !whole_) ::munmap(const_cast<unsigned char*>(data_), static_cast<size_t>(size_));
}

// --------------------------------------------------------------------------------------------- its pages

MappedPages::MappedPages(std::shared_ptr<const MappedFile> file, const PageLayout& layout, int64_t n, uint64_t planes,
                         const uint32_t* checksums)
    : file_(std::move(file)),
      plane_bytes_{layout.coarse_bytes, layout.fine_bytes, layout.head_bytes, layout.rows_bytes},
      checksums_(checksums),
      pages_(std::make_unique<Page[]>(static_cast<size_t>(n))) {
  // PageMemory can be written to, but these pages never are: the pool copies one before it does.
  unsigned char* first[kPlanes];
  auto* at = const_cast<unsigned char*>(file_->data()) + planes;
  for (int plane = 0; plane < kPlanes; ++plane) {
    first[plane] = at;
    at += n * plane_bytes_[plane];
  }
  // With codes, a scan goes through the coarse planes in order, and needs fine planes and rows one here, one there. For each of those the system would read
  // megabytes around it.
  if (n > 0 && layout.has_codes) {
    advise(first[1], first[2], MADV_RANDOM);
    if (layout.rows_bytes > 0) advise(first[3], at, MADV_RANDOM);
  }
  for (int64_t i = 0; i < n; ++i) {
    Page& page = pages_[static_cast<size_t>(i)];
    page.memory_ = PageMemory{first[0] + i * plane_bytes_[0], first[1] + i * plane_bytes_[1], first[2] + i * kColumnBytes,
                              first[3] + i * plane_bytes_[3], n * kColumnBytes};
    page.file_ = this;
    page.number_ = i;
    page.unchecked_.store(kAllPlanes, std::memory_order_relaxed);
  }
}

bool MappedPages::intact(const Page& page, int plane) const noexcept {
  const ConstPage memory = page.memory();
  if ((1u << plane) != kHeadPlane) {
    return crc32c(0, plane_of(memory, plane), static_cast<size_t>(plane_bytes_[plane])) == page.stored_checksum(plane);
  }
  uint32_t checksum = 0;
  for (int64_t at = 0; at < plane_bytes_[plane]; at += kColumnBytes) {
    checksum = crc32c(checksum, memory.columns + at / kColumnBytes * memory.stride, static_cast<size_t>(kColumnBytes));
  }
  return checksum == page.stored_checksum(plane);
}

bool Page::check(unsigned planes) const noexcept {
  planes &= unchecked();
  for (int plane = 0; plane < kPlanes; ++plane) {
    const unsigned bit = 1u << plane;
    if ((planes & bit) == 0) continue;
    const unsigned char* const from = plane_of(memory(), plane);
    if (bit == kFinePlane || bit == kRowsPlane) advise(from, from + file_->plane_bytes_[plane], MADV_WILLNEED);
    if (!file_->intact(*this, plane)) return false;
    unchecked_.fetch_and(static_cast<unsigned char>(~bit), std::memory_order_relaxed);
  }
  return true;
}

uint32_t Page::stored_checksum(int plane) const noexcept { return file_->checksums_[number_ * kPlanes + plane]; }

IndexFileError Page::damage(unsigned planes) const {
  const char* name = "one of its planes";
  for (int plane = kPlanes; plane-- > 0;) {
    if ((planes & (1u << plane)) != 0 && !file_->intact(*this, plane)) name = plane_name(plane);
  }
  return IndexFileError(IndexFileError::Kind::kDamaged,
                        "index file '" + file_->file_->path() + "' is damaged: page " + std::to_string(number_) + " (" + name +
                            ") does not have its checksum; restore the file from a backup, or build the index again");
}

}  // namespace warpmem
