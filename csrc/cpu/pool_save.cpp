// Writing an index file. The snapshot costs a reference a list; after that nobody waits for the disk.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "dispatch.hpp"
#include "pool_file_layout.hpp"
#include "pool_slots.hpp"

namespace warpmem {

namespace {

using Kind = IndexFileError::Kind;

constexpr size_t kBatchPages = 64;                   // pieces that one system call writes, at most
constexpr size_t kBatchBytes = size_t{256} << 10;    // likewise: what was summed up is still in the cache when it is written
constexpr uint64_t kFlushBytes = uint64_t{8} << 20;  // after so many the disk may begin with them

// A file of a temporary name, removed unless it was kept.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(resolved(path)) {
    static std::atomic<uint64_t> count{0};
    struct stat old{};
    const bool known = ::stat(path_.c_str(), &old) == 0;
    do {  // a name may be taken by what a killed process of this number left behind
      temporary_ = path_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(count.fetch_add(1));
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, known ? old.st_mode & 0777 : 0666);
    } while (fd_ < 0 && errno == EEXIST);
    if (fd_ < 0) fail("cannot be written", errno);
    if (known && ::fchmod(fd_, old.st_mode & 0777) != 0) {
      const int error = errno;
      discard();
      fail("cannot be given the permissions of the old one", error);
    }
  }
  ~NewFile() { discard(); }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void seek(uint64_t offset) {
    if (::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) fail("cannot be written", errno);
    written_ = flushed_ = offset;
  }

  // Writes all of them one after the other; uses up `pieces`.
  void write(std::vector<iovec>& pieces) {
    iovec* at = pieces.data();
    size_t left = pieces.size();
    while (left > 0) {
      if (at->iov_len == 0) {
        ++at, --left;
        continue;
      }
      const ssize_t written = ::writev(fd_, at, static_cast<int>(left));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot be written", errno);
      auto n = static_cast<size_t>(written);
      written_ += n;
      while (left > 0 && n >= at->iov_len) n -= at->iov_len, ++at, --left;
      if (left > 0) {
        at->iov_base = static_cast<char*>(at->iov_base) + n;
        at->iov_len -= n;
      }
    }
    pieces.clear();
#if defined(__linux__)
    if (written_ - flushed_ < kFlushBytes) return;
    // A wish, whose refusal changes nothing: keep() syncs all. Without it the disk would rest until then.
    ::sync_file_range(fd_, static_cast<off_t>(flushed_), static_cast<off_t>(written_ - flushed_), SYNC_FILE_RANGE_WRITE);
    flushed_ = written_;
#endif
  }

  // All that was written is on the disk under the file's own name when this returns.
  void keep() {
    if (::fsync(fd_) != 0) fail("cannot be synced", errno);
    const int closed = ::close(fd_);
    const int error = errno;
    fd_ = -1;
    if (closed != 0) fail("cannot be closed", error);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be put in place", errno);
    temporary_.clear();
    const size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path_.substr(0, slash);
    const int directory = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int failed = directory < 0 || ::fsync(directory) != 0 ? errno : 0;
    if (directory >= 0) ::close(directory);
    if (failed != 0) fail("is written, but its folder cannot be synced", failed);
  }

 private:
  // Where a symbolic link leads: the link stays.
  static std::string resolved(const std::string& path) {
    char* const real = ::realpath(path.c_str(), nullptr);
    if (real == nullptr) return path;
    std::string found;
    try {
      found = real;
    } catch (...) {
      std::free(real);
      throw;
    }
    std::free(real);
    return found;
  }

  void discard() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }

  [[noreturn]] void fail(const char* what, int error) const {
    const std::string message = "index file '" + path_ + "' " + what + ": " + std::system_category().message(error);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
      throw IndexFileError(Kind::kFull, message + "; free some space and save again (a file there before is untouched)");
    }
    if (error == EACCES || error == EPERM || error == EROFS) {
      throw IndexFileError(Kind::kRefused, message + "; save to a folder that can be written to");
    }
    throw IndexFileError(Kind::kFailed, message + "; check the path and the disk");
  }

  const std::string path_;
  std::string temporary_;
  int fd_ = -1;
  uint64_t written_ = 0;  // up to this byte; flushed_ likewise
  uint64_t flushed_ = 0;
};

// The rows of the first `used` slots of one plane, zeros behind them: other slots of the page may be written to meanwhile, or never have been.
void copy_used(const PageLayout& layout, const ConstPage& page, int plane, int used, unsigned char* to) {
  std::memset(to, 0, static_cast<size_t>(plane_bytes_of(layout, plane)));
  const unsigned char* const from = plane_of(page, plane);
  const auto n = static_cast<size_t>(used);
  if (plane == 3) {
    std::memcpy(to, from, n * static_cast<size_t>(layout.row_bytes()));
  } else if (plane == 0 && layout.pq.pq_dim > 0) {
    for (int64_t at = 0; at < layout.coarse_bytes; at += kPageRows) std::memcpy(to + at, from + at, n);
  } else if (plane == 0) {
    for (int64_t line = 0; line < layout.padded / kLineElements + kCoarseParts; ++line) {
      const int64_t at = coarse_offset(0, line);
      std::memcpy(to + at, from + at, n * 4);
    }
  } else {
    for (int group = 0; group < used; group += kCodeRows) {
      const auto rows = static_cast<size_t>(std::min(used - group, kCodeRows));
      for (int64_t line = 0; line < layout.padded / kLineElements + kFineParts; ++line) {
        const int64_t at = fine_offset(group, line, layout.padded);
        std::memcpy(to + at, from + at, rows * 4);
      }
    }
  }
}

void require_names(const std::vector<Section>& sections) {
  if (sections.size() > kMaxSections) {
    throw std::invalid_argument("expected at most " + std::to_string(kMaxSections) + " sections, not " +
                                std::to_string(sections.size()));
  }
  for (size_t i = 0; i < sections.size(); ++i) {
    const std::string& name = sections[i].name;
    if (name.empty() || name.size() > kSectionNameBytes || name.find('\0') != std::string::npos) {
      throw std::invalid_argument("a section's name must have 1 to " + std::to_string(kSectionNameBytes) +
                                  " bytes, none of them zero, not " + std::to_string(name.size()));
    }
    for (size_t j = 0; j < i; ++j) {
      if (sections[j].name == name) throw std::invalid_argument("two sections have one name");
    }
  }
}

struct Saved {
  const Page* page;
  int used;  // slots of this snapshot
};

void write_plane(NewFile& file, const PageLayout& layout, const std::vector<Saved>& pages, int plane, uint32_t* checksums) {
  const auto bytes = static_cast<size_t>(plane_bytes_of(layout, plane));
  if (bytes == 0) return;  // the checksum of nothing is 0
  const size_t batch = std::clamp<size_t>(kBatchBytes / bytes, 1, kBatchPages);
  std::vector<iovec> pieces;
  pieces.reserve(batch);
  std::vector<unsigned char> scratch;
  for (size_t i = 0; i < pages.size(); ++i) {
    const Page& page = *pages[i].page;
    const unsigned char* from = plane_of(page.memory(), plane);
    if (pages[i].used < kPageRows && !page.of_file()) {
      if (scratch.empty()) scratch.resize(batch * bytes);
      unsigned char* const to = scratch.data() + pieces.size() * bytes;
      copy_used(layout, page.memory(), plane, pages[i].used, to);
      from = to;
    }
    const uint32_t checksum = crc32c(0, from, bytes);
    // A damaged page must not be given a checksum that fits.
    if (page.of_file() && checksum != page.stored_checksum(plane)) throw page.damage(1u << plane);
    checksums[i * kPlanes + static_cast<size_t>(plane)] = checksum;
    pieces.push_back(iovec{const_cast<unsigned char*>(from), bytes});
    if (pieces.size() == batch) file.write(pieces);
  }
  file.write(pieces);
}

// Column by column, each of all pages; a page's checksum is that of its columns one after the other.
void write_columns(NewFile& file, const PageLayout& layout, const std::vector<Saved>& pages, uint32_t* checksums) {
  constexpr auto kBytes = static_cast<size_t>(kColumnBytes);
  constexpr int kHead = 2;
  std::vector<iovec> pieces;
  pieces.reserve(kBatchPages);
  std::vector<unsigned char> scratch(kBatchPages * kBytes);
  for (int64_t c = 0; c < layout.n_columns + 2; ++c) {
    const size_t cell = c <= layout.n_columns ? sizeof(int64_t) : sizeof(uint32_t);
    for (size_t i = 0; i < pages.size(); ++i) {
      const Page& page = *pages[i].page;
      const ConstPage memory = page.memory();
      const unsigned char* from = memory.columns + c * memory.stride;
      if (!page.of_file()) {
        unsigned char* const to = scratch.data() + pieces.size() * kBytes;
        const size_t used = static_cast<size_t>(pages[i].used) * cell;
        std::memcpy(to, from, used);
        std::memset(to + used, 0, kBytes - used);
        from = to;
      }
      uint32_t& checksum = checksums[i * kPlanes + kHead];
      checksum = crc32c(checksum, from, kBytes);
      pieces.push_back(iovec{const_cast<unsigned char*>(from), kBytes});
      if (pieces.size() == kBatchPages) file.write(pieces);
    }
    file.write(pieces);
  }
  for (size_t i = 0; i < pages.size(); ++i) {
    const Page& page = *pages[i].page;
    if (page.of_file() && checksums[i * kPlanes + kHead] != page.stored_checksum(kHead)) throw page.damage(kHeadPlane);
  }
}

}  // namespace

void save_pool(const Pool& pool, const std::string& path, const std::vector<Section>& given) {
  static const unsigned char kZeros[kFileAlignment] = {};
  const PageLayout& layout = pool.layout();
  std::vector<Section> sections = given;
  if (pool.books() != nullptr) {
    const std::vector<float>& books = pool.books()->codebooks();
    sections.push_back(Section{kCodebooksSection, books.data(), books.size() * sizeof(float)});
  }
  require_names(sections);
  NewFile file(path);
  const auto lists = pool.snapshot_all();
  std::vector<Saved> pages;
  uint64_t n_pages = 0;
  for (const auto& list : lists) n_pages += pages_for(static_cast<uint64_t>(list.second->slots));
  pages.reserve(static_cast<size_t>(n_pages));
  const FileTables at(lists.size(), n_pages, sections.size());
  std::vector<unsigned char> front(static_cast<size_t>(at.planes));  // header and tables
  const auto put = [&](uint64_t offset, const auto& value) { std::memcpy(front.data() + offset, &value, sizeof value); };

  FileHeader header{};
  std::memcpy(header.magic, kFileMagic, sizeof kFileMagic);
  header.version = pool.books() != nullptr ? 2 : 1;
  header.byte_order = kFileByteOrder;
  header.dim = static_cast<uint32_t>(layout.dim);
  header.n_columns = static_cast<uint32_t>(layout.n_columns);
  header.storage = static_cast<uint32_t>(layout.storage);
  header.metric = static_cast<uint32_t>(pool.metric());
  header.screen = pool.books() != nullptr ? 2 : pool.screened() ? 1 : 0;
  header.pq_dim = static_cast<uint32_t>(layout.pq.pq_dim);
  header.page_rows = kPageRows;
  header.lists = lists.size();
  header.pages = n_pages;
  header.sections = sections.size();
  header.planes_offset = at.planes;
  header.sections_offset = at.planes + n_pages * static_cast<uint64_t>(layout.bytes);
  for (int plane = 0; plane < kPlanes; ++plane) {
    header.plane_bytes[plane] = static_cast<uint64_t>(plane_bytes_of(layout, plane));
  }

  for (size_t i = 0; i < lists.size(); ++i) {
    const List& list = *lists[i].second;
    header.rows += static_cast<uint64_t>(list.live);
    put(at.lists + i * sizeof(FileList),
        FileList{lists[i].first, static_cast<uint64_t>(list.slots), static_cast<uint64_t>(list.live), pages.size()});
    for (int64_t first = 0; first < list.slots; first += kPageRows) {
      const Block& block = *list.blocks[block_of(first)];
      put(at.valid + pages.size() * sizeof(uint64_t), block.valid[page_of(first)]);
      pages.push_back(
          Saved{block.pages[page_of(first)].get(), static_cast<int>(std::min<int64_t>(list.slots - first, kPageRows))});
    }
  }

  std::vector<uint32_t> checksums(pages.size() * kPlanes);
  file.seek(at.planes);
  write_plane(file, layout, pages, 0, checksums.data());
  write_plane(file, layout, pages, 1, checksums.data());
  write_columns(file, layout, pages, checksums.data());
  write_plane(file, layout, pages, 3, checksums.data());
  for (size_t i = 0; i < checksums.size(); ++i) put(at.checksums + i * sizeof(uint32_t), checksums[i]);

  uint64_t next = header.sections_offset;
  std::vector<iovec> pieces;
  pieces.reserve(2);
  for (size_t i = 0; i < sections.size(); ++i) {
    const Section& section = sections[i];
    FileSection entry{};
    std::memcpy(entry.name, section.name.data(), section.name.size());
    entry.offset = next;
    entry.bytes = section.bytes;
    const auto padding = static_cast<size_t>(aligned(section.bytes) - section.bytes);
    entry.crc = crc32c(crc32c(0, section.data, static_cast<size_t>(section.bytes)), kZeros, padding);
    put(at.sections + i * sizeof(FileSection), entry);
    pieces.push_back(iovec{const_cast<void*>(section.data), static_cast<size_t>(section.bytes)});
    pieces.push_back(iovec{const_cast<unsigned char*>(kZeros), padding});
    file.write(pieces);
    next += aligned(section.bytes);
  }

  header.file_bytes = next;
  header.tables_crc = crc32c(0, front.data() + sizeof(FileHeader), front.size() - sizeof(FileHeader));
  header.header_crc = crc32c(0, &header, offsetof(FileHeader, header_crc));
  put(0, header);
  file.seek(0);
  pieces.push_back(iovec{front.data(), front.size()});
  file.write(pieces);
  file.keep();
}

}  // namespace warpmem
