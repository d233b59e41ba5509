// Products of small matrices by a warp, for simt.hpp, which includes this: what tensor cores make of operands that lie in the registers of 32 lanes.
#pragma once

namespace warpmem::cuda {

namespace detail {

struct MmaOperands {
  const uint32_t* a;
  const uint32_t* b;
  float start[4];
  float product[4];
};

// What tensor cores make of c + x[0] y[0] + x[1] y[1] + ...: all addends cut off at the unit of the largest, and the sum at its own (Fasi and others,
// "Numerical behavior of NVIDIA tensor cores", 2021). That is of those known the least exact: newer ones keep a bit or two more.
template <typename Row>
void add_truncated(float& sum, const float* x, const Row* y, int column, int n) {
  double most = std::fabs(static_cast<double>(sum));
  for (int k = 0; k < n; ++k) most = std::max(most, std::fabs(static_cast<double>(x[k]) * static_cast<double>(y[k][column])));
  if (most == 0.0) return;
  if (!(most <= static_cast<double>(FLT_MAX))) {
    for (int k = 0; k < n; ++k) sum += x[k] * y[k][column];
    return;
  }
  const auto cut = [](double value, double unit) { return std::trunc(value / unit) * unit; };
  const double unit = std::ldexp(1.0, std::max(std::ilogb(most), FLT_MIN_EXP - 1) - 23);
  double total = cut(static_cast<double>(sum), unit);
  for (int k = 0; k < n; ++k) total += cut(static_cast<double>(x[k]) * static_cast<double>(y[k][column]), unit);
  if (total != 0.0) total = cut(total, std::ldexp(1.0, std::max(std::ilogb(total), FLT_MIN_EXP - 1) - 23));
  sum = static_cast<float>(total);
}

SIMT_SMALL float from_bf16(uint32_t bits) { return from_bits<float>(bits << 16); }

inline float from_f16(uint32_t half) {
  const int exponent = static_cast<int>(half >> 10 & 31);
  const uint32_t fraction = half & 1023;
  const float sign = (half & 0x8000u) != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
  if (exponent == 31) return from_bits<float>((half & 0x8000u) << 16 | 0x7f800000u | fraction << 13);
  return sign * from_bits<float>(static_cast<uint32_t>(exponent + 112) << 23 | fraction << 13);
}

// D (16, 8) += A (16, K) B (K, 8). With g = lane / 4 and t = lane % 4, and P elements to a register (K = 8 P):
//   a[i]   row g + 8 (i % 2), columns t P + 4 P (i / 2) ...       b[i]   column g, rows t P + 4 P i ...
//   d[i]   row g + 8 (i / 2), column 2 t + i % 2
// float holds the sums of 32 products of bytes exactly.
template <int kPer, typename Sum, typename Element>
void mma(Sum* d, const uint32_t* a, const uint32_t* b, const char* file, int line, const Element& element) {
  Machine& m = Machine::get();
  MmaOperands own{a, b, {}, {}};
  const int adder = std::is_same_v<Sum, float> ? m.settings.adder : 0;
  for (int i = 0; i < 4 && adder > 0; ++i) own.start[i] = static_cast<float>(d[i]);
  m.collective(Op::kMma, kFullMask, simt::Site{file, line}, reinterpret_cast<uintptr_t>(&own), kPer, [&]() SIMT_ENGINE {
    constexpr int kDepth = 8 * kPer;
    typedef float Row __attribute__((vector_size(32)));
    float rows[16][kDepth];
    Row columns[kDepth];
    for (int lane = 0; lane < 32; ++lane) {
      const auto* const operands = reinterpret_cast<const MmaOperands*>(m.lanes()[lane].in);
      for (int p = 0; p < kPer; ++p) {
        const int at = lane % 4 * kPer + p;
        for (int i = 0; i < 4; ++i) rows[lane / 4 + 8 * (i % 2)][at + 4 * kPer * (i / 2)] = element(operands->a[i], p);
        for (int i = 0; i < 2; ++i) columns[at + 4 * kPer * i][lane / 4] = element(operands->b[i], p);
      }
    }
    for (int row = 0; row < 16; ++row) {
      Row sums{};
      for (int k = 0; k < kDepth && adder == 0; ++k) sums += rows[row][k] * columns[k];
      for (int column = 0; column < 8; ++column) {
        auto* const owner = reinterpret_cast<MmaOperands*>(m.lanes()[row % 8 * 4 + column / 2].in);
        const int at = row / 8 * 2 + column % 2;
        owner->product[at] = adder == 0 ? sums[column] : owner->start[at];
        for (int k = 0; k < kDepth && adder > 0; k += adder)
          add_truncated(owner->product[at], rows[row] + k, columns + k, column, adder);
      }
    }
  });
  for (int i = 0; i < 4; ++i) d[i] = static_cast<Sum>(own.product[i]) + (adder > 0 ? Sum{0} : d[i]);
}

}  // namespace detail

inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  detail::mma<2, float>(d, a, b, file, line,
                        [](uint32_t word, int p) SIMT_ENGINE { return detail::from_bf16(word >> 16 * p & 0xffffu); });
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  detail::mma<2, float>(d, a, b, file, line,
                        [](uint32_t word, int p) SIMT_ENGINE { return detail::from_f16(word >> 16 * p & 0xffffu); });
}
inline void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {
  detail::mma<4, int32_t>(d, a, b, file, line, [](uint32_t word, int p) SIMT_ENGINE {
    return static_cast<float>(static_cast<int8_t>(word >> 8 * p));
  });
}

}  // namespace warpmem::cuda
