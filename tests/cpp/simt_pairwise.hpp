// Case lists in which every pair of values of two factors occurs, a small part of all combinations: most mistakes need two coinciding circumstances,
// not all of them (Cohen and others, "The AETG system: an approach to testing based on combinatorial design", 1997).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace simt {

// A case being made: the number of each factor's value, or -1.
using Values = std::vector<int>;

// One entry a factor: its number of values. Each case holds one value number a factor. Deterministic. `avoid(values)` says of a case, of which the
// factors that it judges may still be -1, that it costs too much: such a case is made only where no other has its pair.
inline std::vector<Values> pairwise(const std::vector<int>& sizes, const std::function<bool(const Values&)>& avoid = {}) {
  const size_t n = sizes.size();
  // open[a][b][x * sizes[b] + y]: the pair of value x of factor a and y of b, a < b, was not used yet.
  std::vector<std::vector<std::vector<bool>>> open(n, std::vector<std::vector<bool>>(n));
  int64_t left = 0;
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = a + 1; b < n; ++b) {
      open[a][b].assign(static_cast<size_t>(sizes[a] * sizes[b]), true);
      left += sizes[a] * sizes[b];
    }
  }
  const auto at = [&](size_t a, int x, size_t b, int y) -> std::vector<bool>::reference {
    return a < b ? open[a][b][static_cast<size_t>(x * sizes[b] + y)] : open[b][a][static_cast<size_t>(y * sizes[a] + x)];
  };
  std::vector<Values> cases;
  uint32_t state = 1;
  while (left > 0) {
    // Starts from a pair that is open, then gives each factor the value with most open pairs; ties by turns.
    Values chosen(n, -1);
    for (size_t a = 0; a < n && chosen[0] < 0; ++a) {
      for (size_t b = a + 1; b < n; ++b) {
        for (int pair = 0; pair < sizes[a] * sizes[b]; ++pair) {
          if (!open[a][b][static_cast<size_t>(pair)]) continue;
          chosen[a] = pair / sizes[b];
          chosen[b] = pair % sizes[b];
          a = b = n;
          break;
        }
      }
    }
    for (size_t f = 0; f < n; ++f) {
      if (chosen[f] >= 0) continue;
      int best = 0;
      int most = -2;
      state = state * 1664525u + 1013904223u;
      for (int i = 0; i < sizes[f]; ++i) {
        const int value = (i + static_cast<int>(state >> 16)) % sizes[f];
        int count = 0;
        for (size_t g = 0; g < n; ++g) {
          if (g != f && chosen[g] >= 0 && at(f, value, g, chosen[g])) ++count;
        }
        if (avoid) {
          chosen[f] = value;
          if (avoid(chosen)) count = -1;
          chosen[f] = -1;
        }
        if (count > most) {
          most = count;
          best = value;
        }
      }
      chosen[f] = best;
    }
    for (size_t a = 0; a < n; ++a) {
      for (size_t b = a + 1; b < n; ++b) {
        if (!at(a, chosen[a], b, chosen[b])) continue;
        at(a, chosen[a], b, chosen[b]) = false;
        --left;
      }
    }
    cases.push_back(chosen);
  }
  return cases;
}

}  // namespace simt
