// A pool as one file: FORMATS.md, chapter "Index files", is the grammar; this is the code that it describes.
//
//   | header, 256 bytes | tables: lists, validity words, checksums, sections | coarse planes of all pages | fine planes | heads | rows | sections |
//
// Saving writes the live state of one moment beside readers and writers, to another name first. Opening maps the file, checks the header, the tables and
// the sections, and takes as long as there are pages; a page's planes are checked when they are first used (pages.hpp).
//
// Every byte of a file is under a checksum: the header under its own, everything from there to the planes under one, each plane of each page, and each
// section with the zeros behind it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pages.hpp"
#include "pool.hpp"

namespace warpmem {

constexpr uint32_t kFileVersion = 2;                       // with pq codes; other pools are written as version 1
constexpr const char* kCodebooksSection = "pq_codebooks";  // pq_dim x 16 x dsub float32
constexpr size_t kSectionNameBytes = 40;
constexpr uint64_t kMaxSections = 1024;

// Bytes under a name, beside the rows: what else an index consists of. The name is 1 .. 40 bytes without a zero byte, and the only one
// of its kind.
struct Section {
  std::string name;
  const void* data = nullptr;
  uint64_t bytes = 0;
};

// Writes the pool as it is now, and the sections, to `path`, replacing a file there only once all of the new one is on the disk. Throws IndexFileError,
// std::bad_alloc or, for names that cannot be stored, std::invalid_argument; then the file at `path` is as it was (but for a failed sync of the folder, after which it may be either after a power loss).
void save_pool(const Pool& pool, const std::string& path, const std::vector<Section>& sections);

// An opened file. Its lists may be given to one pool; sections point into the mapping, which `mapping()` keeps.
class PoolFile {
 public:
  // Throws IndexFileError when it is no index file, was written by a newer version, or is damaged where that can be seen now.
  explicit PoolFile(const std::string& path) : PoolFile(std::make_shared<const MappedFile>(path)) {}
  explicit PoolFile(std::shared_ptr<const MappedFile> file);

  const PageLayout& layout() const noexcept { return layout_; }
  Metric metric() const noexcept { return metric_; }
  bool screen() const noexcept { return screen_; }
  std::vector<float> codebooks() const;  // empty without pq codes
  const std::vector<Section>& sections() const noexcept { return sections_; }
  const std::shared_ptr<const MappedFile>& mapping() const noexcept { return file_; }

  // Fills an empty pool of the same layout.
  void load(Pool& pool) const;

 private:
  struct Header;

  Header read_header();
  void read_lists(const Header& header);
  void read_sections(const Header& header);
  void read_codebooks();
  [[noreturn]] void damaged(const std::string& what) const;

  std::shared_ptr<const MappedFile> file_;
  PageLayout layout_;
  Metric metric_ = Metric::kDot;
  bool screen_ = false;
  std::vector<Section> sections_;
  uint64_t lists_ = 0;
  uint64_t pages_ = 0;
  uint64_t planes_ = 0;  // where they begin
};

}  // namespace warpmem
