// Portable kernels: the plain statement of each operation. Accurate and slow on purpose; the others are compared with it.
#include "kernels.hpp"

#include "../core/fp16.hpp"
#include "../core/int8.hpp"
#include "../core/keys.hpp"
#include "../core/predicate.hpp"
#include "../core/score_bound.hpp"

namespace warpmem {
namespace {

template <typename Term>
float fold_row(int64_t padded, const Term& term) {
  double acc[kLanes] = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) acc[j] += term(i + j);
  }
  return static_cast<float>(fold_lanes(acc));
}

void dots(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (int slot = 0; slot < kPageRows; ++slot) {
    if (((mask >> slot) & 1u) == 0) continue;
    const float* const row = rows + slot * padded;
    similarities[slot] = fold_row(padded, [&](int64_t i) { return static_cast<double>(row[i]) * query[i]; });
  }
}

void distances(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities) {
  for (int slot = 0; slot < kPageRows; ++slot) {
    if (((mask >> slot) & 1u) == 0) continue;
    const float* const row = rows + slot * padded;
    similarities[slot] = 0.0f - fold_row(padded, [&](int64_t i) {
                           const double difference = query[i] - static_cast<double>(row[i]);
                           return difference * difference;
                         });
  }
}

void widen(const uint16_t* halves, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = half_to_float(halves[i]);
}

void decode(const uint8_t* coarse, const uint8_t* fine, int64_t slot, int64_t lines, float scale, float* out) {
  for (int64_t line = 0; line < lines; ++line, out += kLineElements) {
    const int64_t padded = lines * kLineElements;
    unsigned char codes[kLineElements];
    join_codes(coarse + coarse_offset(slot, line), fine + fine_offset(slot, line, padded), codes);
    for (int j = 0; j < kLineElements; ++j) out[j] = scale * static_cast<float>(static_cast<int>(codes[j]) - kCodeBias);
  }
}

// Sums of nibbles times query codes, sixteen rows side by side: a loop that a compiler can turn into whatever vectors the machine has.
WARPMEM_READS_UNPUBLISHED void sum_plane(const uint8_t* plane, int64_t step, int64_t lines, const int8_t* query, int32_t* sums) {
  for (int r = 0; r < kCodeRows; ++r) sums[r] = 0;
  for (int64_t line = 0; line < lines; ++line, plane += step, query += kLineElements) {
    for (int r = 0; r < kCodeRows; ++r) {
      for (int j = 0; j < 4; ++j) {
        const int32_t byte = plane[r * 4 + j];
        sums[r] += (byte & 15) * query[j] + (byte >> 4) * query[j + 4];
      }
    }
  }
}

// `bounds` are the coarse plane's, from the row's group on; `row` is its place there.
float bound_of(const float* bounds, bool l2, const ScreenQuery& query, int row, int32_t product, float error) {
  return upper_bound(product, bounds[kScale * kPageRows + row], error, bounds[kNorm * kPageRows + row],
                     bounds[kSquare * kPageRows + row], query.scale, query.norm, query.error, query.square, l2);
}

// Adds the row's extra to the bound on its similarity.
bool passes(const ScreenPage& page, const ScreenQuery& query, int slot, float* bound) {
  if (page.extra != nullptr) {
    if (*bound < query.least) return false;
    *bound += page.extra[slot];
  }
  return !(*bound < query.floor);
}

WARPMEM_READS_UNPUBLISHED void screen(const ScreenPage& page, ScreenQuery* queries, int n) {
  for (int i = 0; i < n; ++i) {
    ScreenQuery& query = queries[i];
    query.survivors = 0;
    for (int group = 0; group < kPageRows; group += kCodeRows) {
      if (((query.mask >> group) & 0xffffu) == 0) continue;
      const uint8_t* const coarse = page.coarse + coarse_offset(group, 0);
      const auto* const bounds = reinterpret_cast<const float*>(coarse + page.lines * kPageRows * 4);
      int32_t sums[kCodeRows];
      sum_plane(coarse, kPageRows * 4, page.lines, query.codes, sums);
      uint64_t pass = 0;
      for (int row = 0; row < kCodeRows; ++row) {
        const int32_t product = 16 * sums[row] - kCoarseBias * query.sum;
        float bound = bound_of(bounds, page.l2, query, row, product, bounds[kCoarseError * kPageRows + row]);
        if (passes(page, query, group + row, &bound)) pass |= uint64_t{1} << (group + row);
      }
      query.survivors |= pass & query.mask;
      memcpy(query.bounds + group, sums, sizeof sums);
    }
  }
}

WARPMEM_READS_UNPUBLISHED void refine(const ScreenPage& page, ScreenQuery& query) {
  query.survivors = 0;
  for (int group = 0; group < kPageRows; group += kCodeRows) {
    if (((query.mask >> group) & 0xffffu) == 0) continue;
    const auto* const bounds = reinterpret_cast<const float*>(page.coarse + coarse_offset(group, page.lines));
    const uint8_t* const fine = page.fine + fine_offset(group, 0, page.lines * kLineElements);
    const auto* const errors = reinterpret_cast<const float*>(fine + page.lines * kCodeRows * 4);
    int32_t high[kCodeRows];
    int32_t low[kCodeRows];
    memcpy(high, query.bounds + group, sizeof high);
    sum_plane(fine, kCodeRows * 4, page.lines, query.codes, low);
    for (int row = 0; row < kCodeRows; ++row) {
      float bound = bound_of(bounds, page.l2, query, row, 16 * high[row] + low[row] - kCodeBias * query.sum, errors[row]);
      const bool pass = passes(page, query, group + row, &bound);
      query.bounds[group + row] = bound;
      if (pass) query.survivors |= uint64_t{1} << (group + row);
    }
  }
  query.survivors &= query.mask;
}

WARPMEM_READS_UNPUBLISHED uint64_t filter_range(const int64_t* column, int64_t lo, int64_t hi, uint64_t mask) {
  uint64_t keep = 0;
  for (int i = 0; i < kPageRows; ++i) {
    keep |= static_cast<uint64_t>(static_cast<unsigned>(lo <= column[i]) & static_cast<unsigned>(column[i] <= hi)) << i;
  }
  return keep & mask;
}

WARPMEM_READS_UNPUBLISHED uint64_t filter_members(const int64_t* column, const int64_t* values, int64_t n, uint64_t mask) {
  uint64_t keep = 0;
  for (uint64_t bits = mask; bits != 0; bits &= bits - 1) {
    const int slot = __builtin_ctzll(bits);
    keep |= static_cast<uint64_t>(is_member(values, 0, n, column[slot])) << slot;
  }
  return keep;
}

uint64_t in_words(const uint64_t* words, int64_t n_words, const int64_t* row_ids, uint64_t mask) {
  return filter_bitmap(words, n_words, row_ids, mask);
}

WARPMEM_READS_UNPUBLISHED void extras(const ScoreExtra& terms, float* out) {
  const ExtraTerms weights{terms.now, terms.per_half_life, terms.w_recency, terms.w_priority};
  const bool recency = terms.recency != nullptr;
  const bool priority = terms.priority != nullptr;
  for (int i = 0; i < kPageRows; ++i)
    out[i] = extra_bound(weights, recency, recency ? terms.recency[i] : 0, priority, priority ? terms.priority[i] : 0);
}

uint64_t read(const void* data, size_t bytes) {
  const auto* const words = static_cast<const uint64_t*>(data);
  uint64_t acc[8] = {};
  for (size_t i = 0; i < bytes / 8; i += 8) {
    for (size_t j = 0; j < 8; ++j) acc[j] ^= words[i + j];
  }
  return acc[0] ^ acc[1] ^ acc[2] ^ acc[3] ^ acc[4] ^ acc[5] ^ acc[6] ^ acc[7];
}

}  // namespace

const Kernels kSerialKernels = {"serial", "plain",      dots,           distances, widen,  decode, screen,
                                refine,   filter_range, filter_members, in_words,  extras, read};

}  // namespace warpmem
