#include "pq.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "../core/pq_code.hpp"
#include "../core/score.hpp"
#include "../core/select_k.hpp"
#include "fork.hpp"
#include "kmeans.hpp"
#include "select_k.hpp"

namespace warpmem {
namespace {

constexpr int64_t kPieceRows = 1024;
constexpr int64_t kLutWidth = 16;    // entries computed side by side
constexpr int64_t kTileBlocks = 64;  // 2,048 rows: their codes stay in cache for all queries of a group
constexpr int64_t kGroupQueries = 32;
constexpr int64_t kShortSubspaces = 256;  // 256 * 255 < 2^16
constexpr int64_t kNearSubspaces = 16;    // 8-bit tables of 1 KiB: so many stay in the first cache
constexpr int64_t kForkCodes = 1 << 20;

// One query's table, as its scan wants it.
struct Table {
  const float* lut = nullptr;
  std::vector<uint8_t> quantized;
  double scale = 0.0;
  double bias = 0.0;
};

struct Sums {
  std::vector<uint8_t> blocks;
  std::vector<uint16_t> shorts;
  std::vector<uint32_t> wide;
  std::vector<float> floats;
};

void scan_tile(const OpKernels& ops, const PqScan& scan, const Table& table, const uint8_t* blocks, int64_t n_blocks,
               int64_t first_row, int64_t rows, Sums& sums, Selection& selection) {
  const int64_t stride = scan.pq_dim * pq_group_bytes(scan.bits);
  const auto offset = static_cast<uint32_t>(first_row);
  if (scan.bits == 8) {
    for (int64_t s = 0; s < scan.pq_dim; s += kNearSubspaces) {
      ops.pq->sums8(blocks + s * 32, n_blocks, stride, std::min(kNearSubspaces, scan.pq_dim - s), table.lut + s * 256, s == 0,
                    sums.floats.data());
    }
    selection.add(sums.floats.data(), 0, rows, offset);
  } else if (scan.pq_dim <= kShortSubspaces) {
    ops.pq->sums4(blocks, n_blocks, stride, scan.pq_dim, table.quantized.data(), sums.shorts.data());
    selection.add_u16(sums.shorts.data(), 0, rows, offset);
  } else {
    std::fill(sums.wide.begin(), sums.wide.end(), 0u);
    for (int64_t s = 0; s < scan.pq_dim; s += kShortSubspaces) {
      ops.pq->sums4(blocks + s * 16, n_blocks, stride, std::min(kShortSubspaces, scan.pq_dim - s),
                    table.quantized.data() + s * 16, sums.shorts.data());
      for (int64_t i = 0; i < n_blocks * kPqBlockRows; ++i)
        sums.wide[static_cast<size_t>(i)] += sums.shorts[static_cast<size_t>(i)];
    }
    selection.add_u32(sums.wide.data(), 0, rows, offset);
  }
}

}  // namespace

void pq_train(const OpKernels& ops, const PqShape& shape, const float* rows, int64_t n, uint64_t seed, int64_t iterations,
              int64_t threads, float* codebooks) {
  fork_pieces(shape.pq_dim, 1, threads, [&](int64_t s, int64_t) {
    std::vector<float> part(static_cast<size_t>(n * shape.dsub));
    std::vector<int32_t> index(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i)
      std::copy_n(rows + i * shape.dim() + s * shape.dsub, shape.dsub, part.data() + i * shape.dsub);
    const KmeansOptions options = pq_options(shape.entries(), s, seed, iterations);
    kmeans(ops, part.data(), n, shape.dsub, options, codebooks + s * shape.entries() * shape.dsub, index.data());
  });
}

void pq_encode(const OpKernels& ops, const PqShape& shape, const float* codebooks, const float* rows, int64_t n, int64_t threads,
               uint8_t* codes) {
  const int64_t size = pq_code_size(shape.pq_dim, shape.bits);
  std::vector<Nearest> books;
  books.reserve(static_cast<size_t>(shape.pq_dim));
  for (int64_t s = 0; s < shape.pq_dim; ++s) {
    books.emplace_back(ops, codebooks + s * shape.entries() * shape.dsub, shape.entries(), shape.dsub, false);
  }
  fork_pieces(n, kPieceRows, threads, [&](int64_t first, int64_t last) {
    std::vector<int32_t> index(static_cast<size_t>(last - first));
    std::fill(codes + first * size, codes + last * size, uint8_t{0});
    for (int64_t s = 0; s < shape.pq_dim; ++s) {
      books[static_cast<size_t>(s)].find(rows + first * shape.dim() + s * shape.dsub, last - first, shape.dim(), index.data());
      for (int64_t i = first; i < last; ++i) {
        pq_set(codes + i * size, s, shape.bits, static_cast<uint8_t>(index[static_cast<size_t>(i - first)]));
      }
    }
  });
}

void pq_decode(const PqShape& shape, const float* codebooks, const uint8_t* codes, int64_t n, int64_t threads, float* rows) {
  const int64_t size = pq_code_size(shape.pq_dim, shape.bits);
  fork_pieces(n, kPieceRows, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t s = 0; s < shape.pq_dim; ++s) {
        const int64_t entry = s * shape.entries() + pq_get(codes + i * size, s, shape.bits);
        std::copy_n(codebooks + entry * shape.dsub, shape.dsub, rows + i * shape.dim() + s * shape.dsub);
      }
    }
  });
}

PqLuts::PqLuts(const OpKernels& ops, const PqShape& shape, const float* codebooks) : kernels_(ops.pq), shape_(shape), padded_(1) {
  while (padded_ < kLanes && padded_ < shape.dsub) padded_ *= 2;
  padded_ = (shape.dsub + padded_ - 1) / padded_ * padded_;
  books_.assign(static_cast<size_t>(shape.pq_dim * shape.entries() * padded_), 0.0f);
  for (int64_t g = 0; g < shape.pq_dim * shape.entries() / kLutWidth; ++g) {
    float* const to = books_.data() + g * padded_ * kLutWidth;
    const float* const from = codebooks + g * kLutWidth * shape.dsub;
    for (int64_t i = 0; i < shape.dsub; ++i) {
      for (int64_t c = 0; c < kLutWidth; ++c) to[i * kLutWidth + c] = from[c * shape.dsub + i];
    }
  }
}

void PqLuts::table(const float* query, bool l2, float* scratch, float* out) const {
  const int64_t groups = shape_.entries() / kLutWidth;
  std::fill(scratch, scratch + padded_, 0.0f);
  for (int64_t s = 0; s < shape_.pq_dim; ++s) {
    std::copy_n(query + s * shape_.dsub, shape_.dsub, scratch);
    kernels_->lut(books_.data() + s * groups * padded_ * kLutWidth, groups, padded_, scratch, l2, out + s * shape_.entries());
  }
}

void pq_lut(const OpKernels& ops, const PqShape& shape, const float* codebooks, const float* queries, int64_t n, bool l2,
            int64_t threads, float* lut) {
  const PqLuts luts(ops, shape, codebooks);
  fork_pieces(n, 16, threads, [&](int64_t first, int64_t last) {
    std::vector<float> scratch(static_cast<size_t>(luts.scratch()));
    for (int64_t q = first; q < last; ++q) {
      luts.table(queries + q * shape.dim(), l2, scratch.data(), lut + q * shape.pq_dim * shape.entries());
    }
  });
}

void pq_interleave_all(int64_t pq_dim, int64_t bits, const uint8_t* packed, int64_t n, int64_t threads, uint8_t* blocks) {
  const int64_t size = pq_code_size(pq_dim, bits);
  fork_pieces(pq_blocks(n), 64, threads, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      pq_interleave(packed + b * kPqBlockRows * size, n - b * kPqBlockRows, pq_dim, bits,
                    blocks + b * pq_dim * pq_group_bytes(bits));
    }
  });
}

void pq_deinterleave_all(int64_t pq_dim, int64_t bits, const uint8_t* blocks, int64_t n, int64_t threads, uint8_t* packed) {
  const int64_t size = pq_code_size(pq_dim, bits);
  fork_pieces(pq_blocks(n), 64, threads, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      pq_deinterleave(blocks + b * pq_dim * pq_group_bytes(bits), n - b * kPqBlockRows, pq_dim, bits,
                      packed + b * kPqBlockRows * size);
    }
  });
}

void pq_scan(const OpKernels& ops, const PqScan& scan, float* values, int64_t* indexes) {
  const int64_t entries = int64_t{1} << scan.bits;
  const int64_t size = pq_code_size(scan.pq_dim, scan.bits);
  const int64_t stride = scan.pq_dim * pq_group_bytes(scan.bits);
  const int64_t n_tiles = (pq_blocks(scan.rows) + kTileBlocks - 1) / kTileBlocks;
  for (int64_t first = 0; first < scan.queries; first += kGroupQueries) {
    const int64_t count = std::min(kGroupQueries, scan.queries - first);
    std::vector<Table> tables(static_cast<size_t>(count));
    for (int64_t q = 0; q < count; ++q) {
      Table& table = tables[static_cast<size_t>(q)];
      table.lut = scan.luts + (first + q) * scan.pq_dim * entries;
      if (scan.bits == 4) {
        table.quantized.assign(static_cast<size_t>((scan.pq_dim + 3) / 4 * 4 * 16), uint8_t{0});
        ops.pq->quantize(table.lut, scan.pq_dim, table.quantized.data(), &table.scale, &table.bias);
      }
    }
    int64_t threads = std::min(scan.threads, std::max<int64_t>(1, scan.rows * scan.pq_dim * count / kForkCodes));
    threads = std::max<int64_t>(1, std::min(threads, n_tiles));
    const int64_t piece = std::max<int64_t>(1, (n_tiles + threads - 1) / threads);  // a part of the rows for each thread
    std::vector<std::vector<Selection>> parts(static_cast<size_t>(threads));
    fork_pieces(n_tiles, piece, threads, [&](int64_t tile, int64_t end) {
      std::vector<Selection>& selections = parts[static_cast<size_t>(tile / piece)];
      selections.assign(static_cast<size_t>(count), Selection(*ops.select, scan.k));
      Sums sums;
      const auto tile_rows = static_cast<size_t>(kTileBlocks * kPqBlockRows);
      if (!scan.interleaved) sums.blocks.resize(static_cast<size_t>(kTileBlocks * stride));
      if (scan.bits == 8) {
        sums.floats.resize(tile_rows);
      } else {
        sums.shorts.resize(tile_rows);
        if (scan.pq_dim > kShortSubspaces) sums.wide.resize(tile_rows);
      }
      for (; tile < end; ++tile) {
        const int64_t row = tile * kTileBlocks * kPqBlockRows;
        const int64_t rows = std::min(kTileBlocks * kPqBlockRows, scan.rows - row);
        const uint8_t* blocks = scan.codes + tile * kTileBlocks * stride;
        if (!scan.interleaved) {
          pq_interleave_all(scan.pq_dim, scan.bits, scan.codes + row * size, rows, 1, sums.blocks.data());
          blocks = sums.blocks.data();
        }
        for (int64_t q = 0; q < count; ++q) {
          scan_tile(ops, scan, tables[static_cast<size_t>(q)], blocks, pq_blocks(rows), row, rows, sums,
                    selections[static_cast<size_t>(q)]);
        }
      }
    });
    for (int64_t q = 0; q < count; ++q) {
      float* const value = values + (first + q) * scan.k;
      int64_t* const index = indexes + (first + q) * scan.k;
      const uint64_t* keys = nullptr;
      int64_t n = 0;
      if (!parts[0].empty()) {
        Selection& best = parts[0][static_cast<size_t>(q)];
        for (size_t t = 1; t < parts.size(); ++t) {
          if (!parts[t].empty()) best.merge(parts[t][static_cast<size_t>(q)]);
        }
        keys = best.finish(&n);
      }
      const Table& table = tables[static_cast<size_t>(q)];
      for (int64_t i = 0; i < n; ++i) {
        value[i] = scan.bits == 8 ? key_score(keys[i]) : pq_integer_score(key_integer(keys[i]), table.scale, table.bias);
        index[i] = key_index(keys[i]);
      }
      std::fill(value + n, value + scan.k, -std::numeric_limits<float>::infinity());
      std::fill(index + n, index + scan.k, int64_t{-1});
    }
  }
}

void pq_scan_refined(const OpKernels& ops, const PqScan& scan, int64_t refine, const Rescoring& rescoring, float* values,
                     int64_t* indexes) {
  PqScan wide = scan;
  wide.k = std::max<int64_t>(1, std::min(refine * scan.k, scan.rows));
  std::vector<float> approximate(static_cast<size_t>(scan.queries * wide.k));
  std::vector<int64_t> shortlists(approximate.size());
  pq_scan(ops, wide, approximate.data(), shortlists.data());
  const PageLayout layout = rescoring.layout();
  const ConstPage page = rescoring.page();
  fork_pieces(scan.queries, 1, scan.threads, [&](int64_t q, int64_t) {
    const float* const query = rescoring.queries + q * rescoring.dim;
    const int64_t* const shortlist = shortlists.data() + q * wide.k;
    std::vector<float> row(static_cast<size_t>(rescoring.dim));
    std::vector<uint64_t> keys;
    for (int64_t i = 0; i < wide.k && shortlist[i] >= 0; ++i) {
      layout.unpack_vector(page, static_cast<int>(shortlist[i]), row.data());
      const float similarity =
          rescoring.l2 ? negated_distance(query, row.data(), rescoring.dim) : dot(row.data(), query, rescoring.dim);
      keys.push_back(select_key(similarity, static_cast<uint32_t>(shortlist[i])));
    }
    std::sort(keys.begin(), keys.end(), std::greater<uint64_t>());
    for (int64_t i = 0; i < scan.k; ++i) {
      const bool there = i < static_cast<int64_t>(keys.size());
      values[q * scan.k + i] = there ? key_score(keys[static_cast<size_t>(i)]) : -std::numeric_limits<float>::infinity();
      indexes[q * scan.k + i] = there ? static_cast<int64_t>(key_index(keys[static_cast<size_t>(i)])) : int64_t{-1};
    }
  });
}

}  // namespace warpmem
