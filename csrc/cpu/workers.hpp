// A few threads that wait for work between scans, so that a scan of a millisecond does not pay for starting them.
//
// One job runs at a time. A second caller does its work alone rather than wait. Threads are started by the first job. A forked child has none of them
// and works alone.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace warpmem {

class Workers {
 public:
  explicit Workers(int32_t threads) : threads_(threads) {}
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Of which the caller is one.
  int32_t threads() const noexcept { return threads_; }

  // Calls body(context, i) for i = 0 on this thread and for some or none of i = 1 .. threads - 1 on others, and returns when all that began have ended.
  // The bodies share the work among themselves. Must not throw.
  void run(int32_t threads, void (*body)(void*, int32_t), void* context) noexcept;

 private:
  void start() noexcept;
  void work(int32_t index) noexcept;

  const int32_t threads_;
  std::mutex busy_;  // held by the caller whose job runs
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  void (*body_)(void*, int32_t) = nullptr;  // null: nothing to do. From here on guarded by mutex_.
  void* context_ = nullptr;
  int32_t wanted_ = 0;
  int32_t running_ = 0;
  uint64_t job_ = 0;
  bool stop_ = false;
  int64_t process_ = 0;  // that started the threads; 0: none yet. Guarded by busy_.
  std::unique_ptr<std::vector<std::thread>> others_;
};

}  // namespace warpmem
