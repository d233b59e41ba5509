#include "staging.hpp"

#include <algorithm>
#include <cstring>

namespace warpmem::cuda {

Staging::Staging(Runtime& runtime, Stream stream, int64_t half_bytes)
    : runtime_(runtime), stream_(stream), half_bytes_(half_bytes) {
  void* memory = nullptr;
  if (runtime_.allocate_pinned(&memory, 2 * half_bytes) == Status::kOk) {
    memory_ = pinned_ = static_cast<unsigned char*>(memory);
  } else {
    plain_.reset(new unsigned char[static_cast<size_t>(2 * half_bytes)]);
    memory_ = plain_.get();
  }
  for (Event& event : events_) {
    if (runtime_.create_event(&event, false) != Status::kOk) event = nullptr;  // next() reports it
  }
}

Staging::~Staging() {
  static_cast<void>(wipe());
  for (int half = 0; half < 2; ++half) {
    if (events_[half] != nullptr) runtime_.release_event(events_[half]);
  }
  if (pinned_ != nullptr) runtime_.release_pinned(pinned_);
}

unsigned char* Staging::next(int64_t bytes) noexcept {
  if (events_[0] == nullptr || events_[1] == nullptr) return nullptr;
  if (used_ + bytes > half_bytes_) {
    if (runtime_.record(events_[half_], stream_) != Status::kOk) return nullptr;
    busy_[half_] = true;
    half_ = 1 - half_;
    used_ = 0;
    if (busy_[half_] && runtime_.synchronize(events_[half_]) != Status::kOk) return nullptr;
    busy_[half_] = false;
  }
  written_[half_] = std::max(written_[half_], used_ + bytes);
  return memory_ + half_ * half_bytes_ + used_;
}

bool Staging::wipe() noexcept {
  if (written_[0] + written_[1] == 0) return true;
  const Status status = runtime_.synchronize(stream_);
  for (int half = 0; half < 2; ++half) {
    std::memset(memory_ + half * half_bytes_, 0, static_cast<size_t>(written_[half]));
    written_[half] = 0;
    busy_[half] = false;
  }
  used_ = 0;
  return status == Status::kOk;
}

Status Staging::send(void* to, int64_t bytes) noexcept {
  const Status status = runtime_.copy_in(to, memory_ + half_ * half_bytes_ + used_, bytes, stream_);
  used_ += (bytes + 15) / 16 * 16;
  return status;
}

}  // namespace warpmem::cuda
