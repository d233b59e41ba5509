#include "workers.hpp"

#include <unistd.h>

#include <new>
#include <system_error>

namespace warpmem {

Workers::~Workers() {
  if (!others_) return;
  if (process_ != getpid()) {
    others_.release();  // their threads are the parent's: there is nothing to join
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& other : *others_) other.join();
}

// With fewer threads than wished for when the system gives no more.
void Workers::start() noexcept {
  process_ = getpid();
  try {
    others_ = std::make_unique<std::vector<std::thread>>();
    others_->reserve(static_cast<size_t>(threads_ - 1));
    for (int32_t i = 1; i < threads_; ++i) others_->emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
}

void Workers::run(int32_t threads, void (*body)(void*, int32_t), void* context) noexcept {
  std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
  if (threads <= 1 || threads_ <= 1 || !turn.owns_lock() || (process_ != 0 && process_ != getpid())) {
    body(context, 0);
    return;
  }
  if (process_ == 0) start();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    body_ = body;
    context_ = context;
    wanted_ = threads;
    ++job_;
  }
  wake_.notify_all();
  body(context, 0);
  std::unique_lock<std::mutex> lock(mutex_);
  body_ = nullptr;  // who has not begun by now need not
  done_.wait(lock, [this] { return running_ == 0; });
}

void Workers::work(int32_t index) noexcept {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    if (body_ == nullptr || job_ == seen || index >= wanted_) {
      wake_.wait(lock);
      continue;
    }
    seen = job_;
    auto* const body = body_;
    void* const context = context_;
    ++running_;
    lock.unlock();
    body(context, index);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace warpmem
