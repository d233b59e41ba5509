// Events that are used again: one that is given back is kept for the next, so that to forget what waits for it calls no driver.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "room.hpp"
#include "runtime.hpp"

namespace warpmem::cuda {

class Events {
 public:
  explicit Events(Runtime& runtime) : runtime_(runtime) {}
  ~Events() {  // with none in use
    for (const Event event : idle_) runtime_.release_event(event);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // An event without times, to be recorded. Null: the device failed. Throws std::bad_alloc. Threads: any; it may be given back under any lock.
  std::shared_ptr<EventOf> take() {
    Event event = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        event = idle_.back();
        idle_.pop_back();
      } else {
        room_for(idle_, ++all_);
      }
    }
    if (event == nullptr && runtime_.create_event(&event, false) != Status::kOk) return nullptr;
    return {event, [this](Event used) {
              const std::lock_guard<std::mutex> lock(mutex_);
              idle_.push_back(used);
            }};
  }

 private:
  Runtime& runtime_;
  std::mutex mutex_;
  std::vector<Event> idle_;  // with room for all
  size_t all_ = 0;
};

}  // namespace warpmem::cuda
