// What one instruction set provides. The tables live in one file per instruction set; dispatch.cpp picks among them at run time.
//
// The ISA files are compiled with flags that the rest of the library is not. They must not instantiate anything inline from a shared header: the
// linker keeps one copy of an inline function, and it could keep the one with instructions that the machine lacks. They include only this file; pack.hpp says how packing gets around it.
//
// A kernel may read slots of a page that hold no row yet, while the writer fills them: what it computes there is masked away before anyone sees it. Such
// functions are marked WARPMEM_READS_UNPUBLISHED, which keeps ThreadSanitizer from reporting just these reads.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define WARPMEM_READS_UNPUBLISHED __attribute__((no_sanitize("thread")))

namespace warpmem {

// Queries that one call of `screen` takes.
constexpr int kScreenQueries = 8;

// The screened part of a page; see core/int8.hpp.
struct ScreenPage {
  const uint8_t* coarse;
  const uint8_t* fine;
  int64_t lines;       // padded / 8
  const float* extra;  // null, or what each of the 64 rows gets beside its similarity: see ScoreExtra
  bool l2;
};

// What recency and priority add to a score, for the 64 rows of a page. Weights are divided by the weight of the similarity.
struct ScoreExtra {
  const int64_t* recency;   // null: weight 0
  const int64_t* priority;  // null: weight 0
  double now;
  double per_half_life;  // 1 / half_life
  double w_recency;
  double w_priority;
};

// One query against one page. Rows of `mask` whose bound (on similarity + extra) is not below `floor`, and whose bound on the similarity alone is not below
// `least`, come back in `survivors`. `bounds` has 64 entries.
struct ScreenQuery {
  const int8_t* codes;
  int32_t sum;
  float scale;
  float norm;
  float error;
  float square;
  float floor;
  float least;  // looked at only with `extra`
  uint64_t mask;
  uint64_t survivors;
  float* bounds;
};

// Writes one row into a page: PageLayout::pack of core/page.hpp, of a PageLayout and a PageMemory. See pack.hpp.
using PackRow = void (*)(const void* layout, const void* page, int slot, int64_t row_id, uint32_t ordinal, const int64_t* columns,
                         const float* vector);
extern const PackRow kPackSerial;
#if defined(WARPMEM_HAVE_AVX2)
extern const PackRow kPackAvx2;
#endif
#if defined(WARPMEM_HAVE_AVX512)
extern const PackRow kPackAvx512;
#endif

struct Kernels {
  const char* name;
  const char* screen_name;  // how `screen` multiplies

  // For each set bit i of `mask`: similarities[i] = canonical similarity of row i (rows + i * padded) with the query, whose float32 elements were
  // widened to float64. `padded` is a multiple of 32 and both sides are padded with zeros. Other entries of `similarities` are not touched.
  void (*dots)(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities);
  void (*distances)(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities);

  // n float16 numbers, a multiple of 32, to float32; exact.
  void (*widen)(const uint16_t* halves, int64_t n, float* out);

  // The row in `slot` of two planes of codes, as float32: (float)(scale * code).
  void (*decode)(const uint8_t* coarse, const uint8_t* fine, int64_t slot, int64_t lines, float scale, float* out);

  // Screens one page by its coarse plane, with n <= kScreenQueries queries. Leaves in `bounds`, as int32, the coarse sums of the groups of 16 rows with
  // survivors.
  void (*screen)(const ScreenPage& page, ScreenQuery* queries, int n);

  // Goes on where `screen` ended: `mask` are its survivors, and `bounds` as it left them. Reads the fine planes of the groups with such rows and leaves
  // the bounds (on similarity + extra) of the survivors in `bounds[slot]`.
  void (*refine)(const ScreenPage& page, ScreenQuery& query);

  // Bits of `mask` whose value lies in lo .. hi.
  uint64_t (*filter_range)(const int64_t* column, int64_t lo, int64_t hi, uint64_t mask);

  // Bits of `mask` whose value is one of n ascending values.
  uint64_t (*filter_members)(const int64_t* column, const int64_t* values, int64_t n, uint64_t mask);

  // Bits of `mask` whose row id is a set bit of the bitmap of n_words words.
  uint64_t (*filter_bitmap)(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask);

  // core/score_bound.hpp's extra_bound of 64 rows.
  void (*extras)(const ScoreExtra& terms, float* out);

  // Reads `bytes` bytes, a multiple of 64, and does nothing with them: the floor that `screen` is measured against.
  uint64_t (*read)(const void* data, size_t bytes);
};

extern const Kernels kSerialKernels;
#if defined(WARPMEM_HAVE_AVX2)
extern const Kernels kAvx2Kernels;
#endif
#if defined(WARPMEM_HAVE_AVX512)
extern const Kernels kAvx512Kernels;
#endif

#if defined(WARPMEM_HAVE_SSE42)
uint32_t crc32c_sse42(uint32_t value, const void* data, size_t size);
#endif

}  // namespace warpmem
