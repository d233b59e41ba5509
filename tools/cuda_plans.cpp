// What the plans of core/ do for the workloads that are measured on a device: bytes and operations, as JSON. tools/cuda_predict.py compiles this, runs it and turns
// the numbers into times; here stands what each kernel reads and computes.
//
//   memory, l2      bytes from device memory, from the second cache
//   mma, f32, f64   operations: int8 products and sums, float32 and float64 ones (a fused pair is two)
//   integer         32-bit integer operations
//   shared          4-byte reads of shared memory by a lane
//   slots           instructions of any kind, counted in what nvcc 13.0 makes for sm_90, where their sum says more than that of each unit
//   alone           bytes from device memory that launches move beside which nothing is computed
//   launches        kernels one after the other        rounds   dependent reads of memory that nothing hides
//   least           bytes that any implementation has to read or write: float16 rows once, scores, codes, candidates
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "../csrc/core/kmeans_plan.hpp"
#include "../csrc/core/mmr_plan.hpp"
#include "../csrc/core/pages_plan.hpp"
#include "../csrc/core/pq_plan.hpp"
#include "../csrc/core/scan_plan.hpp"
#include "../csrc/core/scan_pq_plan.hpp"
#include "../csrc/core/select_plan.hpp"

using namespace warpmem;

namespace {

constexpr double kRescored = 150.0;  // rows a query beyond those that make its floor known (seen on text embeddings)
constexpr double kBoundOperations = 8.0;

struct Work {
  double memory = 0, l2 = 0, mma = 0, f32 = 0, f64 = 0, integer = 0, shared = 0;
  double slots = 0, alone = 0;
  double launches = 0, rounds = 0, least = 0;
};

bool first = true;

void print(const std::string& workload, const std::string& plan, const Work& w) {
  std::printf(
      "%s{\"workload\": \"%s\", \"plan\": \"%s\", \"memory\": %.0f, \"l2\": %.0f, \"mma\": %.0f, \"f32\": %.0f, \"f64\": %.0f, "
      "\"integer\": %.0f, \"shared\": %.0f, \"slots\": %.0f, \"alone\": %.0f, \"launches\": %.0f, \"rounds\": %.0f, \"least\": "
      "%.0f}",
      first ? "[" : ",\n ", workload.c_str(), plan.c_str(), w.memory, w.l2, w.mma, w.f32, w.f64, w.integer, w.shared, w.slots,
      w.alone, w.launches, w.rounds, w.least);
  first = false;
}

std::string queries_text(int64_t n) { return n == 1 ? "1 query" : std::to_string(n) + " queries"; }

double d(int64_t x) { return static_cast<double>(x); }

// Every query over the lists that `of_query` names; each list's queries stand together.
Work scan_work(const DeviceScanShape& shape, const std::vector<DeviceList>& lists, const std::vector<uint32_t>& queries,
               const DeviceLimits& limits, std::string* plan_text) {
  const DeviceScanPlan plan = plan_device_scan(shape, lists, queries.data(), limits);
  *plan_text = describe(plan);
  const double padded = d(padded_dim(shape.dim));
  const double element = shape.storage == Storage::kF32 ? 4 : shape.storage == Storage::kF16 ? 2 : 1;
  Work w;
  w.launches = 2;  // prepare, merge
  w.rounds = 12;   // bisections and merges of the last launch
  for (const DeviceScanStage& stage : plan.stages) {
    if (stage.tasks == 0) continue;
    w.launches += 1;
    w.rounds += 6;
    for (int64_t t = stage.first_task; t < stage.first_task + stage.tasks; ++t) {
      const DeviceScanTask& task = plan.tasks[static_cast<size_t>(t)];
      const double rows = d(task.pages) * kPageRows;
      const double segments = task.segments;
      const bool both = stage.shape == ScanShape::kLarge || (stage.shape == ScanShape::kMiddle && stage.queries > 8);
      const double plane = padded / 2 + 16;
      w.memory += rows * (both ? 2 * plane : plane);
      const double products = 2 * rows * padded * segments;
      if (stage.shape == ScanShape::kSmall) {
        w.integer += products / 8 + rows * padded / 4;  // dp4a is four products and sums; masks
        w.shared += rows * padded / 4 * segments / 16;  // queries' codes, read by a half warp at one address
      } else if (stage.shape != ScanShape::kPlain) {
        const double fill = 8.0 * ((task.segments + 7) / 8) / segments;  // passes of 8 queries
        w.mma += products * fill;
        w.shared += rows / 32 * padded * segments * fill / 4;  // operands of the queries, for each 32 rows
      }
      w.f32 += rows * segments * kBoundOperations;
    }
    // Until a floor is known every row is rescored: one page of each block's first task.
    const double unknown = d(stage.blocks) * kPageRows * stage.queries;
    w.memory += unknown * padded * element;
    w.f64 += 2 * unknown * padded;
  }
  const double rescored = kRescored * d(shape.queries);
  w.memory += rescored * padded * element;
  w.f64 += 2 * rescored * padded;
  w.memory += d(plan.table_bytes) + d(plan.parts.items) * 16 * d(static_cast<int64_t>(plan.parts.rounds.size()));
  return w;
}

DeviceScanShape scan_shape(int64_t dim, Storage storage, int64_t queries, int64_t k) {
  DeviceScanShape shape;
  shape.dim = dim;
  shape.storage = storage;
  shape.codes = true;
  shape.queries = queries;
  shape.k = k;
  return shape;
}

void exact(const DeviceLimits& limits) {
  for (const int64_t dim : {384, 768, 1536}) {
    for (const int64_t queries : {1, 32, 1024}) {
      const int64_t pages = 1000000 / kPageRows;
      std::vector<uint32_t> of_segments(static_cast<size_t>(queries));
      std::iota(of_segments.begin(), of_segments.end(), 0u);
      std::string text;
      Work w = scan_work(scan_shape(dim, Storage::kF16, queries, 10), {DeviceList{0, 0, pages, 0, queries}}, of_segments, limits,
                         &text);
      w.least = 1e6 * d(dim) * 2;
      print("exact, " + queries_text(queries) + ", 1M rows, d " + std::to_string(dim), text, w);
    }
  }
}

void owners(const DeviceLimits& limits, bool zipf) {
  constexpr int64_t kQueries = 4096;
  for (const int64_t dim : {384, 768}) {
    std::vector<DeviceList> lists;
    std::vector<uint32_t> of_segments;
    int64_t first_page = 0;
    int64_t all_rows = 0;
    for (int64_t q = 0; q < kQueries; ++q) {
      const int64_t rows = zipf ? std::max<int64_t>(100, 1000000 / (q + 1)) : 10000;
      const int64_t pages = (rows + kPageRows - 1) / kPageRows;
      lists.push_back(DeviceList{q, first_page, pages, q, 1});
      of_segments.push_back(static_cast<uint32_t>(q));
      first_page += pages;
      all_rows += rows;
    }
    std::string text;
    Work w = scan_work(scan_shape(dim, Storage::kF16, kQueries, 10), lists, of_segments, limits, &text);
    w.least = d(all_rows) * d(dim) * 2;
    print(
        std::string("4,096 queries, each over its own ") + (zipf ? "100 to 1M rows" : "10k rows") + ", d " + std::to_string(dim),
        text, w);
  }
}

void ivf_pq(const DeviceLimits& limits) {
  constexpr int64_t kRows = 10000000, kCells = 4096, kProbes = 48, kDim = 768, kRefine = 10;
  for (const int64_t queries : {1, 32, 1024}) {
    std::vector<uint32_t> coarse(static_cast<size_t>(queries));
    std::iota(coarse.begin(), coarse.end(), 0u);
    std::string text;
    Work w = scan_work(scan_shape(kDim, Storage::kF32, queries, kProbes), {DeviceList{0, 0, kCells / kPageRows, 0, queries}},
                       coarse, limits, &text);
    std::vector<DeviceList> lists;
    std::vector<uint32_t> of_segments;
    const int64_t pages = kRows / kCells / kPageRows + 1;
    for (int64_t cell = 0; cell < kCells; ++cell) {  // probes spread evenly
      const int64_t begin = queries * kProbes * cell / kCells;
      const int64_t end = queries * kProbes * (cell + 1) / kCells;
      if (begin == end) continue;
      lists.push_back(DeviceList{cell, cell * pages, pages, static_cast<int64_t>(of_segments.size()), end - begin});
      for (int64_t s = begin; s < end; ++s) of_segments.push_back(static_cast<uint32_t>(s % queries));
    }
    DevicePqShape shape;
    shape.scan = scan_shape(kDim, Storage::kF16, queries, 10);
    shape.pq_dim = 96;
    shape.dsub = 8;
    shape.refine = kRefine;
    const DevicePqPlan plan = plan_device_scan_pq(shape, lists, of_segments.data(), limits);
    for (const DeviceScanTask& task : plan.tasks) {
      const double rows = d(task.pages) * kPageRows;
      w.memory += rows * 48;
      w.shared += rows * 96;             // one word serves the task's segments
      w.integer += rows * 96 * (2 + 4);  // two to take a code out, four to add to two registers
      w.integer += rows * task.segments * 8;
    }
    const double rescored = d(queries * plan.keep);
    w.memory += rescored * kDim * 2 + d(plan.parts.items) * 16 * d(static_cast<int64_t>(plan.parts.rounds.size()));
    w.f64 += 2 * rescored * kDim + 2 * d(queries) * 96 * 16 * 8;
    w.launches += 7;
    w.rounds += 40;  // the queues' sorts, twice
    print("IVF-PQ, 10M x 768, " + queries_text(queries), text + "; " + describe(plan), w);
  }
}

void refined(const DeviceLimits& limits) {
  constexpr int64_t kRows = 1000000, kCodes = 96, kDim = 768, kBest = 10, kRefine = 4;
  for (const int64_t queries : {1, 32}) {
    const PqRefinePlan plan = plan_pq_scan_refined(queries, kRows, kCodes, 8, kBest, kRefine, limits);
    const double products = d(queries * kRows * kCodes), rescored = d(queries * plan.scan.k);
    Work w;
    w.least = d(kRows * kCodes);
    w.memory = w.least + rescored * kDim * 4;  // codes once, the second cache has them for the other queries
    w.l2 = products;
    w.shared = products;
    w.f32 = products;
    w.integer = products * 2;
    w.f64 = 2 * rescored * kDim;
    w.launches = 3 + (plan.scan.second.blocks > 0 ? 2 : 0);
    w.rounds = 20;
    print("PQ scan, 1M rows, 96 codes of 8 bits, 40 a query rescored, d 768, " + queries_text(queries), describe(plan), w);
  }
}

void selections(const DeviceLimits& limits) {
  for (const int64_t k : {10, 100, 1000}) {
    for (const auto& shape : {std::pair<int64_t, int64_t>{1, 1000000}, {1000, 10000}, {100, 1000000}}) {
      const SelectPlan plan = plan_select_k(shape.first, shape.second, k, false, limits);
      const double scores = d(shape.first * shape.second);
      const double passes = plan.first.variant == SelectVariant::kRadix ? 3 : 1;
      Work w;
      w.least = 4 * scores;
      w.memory = w.least * passes;
      w.integer = 10 * scores * passes;
      w.launches = plan.second.blocks > 0 ? 2 : 1;
      w.rounds = 8;
      print("select_k, " + std::to_string(k) + " of " + std::to_string(shape.first) + " x " + std::to_string(shape.second),
            describe(plan), w);
    }
  }
}

void training(const DeviceLimits& limits) {
  for (const int64_t k : {1024, 4096}) {
    constexpr int64_t kRows = 262144, kDim = 768;
    const TrainPlan train = plan_train(kRows, kRows, kDim, k, false, limits);
    const NearestPlan plan = plan_train_nearest(train, train.piece_rows, limits);
    const double pieces = d((kRows + train.piece_rows - 1) / train.piece_rows);
    Work w;
    const double tile = d(nearest_tile(plan.screen));
    // Whole tiles of rows, as many for each multiprocessor.
    const double waves = std::ceil(kRows / tile / d(plan.screen_blocks));
    const double products = waves * tile * d(plan.screen_blocks) * d(halves_columns(k)) * d(halves_dim(kDim));
    w.memory = 2.0 * kRows * kDim;
    w.alone = 4.0 * kRows * kDim + 4.0 * kRows;       // the means'
    w.l2 = 2.0 * kRows * kDim + 2 * products / tile;  // every tile of rows reads all centroids
    w.mma = 2 * 2 * products;                         // halves go at half the rate of bytes
    w.shared = products / 64 +
               products / tile / 2;  // units of 64 rows and 64 centroids serve 64 * 64 products; centroids are written there
    // Of a score 4 minima and maxima, its number, and its part of comparing the best of 16 with what was best.
    w.integer = 6.5 * waves * tile * d(plan.screen_blocks) * d(k);
    w.f64 = 1.0 * kRows * kDim * (1 + 0.12 * 2.1 * 3);  // means; rows with two candidates or three
    w.launches = 6 + 9 * pieces;
    w.rounds = 60;  // of a warp that counts and sorts the rows of a tile
    print("k-means, one iteration, 256k x 768, K " + std::to_string(k), describe(plan), w);
  }
  const PqEncodePlan encode = plan_pq_encode(1000000, 96, 4, 8, limits);
  Work w;
  w.memory = 4e6 * 768 + 1e6 * 96 + 1e6 * 96 + 1e6 * 48;
  w.slots = 234.0 * 1e6 * 96;             // of which 128 multiply and add, and 62 find the best two of 16 scores
  w.integer = 1e6 * 96 * (16 + 46 + 20);  // at half the rate, beside the others
  w.launches = 2 * d((1000000 + encode.nearest.chunk_rows - 1) / encode.nearest.chunk_rows) + 4;
  print("PQ encode, 1M x 768, 96 codes of 4 bits", describe(encode.nearest), w);
}

void changes(const DeviceLimits& limits) {
  constexpr double kRows = 100000, kDim = 768;
  Work append;
  append.memory = kRows * kDim * (4 + 2 + 1 + 4);  // the vector, the row, both planes, and the vector again for the scale
  append.f64 = kRows * (2 * kDim + 64);
  append.integer = kRows * kDim * 12;
  append.least = kRows * kDim * (4 + 2);
  append.launches = 1;
  print("append of 100k x 768, f16 with screen", std::to_string(append_blocks(100000, limits)) + " blocks", append);
  Work remove;
  remove.memory = kRows * (8 + 64);
  remove.least = kRows * 8;
  remove.launches = 1;
  print("delete of 100k rows", std::to_string(remove_blocks(100000, limits)) + " blocks", remove);
  for (const auto& shape : {std::pair<int64_t, int64_t>{1, 200}, {64, 200}, {1, 1000}}) {
    const int64_t k = 20;
    const MmrPlan plan = plan_mmr(shape.first, shape.second, 768, k, limits);
    const double n = d(shape.second);
    Work w;
    const double products = plan.variant == MmrVariant::kMatrix ? n * (n + 1) / 2 : n * d(k);
    w.least = d(shape.first) * n * 768 * 4;
    w.memory = w.least;
    w.l2 = d(shape.first) * products * 768 * 4 * 1.25;
    if (plan.variant == MmrVariant::kDirect)
      w.l2 *= std::max(1.0, d(limits.multiprocessors) / d(shape.first));  // one multiprocessor each
    w.f64 = d(shape.first) * products * 768 * 2;
    w.launches = plan.variant == MmrVariant::kMatrix ? 2 : 1;
    w.rounds = 2 * d(k);
    print("mmr, 20 of " + std::to_string(shape.second) + ", d 768, " + std::to_string(shape.first) + " problems", describe(plan),
          w);
  }
}

}  // namespace

int main() {
  const DeviceLimits limits = kLimitsSm90;
  exact(limits);
  owners(limits, false);
  owners(limits, true);
  ivf_pq(limits);
  refined(limits);
  selections(limits);
  training(limits);
  changes(limits);
  std::printf("]\n");
  return 0;
}
