// The codebooks of one pool, in the layouts that writing rows and reading them want. Immutable after construction.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../core/pq_code.hpp"
#include "pages.hpp"
#include "pq.hpp"

namespace warpmem {

class PqBooks {
 public:
  // codebooks [pq_dim][16][dsub], finite; pq_dim * dsub is padded_dim(dim). What they say of elements from `dim` on is taken as 0, as rows and queries are there.
  // Throws std::bad_alloc.
  PqBooks(const OpKernels& ops, int64_t pq_dim, int64_t dsub, int64_t dim, const float* codebooks)
      : shape_{pq_dim, 4, dsub},
        given_(codebooks, codebooks + pq_dim * 16 * dsub),
        beside_(given_.size()),
        largest_(static_cast<size_t>(pq_dim * dsub)),
        luts_(ops, shape_, cut(dim)) {
    for (int64_t s = 0; s < pq_dim; ++s) {
      for (int64_t c = 0; c < 16; ++c) {
        for (int64_t i = 0; i < dsub; ++i) {
          const float entry = given_[static_cast<size_t>((s * 16 + c) * dsub + i)];
          beside_[static_cast<size_t>((s * dsub + i) * 16 + c)] = entry;
          float& largest = largest_[static_cast<size_t>(s * dsub + i)];
          largest = std::fabs(entry) > largest ? std::fabs(entry) : largest;
        }
      }
    }
  }

  // Whether tables of the one serve the other. Finding out takes as long as making a table: whoever asks often keeps the serial of one that does.
  bool same(const PqBooks& other) const noexcept {
    return shape_.pq_dim == other.shape_.pq_dim && shape_.dsub == other.shape_.dsub && given_ == other.given_;
  }
  uint64_t serial() const noexcept { return serial_.value(); }

  const PqShape& shape() const noexcept { return shape_; }
  const std::vector<float>& codebooks() const noexcept { return given_; }  // [pq_dim][16][dsub]
  PqView view() const noexcept { return PqView{shape_.pq_dim, shape_.dsub, beside_.data()}; }
  const PqLuts& luts() const noexcept { return luts_; }
  const std::vector<float>& largest() const noexcept { return largest_; }  // magnitude of an entry, by element

 private:
  const float* cut(int64_t dim) {
    for (int64_t s = 0; s < shape_.pq_dim; ++s) {
      for (int64_t c = 0; c < 16; ++c) {
        for (int64_t i = 0; i < shape_.dsub; ++i) {
          if (s * shape_.dsub + i >= dim) given_[static_cast<size_t>((s * 16 + c) * shape_.dsub + i)] = 0.0f;
        }
      }
    }
    return given_.data();
  }

  const PqShape shape_;
  const Serial serial_;
  std::vector<float> given_;
  std::vector<float> beside_;  // [pq_dim][dsub][16]
  std::vector<float> largest_;
  PqLuts luts_;
};

}  // namespace warpmem
