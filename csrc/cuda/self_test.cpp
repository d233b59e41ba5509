#include "self_test.hpp"

#include <algorithm>
#include <limits>

#include "../cpu/mmr.hpp"
#include "../cpu/op_dispatch.hpp"
#include "../cpu/pq.hpp"
#include "../cpu/select_k.hpp"
#include "mmr.hpp"
#include "pages.hpp"
#include "pq.hpp"
#include "select_k.hpp"
#include "test_array.hpp"

namespace warpmem::cuda {
namespace {

const OpKernels& host() { return *find_op_kernels("auto"); }

FamilyTest test_select_k(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"select_k", 0, 0};
  constexpr int64_t kRows = 3;
  constexpr int64_t kColumns = 5000;
  const std::vector<float> scores = test_numbers(kRows * kColumns, 1);
  const TestArray<float> on_device(memory, scores);
  for (const int64_t k : {10, 100, 300}) {
    for (const int64_t parts : {1, 2}) {
      SelectChoice choice;
      choice.parts = parts;
      const SelectPlan plan = plan_select_k(kRows, kColumns, k, false, limits, choice);
      const TestArray<float> values(memory, kRows * k);
      const TestArray<int64_t> indexes(memory, kRows * k);
      const TestArray<uint64_t> bad(memory, 1);
      const TestArray<unsigned char> workspace(memory, plan.workspace_bytes);
      SelectArguments arguments;
      arguments.scores = on_device.data();
      arguments.row_stride = kColumns;
      arguments.values = values.data();
      arguments.indexes = indexes.data();
      arguments.bad_row = bad.data();
      arguments.workspace = workspace.data();
      select_k(plan, arguments, nullptr);
      std::vector<float> best(static_cast<size_t>(kRows * k));
      std::vector<int64_t> at(best.size());
      warpmem::select_k(host(), scores.data(), kRows, kColumns, k, nullptr, 1, best.data(), at.data());
      count_case(&test, values.holds(best) && indexes.holds(at) && bad.holds({UINT64_MAX}));
    }
  }
  return test;
}

// Rows (n, dim) as a page of the layout keeps them.
std::vector<unsigned char> stored_rows(const std::vector<float>& rows, int64_t n, const PageLayout& layout) {
  std::vector<unsigned char> out(static_cast<size_t>(n * layout.row_bytes()));
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(out.data() + i * layout.row_bytes(), rows.data() + i * layout.dim,
                static_cast<size_t>(layout.dim) * sizeof(float));
  return out;
}

FamilyTest test_pq(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"pq", 0, 0};
  constexpr int64_t kRows = 1500;
  constexpr int64_t kQueries = 2;
  constexpr int64_t kBest = 20;
  // Of 16 entries of 4 or 8 elements, whose encoding keeps them in registers; and of 256.
  for (const PqShape& shape : {PqShape{6, 4, 4}, PqShape{3, 4, 8}, PqShape{6, 8, 5}}) {
    const int64_t bits = shape.bits;
    const std::vector<float> codebooks = test_numbers(shape.pq_dim * shape.entries() * shape.dsub, 4);
    const std::vector<float> rows = test_numbers(kRows * shape.dim(), 5);
    const std::vector<float> queries = test_numbers(kQueries * shape.dim(), 6);
    const TestArray<float> device_books(memory, codebooks);
    const TestArray<float> device_rows(memory, rows);
    const TestArray<float> device_queries(memory, queries);
    const PqBooks books{device_books.data(), shape.pq_dim, bits, shape.dsub};

    const PqEncodePlan encode = plan_pq_encode(kRows, shape.pq_dim, bits, shape.dsub, limits);
    const TestArray<unsigned char> workspace(memory, encode.workspace_bytes);
    const TestArray<uint8_t> codes(memory, kRows * pq_code_size(shape.pq_dim, bits));
    pq_encode(encode, books, device_rows.data(), codes.data(), workspace.data(), nullptr);
    std::vector<uint8_t> packed(static_cast<size_t>(kRows * pq_code_size(shape.pq_dim, bits)));
    warpmem::pq_encode(host(), shape, codebooks.data(), rows.data(), kRows, 1, packed.data());
    count_case(&test, codes.holds(packed));

    const TestArray<float> device_luts(memory, kQueries * shape.pq_dim * shape.entries());
    pq_lut(books, device_queries.data(), kQueries, false, device_luts.data(), nullptr);
    std::vector<float> luts(static_cast<size_t>(kQueries * shape.pq_dim * shape.entries()));
    warpmem::pq_lut(host(), shape, codebooks.data(), queries.data(), kQueries, false, 1, luts.data());
    count_case(&test, device_luts.holds(luts));

    const PqScanPlan plan = plan_pq_scan(kQueries, kRows, shape.pq_dim, bits, kBest, limits, 2);
    const TestArray<uint8_t> blocks(memory, pq_blocks(kRows) * shape.pq_dim * pq_group_bytes(bits));
    const TestArray<float> values(memory, kQueries * kBest);
    const TestArray<int64_t> indexes(memory, kQueries * kBest);
    const TestArray<unsigned char> scratch(memory, plan.workspace_bytes);
    pq_interleave(shape.pq_dim, bits, codes.data(), kRows, blocks.data(), nullptr);
    pq_scan(plan, blocks.data(), device_luts.data(), values.data(), indexes.data(), scratch.data(), nullptr);
    PqScan scan;
    scan.pq_dim = shape.pq_dim;
    scan.bits = bits;
    scan.codes = packed.data();
    scan.interleaved = false;
    scan.rows = kRows;
    scan.luts = luts.data();
    scan.queries = kQueries;
    scan.k = kBest;
    std::vector<float> best(static_cast<size_t>(kQueries * kBest));
    std::vector<int64_t> at(best.size());
    warpmem::pq_scan(host(), scan, best.data(), at.data());
    count_case(&test, values.holds(best) && indexes.holds(at));

    constexpr int64_t kRefine = 3;
    Rescoring rescoring;
    rescoring.dim = shape.dim();
    const std::vector<unsigned char> stored = stored_rows(rows, kRows, rescoring.layout());
    const TestArray<unsigned char> device_stored(memory, stored);
    const PqRefinePlan refined = plan_pq_scan_refined(kQueries, kRows, shape.pq_dim, bits, kBest, kRefine, limits, 2);
    const TestArray<unsigned char> room(memory, refined.workspace_bytes);
    rescoring.rows = device_stored.data();
    rescoring.queries = device_queries.data();
    pq_scan_refined(refined, blocks.data(), device_luts.data(), rescoring, values.data(), indexes.data(), room.data(), nullptr);
    rescoring.rows = stored.data();
    rescoring.queries = queries.data();
    warpmem::pq_scan_refined(host(), scan, kRefine, rescoring, best.data(), at.data());
    count_case(&test, values.holds(best) && indexes.holds(at));
  }
  return test;
}

FamilyTest test_mmr(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"mmr", 0, 0};
  MmrRequest request;
  request.problems = 2;
  request.candidates = 50;
  request.dim = 33;
  request.k = 12;
  request.weight = 0.6;
  const std::vector<float> rows = test_numbers(request.problems * request.candidates * request.dim, 7);
  const std::vector<float> relevance = test_numbers(request.problems * request.candidates, 8);
  request.rows = rows.data();
  request.relevance = relevance.data();
  std::vector<double> expected(static_cast<size_t>(request.problems * request.k));
  std::vector<int64_t> chosen(expected.size());
  mmr(host(), request, expected.data(), chosen.data());
  const TestArray<float> device_rows(memory, rows);
  const TestArray<float> device_relevance(memory, relevance);
  for (const MmrVariant variant : {MmrVariant::kDirect, MmrVariant::kMatrix}) {
    const MmrPlan plan =
        plan_mmr(request.problems, request.candidates, request.dim, request.k, limits, static_cast<int32_t>(variant));
    const TestArray<double> values(memory, request.problems * request.k);
    const TestArray<int64_t> indexes(memory, request.problems * request.k);
    const TestArray<unsigned char> workspace(memory, plan.workspace_bytes);
    MmrArguments arguments;
    arguments.rows = device_rows.data();
    arguments.relevance = device_relevance.data();
    arguments.weight = request.weight;
    arguments.values = values.data();
    arguments.indexes = indexes.data();
    arguments.workspace = workspace.data();
    mmr(plan, arguments, nullptr);
    count_case(&test, values.holds(expected) && indexes.holds(chosen));
  }
  return test;
}

// The planes of `n` pages, one after the other.
std::vector<PageMemory> cut_pages(const PageLayout& layout, unsigned char* memory, int64_t n) {
  std::vector<PageMemory> out;
  for (int64_t i = 0; i < n; ++i) {
    unsigned char* const at = memory + i * layout.bytes;
    PageMemory page;
    page.coarse = at;
    page.fine = at + layout.coarse_bytes;
    page.columns = page.fine + layout.fine_bytes;
    page.rows = page.columns + layout.head_bytes;
    out.push_back(page);
  }
  return out;
}

FamilyTest test_pages(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest test{"pages", 0, 0};
  constexpr int64_t kRows = 150;
  constexpr int64_t kPages = 4;
  constexpr int64_t kDim = 45;
  const std::vector<float> vectors = test_numbers(kRows * kDim, 9);
  std::vector<int64_t> places, ids;
  std::vector<uint32_t> ordinals;
  for (int64_t i = 0; i < kRows; ++i) {
    places.push_back(i * 37 % (kPages * kPageRows));
    ids.push_back(1000 - i);
    ordinals.push_back(static_cast<uint32_t>(7 * i));
  }
  const TestArray<float> device_vectors(memory, vectors);
  const TestArray<int64_t> device_places(memory, places);
  const TestArray<int64_t> device_ids(memory, ids);
  const TestArray<uint32_t> device_ordinals(memory, ordinals);
  for (const Storage storage : {Storage::kF32, Storage::kF16, Storage::kInt8}) {
    const PageLayout layout(kDim, 1, storage, true);
    const std::vector<unsigned char> empty(static_cast<size_t>(2 * kPages * layout.bytes), 0x33);
    const TestArray<unsigned char> pages(memory, empty);
    std::vector<DevicePage> table;
    for (const PageMemory& page : cut_pages(layout, pages.data(), 2 * kPages)) table.push_back(DevicePage{page, 0});
    const TestArray<DevicePage> device_table(memory, table);
    pages_append(AppendArguments{&layout, device_table.data(), device_places.data(), device_vectors.data(), device_ids.data(),
                                 device_ordinals.data(), device_ids.data(), kRows},
                 limits, nullptr);
    pages_remove(device_table.data(), device_places.data(), kRows / 3, nullptr, limits, nullptr);
    std::vector<PageMove> moves(1);
    moves[0].pages = moves[0].to_page = moves[0].to_pages = kPages;
    const CompactPlan plan = plan_compact(&moves, limits);
    const TestArray<PageMove> device_moves(memory, moves);
    const TestArray<int64_t> live(memory, 1);
    const TestArray<unsigned char> workspace(memory, plan.workspace_bytes);
    pages_compact(plan, CompactArguments{&layout, device_table.data(), device_moves.data(), live.data(), workspace.data()},
                  nullptr);

    std::vector<unsigned char> expected = empty;
    const std::vector<PageMemory> on_host = cut_pages(layout, expected.data(), 2 * kPages);
    std::vector<bool> lives(static_cast<size_t>(kPages * kPageRows), false);
    for (size_t i = 0; i < places.size(); ++i) {
      layout.pack(on_host[static_cast<size_t>(places[i] / kPageRows)], static_cast<int>(places[i] % kPageRows), ids[i],
                  ordinals[i], &ids[i], vectors.data() + static_cast<int64_t>(i) * kDim);
      lives[static_cast<size_t>(places[i])] = static_cast<int64_t>(i) >= kRows / 3;
    }
    int64_t rank = 0;
    for (int64_t place = 0; place < kPages * kPageRows; ++place) {
      if (!lives[static_cast<size_t>(place)]) continue;
      layout.copy_row(on_host[static_cast<size_t>(place / kPageRows)], static_cast<int>(place % kPageRows),
                      on_host[static_cast<size_t>(kPages + rank / kPageRows)], static_cast<int>(rank % kPageRows));
      ++rank;
    }
    count_case(&test, pages.holds(expected) && live.holds({rank}));
  }
  return test;
}

}  // namespace

std::vector<FamilyTest> test_families(TestMemory& memory, const DeviceLimits& limits) {
  return {test_select_k(memory, limits), test_kmeans(memory, limits), test_pq(memory, limits),     test_mmr(memory, limits),
          test_pages(memory, limits),    test_scan(memory, limits),   test_scan_pq(memory, limits)};
}

}  // namespace warpmem::cuda
