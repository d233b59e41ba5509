// A pool with a cache on a fake device, for the tests of csrc/cuda's cache of pages; and what is in the device's memory, to be compared with the pool.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "../../csrc/cpu/pool_view.hpp"
#include "../../csrc/cuda/cached_list.cpp"
#include "../../csrc/cuda/device_heap.cpp"
#include "../../csrc/cuda/page_cache.cpp"
#include "../../csrc/cuda/page_copies.cpp"
#include "../../csrc/cuda/page_loader.cpp"
#include "../../csrc/cuda/page_room.cpp"
#include "../../csrc/cuda/staging.cpp"
#include "check.hpp"
#include "fake_device.hpp"

using namespace warpmem;
using namespace warpmem::cuda;

namespace {

constexpr int64_t kDim = 40;
constexpr int64_t kColumns = 2;
constexpr int64_t kPageBytes = 23808;  // on the device, of float32 rows with codes

// --------------------------------------------------------------------------------------------- a pool with a cache

struct Tiered {
  Tiered(int64_t limit, Storage storage = Storage::kF32, bool screen = true, bool manual = true, int64_t inline_bytes = 1 << 20,
         int64_t pinned_bytes = 0)
      : pool(kDim, kColumns, storage, Metric::kDot, screen) {
    fake::Device::get().heal();
    fake::Device::get().most = fake::Device::get().allocated;
    CacheOptions options;
    options.limit = limit;
    options.pinned_bytes = pinned_bytes;
    options.manual = manual;
    options.inline_bytes = inline_bytes;
    options.staging_bytes = 1 << 16;
    cache = std::make_unique<PageCache>(std::make_unique<fake::FakeRuntime>(), pool_port(pool), options);
  }
  ~Tiered() {
    fake::Device::get().on_call = nullptr;
    CHECK_EQ(std::exchange(fake::Device::get().strangers, 0), int64_t{0});
  }

  // Adds rows to a list, removing others, and follows up on the device.
  void change(int64_t list_id, const std::vector<int64_t>& add, const std::vector<int64_t>& remove, float value) {
    Removes removes;
    for (const int64_t row_id : remove) removes.emplace_back(list_id, row_id);
    const size_t n = add.size();
    const std::vector<int64_t> lists(n, list_id);
    const std::vector<uint32_t> ordinals(n, static_cast<uint32_t>(value));
    std::vector<int64_t> columns(n * kColumns);
    std::vector<float> vectors(n * kDim);
    for (size_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < kColumns; ++c) columns[i * kColumns + static_cast<size_t>(c)] = add[i] * 10 + c;
      for (int64_t d = 0; d < kDim; ++d)
        vectors[i * kDim + static_cast<size_t>(d)] = value + std::sin(static_cast<float>(add[i] * kDim + d));
    }
    pool.apply(pool.lock_writer(), removes,
               Appends{static_cast<int64_t>(n), lists.data(), add.data(), ordinals.data(), columns.data(), vectors.data()});
    cache->refresh({list_id});
  }
  void grow(int64_t list_id, int64_t rows, float value = 1.0f) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < rows; ++i) ids.push_back(next_id++);
    change(list_id, ids, {}, value);
  }
  ListView view(int64_t list_id) const {
    ListHead head;
    pool.snapshot(&list_id, 1, &head);
    return view_of(list_id, head);
  }
  void load_all() const {
    while (cache->load_next()) {
    }
  }
  // Whether a search would find the list on the device.
  bool ask(int64_t list_id) const {
    Pins pins;
    const ListView list = view(list_id);
    cache->pin(&list, 1, &pins);
    const bool hot = pins[0] != nullptr;
    cache->unpin(&pins);
    return hot;
  }

  Pool pool;
  std::unique_ptr<PageCache> cache;
  int64_t next_id = 0;
};

// What the device has at an address, once all that was enqueued before `arrives` is done.
template <typename T>
std::vector<T> download(PageCache& cache, const T* from, int64_t n, const CachedList& list) {
  Runtime& runtime = cache.runtime();
  const Entered entered(runtime);
  std::vector<T> out(static_cast<size_t>(n));
  Stream stream = nullptr;
  CHECK(runtime.create_stream(&stream) == Status::kOk);
  if (list.arrives != nullptr) CHECK(runtime.wait(stream, list.arrives.get()) == Status::kOk);
  CHECK(runtime.copy_out(out.data(), from, n * static_cast<int64_t>(sizeof(T)), stream) == Status::kOk);
  CHECK(runtime.synchronize(stream) == Status::kOk);
  runtime.release_stream(stream);
  return out;
}

struct Row {
  uint32_t ordinal;
  std::vector<int64_t> columns;
  std::vector<float> vector;
  bool operator==(const Row& o) const { return ordinal == o.ordinal && columns == o.columns && vector == o.vector; }
};
using Rows = std::map<int64_t, Row>;

// The live rows of a list, read from device memory: table, pages, validity words.
Rows rows_on_device(PageCache& cache, const CachedList& list) {
  const PageLayout& layout = cache.blocks().layout;
  Rows out;
  for (const DevicePage& entry : download(cache, list.device_table(), list.n_pages(), list)) {
    const auto codes = download(cache, entry.memory.coarse, cache.blocks().codes, list);
    std::vector<unsigned char> rows;
    if (list.keep == Keep::kCodes) {  // in host memory
      CHECK(fake::Device::get().is_pinned(entry.memory.rows));
      rows.assign(entry.memory.rows, entry.memory.rows + cache.blocks().rows);
    } else if (cache.blocks().rows > 0) {
      rows = download(cache, entry.memory.rows, cache.blocks().rows, list);
    }
    ConstPage page = entry.memory;
    page.coarse = codes.data();
    page.fine = page.coarse + layout.coarse_bytes;
    page.columns = page.fine + layout.fine_bytes;
    page.rows = rows.data();
    for (int slot = 0; slot < kPageRows; ++slot) {
      if ((entry.valid >> slot & 1) == 0) continue;
      int64_t row_id = 0;
      Row row{0, std::vector<int64_t>(kColumns), std::vector<float>(kDim)};
      layout.unpack(page, slot, &row_id, &row.ordinal, row.columns.data(), row.vector.data());
      CHECK(out.emplace(row_id, row).second);
    }
  }
  return out;
}

Rows rows_in_pool(Pool& pool, int64_t list_id) {
  ListHead head;
  pool.snapshot(&list_id, 1, &head);
  Rows out;
  if (!head) return out;
  std::vector<int64_t> ids(static_cast<size_t>(head->live));
  std::vector<uint32_t> ordinals(ids.size());
  std::vector<int64_t> columns(ids.size() * kColumns);
  pool.rows(*head, ids.data(), ordinals.data(), columns.data());
  std::vector<float> vectors(ids.size() * kDim);
  CHECK_EQ(pool.vectors(list_id, ids.data(), head->live, vectors.data()), int64_t{-1});
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto column = columns.begin() + static_cast<std::ptrdiff_t>(i * kColumns);
    const auto vector = vectors.begin() + static_cast<std::ptrdiff_t>(i * kDim);
    out[ids[i]] = Row{ordinals[i], {column, column + kColumns}, {vector, vector + kDim}};
  }
  return out;
}

// Hot lists hold what the pool holds. Returns how many were.
[[maybe_unused]] int check_hot(Tiered& t, int64_t n_lists) {
  int hot = 0;
  for (int64_t id = 0; id < n_lists; ++id) {
    Pins pins;
    const ListView list = t.view(id);
    t.cache->pin(&list, 1, &pins);
    if (pins[0] != nullptr) {
      ++hot;
      CHECK(rows_on_device(*t.cache, *pins[0]) == rows_in_pool(t.pool, id));
    }
    t.cache->unpin(&pins);
  }
  return hot;
}

struct Format {
  Storage storage;
  bool screen;
};
constexpr Format kFormats[] = {
    {Storage::kF32, true}, {Storage::kF32, false}, {Storage::kF16, true}, {Storage::kF16, false}, {Storage::kInt8, true}};

}  // namespace
