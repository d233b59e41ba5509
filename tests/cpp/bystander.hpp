// Somebody else, who asks for something during every call of the device that a test makes, and must not have to wait for the device.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "fake_device.hpp"

namespace {

class Bystander {
 public:
  explicit Bystander(std::function<void()> ask) : ask_(std::move(ask)) {
    fake::Device::get().on_call = [this] { during_a_call(); };
  }
  ~Bystander() { fake::Device::get().on_call = nullptr; }
  Bystander(const Bystander&) = delete;
  Bystander& operator=(const Bystander&) = delete;

  int64_t calls = 0;
  int64_t blocked = 0;  // at most 1: then it is known

 private:
  struct Answer {
    std::mutex mutex;
    std::condition_variable came;
    bool there = false;
  };

  void during_a_call() {
    if (inside_ || blocked > 0) return;
    inside_ = true;
    ++calls;
    const auto answer = std::make_shared<Answer>();
    std::thread other([ask = ask_, answer] {
      ask();
      const std::lock_guard<std::mutex> lock(answer->mutex);
      answer->there = true;
      answer->came.notify_all();
    });
    {
      std::unique_lock<std::mutex> lock(answer->mutex);
      blocked += answer->came.wait_for(lock, std::chrono::seconds(10), [&] { return answer->there; }) ? 0 : 1;
    }
    blocked > 0 ? other.detach() : other.join();
    inside_ = false;
  }

  const std::function<void()> ask_;
  bool inside_ = false;
};

}  // namespace
