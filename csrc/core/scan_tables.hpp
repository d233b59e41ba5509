// In which structures pages, filters and tasks of a scan lie in device memory.
//
//   page table   DevicePage [...]        a list is a slice of it, its pages in order
//   segments     DeviceSegment [...]     those over one list are neighbours: a DeviceList names a slice of each table
//   tasks        pages of one list, segments over it     longest first; blocks take them from a counter
//   parts        one for each task and segment: the k best of that segment's rows in that task; parts of one query are neighbours
#pragma once

#include <cstdint>

#include "page.hpp"
#include "predicate.hpp"
#include "score.hpp"

namespace warpmem {

struct DevicePage {
  ConstPage memory;  // planes, each aligned to 16 bytes
  uint64_t valid;    // bit = slot with a live row
};

// What rows must satisfy.
struct DeviceFilter {
  int32_t terms_begin = 0;  // of the common array of terms
  int32_t terms_end = 0;
  int64_t values_begin = 0;          // of the common array of values: a term's lo and hi count from here
  const uint64_t* bitmap = nullptr;  // over row ids; null: every row
  int64_t bitmap_words = 0;
};

// One query over one list.
struct DeviceSegment {
  uint32_t query = 0;
  uint32_t group = 0;   // rank among the query's segments: of equal scores the smaller comes first
  int32_t filter = -1;  // -1: every row
};

// The segments over one list.
struct DeviceList {
  int64_t list_id = 0;
  int64_t first_page = 0;  // of the page table
  int64_t pages = 0;       // < 2^25, so that 32 bits count a list's rows
  int64_t first_segment = 0;
  int64_t segments = 0;
};

struct DeviceScanTask {
  int64_t list_id = 0;
  int64_t first_page = 0;
  int32_t pages = 0;
  int32_t segments = 0;
  int32_t first_segment = 0;
  int32_t first_part = 0;  // of the numbers of parts
};

struct DeviceScanPart {
  uint32_t task = 0;
  uint32_t segment = 0;
  uint32_t first_item = 0;  // of its round's
  uint32_t items = 0;       // for which there is room
};

// The k best of a part: score key << 32 | ~ordinal, slot counted from the task's first page.
struct alignas(16) ScanItem {
  uint64_t key;
  uint32_t row;
  float similarity;
};

// The quantised query of core/int8.hpp, without its codes.
struct alignas(16) ScanQueryBound {
  float scale;
  float norm;
  float error;
  float square;
  int32_t sum;
  int32_t unused[3];
};

}  // namespace warpmem
