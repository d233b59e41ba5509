// What a pool and a cache of its pages on a device know of each other. They live in two extension modules, _cpu and _cuda, so only plain structs pass between
// them, in capsules: pointers to functions, numbers, and memory that the other side reads and never frees.
//
//   _cpu, the truth                               _cuda, a copy of some of it
//   PoolPort.view    <── "these lists, please" ── loading: what lies in the pages of one moment, until the view is released
//   Pool.scan        ── "can you answer?" ──────> ScanPort.begin: takes the lists whose copy is of this very moment, starts, returns
//                    ... scans the others ...
//                    ── "what did you find?" ───> ScanPort.finish: candidates, or a failure, after which the pool scans those lists too
//
// A list's version is given to no other state of any list of its pool, so equal versions mean equal rows. A page's serial number is given to no other page
// of the process. Within a page slots are filled once, from the front, and never change: a copy with the same serial and as many slots is current, one with
// fewer slots lacks the last ones. Which slots are live is not in the page but beside it, in a word that may lose bits.
//
// 64 pages of a list and their words are a block. Its serial number is given to no other state of any block of the process: a block with the same number has
// the same pages, the same slots of them and the same live ones, so that whoever has it need not look into it.
//
// Threads: every function may be called by any thread, without the interpreter's lock. None of them throws, none calls Python.
// Versions: a struct begins with kPortVersion and its size; whoever gets another number refuses it.
#pragma once

#include <cstdint>

#include "keys.hpp"
#include "page.hpp"
#include "predicate.hpp"
#include "score.hpp"

namespace warpmem {

constexpr uint32_t kPortVersion = 2;
constexpr const char* kPoolPortName = "warpmem.pool_port.2";  // of the capsules
constexpr const char* kScanPortName = "warpmem.scan_port.2";

constexpr int64_t kViewBlockPages = 64;

struct PortHead {
  uint32_t version = kPortVersion;
  uint32_t bytes = 0;
};

template <typename Port>
bool same_port(const Port& port) {
  return port.head.version == kPortVersion && port.head.bytes == sizeof(Port);
}

// A list at one moment.
struct ListView {
  int64_t list_id = 0;
  uint64_t version = 0;  // 0: the pool has no such list
  int64_t slots = 0;     // of its pages, from the front
  int64_t live = 0;
};

struct PageView {
  const unsigned char* coarse = nullptr;
  const unsigned char* fine = nullptr;
  const unsigned char* columns = nullptr;
  const unsigned char* rows = nullptr;
  int64_t stride = 0;
  uint64_t serial = 0;
  uint64_t valid = 0;  // which slots are live
};

// A snapshot of lists. Slots behind `slots` may be written meanwhile: they are not to be read.
struct PoolView {
  PortHead head{kPortVersion, sizeof(PoolView)};
  int64_t n_lists = 0;
  const ListView* lists = nullptr;
  // Writes the serial number of each block of a list.
  void (*blocks)(const PoolView* view, int64_t list, uint64_t* serials) = nullptr;
  // Writes pages first .. first + n - 1 of a list. False, when one lies in a file and is not what was written there.
  bool (*pages)(const PoolView* view, int64_t list, int64_t first, int64_t n, PageView* out) = nullptr;
  void (*release)(PoolView* view) = nullptr;
};

// What a pool offers.
struct PoolPort {
  PortHead head{kPortVersion, sizeof(PoolPort)};
  void* pool = nullptr;
  int64_t dim = 0;
  int64_t n_columns = 0;
  Storage storage = Storage::kF32;
  bool screen = false;  // pages have codes
  bool l2 = false;
  // Of a pool with product-quantisation codes, as cpu/pq_books.hpp has them; 0 and null for others.
  int64_t pq_dim = 0;
  int64_t dsub = 0;
  const float* codebooks = nullptr;  // [pq_dim][16][dsub]
  const float* beside = nullptr;     // [pq_dim][dsub][16]
  const float* largest = nullptr;    // (pq_dim * dsub)
  // Null: no memory.
  PoolView* (*view)(void* pool, const int64_t* list_ids, int64_t n) = nullptr;
};

// One scan. Memory belongs to the caller and stays until finish() or abandon().
struct ScanCall {
  PortHead head{kPortVersion, sizeof(ScanCall)};
  const float* queries = nullptr;  // (n_queries, dim)
  int64_t n_queries = 0;
  int64_t k = 0;
  int64_t refine = 0;  // of a pool with product-quantisation codes: refine * k rows of each query are rescored
  double min_similarity = 0.0;
  Ranking ranking;
  int64_t n_lists = 0;
  const ListView* lists = nullptr;         // distinct
  const int64_t* segment_begin = nullptr;  // (n_lists + 1): where the segments of each list begin in the arrays below
  const uint32_t* segment_query = nullptr;
  const uint32_t* segment_group = nullptr;
  const uint32_t* segment_filter = nullptr;
  int64_t n_filters = 0;
  const Filter* filters = nullptr;
  int64_t n_terms = 0;
  const Term* terms = nullptr;
  int64_t n_values = 0;
  const int64_t* values = nullptr;
  const void* device_queries = nullptr;  // the same, where the device has them already; or null
};

// What was found. Candidates have the bits that a scan of the pool gives them.
struct ScanFound {
  PortHead head{kPortVersion, sizeof(ScanFound)};
  int64_t k = 0;                          // of each query there is room for
  const Candidate* candidates = nullptr;  // (n_queries, k), unordered between lists; until the next call with this ticket
  const int32_t* counts = nullptr;        // (n_queries)
  int64_t rows_seen = 0;
  int64_t rows_rescored = 0;
};

// What a device offers.
struct ScanPort {
  PortHead head{kPortVersion, sizeof(ScanPort)};
  void* cache = nullptr;
  const void* pool = nullptr;        // PoolPort::pool of the pool whose lists these are: versions of another's mean nothing here
  const void* queries = nullptr;     // of the one call that this port is for, in device memory; null: where the call has them
  int64_t least_work = 0;            // rows * padded dimension * queries of a scan that is worth asking for
  int64_t most_results = INT64_MAX;  // queries * k of one call; larger scans are several, and one query is always let through
  // Sets taken[l] to 1 for each list that will be answered and to 0 for the others. Null: none. Of a pool with product-quantisation codes all or none: a
  // query's shortlist is of all its lists.
  void* (*begin)(void* cache, const ScanCall* call, uint8_t* taken) = nullptr;
  // Waits. False: the device failed, and nothing was found out.
  bool (*finish)(void* cache, void* ticket, ScanFound* found) = nullptr;
  // Ends a ticket, finished or not.
  void (*end)(void* cache, void* ticket) = nullptr;
};

}  // namespace warpmem
