// What the pq_<isa>.cpp files share, included by each with its register width: everything here has internal linkage, so each file keeps its own copy.
//
// Tables of one query. A lane belongs to one entry, 16 entries side by side. Element i of a piece goes to accumulator i % 32, and accumulators are
// folded 32 -> 16 -> ... -> 1. A piece shorter than 32 is padded with zeros to a power of two, and the fold starts there: the accumulators left out
// would be +0, and since none is ever -0, adding +0 changes nothing. This is the canonical order of core/score.hpp.
#include <stdint.h>
#include <string.h>

namespace warpmem {
namespace {

constexpr int kLutEntries = 16;
constexpr int kLutPer = WARPMEM_LUT_BYTES / 8;
typedef double LutWide __attribute__((vector_size(WARPMEM_LUT_BYTES)));
typedef float LutNarrow __attribute__((vector_size(WARPMEM_LUT_BYTES / 2)));

template <int kTop, bool kSquared>
void lut_entries(const float* book, const float* query, int64_t padded, float* out) {
  for (int v = 0; v < kLutEntries / kLutPer; ++v) {
    LutWide acc[kTop];
    for (int j = 0; j < kTop; ++j) acc[j] = LutWide{};
    for (int64_t i = 0; i < padded; i += kTop) {
      for (int j = 0; j < kTop; ++j) {
        LutNarrow entries;
        memcpy(&entries, book + (i + j) * kLutEntries + v * kLutPer, sizeof entries);
        const LutWide wide = __builtin_convertvector(entries, LutWide);
        const double x = static_cast<double>(query[i + j]);
        if (kSquared) {
          const LutWide difference = x - wide;
          acc[j] += difference * difference;
        } else {
          acc[j] += x * wide;
        }
      }
    }
    for (int width = kTop / 2; width > 0; width /= 2) {
      for (int j = 0; j < width; ++j) acc[j] += acc[j + width];
    }
    LutWide sum = acc[0];
    if (kSquared) sum = -sum;
    const LutNarrow rounded = __builtin_convertvector(sum, LutNarrow) + 0.0f;
    memcpy(out + v * kLutPer, &rounded, sizeof rounded);
  }
}

template <int kTop>
void lut_groups(const float* books, int64_t n_groups, int64_t padded, const float* query, bool squared, float* out) {
  for (int64_t g = 0; g < n_groups; ++g) {
    if (squared) {
      lut_entries<kTop, true>(books + g * padded * kLutEntries, query, padded, out + g * kLutEntries);
    } else {
      lut_entries<kTop, false>(books + g * padded * kLutEntries, query, padded, out + g * kLutEntries);
    }
  }
}

void lut(const float* books, int64_t n_groups, int64_t padded, const float* query, bool squared, float* out) {
  if (padded == 1) return lut_groups<1>(books, n_groups, padded, query, squared, out);
  if (padded == 2) return lut_groups<2>(books, n_groups, padded, query, squared, out);
  if (padded == 4) return lut_groups<4>(books, n_groups, padded, query, squared, out);
  if (padded == 8) return lut_groups<8>(books, n_groups, padded, query, squared, out);
  if (padded == 16) return lut_groups<16>(books, n_groups, padded, query, squared, out);
  return lut_groups<32>(books, n_groups, padded, query, squared, out);
}

// As pq_quantize_lut of core/pq_code.hpp, to the bit. Four entries side by side whatever the registers, so that minima and bytes never pass through memory.
typedef float Float4 __attribute__((vector_size(16)));
typedef double Double4 __attribute__((vector_size(32)));
typedef int32_t Int4 __attribute__((vector_size(16)));
typedef uint8_t Bytes16 __attribute__((vector_size(16)));

struct Entries {
  Float4 part[4];
};

inline __attribute__((always_inline)) Entries entries_of(const float* lut, int64_t s) {
  Entries entries;
  memcpy(&entries, lut + s * kLutEntries, sizeof entries);
  return entries;
}

inline __attribute__((always_inline)) Float4 lesser(Float4 a, Float4 b) { return b < a ? b : a; }

inline __attribute__((always_inline)) float least_of(const Entries& e) {
  Float4 least = lesser(lesser(e.part[0], e.part[1]), lesser(e.part[2], e.part[3]));
  least = lesser(least, __builtin_shufflevector(least, least, 2, 3, 0, 1));
  return lesser(least, __builtin_shufflevector(least, least, 1, 0, 3, 2))[0];
}

void quantize(const float* lut, int64_t pq_dim, uint8_t* out, double* scale, double* bias) {
  double widest = 0.0;
  double low_sum = 0.0;
  for (int64_t s = 0; s < pq_dim; ++s) {
    const Entries e = entries_of(lut, s);
    const double low = static_cast<double>(least_of(e));
    const double high = -static_cast<double>(least_of(Entries{{-e.part[0], -e.part[1], -e.part[2], -e.part[3]}}));
    widest = high - low > widest ? high - low : widest;
    low_sum += low;
  }
  const double step = widest / 255.0;
  *scale = step;
  *bias = low_sum;
  if (!(step > 0.0)) {
    memset(out, 0, static_cast<size_t>(pq_dim * kLutEntries));
    return;
  }
  for (int64_t s = 0; s < pq_dim; ++s) {
    const Entries e = entries_of(lut, s);
    const double low = static_cast<double>(least_of(e));
    Bytes16 whole[4];
    for (int v = 0; v < 4; ++v) {
      const Double4 above = __builtin_convertvector(e.part[v], Double4) - low;
      whole[v] = reinterpret_cast<Bytes16>(__builtin_convertvector(above / step + 0.5, Int4));
    }
    const Bytes16 front = __builtin_shufflevector(whole[0], whole[1], 0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const Bytes16 back = __builtin_shufflevector(whole[2], whole[3], 0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const Bytes16 bytes = __builtin_shufflevector(front, back, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    memcpy(out + s * kLutEntries, &bytes, sizeof bytes);
  }
}

// Sums of 8-bit codes, eight rows at a time: eight sums stay in registers and hide one another's latency. Plain loads, because a gather of eight
// costs more than eight loads on the processors measured (Zen 4).
void sums8(const uint8_t* blocks, int64_t n_blocks, int64_t stride, int64_t n_sub, const float* tables, bool start, float* sums) {
  for (int64_t b = 0; b < n_blocks; ++b) {
    for (int g = 0; g < 32; g += 8) {
      const uint8_t* const codes = blocks + b * stride + g;
      float* const to = sums + b * 32 + g;
      float acc[8];
      for (int r = 0; r < 8; ++r) acc[r] = start ? tables[codes[r]] : to[r];
      for (int64_t s = start ? 1 : 0; s < n_sub; ++s) {
        for (int r = 0; r < 8; ++r) acc[r] += tables[s * 256 + codes[s * 32 + r]];
      }
      for (int r = 0; r < 8; ++r) to[r] = acc[r];
    }
  }
}

}  // namespace
}  // namespace warpmem
