// What a scan of codes rescores its shortlists by: stored rows without pages, and the queries themselves. For host and device alike.
#pragma once

#include <cstdint>

#include "page.hpp"

namespace warpmem {

// Rows lie one after the other as pages of codes keep them (core/page.hpp): float32 or float16, padded with zeros to a multiple of 32; or a float32 scale and as
// many int8 codes. All finite.
struct Rescoring {
  Storage storage = Storage::kF32;  // any but kPq
  int64_t dim = 1;
  const unsigned char* rows = nullptr;  // row i at i * layout().row_bytes()
  const float* queries = nullptr;       // (n, dim), finite
  bool l2 = false;                      // negated squared distances instead of dot products

  WARPMEM_HD PageLayout layout() const { return PageLayout(dim, 0, storage, false, PqView{1, dim, nullptr}); }
  // All of them as one page, whose slots are their numbers.
  WARPMEM_HD ConstPage page() const {
    ConstPage page;
    page.rows = rows;
    return page;
  }
};

}  // namespace warpmem
