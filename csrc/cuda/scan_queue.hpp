// Searches of many threads on one device: each runs at once while a lane is free; those that come when none is are taken together by whoever gets the next.
//
//   begin():   ticket into the queue; a free lane?  the first that waits, and all that can share its launch, are enqueued on the lane's stream
//   finish():  until the ticket is done:   a free lane and somebody waits -> launch, as above
//                                          a launch that nobody waits for -> wait for the device, hand out its results, free the lane
//                                          else sleep
//
// So no thread is needed beside the callers', nobody waits while the device is idle, and a caller that is still busy with its part of the work on the host
// keeps nobody waiting: any other completes its launch.
//
// A launch takes at most so many queries and segments (BatchSize), and with more than one caller no more memory than a lane keeps. When memory is missing for
// it, it is made with half of its callers, the others wait for the next; what does not fit alone is the host's, and nobody else's. When the device fails, the
// cache is told and the host answers for all.
//
// One mutex guards who waits and what runs; it is not held during a call of the driver.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "page_cache.hpp"
#include "scan_batch.hpp"
#include "scan_lane.hpp"

namespace warpmem::cuda {

struct QueueStats {
  int64_t searches = 0;  // that the device had a part in
  int64_t launches = 0;
  int64_t shared = 0;     // searches that came along in another's launch
  int64_t fallbacks = 0;  // searches that the host had to finish, for want of memory or of a device
  double device_ms = 0.0;
};

class ScanQueue {
 public:
  // Throws std::runtime_error when the device fails at once.
  ScanQueue(PageCache& cache, int32_t lanes);
  ~ScanQueue();  // with no ticket left
  ScanQueue(const ScanQueue&) = delete;
  ScanQueue& operator=(const ScanQueue&) = delete;

  // Null when the device has none of the lists. Throws std::bad_alloc.
  ScanTicket* begin(const ScanCall& call, uint8_t* taken);
  // Waits. False when the host has to do it.
  bool finish(ScanTicket* ticket);
  // Ends a ticket, finished or not.
  void end(ScanTicket* ticket);

  QueueStats stats() const;
  // The functions of core/pool_view.hpp.
  ScanPort port(int64_t least_work);

 private:
  enum class Start { kStarted, kTooLarge, kFailed };

  void launch_waiting(std::unique_lock<std::mutex>& lock) noexcept;
  void take_waiting(ScanRun& run) noexcept;
  void halve(ScanRun& run) noexcept;
  Start start(ScanRun& run) noexcept;
  void complete(ScanRun* run, std::unique_lock<std::mutex>& lock) noexcept;
  ScanLane* free_lane() noexcept;
  void close(std::unique_ptr<ScanRun> run, bool well) noexcept;

  PageCache& cache_;
  DeviceLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ScanTicket*> waiting_;
  std::vector<std::unique_ptr<ScanLane>> lanes_;
  std::vector<std::unique_ptr<ScanRun>> runs_;  // on the device
  QueueStats stats_;
};

}  // namespace warpmem::cuda
