// Sequences of copies and launches that come again and again, as graphs of the device: one call instead of one for each.
//
//   first time    plain                    second time    captured, then replayed                    from then on    replayed
//
// A graph holds every address, size and kernel parameter, so it is used only for the very same sequence; what differs between searches lies in the memory that
// its first copy reads. A capture that fails is not tried again, and the work is done plainly. One lane's; by one thread at a time.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace warpmem::cuda {

constexpr size_t kMostGraphs = 16;  // of a lane; the one that was used longest ago goes

class LaunchGraphs {
 public:
  // Does what `enqueue` does to the stream: Status(), which may throw std::runtime_error. key: says what that is. Sets *replayed.
  template <typename Enqueue>
  Status run(Runtime& runtime, Stream stream, const std::string& key, const Enqueue& enqueue, bool* replayed) {
    *replayed = false;
    Entry* const entry = find(runtime, key);
    if (entry != nullptr && !entry->refused) {
      if (entry->graph == nullptr) entry->graph = capture(runtime, stream, enqueue);
      *replayed = entry->graph != nullptr && runtime.replay(entry->graph, stream) == Status::kOk;
      if (*replayed) return Status::kOk;
      entry->refused = true;
    }
    return enqueue();
  }

  void clear(Runtime& runtime) noexcept {
    for (Entry& entry : entries_) forget(runtime, entry);
    entries_.clear();
  }

 private:
  struct Entry {
    std::string key;
    Graph graph = nullptr;
    bool refused = false;
    uint64_t used = 0;
  };

  static void forget(Runtime& runtime, Entry& entry) noexcept {
    if (entry.graph != nullptr) runtime.release_graph(entry.graph);
    entry.graph = nullptr;
  }

  // Null for one that comes for the first time, and is known from now on.
  Entry* find(Runtime& runtime, const std::string& key) {
    ++now_;
    size_t oldest = 0;
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].key == key) {
        entries_[i].used = now_;
        return &entries_[i];
      }
      if (entries_[i].used < entries_[oldest].used) oldest = i;
    }
    if (entries_.size() < kMostGraphs) {
      entries_.push_back(Entry{key, nullptr, false, now_});
    } else {
      forget(runtime, entries_[oldest]);
      entries_[oldest] = Entry{key, nullptr, false, now_};
    }
    return nullptr;
  }

  // Null: it failed.
  template <typename Enqueue>
  static Graph capture(Runtime& runtime, Stream stream, const Enqueue& enqueue) {
    if (runtime.begin_capture(stream) != Status::kOk) return nullptr;
    bool well = false;
    try {
      well = enqueue() == Status::kOk;
    } catch (...) {  // of a launch or for want of memory; it is made plainly next, and the capture has to end in any case
    }
    Graph graph = nullptr;
    if (runtime.end_capture(stream, &graph) != Status::kOk) return nullptr;
    if (!well) runtime.release_graph(graph);
    return well ? graph : nullptr;
  }

  std::vector<Entry> entries_;
  uint64_t now_ = 0;
};

}  // namespace warpmem::cuda
