// Opening an index file: everything but the planes is checked here, and nothing of it is believed before.
#include <cmath>
#include <cstring>
#include <string_view>

#include "dispatch.hpp"
#include "pool_file_layout.hpp"
#include "pool_slots.hpp"

namespace warpmem {

namespace {

using Kind = IndexFileError::Kind;

constexpr uint64_t kMaxDim = 65536;
constexpr uint64_t kMaxColumns = 1024;

template <typename T>
T read_at(const unsigned char* from, uint64_t offset, uint64_t index = 0) {
  T value;
  std::memcpy(&value, from + offset + index * sizeof(T), sizeof value);
  return value;
}

// Whether the subspaces of pq codes, where there are some, make up a row.
bool has_pieces(const FileHeader& header) {
  if (header.screen != 2) return header.pq_dim == 0;
  const int64_t padded = padded_dim(header.dim);
  return header.pq_dim >= 1 && header.pq_dim <= kPqPageSubspaces && padded % header.pq_dim == 0 &&
         padded / header.pq_dim <= kPqMaxPiece;
}

std::string number(uint64_t value) { return std::to_string(value); }

}  // namespace

void PoolFile::damaged(const std::string& what) const {
  throw IndexFileError(Kind::kDamaged, "index file '" + file_->path() + "' is damaged: " + what +
                                           "; restore the file from a backup, or build the index again");
}

PoolFile::PoolFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const Header header = read_header();
  read_lists(header);
  read_sections(header);
  if (layout_.pq.pq_dim > 0) read_codebooks();
}

void PoolFile::read_codebooks() {
  for (const float entry : codebooks()) {
    if (!std::isfinite(entry)) damaged("its codebooks hold a number that is not finite");
  }
  if (codebooks().empty())
    damaged("it has codes, but no codebooks of " + number(static_cast<uint64_t>(layout_.padded)) + " dimensions");
}

std::vector<float> PoolFile::codebooks() const {
  std::vector<float> books;
  const uint64_t bytes = static_cast<uint64_t>(layout_.padded) * 16 * sizeof(float);
  for (const Section& section : sections_) {
    if (layout_.pq.pq_dim == 0 || section.name != kCodebooksSection || section.bytes != bytes) continue;
    books.resize(static_cast<size_t>(bytes / sizeof(float)));
    std::memcpy(books.data(), section.data, static_cast<size_t>(bytes));
  }
  return books;
}

PoolFile::Header PoolFile::read_header() {
  const std::string name = "'" + file_->path() + "'";
  const uint64_t size = file_->size();
  const size_t start = size < sizeof kFileMagic ? static_cast<size_t>(size) : sizeof kFileMagic;
  if (start > 0 && std::memcmp(file_->data(), kFileMagic, start) != 0) {
    throw IndexFileError(Kind::kFormat, "file " + name + " is not a warpmem index: its first bytes are those of something else");
  }
  if (size < sizeof(FileHeader)) {
    damaged("it has " + number(size) + " bytes, but the header alone has " + number(sizeof(FileHeader)));
  }
  Header header;
  std::memcpy(static_cast<FileHeader*>(&header), file_->data(), sizeof(FileHeader));
  if (header.byte_order == 0x04030201) {
    throw IndexFileError(Kind::kFormat,
                         "index file " + name + " was written by a machine of the other byte order; build it here");
  }
  if (crc32c(0, file_->data(), offsetof(FileHeader, header_crc)) != header.header_crc) {
    damaged("the header does not have its checksum");
  }
  if (header.version > kFileVersion) {
    throw IndexFileError(Kind::kFormat, "index file " + name + " has format version " + number(header.version) +
                                            ", this warpmem reads up to " + number(kFileVersion) +
                                            "; open it with a newer warpmem");
  }
  if (header.version == 0 || header.byte_order != kFileByteOrder) damaged("the header names no format");
  if (size != header.file_bytes) {
    damaged("it has " + number(size) + " bytes, but was written with " + number(header.file_bytes));
  }
  if (header.dim < 1 || header.dim > kMaxDim || header.n_columns > kMaxColumns || header.storage > 3 || header.metric > 1 ||
      header.screen > header.version || (header.storage == 3 && header.screen != 2) || header.page_rows != kPageRows ||
      !has_pieces(header)) {
    damaged("the header describes rows that this format does not have");
  }
  PqView pq;
  if (header.screen == 2) pq = PqView{header.pq_dim, padded_dim(header.dim) / header.pq_dim, nullptr};
  layout_ = PageLayout(header.dim, header.n_columns, static_cast<Storage>(header.storage), header.screen == 1, pq);
  metric_ = static_cast<Metric>(header.metric);
  screen_ = header.screen == 1;
  // Each number is held against the size of the file first, so that no sum of them overflows.
  if (header.lists > size / sizeof(FileList) || header.pages > size / static_cast<uint64_t>(layout_.bytes) ||
      header.sections > kMaxSections) {
    damaged("the header counts more than the file can hold");
  }
  const FileTables tables(header.lists, header.pages, header.sections);
  bool consistent = tables.planes == header.planes_offset && tables.planes <= size &&
                    header.sections_offset == tables.planes + header.pages * static_cast<uint64_t>(layout_.bytes) &&
                    header.sections_offset <= size;
  for (int plane = 0; plane < kPlanes; ++plane) {
    consistent = consistent && header.plane_bytes[plane] == static_cast<uint64_t>(plane_bytes_of(layout_, plane));
  }
  if (!consistent) damaged("the parts that the header describes do not make up the file");
  const uint64_t bytes = tables.planes - sizeof(FileHeader);
  if (crc32c(0, file_->data() + sizeof(FileHeader), static_cast<size_t>(bytes)) != header.tables_crc) {
    damaged("the tables (bytes 256 to " + number(tables.planes) + ") do not have their checksum");
  }
  lists_ = header.lists;
  pages_ = header.pages;
  planes_ = tables.planes;
  return header;
}

// Beyond the checksum: what a writer with a mistake could have put there must not be able to mislead the pool.
void PoolFile::read_lists(const Header& header) {
  const FileTables tables(header.lists, header.pages, header.sections);
  const unsigned char* const from = file_->data();
  uint64_t next_page = 0;
  uint64_t rows = 0;
  for (uint64_t i = 0; i < header.lists; ++i) {
    const auto list = read_at<FileList>(from, tables.lists, i);
    const bool ascends = i == 0 || read_at<FileList>(from, tables.lists, i - 1).list_id < list.list_id;
    const uint64_t pages = pages_for(list.slots);
    if (!ascends || list.first_page != next_page || list.slots == 0 || pages > header.pages - next_page) {
      damaged("entry " + number(i) + " of the list table contradicts the others");
    }
    uint64_t live = 0;
    for (uint64_t p = 0; p < pages; ++p) {
      live += static_cast<uint64_t>(__builtin_popcountll(read_at<uint64_t>(from, tables.valid, next_page + p)));
    }
    const uint64_t last = read_at<uint64_t>(from, tables.valid, next_page + pages - 1);
    const uint64_t used = list.slots % kPageRows;
    if (live != list.live || live == 0 || (used != 0 && (last >> used) != 0)) {
      damaged("the validity words of list table entry " + number(i) + " contradict it");
    }
    next_page += pages;
    rows += live;
  }
  if (next_page != header.pages || rows != header.rows) damaged("the list table does not add up to the header's numbers");
}

void PoolFile::read_sections(const Header& header) {
  const FileTables tables(header.lists, header.pages, header.sections);
  uint64_t next = header.sections_offset;
  sections_.reserve(static_cast<size_t>(header.sections));
  for (uint64_t i = 0; i < header.sections; ++i) {
    const auto section = read_at<FileSection>(file_->data(), tables.sections, i);
    std::string name(section.name, strnlen(section.name, kSectionNameBytes));
    for (const Section& known : sections_) {
      if (known.name == name) damaged("it has two sections '" + name + "'");
    }
    if (name.empty() || section.offset != next || section.bytes > file_->size() - next ||
        aligned(section.bytes) > file_->size() - next) {
      damaged("entry " + number(i) + " of the section table contradicts the others");
    }
    const unsigned char* const data = file_->data() + next;
    const uint64_t padded = aligned(section.bytes);
    if (crc32c(0, data, static_cast<size_t>(padded)) != section.crc) {
      damaged("section '" + name + "' does not have its checksum");
    }
    sections_.push_back(Section{std::move(name), data, section.bytes});
    next += padded;
  }
  if (next != file_->size()) damaged("its sections end at byte " + number(next) + ", the file at " + number(file_->size()));
}

void PoolFile::load(Pool& pool) const {
  const FileTables tables(lists_, pages_, sections_.size());
  const unsigned char* const from = file_->data();
  const auto* const checksums = reinterpret_cast<const uint32_t*>(from + tables.checksums);
  const auto all = std::make_shared<MappedPages>(file_, layout_, static_cast<int64_t>(pages_), planes_, checksums);
  std::vector<std::pair<int64_t, std::shared_ptr<List>>> lists;
  lists.reserve(static_cast<size_t>(lists_));
  for (uint64_t i = 0; i < lists_; ++i) {
    const auto entry = read_at<FileList>(from, tables.lists, i);
    auto list = std::make_shared<List>();
    list->slots = static_cast<int64_t>(entry.slots);
    list->live = static_cast<int64_t>(entry.live);
    list->blocks.reserve(blocks_for(list->slots));
    const uint64_t pages = pages_for(entry.slots);
    for (uint64_t first = 0; first < pages; first += kBlockPages) {
      auto block = std::make_shared<Block>();
      for (uint64_t p = 0; p < kBlockPages && first + p < pages; ++p) {
        const uint64_t page = entry.first_page + first + p;
        block->pages[p] = MappedPages::page(all, static_cast<int64_t>(page));
        block->valid[p] = read_at<uint64_t>(from, tables.valid, page);
      }
      list->blocks.push_back(std::move(block));
    }
    lists.emplace_back(entry.list_id, std::move(list));
  }
  pool.adopt(std::move(lists));
}

}  // namespace warpmem
