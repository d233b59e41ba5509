// Kinds of numbers for k-means and product quantisation: ordinary ones, and those that decide ties, underflow or overflow.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

enum Data { kNormal, kLevels, kEqual, kZero, kTiny, kDenormal, kHuge, kNearTies, kDataKinds, kNegative = kDataKinds };

inline std::vector<float> numbers(int data, int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) {
    x = normal(random);
    if (data == kLevels) x = static_cast<float>(random() % 3);
    if (data == kEqual) x = 1.5f;
    if (data == kZero) x = random() % 2 == 0 ? 0.0f : -0.0f;
    if (data == kTiny) x *= 1e-25f;
    if (data == kDenormal) x *= 1e-40f;
    if (data == kHuge) x *= 1e20f;
    if (data == kNegative) x = -std::fabs(x) * 1e10f;
    if (data == kNearTies) x = 100.0f + static_cast<float>(random() % 4) * 7.6e-06f;  // one unit in the last place apart
  }
  return out;
}
