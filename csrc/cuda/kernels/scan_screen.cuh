// The screens of a scan: integer products of the pages' codes with the queries', as core/int8.hpp defines both, and from them the proven bound. A screen takes
// rows out of the masks of scan.cuh's chunk.
//
// small     A warp has a page. Half a warp reads a line, 16 bytes a lane: 8 elements of rows 4 i ... 4 i + 3, in nibbles. Two masks make them operands of
//           dp4a with the query's 8 codes, which all lanes of a half read at one address. Four lines are in flight; a shuffle adds the halves. Coarse plane.
//
//               line     | rows 0-3 | rows 4-7 | ... | rows 60-63 |     <- lanes 0-15; lanes 16-31 have the next line
//
// middle    A warp has 32 rows of a page. Lane (g, t) = (lane / 4, lane % 4) reads 16 bytes of line 4 b + t: rows 4 g ... 4 g + 3. Rows and columns of a
// large     product may be permuted as long as both sides agree, so two mma (16 rows, 8 queries, 32 elements) take what was read as it is:
//
//               a[0], a[2]   low and high elements of rows 4 g (4 g + 2 of the second mma)      a[1], a[3]   of rows 4 g + 1 (4 g + 3)
//               b[0], b[1]   elements 8 (4 b + t) ... and + 4 of query g                        d[i]         row 4 g + i / 2, query 2 t + i % 2
//
//           Codes lie in shared memory in the order in which lanes read them: [8 queries][b][lane][8 bytes]. With up to 8 segments a task only the coarse
//           plane is read. More of them share both planes, whose bound is so much tighter that the fine plane's bytes cost less than rescoring would.
//           kGroups groups of 8 queries have their sums in registers; of more, the rows are read again, from the first cache.
#pragma once

#include "scan.cuh"

namespace warpmem::cuda {

// The bound on the similarity. `error` is that of the planes which `product` is made of.
struct RowBounds {
  float scale;
  float error;
  float norm;
  float square;
};
WARPMEM_DEVICE float similarity_bound(const RowBounds& row, const ScanQueryBound& query, int32_t product, bool l2) {
  return upper_bound(product, row.scale, row.error, row.norm, row.square, query.scale, query.norm, query.error, query.square, l2);
}

WARPMEM_DEVICE float float_at(const unsigned char* from) { return load_readonly(reinterpret_cast<const float*>(from)); }

// small --------------------------------------------------------------------------------------------------------------------------------------------

template <int kTop>  // segments of a task, at most
struct SmallScreen {
  using Block = ScanBlock<ScanShape::kSmall>;
  static constexpr int kAhead = 4;

  WARPMEM_DEVICE static Shared<uint32_t> codes(const Block& block) {
    return shared_array<uint32_t>(Block::kShared.codes, block.segments * (block.p.padded / 4));
  }

  WARPMEM_DEVICE static void load(Block& block) {
    const Shared<uint32_t> to = codes(block);
    const int64_t words = block.p.padded / 4;
    for (int at = 0; at < block.segments; ++at) {
      const auto* const from = reinterpret_cast<const uint32_t*>(block.p.codes + block.query_of(at) * block.p.padded);
      for (int64_t i = thread_index(); i < words; i += kScanThreads) to[at * words + i] = load_readonly(from + i);
    }
    sync_threads();
  }

  WARPMEM_DEVICE static void run(Block& block) {
    const int page = warp_index();
    if (page >= block.n_pages) return;
    const Shared<uint32_t> masks = Block::masks();
    const int segments = block.segments;
    uint32_t any = 0;
    for (int i = 0; i < 2 * segments; ++i) any |= masks[page * 2 * segments + i];
    sync_warp();  // all have read what lane 0 writes below
    if (any == 0) return;
    const int lane = lane_index() % 16;
    const int half = lane_index() / 16;
    const unsigned char* const coarse = block.table[block.first_page + page].memory.coarse;
    const unsigned char* from = coarse + lane * 16;
    const Shared<uint32_t> queries = codes(block);
    const auto lines = static_cast<int>(block.p.padded / kLineElements);  // a multiple of 4
    int32_t sums[kTop][4] = {};
    WARPMEM_NO_UNROLL
    for (int line = half; line < lines; line += 2 * kAhead) {
      Bytes16 in[kAhead];
      WARPMEM_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        in[a] = Bytes16{};
        if (line + 2 * a < lines) in[a] = load_16(from + (line + 2 * a) * int64_t{256});
      }
      WARPMEM_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        if (line + 2 * a >= lines) continue;
        WARPMEM_UNROLL
        for (int q = 0; q < kTop; ++q) {
          if (q >= segments) continue;
          const uint32_t low = queries[(q * lines + line + 2 * a) * int64_t{2}];
          const uint32_t high = queries[(q * lines + line + 2 * a) * int64_t{2} + 1];
          WARPMEM_UNROLL
          for (int r = 0; r < 4; ++r) {
            sums[q][r] = dp4a(in[a].word[r] & 0x0f0f0f0fu, low, sums[q][r]);
            sums[q][r] = dp4a(in[a].word[r] >> 4 & 0x0f0f0f0fu, high, sums[q][r]);
          }
        }
      }
    }
    // Lane `lane` of half h goes on with rows 4 lane + 2 h and the one behind it.
    const int first = 4 * lane + 2 * half;
    const unsigned char* const parts = coarse + lines * int64_t{256} + first * 4;
    RowBounds rows[2];
    WARPMEM_UNROLL
    for (int j = 0; j < 2; ++j)
      rows[j] = RowBounds{float_at(parts + 256 * kScale + 4 * j), float_at(parts + 256 * kCoarseError + 4 * j),
                          float_at(parts + 256 * kNorm + 4 * j), float_at(parts + 256 * kSquare + 4 * j)};
    WARPMEM_UNROLL
    for (int q = 0; q < kTop; ++q) {
      if (q >= segments) continue;
      WARPMEM_UNROLL
      for (int r = 0; r < 4; ++r) sums[q][r] += shuffle_xor(sums[q][r], 16);
      const ScanQueryBound query = Block::bounds()[q];
      uint32_t bits = 0;
      WARPMEM_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int32_t product = 16 * (half == 0 ? sums[q][j] : sums[q][2 + j]) - kCoarseBias * query.sum;
        if (block.may_enter(similarity_bound(rows[j], query, product, block.p.l2), q, page * kPageRows + first + j))
          bits |= 1u << (first + j) % 32;
      }
      // Each row is one lane's, so a sum of bits is their union.
      const uint32_t words[2] = {reduce_add(lane < 8 ? bits : 0u), reduce_add(lane < 8 ? 0u : bits)};
      if (lane_index() == 0) {
        masks[(page * 2) * segments + q] &= words[0];
        masks[(page * 2 + 1) * segments + q] &= words[1];
      }
    }
  }
};

// middle and large ---------------------------------------------------------------------------------------------------------------------------------

template <ScanShape kShape, int kGroups, bool kFine>
struct MmaScreen {
  using Block = ScanBlock<kShape>;
  static constexpr int kAhead = kGroups == 1 ? 4 : kGroups == 4 ? 1 : 2;  // steps whose loads are in flight

  WARPMEM_DEVICE static Shared<uint32_t> codes(const Block& block) {
    return shared_array<uint32_t>(Block::kShared.codes, (block.segments + 7) / 8 * 2 * block.p.padded);
  }

  WARPMEM_DEVICE static void load(Block& block) {
    const Shared<uint32_t> to = codes(block);
    const auto words = static_cast<int>(block.p.padded / 4);
    const int total = (block.segments + 7) / 8 * 8 * words;
    for (int i = thread_index(); i < total; i += kScanThreads) {
      // Word i of the fragments: half i % 2 of line 4 b + t, of query g of a group.
      const int lane = i / 2 % kWarpSize;
      const int at = i / (8 * words) * 8 + lane / 4;
      const int word = i / (2 * kWarpSize) % (words / 8) * 8 + lane % 4 * 2 + i % 2;
      uint32_t code = 0;
      if (at < block.segments)
        code = load_readonly(reinterpret_cast<const uint32_t*>(block.p.codes + block.query_of(at) * block.p.padded) + word);
      to[i] = code;
    }
    sync_threads();
  }

  // The operands of the two mma from what a lane has read of the planes.
  WARPMEM_DEVICE static void operands(const Bytes16& coarse, [[maybe_unused]] const Bytes16& fine, uint32_t (&a)[2][4]) {
    WARPMEM_UNROLL
    for (int r = 0; r < 4; ++r) {
      uint32_t low = coarse.word[r] & 0x0f0f0f0fu;
      uint32_t high = coarse.word[r] >> 4 & 0x0f0f0f0fu;
      if constexpr (kFine) {  // codes + 128, whose upper bit turned around makes them signed
        low = (low << 4 | (fine.word[r] & 0x0f0f0f0fu)) ^ 0x80808080u;
        high = (high << 4 | (fine.word[r] >> 4 & 0x0f0f0f0fu)) ^ 0x80808080u;
      }
      a[r / 2][r % 2] = low;
      a[r / 2][2 + r % 2] = high;
    }
  }

  WARPMEM_DEVICE static void run(Block& block) {
    const int page = warp_index() / 2;
    const int side = warp_index() % 2;
    if (page >= block.n_pages) return;
    const Shared<uint32_t> masks = Block::masks();
    const int segments = block.segments;
    const int row_words = (page * 2 + side) * segments;
    bool wanted = false;
    for (int at = lane_index(); at < segments; at += kWarpSize) wanted = wanted || masks[row_words + at] != 0;
    if (!any_lane(wanted)) return;
    sync_warp();  // a vote orders no memory, and the masks are overwritten below
    const int g = lane_index() / 4;
    const int t = lane_index() % 4;
    const ConstPage& memory = block.table[block.first_page + page].memory;
    const auto lines = static_cast<int>(block.p.padded / kLineElements);
    const int first = 32 * side + 4 * g;  // of this lane's rows
    const unsigned char* const coarse = memory.coarse + coarse_offset(first, t);
    const unsigned char* fine = nullptr;
    const unsigned char* errors = memory.coarse + coarse_offset(first, lines + kCoarseError);
    if constexpr (kFine) {
      fine = memory.fine + fine_offset(first, t, block.p.padded);
      errors = memory.fine + fine_offset(first, lines + kError, block.p.padded);
    }
    const int groups = (segments + 7) / 8;
    const int steps = lines / 4;
    const Shared<uint32_t> queries = codes(block);
    for (int from = 0; from < groups; from += kGroups) {
      int32_t sums[kGroups][2][4] = {};
      Bytes16 in[kAhead];
      Bytes16 in_fine[kAhead];
      const auto fetch = [&](int i, int b) {
        in[i] = Bytes16{};
        in_fine[i] = Bytes16{};
        if (b >= steps) return;
        in[i] = load_16(coarse + b * 4 * 256);
        if constexpr (kFine) in_fine[i] = load_16(fine + b * 4 * 64);
      };
      WARPMEM_UNROLL
      for (int i = 0; i < kAhead; ++i) fetch(i, i);
      WARPMEM_NO_UNROLL
      for (int base = 0; base < steps; base += kAhead) {
        WARPMEM_UNROLL
        for (int i = 0; i < kAhead; ++i) {
          if (base + i >= steps) continue;
          uint32_t a[2][4];
          operands(in[i], in_fine[i], a);
          fetch(i, base + i + kAhead);
          WARPMEM_UNROLL
          for (int j = 0; j < kGroups; ++j) {
            if (from + j >= groups) continue;
            const int word = (((from + j) * steps + base + i) * kWarpSize + lane_index()) * 2;
            const uint32_t codes_of[2] = {queries[word], queries[word + 1]};
            mma_s8(sums[j][0], a[0], codes_of);
            mma_s8(sums[j][1], a[1], codes_of);
          }
        }
      }
      WARPMEM_UNROLL
      for (int j = 0; j < kGroups; ++j) {
        if (from + j >= groups) continue;
        const int first_segment = (from + j) * 8;
        uint32_t bits[2] = {0, 0};  // of segments 2 t and 2 t + 1
        WARPMEM_UNROLL
        for (int r = 0; r < 4; ++r) {
          const unsigned char* const parts = memory.coarse + coarse_offset(first + r, lines);
          const RowBounds row{float_at(parts + 256 * kScale), float_at(errors + 4 * r), float_at(parts + 256 * kNorm),
                              float_at(parts + 256 * kSquare)};
          WARPMEM_UNROLL
          for (int i = 0; i < 2; ++i) {
            const int at = first_segment + 2 * t + i;
            if (at >= segments) continue;
            const ScanQueryBound query = Block::bounds()[at];
            const int32_t sum = sums[j][r / 2][r % 2 * 2 + i];
            const int32_t product = kFine ? sum : 16 * sum - kCoarseBias * query.sum;
            if (block.may_enter(similarity_bound(row, query, product, block.p.l2), at, page * kPageRows + first + r))
              bits[i] |= 1u << (4 * g + r);
          }
        }
        WARPMEM_UNROLL
        for (int i = 0; i < 2; ++i) {
          WARPMEM_UNROLL
          for (int lanes = 4; lanes < 32; lanes *= 2) bits[i] |= shuffle_xor(bits[i], lanes);
          const int at = first_segment + 2 * t + i;
          if (g == 0 && at < segments) masks[row_words + at] &= bits[i];
        }
      }
    }
  }
};

template <int kTop>
WARPMEM_KERNEL_OF(kScanThreads, kScanBlocks[1])
scan_small_kernel(ScanParams p) {
  scan_tasks<ScanShape::kSmall, SmallScreen<kTop>>(p);
}

template <int kGroups, bool kFine>
WARPMEM_KERNEL_OF(kScanThreads, kScanBlocks[2])
scan_middle_kernel(ScanParams p) {
  scan_tasks<ScanShape::kMiddle, MmaScreen<ScanShape::kMiddle, kGroups, kFine>>(p);
}

WARPMEM_KERNEL_OF(kScanThreads, kScanBlocks[3]) scan_large_kernel(ScanParams p) {
  scan_tasks<ScanShape::kLarge, MmaScreen<ScanShape::kLarge, 8, true>>(p);
}

}  // namespace warpmem::cuda
