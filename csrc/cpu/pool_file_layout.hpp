// The structures of an index file, shared by the code that writes it and the code that reads it. Nothing here may ever change its place or meaning within
// a version; FORMATS.md explains each field.
#pragma once

#include <cstdint>

#include "pool_file.hpp"

namespace warpmem {

constexpr unsigned char kFileMagic[8] = {0x89, 'W', 'M', 'I', '\r', '\n', 0x1a, '\n'};
constexpr uint32_t kFileByteOrder = 0x01020304;
constexpr uint64_t kFileAlignment = 64;
constexpr uint64_t kPlanesAlignment = 4096;

struct FileHeader {
  unsigned char magic[8];
  uint32_t version;
  uint32_t byte_order;
  uint64_t file_bytes;
  uint32_t dim;
  uint32_t n_columns;
  uint32_t storage;  // 0 f32, 1 f16, 2 int8, 3 pq
  uint32_t metric;   // 0 dot, 1 l2
  uint32_t screen;   // 0 none, 1 coarse and fine codes of csrc/core/int8.hpp, 2 the codes of csrc/core/pq_code.hpp
  uint32_t page_rows;
  uint64_t lists;
  uint64_t pages;
  uint64_t sections;
  uint64_t rows;  // live
  uint64_t planes_offset;
  uint64_t sections_offset;
  uint64_t plane_bytes[kPlanes];  // of one page
  uint32_t tables_crc;            // bytes 256 .. planes_offset
  uint32_t pq_dim;                // subspaces, with screen 2; else 0
  uint32_t reserved[29];          // 0
  uint32_t header_crc;            // bytes 0 .. 251
};
static_assert(sizeof(FileHeader) == 256, "no padding");

struct FileList {
  int64_t list_id;
  uint64_t slots;
  uint64_t live;
  uint64_t first_page;
};
static_assert(sizeof(FileList) == 32, "no padding");

struct FileSection {
  char name[kSectionNameBytes];  // zeros behind it
  uint64_t offset;
  uint64_t bytes;
  uint32_t crc;  // with the zeros up to the next multiple of 64
  uint32_t reserved;
};
static_assert(sizeof(FileSection) == 64, "no padding");

struct PoolFile::Header : FileHeader {};

// Where the tables lie, from their numbers.
struct FileTables {
  uint64_t lists = sizeof(FileHeader);
  uint64_t valid;      // uint64, one a page
  uint64_t checksums;  // uint32, four a page
  uint64_t sections;
  uint64_t end;
  uint64_t planes;

  FileTables(uint64_t n_lists, uint64_t n_pages, uint64_t n_sections)
      : valid(lists + n_lists * sizeof(FileList)),
        checksums(valid + n_pages * sizeof(uint64_t)),
        sections(checksums + n_pages * kPlanes * sizeof(uint32_t)),
        end(sections + n_sections * sizeof(FileSection)),
        planes((end + kPlanesAlignment - 1) / kPlanesAlignment * kPlanesAlignment) {}
};

inline uint64_t aligned(uint64_t bytes) { return (bytes + kFileAlignment - 1) / kFileAlignment * kFileAlignment; }

inline uint64_t pages_for(uint64_t slots) { return slots / kPageRows + (slots % kPageRows != 0 ? 1 : 0); }

}  // namespace warpmem
