#include "pool.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_map>

#include "dispatch.hpp"
#include "pool_slots.hpp"

namespace warpmem {

namespace {

// A page that can be written to, with the rows of one that cannot.
std::shared_ptr<Page> copy_page(const std::shared_ptr<PageArena>& arena, const Page& page) {
  page.require(kAllPlanes);
  auto copy = std::make_shared<Page>(arena);
  const PageLayout& layout = arena->layout();
  const PageMemory& to = copy->memory();
  const ConstPage from = page.memory();
  if (layout.coarse_bytes > 0) std::memcpy(to.coarse, from.coarse, static_cast<size_t>(layout.coarse_bytes));
  if (layout.fine_bytes > 0) std::memcpy(to.fine, from.fine, static_cast<size_t>(layout.fine_bytes));
  if (layout.rows_bytes > 0) std::memcpy(to.rows, from.rows, static_cast<size_t>(layout.rows_bytes));
  for (int64_t c = 0; c < layout.n_columns + 2; ++c) {  // row ids and ordinals too
    std::memcpy(to.columns + c * to.stride, from.columns + c * from.stride, kColumnBytes);
  }
  return copy;
}

int64_t block_bytes(int64_t n_columns) {
  return static_cast<int64_t>(sizeof(Block)) + kBlockPages * n_columns * static_cast<int64_t>(sizeof(Span));
}

// Gives every page that holds one of the slots [first, last) memory that can be written to.
template <typename BlockAt>
void allocate_pages(const std::shared_ptr<PageArena>& arena, int64_t first, int64_t last, const BlockAt& block_at) {
  for (int64_t position = first / kPageRows * kPageRows; position < last; position += kPageRows) {
    std::shared_ptr<Page>& page = block_at(block_of(position)).pages[page_of(position)];
    if (!page) {
      page = std::make_shared<Page>(arena);
    } else if (page->of_file()) {
      page = copy_page(arena, *page);
    }
  }
}

}  // namespace

// The next version of one list, while it is being made.
struct Pool::Draft {
  int64_t list_id = 0;
  Entry* entry = nullptr;        // in the table, or in `fresh`
  std::unique_ptr<Entry> fresh;  // a list that the table does not know yet
  std::shared_ptr<List> next;
  std::vector<Block*> own;  // by block: the copy that this draft may write to, or null
  int64_t appends = 0;
  int64_t n_columns = 0;

  Block& writable(size_t b) {
    if (own[b] == nullptr) {
      auto copy = b < next->blocks.size() && next->blocks[b] ? std::make_shared<Block>(*next->blocks[b])
                                                             : std::make_shared<Block>(n_columns);
      own[b] = copy.get();
      next->blocks[b] = std::move(copy);
    }
    return *own[b];
  }
};

struct Pool::Plan {
  static constexpr uint32_t kNone = UINT32_MAX;
  std::vector<Draft> drafts;
  std::vector<int64_t> row_ids;    // of the appends: the caller's array is read once
  std::vector<uint32_t> draft_of;  // of each remove, then of each append; kNone: nothing to do
};

Pool::Pool(int64_t dim, int64_t n_columns, Storage storage, Metric metric, bool screen, std::shared_ptr<const PqBooks> books,
           const Kernels* kernels)
    : books_(std::move(books)),
      layout_(dim, n_columns, storage, screen && books_ == nullptr, books_ ? books_->view() : PqView{}),
      metric_(metric),
      screen_(screen && books_ == nullptr),
      pack_(pack_of(kernels != nullptr ? *kernels : *supported_kernels().front())),
      arena_(std::make_shared<PageArena>(layout_)) {}

Pool::~Pool() {
  table_.for_each([](int64_t, Entry* entry) { delete entry; });
}

// Everything that can fail: finds the touched lists, copies the blocks that the change writes to, allocates pages and room in the maps.
Pool::Plan Pool::prepare(const Removes& removes, const Appends& appends) {
  Plan plan;
  plan.row_ids.assign(appends.row_ids, appends.row_ids + appends.n);
  plan.draft_of.reserve(removes.size() + static_cast<size_t>(appends.n));
  std::unordered_map<int64_t, uint32_t> known;
  uint32_t last = Plan::kNone;
  size_t fresh = 0;

  const auto draft_for = [&](int64_t list_id, bool create) {
    if (last != Plan::kNone && plan.drafts[last].list_id == list_id) return last;
    const auto found = known.find(list_id);
    if (found != known.end()) return last = found->second;
    Entry* const entry = table_.find(list_id);
    if (entry == nullptr && !create) return Plan::kNone;
    Draft draft;
    draft.list_id = list_id;
    draft.n_columns = layout_.n_columns;
    draft.entry = entry;
    if (entry == nullptr) {
      draft.fresh = std::make_unique<Entry>();
      draft.entry = draft.fresh.get();
      ++fresh;
    }
    const auto index = static_cast<uint32_t>(plan.drafts.size());
    plan.drafts.push_back(std::move(draft));
    known.emplace(list_id, index);
    return last = index;
  };

  for (const auto& remove : removes) plan.draft_of.push_back(draft_for(remove.first, false));
  for (int64_t i = 0; i < appends.n; ++i) {
    const uint32_t index = draft_for(appends.list_ids[i], true);
    plan.draft_of.push_back(index);
    ++plan.drafts[index].appends;
  }

  for (Draft& draft : plan.drafts) {
    if (!draft.entry->mapped) map_rows(*draft.entry);
    draft.next = draft.entry->head ? std::make_shared<List>(*draft.entry->head) : std::make_shared<List>();
    const int64_t slots = draft.next->slots;
    draft.next->blocks.resize(blocks_for(slots + draft.appends));
    draft.own.resize(draft.next->blocks.size());
    draft.entry->rows.reserve(draft.entry->rows.size() + static_cast<size_t>(draft.appends));
    if (draft.appends > 0) {
      allocate_pages(arena_, slots, slots + draft.appends, [&](size_t b) -> Block& { return draft.writable(b); });
    }
  }

  const auto own_row = [&](uint32_t index, int64_t row_id) {
    if (index == Plan::kNone) return;
    Draft& draft = plan.drafts[index];
    const int64_t position = draft.entry->rows.find(row_id);
    if (position >= 0) draft.writable(block_of(position));
  };
  for (size_t i = 0; i < removes.size(); ++i) own_row(plan.draft_of[i], removes[i].second);
  for (int64_t i = 0; i < appends.n; ++i) {
    const auto at = static_cast<size_t>(i);
    own_row(plan.draft_of[removes.size() + at], plan.row_ids[at]);
  }

  if (fresh > 0) {
    const std::lock_guard<std::mutex> lock(publish_mutex_);
    table_.reserve(table_.size() + fresh);
  }
  return plan;
}

// Makes the change in the drafts and the writer's maps. Cannot fail: prepare() has made room for all of it.
void Pool::write(Plan& plan, const Removes& removes, const Appends& appends) const noexcept {
  const auto clear = [](Draft& draft, int64_t position) {
    draft.own[block_of(position)]->valid[page_of(position)] &= ~bit_of(position);
    --draft.next->live;
  };
  for (size_t i = 0; i < removes.size(); ++i) {
    if (plan.draft_of[i] == Plan::kNone) continue;
    Draft& draft = plan.drafts[plan.draft_of[i]];
    const int64_t position = draft.entry->rows.erase(removes[i].second);
    if (position >= 0) clear(draft, position);
  }
  for (int64_t i = 0; i < appends.n; ++i) {
    Draft& draft = plan.drafts[plan.draft_of[removes.size() + static_cast<size_t>(i)]];
    const int64_t position = draft.next->slots++;
    const int64_t row_id = plan.row_ids[static_cast<size_t>(i)];
    const int64_t replaced = draft.entry->rows.put(row_id, position);
    if (replaced >= 0) clear(draft, replaced);
    Block& block = *draft.own[block_of(position)];
    pack_(&layout_, &block.pages[page_of(position)]->memory(), slot_of(position), row_id, appends.ordinals[i],
          appends.columns + i * layout_.n_columns, appends.vectors + i * layout_.dim);
    block.valid[page_of(position)] |= bit_of(position);
    block.widen(page_of(position), layout_.n_columns, appends.columns + i * layout_.n_columns);
    ++draft.next->live;
  }
}

void Pool::count(const List& list, int64_t sign) noexcept {
  const int64_t pages = (list.slots + kPageRows - 1) / kPageRows;
  stats_.lists += sign;
  stats_.rows += sign * list.live;
  stats_.dead += sign * (list.slots - list.live);
  stats_.pages += sign * pages;
  stats_.bytes += sign * (pages * layout_.bytes + static_cast<int64_t>(list.blocks.size()) * block_bytes(layout_.n_columns));
}

// Under the publish mutex. Leaves the old head in `head`, to be freed after the mutex.
void Pool::replace_head(Entry& entry, ListHead& head) noexcept {
  if (entry.head) count(*entry.head, -1);
  entry.head.swap(head);
  if (entry.head) count(*entry.head, +1);
  const size_t map_bytes = entry.head ? entry.rows.bytes() : 0;
  stats_.bytes += static_cast<int64_t>(map_bytes) - static_cast<int64_t>(entry.counted_map_bytes);
  entry.counted_map_bytes = map_bytes;
}

// Makes all drafts visible at once. What they replace stays in the plan and is freed with it.
void Pool::publish(Plan& plan) noexcept {
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  for (Draft& draft : plan.drafts) {
    draft.next->version = ++last_version_;
    ListHead head = std::move(draft.next);
    if (head->live == 0) head.reset();
    const bool drop = !head;
    if (!drop || !draft.fresh) {
      replace_head(*draft.entry, head);
      draft.next = std::const_pointer_cast<List>(std::move(head));
    }
    if (!drop && draft.fresh) table_.put(draft.list_id, draft.fresh.release());
    if (drop && !draft.fresh) {
      table_.erase(draft.list_id);
      draft.fresh.reset(draft.entry);
    }
    if (drop) draft.entry = nullptr;
  }
}

void Pool::apply(const WriterLock&, const Removes& removes, const Appends& appends) {
  Plan plan = prepare(removes, appends);
  write(plan, removes, appends);
  publish(plan);
  for (const Draft& draft : plan.drafts) {
    if (draft.entry == nullptr) continue;
    const List& list = *draft.entry->head;
    if (list.slots < kCompactMinRows || list.live * 100 >= list.slots * kCompactLivePercent) continue;
    try {
      compact_entry(*draft.entry);
    } catch (const std::bad_alloc&) {
      // The change itself is made and the list is correct as it is; the next change tries again.
    } catch (const IndexFileError&) {
      // A damaged page. Whoever looks into it is told.
    }
  }
}

void Pool::drop(const WriterLock&, const std::vector<int64_t>& list_ids) {
  std::vector<std::unique_ptr<Entry>> dropped;
  std::vector<ListHead> heads;  // freed after the mutex
  dropped.reserve(list_ids.size());
  heads.reserve(list_ids.size());
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  for (const int64_t list_id : list_ids) {
    Entry* const entry = table_.erase(list_id);
    if (entry == nullptr) continue;
    ListHead head;
    set_mapped(*entry);
    replace_head(*entry, head);
    heads.push_back(std::move(head));
    dropped.emplace_back(entry);
  }
}

void Pool::compact(const WriterLock&, int64_t list_id) {
  Entry* const entry = table_.find(list_id);
  if (entry != nullptr && entry->head->live < entry->head->slots) compact_entry(*entry);
}

void Pool::compact_entry(Entry& entry) {
  const List& list = *entry.head;
  const auto next = std::make_shared<List>();
  std::vector<Block*> own;
  RowMap rows;
  std::vector<int64_t> columns(static_cast<size_t>(layout_.n_columns));
  rows.reserve(static_cast<size_t>(list.live));
  next->blocks.reserve(blocks_for(list.live));
  own.reserve(blocks_for(list.live));
  for (size_t b = 0; b < blocks_for(list.live); ++b) {
    auto block = std::make_shared<Block>(layout_.n_columns);
    own.push_back(block.get());
    next->blocks.push_back(std::move(block));
  }
  allocate_pages(arena_, 0, list.live, [&](size_t b) -> Block& { return *own[b]; });

  for_each_live(list, kAllPlanes, [&](int64_t, const ConstPage& from, int slot) {
    const int64_t position = next->slots++;
    Block& to = *own[block_of(position)];
    layout_.copy_row(from, slot, to.pages[page_of(position)]->memory(), slot_of(position));
    to.valid[page_of(position)] |= bit_of(position);
    for (int64_t c = 0; c < layout_.n_columns; ++c) columns[static_cast<size_t>(c)] = layout_.column(from, c)[slot];
    to.widen(page_of(position), layout_.n_columns, columns.data());
    rows.put(layout_.row_ids(from)[slot], position);
  });
  next->live = next->slots;
  next->version = ++last_version_;

  ListHead head = next;
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  entry.rows.swap(rows);
  set_mapped(entry);
  replace_head(entry, head);
}

void Pool::set_mapped(Entry& entry) noexcept {
  if (!entry.mapped) unmapped_.fetch_sub(1, std::memory_order_relaxed);
  entry.mapped = true;
}

bool Pool::mapped(const WriterLock&, const Removes& removes, const Appends& appends) const noexcept {
  if (all_mapped()) return true;
  const auto ready = [this](int64_t list_id) {
    const Entry* const entry = table_.find(list_id);
    return entry == nullptr || entry->mapped;
  };
  return std::all_of(removes.begin(), removes.end(), [&](const auto& remove) { return ready(remove.first); }) &&
         std::all_of(appends.list_ids, appends.list_ids + appends.n, ready);
}

void Pool::adopt(std::vector<std::pair<int64_t, std::shared_ptr<List>>> lists) {
  const WriterLock writer = lock_writer();
  table_.reserve(lists.size());
  for (auto& [list_id, list] : lists) {
    auto entry = std::make_unique<Entry>();
    entry->mapped = false;
    list->version = ++last_version_;
    ListHead head = std::move(list);
    const std::lock_guard<std::mutex> lock(publish_mutex_);
    replace_head(*entry, head);
    table_.put(list_id, entry.release());
    unmapped_.fetch_add(1, std::memory_order_relaxed);
  }
}

void Pool::trim(const WriterLock&) {
  std::vector<RowMap> freed;  // after the mutex
  freed.reserve(table_.size());
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  table_.for_each([&](int64_t, Entry* entry) {
    if (!entry->mapped) return;
    stats_.bytes -= static_cast<int64_t>(entry->counted_map_bytes);
    entry->counted_map_bytes = 0;
    freed.emplace_back();
    freed.back().swap(entry->rows);
    entry->mapped = false;
    unmapped_.fetch_add(1, std::memory_order_relaxed);
  });
}

// Fills the row map of a list that came without one. The list stays as it is, and so does its entry when there is no memory.
void Pool::map_rows(Entry& entry) {
  RowMap rows;
  rows.reserve(static_cast<size_t>(entry.head->live));
  for_each_live(*entry.head, kHeadPlane,
                [&](int64_t position, const ConstPage& page, int slot) { rows.put(layout_.row_ids(page)[slot], position); });
  entry.rows.swap(rows);
  set_mapped(entry);
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  stats_.bytes += static_cast<int64_t>(entry.rows.bytes()) - static_cast<int64_t>(entry.counted_map_bytes);
  entry.counted_map_bytes = entry.rows.bytes();
}

PoolStats Pool::stats() const {
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  return stats_;
}

}  // namespace warpmem
