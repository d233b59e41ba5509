#include "pool_view.hpp"

#include <memory>
#include <new>
#include <vector>

#include "pool_slots.hpp"

namespace warpmem {

namespace {

struct HeldView : PoolView {
  std::vector<ListHead> heads;
  std::vector<ListView> views;
};

static_assert(kViewBlockPages == kBlockPages, "the other side counts in blocks too");

void blocks_of(const PoolView* view, int64_t list, uint64_t* serials) {
  for (const auto& block : static_cast<const HeldView*>(view)->heads[static_cast<size_t>(list)]->blocks) {
    *serials++ = block->serial.value();
  }
}

bool pages_of(const PoolView* view, int64_t list, int64_t first, int64_t n, PageView* out) {
  const List& from = *static_cast<const HeldView*>(view)->heads[static_cast<size_t>(list)];
  for (int64_t p = first; p < first + n; ++p) {
    const int64_t position = p * kPageRows;
    const Block& block = *from.blocks[block_of(position)];
    const Page& page = *block.pages[page_of(position)];
    if ((page.unchecked() & kAllPlanes) != 0 && !page.check(kAllPlanes)) return false;
    const ConstPage memory = page.memory();
    *out++ = PageView{
        memory.coarse, memory.fine, memory.columns, memory.rows, memory.stride, page.serial(), block.valid[page_of(position)]};
  }
  return true;
}

void release(PoolView* view) { delete static_cast<HeldView*>(view); }

PoolView* view_pool(void* pool, const int64_t* list_ids, int64_t n) {
  try {
    auto view = std::make_unique<HeldView>();
    view->heads.resize(static_cast<size_t>(n));
    view->views.reserve(static_cast<size_t>(n));
    static_cast<const Pool*>(pool)->snapshot(list_ids, static_cast<size_t>(n), view->heads.data());
    for (int64_t i = 0; i < n; ++i) view->views.push_back(view_of(list_ids[i], view->heads[static_cast<size_t>(i)]));
    view->n_lists = n;
    view->lists = view->views.data();
    view->blocks = blocks_of;
    view->pages = pages_of;
    view->release = release;
    return view.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

PoolPort pool_port(Pool& pool) {
  PoolPort port;
  port.pool = &pool;
  port.dim = pool.layout().dim;
  port.n_columns = pool.layout().n_columns;
  port.storage = pool.layout().storage;
  port.screen = pool.screened();
  port.l2 = pool.metric() == Metric::kL2;
  port.view = view_pool;
  return port;
}

}  // namespace warpmem
