// What readers ask of the pool beside scans: snapshots, lists, rows, vectors.
#include <algorithm>
#include <unordered_map>

#include "pool.hpp"
#include "pool_slots.hpp"

namespace warpmem {

void Pool::snapshot(const int64_t* list_ids, size_t n, ListHead* heads) const {
  const std::lock_guard<std::mutex> lock(publish_mutex_);
  for (size_t i = 0; i < n; ++i) {
    const Entry* const entry = table_.find(list_ids[i]);
    if (entry != nullptr) heads[i] = entry->head;
  }
}

std::vector<std::pair<int64_t, ListHead>> Pool::snapshot_all() const {
  std::vector<std::pair<int64_t, ListHead>> all;
  for (size_t room = 0;;) {  // memory is sought without the mutex
    all.reserve(room);
    const std::lock_guard<std::mutex> lock(publish_mutex_);
    room = table_.size();
    if (all.capacity() < room) continue;
    table_.for_each([&](int64_t list_id, const Entry* entry) { all.emplace_back(list_id, entry->head); });
    break;
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return all;
}

std::vector<int64_t> Pool::lists() const {
  std::vector<int64_t> list_ids;
  for (const auto& list : snapshot_all()) list_ids.push_back(list.first);
  return list_ids;
}

int64_t Pool::vectors(int64_t list_id, const int64_t* row_ids, int64_t n, float* out) {
  ListHead head;
  std::unordered_map<int64_t, int64_t> positions;
  {
    const WriterLock writer = try_lock_writer();
    snapshot(&list_id, 1, &head);
    if (!head) return n > 0 ? 0 : -1;
    if (writer.owns_lock()) {
      Entry* const entry = table_.find(list_id);
      if (!entry->mapped && n > 0) map_rows(*entry);
      for (int64_t i = 0; i < n; ++i) positions[row_ids[i]] = entry->rows.find(row_ids[i]);
    }
  }
  if (n > 0 && positions.empty()) {  // a writer is at work, and readers never wait for one: walk the snapshot instead of its map
    for (int64_t i = 0; i < n; ++i) positions[row_ids[i]] = -1;
    for_each_live(*head, kHeadPlane, [&](int64_t position, const ConstPage& page, int slot) {
      const auto found = positions.find(layout_.row_ids(page)[slot]);
      if (found != positions.end()) found->second = position;
    });
  }
  for (int64_t i = 0; i < n; ++i) {
    const auto found = positions.find(row_ids[i]);
    if (found == positions.end() || found->second < 0) return i;
    const int64_t position = found->second;
    const Page& page = *head->blocks[block_of(position)]->pages[page_of(position)];
    page.require(row_planes(layout_));
    layout_.unpack_vector(page.memory(), slot_of(position), out + i * layout_.dim);
  }
  return -1;
}

void Pool::rows(const List& list, int64_t* row_ids, uint32_t* ordinals, int64_t* columns) const {
  for_each_live(list, kHeadPlane, [&](int64_t, const ConstPage& page, int slot) {
    *row_ids++ = layout_.row_ids(page)[slot];
    *ordinals++ = layout_.ordinals(page)[slot];
    for (int64_t c = 0; c < layout_.n_columns; ++c) *columns++ = layout_.column(page, c)[slot];
  });
}

}  // namespace warpmem
