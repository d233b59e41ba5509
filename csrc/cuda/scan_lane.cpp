#include "scan_lane.hpp"

#include <algorithm>
#include <cstring>

namespace warpmem::cuda {

bool ScanLane::open(Runtime& runtime) noexcept {
  return runtime.create_stream(&stream) == Status::kOk && runtime.create_event(&begin, true) == Status::kOk &&
         runtime.create_event(&end, true) == Status::kOk;
}

void ScanLane::close(PageCache& cache) noexcept {
  Runtime& runtime = cache.runtime();
  if (stream != nullptr) static_cast<void>(runtime.synchronize(stream));
  release_host(runtime);
  cache.give_back(&block);
  if (begin != nullptr) runtime.release_event(begin);
  if (end != nullptr) runtime.release_event(end);
  if (stream != nullptr) runtime.release_stream(stream);
}

void ScanLane::release_host(Runtime& runtime) noexcept {
  graphs.clear(runtime);  // they name this memory
  if (host != nullptr && plain == nullptr) runtime.release_pinned(host);
  host = nullptr;
  host_bytes = 0;
  plain.reset();
}

bool ScanLane::reserve(PageCache& cache, int64_t device_bytes, int64_t wanted_bytes) {
  Runtime& runtime = cache.runtime();
  if (device_bytes > block_bytes) {
    if (block != nullptr && runtime.synchronize(stream) != Status::kOk) {  // until the last launch's zeros are written
      cache.fail();
      return false;
    }
    block_bytes = 0;
    graphs.clear(runtime);  // they name this memory
    cache.give_back(&block);
    block = cache.reserve(device_bytes, stream);
    if (block == nullptr) return false;
    block_bytes = PageBlocks::round_table(device_bytes);
  }
  host_used = wanted_bytes;
  if (wanted_bytes <= host_bytes) return true;
  release_host(runtime);
  const int64_t size = PageBlocks::round_table(wanted_bytes);
  void* memory = nullptr;
  if (runtime.allocate_pinned(&memory, size) == Status::kOk) {
    host = static_cast<unsigned char*>(memory);
  } else {
    plain.reset(new unsigned char[static_cast<size_t>(size)]);
    host = plain.get();
  }
  host_bytes = size;
  return true;
}

Status ScanLane::clean(Runtime& runtime, int64_t device_bytes) noexcept {
  if (block_bytes > kLaneBytes) return Status::kOk;  // it is zeroed on its way back
  return runtime.fill(block->block.memory, 0, device_bytes, stream);
}

void ScanLane::tidy(PageCache& cache) noexcept {
  if (host != nullptr) std::memset(host, 0, static_cast<size_t>(std::min(host_used, host_bytes)));
  if (host_bytes > kLaneHostBytes) release_host(cache.runtime());
  if (block_bytes <= kLaneBytes) return;
  graphs.clear(cache.runtime());
  cache.give_back(&block);
  block_bytes = 0;
}

}  // namespace warpmem::cuda
