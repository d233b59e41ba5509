// select_k: rows of scores -> the k best of each row.
//
// Candidates that pass a threshold, the k-th best score so far, go to a buffer; when it is full it is cut back to its k best, which raises the
// threshold. On scores in random order about k * ln(n / k) candidates ever pass, so the time is that of comparing every score once.
#pragma once

#include <cstdint>
#include <vector>

#include "op_kernels.hpp"

namespace warpmem {

// The best keys of one selection, of any number of calls of add().
class Selection {
 public:
  // Throws std::bad_alloc.
  Selection(const SelectKernels& kernels, int64_t k);

  void clear() noexcept;

  // Takes scores[begin, end), position p with index p + offset. Calls must come in order of index. Returns -1, or the position of the first NaN seen.
  int64_t add(const float* scores, int64_t begin, int64_t end, uint32_t offset) noexcept;
  void add_u16(const uint16_t* scores, int64_t begin, int64_t end, uint32_t offset) noexcept;
  void add_u32(const uint32_t* scores, int64_t begin, int64_t end, uint32_t offset) noexcept;

  // Takes what another selection of the same k kept; indexes may come in any order then.
  void merge(const Selection& other) noexcept;

  // Sorts and returns the best min(k, added) keys, best first.
  const uint64_t* finish(int64_t* n) noexcept;

 private:
  void cut() noexcept;

  const SelectKernels* kernels_;
  int64_t k_;
  std::vector<uint64_t> keys_;
  std::vector<uint64_t> spare_;  // of the sort
  int64_t n_ = 0;
  bool full_ = false;  // k keys were found, the worst of them kth_
  uint64_t kth_ = 0;
};

// scores (rows, columns) row-major; values and indexes (rows, k), filled with -inf and -1 behind the columns. Equal scores: smaller index first.
// `ordinals`, of `columns` entries or null, come before the index in that rule. k within 1..kSelectMaxK, columns <= kSelectMaxColumns.
// Returns -1, or the first row that holds a NaN; the outputs are unspecified then. Throws std::bad_alloc.
int64_t select_k(const OpKernels& ops, const float* scores, int64_t rows, int64_t columns, int64_t k, const uint32_t* ordinals,
                 int64_t threads, float* values, int64_t* indexes);

}  // namespace warpmem
