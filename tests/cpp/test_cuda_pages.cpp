// Rows in pages of device memory, in the emulator: appended, removed and moved, equal byte for byte to core/page.hpp's own pack and copy_row.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "../../csrc/cuda/pages.cu"
#include "check.hpp"
#include "simt_pairwise.hpp"

using namespace warpmem;
using simt::Machine;

namespace {

enum Data { kNormal, kLevels, kEqual, kZero, kDenormal, kHuge, kDataKinds };
enum Kind { kF32, kF32Screen, kF16, kF16Screen, kInt8, kF32Pq, kInt8Pq, kPq, kKinds };

struct Aligned {
  explicit Aligned(size_t bytes)
      : data(static_cast<unsigned char*>(::operator new(bytes + 1, std::align_val_t{64}))), size(bytes) {
    std::memset(data, 0xcd, bytes);  // slots that are not written keep this on both sides
  }
  ~Aligned() { ::operator delete(data, std::align_val_t{64}); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  unsigned char* const data;
  const size_t size;
};

// Pages of one layout, each plane of all pages together, and their table.
class Pages {
 public:
  Pages(const PageLayout& layout, int64_t n)
      : layout_(layout), memory_(static_cast<size_t>(layout.bytes * n)), table(static_cast<size_t>(n)) {
    unsigned char* next = memory_.data;
    for (int64_t i = 0; i < n; ++i) {
      PageMemory page;
      page.coarse = next + i * layout.coarse_bytes;
      page.fine = next + n * layout.coarse_bytes + i * layout.fine_bytes;
      page.rows = next + n * (layout.coarse_bytes + layout.fine_bytes) + i * layout.rows_bytes;
      page.columns = next + n * (layout.bytes - layout.head_bytes) + i * kColumnBytes;
      page.stride = n * kColumnBytes;
      planes.push_back(page);
      table[static_cast<size_t>(i)] = DevicePage{page, 0};
    }
  }

  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> out(memory_.data, memory_.data + memory_.size);
    for (const DevicePage& page : table) {
      const auto* const valid = reinterpret_cast<const unsigned char*>(&page.valid);
      out.insert(out.end(), valid, valid + sizeof page.valid);
    }
    return out;
  }

  void set(const std::vector<unsigned char>& bytes) {
    std::memcpy(memory_.data, bytes.data(), memory_.size);
    for (size_t i = 0; i < table.size(); ++i) std::memcpy(&table[i].valid, bytes.data() + memory_.size + 8 * i, 8);
  }

 private:
  const PageLayout layout_;
  const Aligned memory_;

 public:
  std::vector<PageMemory> planes;
  std::vector<DevicePage> table;
};

struct Rows {
  std::vector<float> vectors;
  std::vector<int64_t> row_ids;
  std::vector<uint32_t> ordinals;
  std::vector<int64_t> columns;
  std::vector<int64_t> places;
};

Rows make_rows(const PageLayout& layout, int64_t n, int64_t slots, int data, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Rows out;
  for (int64_t i = 0; i < n * layout.dim; ++i) {
    float x = normal(random);
    if (data == kLevels) x = static_cast<float>(static_cast<int>(random() % 5) - 2);
    if (data == kEqual) x = 0.75f - 0.5f * static_cast<float>(i % layout.dim % 3);
    if (data == kZero) x = random() % 2 == 0 ? 0.0f : -0.0f;
    if (data == kDenormal) x *= 1e-38f;
    if (data == kHuge) x = std::copysign(layout.storage == Storage::kF16 ? 6e4f : 3e38f, x);
    out.vectors.push_back(x);
  }
  out.places.resize(static_cast<size_t>(slots));
  std::iota(out.places.begin(), out.places.end(), int64_t{0});
  std::shuffle(out.places.begin(), out.places.end(), random);
  out.places.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    out.row_ids.push_back(static_cast<int64_t>(random()));
    out.ordinals.push_back(static_cast<uint32_t>(random()));
  }
  for (int64_t i = 0; i < n * layout.n_columns; ++i) out.columns.push_back(static_cast<int64_t>(random()));
  return out;
}

struct Setting {
  std::vector<float> books;
  PageLayout layout;
};

Setting make_setting(int kind, int64_t dim, int64_t n_columns, int64_t pq_dim, unsigned seed) {
  Setting out;
  PqView pq;
  if (kind == kF32Pq || kind == kInt8Pq || kind == kPq) {
    while (padded_dim(dim) % pq_dim != 0) --pq_dim;
    pq.pq_dim = pq_dim;
    pq.dsub = padded_dim(dim) / pq_dim;
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < padded_dim(dim) * 16; ++i)
      out.books.push_back(std::round(normal(random) * 4.0f) / 4.0f);  // with ties
    pq.books = out.books.data();
  }
  const Storage storage = kind == kF16 || kind == kF16Screen ? Storage::kF16
                          : kind == kInt8 || kind == kInt8Pq ? Storage::kInt8
                          : kind == kPq                      ? Storage::kPq
                                                             : Storage::kF32;
  out.layout = PageLayout(dim, n_columns, storage, kind == kF32Screen || kind == kF16Screen, pq);
  return out;
}

void append(const PageLayout& layout, Pages& pages, const Rows& rows) {
  for (size_t i = 0; i < rows.places.size(); ++i) {
    const auto page = static_cast<size_t>(rows.places[i] / kPageRows);
    const auto slot = static_cast<int>(rows.places[i] % kPageRows);
    layout.pack(pages.planes[page], slot, rows.row_ids[i], rows.ordinals[i],
                rows.columns.data() + static_cast<int64_t>(i) * layout.n_columns,
                rows.vectors.data() + static_cast<int64_t>(i) * layout.dim);
    pages.table[page].valid |= uint64_t{1} << slot;
  }
}

cuda::AppendArguments append_arguments(const PageLayout& layout, Pages& pages, const Rows& rows) {
  cuda::AppendArguments arguments;
  arguments.layout = &layout;
  arguments.pages = pages.table.data();
  arguments.places = rows.places.data();
  arguments.vectors = rows.vectors.data();
  arguments.row_ids = rows.row_ids.data();
  arguments.ordinals = rows.ordinals.data();
  arguments.columns = rows.columns.data();
  arguments.n = static_cast<int64_t>(rows.places.size());
  return arguments;
}

// A device that holds one block, so that everything is done in strides.
DeviceLimits tiny() {
  DeviceLimits limits = kLimitsSm90;
  limits.multiprocessors = 1;
  limits.threads_per_multiprocessor = kPagesThreads;
  return limits;
}

}  // namespace

TEST(rows_are_appended_as_pack_writes_them) {
  const std::vector<int64_t> dims = {1, 7, 31, 32, 33, 96, 130};
  const std::vector<int64_t> counts = {0, 1, 63, 64, 65, 150, 2047, 2048, 2049};
  const std::vector<int64_t> columns = {0, 1, 40};
  const std::vector<int64_t> pq_dims = {1, 2, 16, 33};
  const auto cases = simt::pairwise({int{kKinds}, 7, 9, 3, 4, int{kDataKinds}, 2});
  unsigned seed = 100;
  const int64_t before = Machine::get().launches["pages_append"];
  int64_t ran = 0;
  for (const std::vector<int>& f : cases) {
    const Setting setting = make_setting(f[0], dims[static_cast<size_t>(f[1])], columns[static_cast<size_t>(f[3])],
                                         pq_dims[static_cast<size_t>(f[4])], ++seed);
    const int64_t n = counts[static_cast<size_t>(f[2])];
    const int64_t n_pages = n / kPageRows + 2;
    const Rows rows = make_rows(setting.layout, n, n_pages * kPageRows, f[5], seed);
    const auto got = simt::run_twice([&](unsigned char) {
      Pages pages(setting.layout, n_pages);
      cuda::pages_append(append_arguments(setting.layout, pages, rows), f[6] == 0 ? kLimitsSm90 : tiny(), nullptr);
      return pages.bytes();
    });
    Pages expected(setting.layout, n_pages);
    append(setting.layout, expected, rows);
    if (got != expected.bytes())
      std::printf("seed %u: kind %d, dim %d, data %d\n", seed, f[0], static_cast<int>(setting.layout.dim), f[5]);
    CHECK(got == expected.bytes());
    ran += n > 0 ? 2 : 0;
  }
  CHECK_EQ(Machine::get().launches["pages_append"] - before, ran);
  std::printf("     %zu cases\n", cases.size());
}

TEST(places_are_removed_once) {
  const Setting setting = make_setting(kF32, 5, 1, 1, 1);
  for (const int64_t n : {0, 1, 31, 63, 64, 65, 255, 256, 700, 2047, 2048, 2049}) {
    for (const DeviceLimits& limits : {kLimitsSm80, tiny()}) {
      std::mt19937_64 random(static_cast<unsigned>(n));
      std::vector<int64_t> places;
      for (int64_t i = 0; i < n; ++i) places.push_back(static_cast<int64_t>(random() % (6 * kPageRows)));  // some twice
      Pages expected(setting.layout, 6);
      for (DevicePage& page : expected.table) page.valid = random();
      const std::vector<unsigned char> start = expected.bytes();
      uint64_t removed = 7;
      for (const int64_t place : places) {
        uint64_t& valid = expected.table[static_cast<size_t>(place / kPageRows)].valid;
        removed += valid >> (place % kPageRows) & 1u;
        valid &= ~(uint64_t{1} << (place % kPageRows));
      }
      for (const bool counted : {true, false}) {
        uint64_t total = 0;
        const auto got = simt::run_twice([&](unsigned char) {
          Pages pages(setting.layout, 6);
          pages.set(start);
          total = 7;
          cuda::pages_remove(pages.table.data(), places.data(), n, counted ? &total : nullptr, limits, nullptr);
          return pages.bytes();
        });
        CHECK(got == expected.bytes());
        CHECK_EQ(total, counted ? removed : 7);
      }
    }
  }
}

TEST(live_rows_are_moved_together_in_their_order) {
  // Lists of so many pages, and how many rows of each list live: all of it where it has fewer; -2: about half. There is no k.
  const std::vector<std::vector<int64_t>> lists = {{1}, {0, 3}, {2, 0, 1}, {5, 4}, {33}};
  const std::vector<int64_t> live = {0, 1, 63, 64, 65, -2, 2047, 2048, 2049, INT64_MAX};
  const auto avoid = [&](const simt::Values& v) {  // what another list of one value would do as well
    return v[1] >= 0 && v[2] >= 0 && v[1] < 4 && live[static_cast<size_t>(v[2])] > 2000;
  };
  const auto cases = simt::pairwise({int{kKinds}, 5, 10, 2, 2}, avoid);
  unsigned seed = 300;
  for (const std::vector<int>& f : cases) {
    const Setting setting = make_setting(f[0], f[3] == 0 ? 33 : 96, f[4], 12, ++seed);
    std::mt19937_64 random(seed);
    std::vector<PageMove> moves;
    int64_t sources = 0;
    int64_t targets = 0;
    for (const int64_t pages : lists[static_cast<size_t>(f[1])]) {
      PageMove move;
      move.from_page = sources;
      move.pages = pages;
      moves.push_back(move);
      sources += pages;
    }
    Pages start(setting.layout, sources + sources + 1);  // as many new ones as old, and one that nobody touches
    append(setting.layout, start, make_rows(setting.layout, sources * kPageRows, sources * kPageRows, kNormal, seed));
    for (const PageMove& move : moves) {
      const int64_t slots = move.pages * kPageRows;
      const int64_t wanted = live[static_cast<size_t>(f[2])];
      std::vector<int64_t> dead(static_cast<size_t>(slots));
      std::iota(dead.begin(), dead.end(), move.from_page * kPageRows);
      std::shuffle(dead.begin(), dead.end(), random);
      dead.resize(static_cast<size_t>(slots - std::min(slots, wanted == -2 ? slots / 2 : wanted)));
      for (const int64_t place : dead)
        start.table[static_cast<size_t>(place / kPageRows)].valid &= ~(uint64_t{1} << (place % kPageRows));
    }
    for (DevicePage& page : start.table) page.valid = &page - start.table.data() < sources ? page.valid : ~uint64_t{0};
    for (PageMove& move : moves) {
      move.to_page = sources + targets;
      move.to_pages = move.pages;
      targets += move.pages;
    }
    Pages expected(setting.layout, sources + sources + 1);
    expected.set(start.bytes());
    std::vector<int64_t> counts;
    for (const PageMove& move : moves) {
      int64_t rank = 0;
      for (int64_t i = 0; i < move.to_pages; ++i) expected.table[static_cast<size_t>(move.to_page + i)].valid = 0;
      for (int64_t place = move.from_page * kPageRows; place < (move.from_page + move.pages) * kPageRows; ++place) {
        const auto page = static_cast<size_t>(place / kPageRows);
        if ((start.table[page].valid >> (place % kPageRows) & 1u) == 0) continue;
        const auto to = static_cast<size_t>(move.to_page + rank / kPageRows);
        setting.layout.copy_row(start.planes[page], static_cast<int>(place % kPageRows), expected.planes[to],
                                static_cast<int>(rank % kPageRows));
        expected.table[to].valid |= uint64_t{1} << (rank % kPageRows);
        ++rank;
      }
      counts.push_back(rank);
    }
    std::vector<int64_t> rows;
    CompactPlan plan = plan_compact(&moves, f[4] == 0 ? kLimitsSm120 : tiny());
    const auto got = simt::run_twice([&](unsigned char fill) {
      Pages pages(setting.layout, sources + sources + 1);
      pages.set(start.bytes());
      rows.assign(moves.size(), fill);
      std::vector<uint64_t> workspace(static_cast<size_t>(plan.workspace_bytes / 8) + 2, fill * uint64_t{0x0101010101010101});
      cuda::CompactArguments arguments;
      arguments.layout = &setting.layout;
      arguments.pages = pages.table.data();
      arguments.moves = moves.data();
      arguments.rows = rows.data();
      arguments.workspace = workspace.data();
      cuda::pages_compact(plan, arguments, nullptr);
      return pages.bytes();
    });
    if (got != expected.bytes()) std::printf("seed %u: kind %d, lists %d, live %d\n", seed, f[0], f[1], f[2]);
    CHECK(got == expected.bytes());
    CHECK(rows == counts);
  }
  std::printf("     %zu cases\n", cases.size());
}

TEST(a_move_of_many_pages_counts_in_steps) {
  const Setting setting = make_setting(kF32, 1, 0, 1, 1);
  std::vector<PageMove> moves(1);
  moves[0].pages = 2 * kPagesThreads + 3;
  moves[0].to_page = moves[0].pages;
  moves[0].to_pages = 3;
  Pages pages(setting.layout, moves[0].pages + 4);
  for (int64_t i = 0; i < moves[0].pages; i += 3) {
    const int64_t id = 1000 + i;
    const float x = static_cast<float>(i);
    setting.layout.pack(pages.planes[static_cast<size_t>(i)], static_cast<int>(i % 64), id, static_cast<uint32_t>(i), &id, &x);
    pages.table[static_cast<size_t>(i)].valid = uint64_t{1} << (i % 64);
  }
  const CompactPlan plan = plan_compact(&moves, kLimitsSm90);
  std::vector<uint64_t> workspace(static_cast<size_t>(plan.workspace_bytes / 8));
  int64_t rows = 0;
  cuda::CompactArguments arguments{&setting.layout, pages.table.data(), moves.data(), &rows, workspace.data()};
  cuda::pages_compact(plan, arguments, nullptr);
  CHECK_EQ(rows, 172);
  for (int64_t i = 0; i < rows; ++i) {
    const auto page = static_cast<size_t>(moves[0].to_page + i / 64);
    CHECK_EQ(setting.layout.row_ids(pages.planes[page])[i % 64], 1000 + 3 * i);
    CHECK_EQ(setting.layout.row(pages.planes[page], static_cast<int>(i % 64))[0], static_cast<float>(3 * i));
  }
  CHECK_EQ(pages.table[static_cast<size_t>(moves[0].to_page + 2)].valid, (uint64_t{1} << 44) - 1);

  // Without room for all: nothing is written behind the pages that were given, and the count says so.
  moves[0].to_pages = 2;
  pages.table[static_cast<size_t>(moves[0].to_page + 2)].valid = 5;
  const std::vector<unsigned char> behind(pages.planes.back().rows, pages.planes.back().rows + setting.layout.rows_bytes);
  cuda::pages_compact(plan, arguments, nullptr);
  CHECK_EQ(rows, 172);
  CHECK_EQ(pages.table[static_cast<size_t>(moves[0].to_page + 2)].valid, uint64_t{5});
  CHECK(std::equal(behind.begin(), behind.end(), pages.planes.back().rows));
}

TEST(pages_find_their_move) {
  std::vector<PageMove> moves(5);
  const int64_t pages[] = {0, 2, 0, 3, 0};
  for (size_t i = 0; i < 5; ++i) moves[i].pages = pages[i];
  CHECK_EQ(plan_compact(&moves, kLimitsSm80).pages, 5);
  const int64_t expected[] = {1, 1, 3, 3, 3};
  for (int64_t page = 0; page < 5; ++page) CHECK_EQ(move_of(moves.data(), 5, page), expected[page]);
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
