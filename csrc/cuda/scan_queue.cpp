#include "scan_queue.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "room.hpp"

namespace warpmem::cuda {

// A launch, with the lane it has.
struct ScanRun {
  std::vector<ScanTicket*> tickets;
  std::unique_ptr<ScanBatch> batch;
  ScanLane* lane = nullptr;
  bool started = false;
  bool replayed = false;
  bool claimed = false;  // somebody waits for the device
};

ScanQueue::ScanQueue(PageCache& cache, int32_t lanes)
    : cache_(cache), launch_bytes_(cache.scratch_bytes() / (2 * std::max(lanes, 1))) {
  Runtime& runtime = cache_.runtime();
  const Entered entered(runtime);
  bool well = runtime.limits(&limits_) == Status::kOk;
  for (int32_t i = 0; well && i < lanes; ++i) {
    ScanLane& lane = *lanes_.emplace_back(std::make_unique<ScanLane>());
    well = lane.open(runtime);
  }
  if (well) return;
  for (const auto& lane : lanes_) lane->close(cache_);
  throw std::runtime_error("device: " + runtime.error());
}

ScanQueue::~ScanQueue() {
  const Entered entered(cache_.runtime());
  for (const auto& lane : lanes_) lane->close(cache_);
  cache_.give_back(&books_);
}

// --------------------------------------------------------------------------------------------- callers

namespace {

// Whether a query scans a list twice with the same rank group. Then a row may be found twice, as one and the same candidate, and the kernels take candidates
// to be distinct: the host answers.
bool repeats(const ScanCall& call, int64_t list) {
  const int64_t begin = call.segment_begin[list];
  const int64_t end = call.segment_begin[list + 1];
  bool ascending = true;  // as they nearly always are
  for (int64_t s = begin + 1; s < end && ascending; ++s) ascending = call.segment_query[s - 1] < call.segment_query[s];
  if (ascending) return false;
  std::vector<uint64_t> pairs;
  pairs.reserve(static_cast<size_t>(end - begin));
  for (int64_t s = begin; s < end; ++s) pairs.push_back(uint64_t{call.segment_query[s]} << 32 | call.segment_group[s]);
  std::sort(pairs.begin(), pairs.end());
  return std::adjacent_find(pairs.begin(), pairs.end()) != pairs.end();
}

}  // namespace

ScanTicket* ScanQueue::begin(const ScanCall& call, uint8_t* taken) {
  auto ticket = std::make_unique<ScanTicket>();
  ticket->call = call;
  ticket->call.ranking = plain_ranking(call.ranking);
  std::vector<ListView> lists(call.lists, call.lists + call.n_lists);
  for (int64_t l = 0; l < call.n_lists; ++l) {
    if (repeats(call, l)) lists[static_cast<size_t>(l)].version = 0;
  }
  cache_.pin(lists.data(), call.n_lists, &ticket->pins);
  bool any = false;
  for (int64_t l = 0; l < call.n_lists; ++l) {
    taken[l] = ticket->pins[static_cast<size_t>(l)] != nullptr ? 1 : 0;
    any = any || taken[l] != 0;
  }
  if (cache_.pool().pq_dim > 0) {  // all lists, or none
    for (int64_t l = 0; l < call.n_lists; ++l) any = any && (taken[l] != 0 || call.lists[l].version == 0);
    any = any && call.k * call.refine <= kScanPqMaxKeep;
    if (!any) {
      std::fill_n(taken, call.n_lists, uint8_t{0});
      cache_.unpin(&ticket->pins);
    }
  }
  if (!any) return nullptr;
  std::unique_lock<std::mutex> lock(mutex_);
  ++stats_.searches;
  try {
    waiting_.push_back(ticket.get());
  } catch (const std::bad_alloc&) {
    lock.unlock();
    cache_.unpin(&ticket->pins);
    throw;
  }
  if (free_lane() != nullptr) launch_waiting(lock);
  return ticket.release();
}

bool ScanQueue::finish(ScanTicket* ticket) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (ticket->state == ScanTicket::State::kDone) return true;
    if (ticket->state == ScanTicket::State::kFailed) return false;
    if (!waiting_.empty() && free_lane() != nullptr) {
      launch_waiting(lock);
      continue;
    }
    // One's own launch, or one that keeps a lane.
    ScanRun* next = ticket->run != nullptr && ticket->run->started && !ticket->run->claimed ? ticket->run : nullptr;
    for (size_t i = 0; ticket->run == nullptr && next == nullptr && i < runs_.size(); ++i) {
      if (runs_[i]->started && !runs_[i]->claimed) next = runs_[i].get();
    }
    if (next != nullptr) {
      complete(next, lock);
    } else {
      changed_.wait(lock);
    }
  }
}

void ScanQueue::end(ScanTicket* ticket) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto found = std::find(waiting_.begin(), waiting_.end(), ticket);
    if (found != waiting_.end()) {
      waiting_.erase(found);
      ticket->state = ScanTicket::State::kFailed;
    }
    lock.unlock();
  }
  static_cast<void>(finish(ticket));  // what runs reads the caller's memory no more, but writes to the ticket
  cache_.unpin(&ticket->pins);
  delete ticket;
}

// --------------------------------------------------------------------------------------------- launches

ScanLane* ScanQueue::free_lane() noexcept {
  for (const auto& lane : lanes_) {
    if (!lane->busy) return lane.get();
  }
  return nullptr;
}

// Takes the first that waits and those that can share its launch. The mutex is released meanwhile.
void ScanQueue::launch_waiting(std::unique_lock<std::mutex>& lock) noexcept {
  std::unique_ptr<ScanRun> owned;
  try {
    owned = std::make_unique<ScanRun>();
    owned->tickets.reserve(waiting_.size());
    room_for(runs_, runs_.size() + 1);
  } catch (const std::bad_alloc&) {  // the first that waits does without
    waiting_.front()->state = ScanTicket::State::kFailed;
    ++stats_.fallbacks;
    waiting_.pop_front();
    changed_.notify_all();
    return;
  }
  ScanRun& run = *owned;
  take_waiting(run);
  run.lane = free_lane();
  run.lane->busy = true;
  runs_.push_back(std::move(owned));
  for (;;) {
    lock.unlock();
    const Start started = start(run);
    lock.lock();
    if (started == Start::kTooLarge && run.tickets.size() > 1) {
      halve(run);
      continue;
    }
    if (started == Start::kStarted) {
      run.started = true;
      ++stats_.launches;
      stats_.replays += run.replayed ? 1 : 0;
      stats_.shared += static_cast<int64_t>(run.tickets.size()) - 1;
      changed_.notify_all();  // whoever waits in finish() may complete it
      return;
    }
    break;
  }
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&](const auto& other) { return other.get() == &run; });
  owned = std::move(*found);
  runs_.erase(found);
  close(std::move(owned), false);
}

// Under the mutex.
void ScanQueue::take_waiting(ScanRun& run) noexcept {
  const ScanTicket& first = *waiting_.front();
  BatchSize size;
  int64_t results = 0;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    ScanTicket* const ticket = *at;
    const int64_t more = ticket->call.n_queries * ticket->call.k;
    if (!can_share(first, *ticket) || (results > 0 && results + more > most_results()) || !size.add(ticket->call)) {
      ++at;
      continue;
    }
    results += more;
    at = waiting_.erase(at);
    run.tickets.push_back(ticket);
    ticket->state = ScanTicket::State::kRunning;
    ticket->run = &run;
  }
}

// Under the mutex: half of a launch's callers wait again, before all others. Those for whom that takes memory that is missing are answered by the host.
void ScanQueue::halve(ScanRun& run) noexcept {
  const size_t kept = run.tickets.size() / 2;
  while (run.tickets.size() > kept) {
    ScanTicket* const ticket = run.tickets.back();
    run.tickets.pop_back();
    ticket->run = nullptr;
    ticket->state = ScanTicket::State::kWaiting;
    try {
      waiting_.push_front(ticket);
    } catch (const std::bad_alloc&) {
      ticket->state = ScanTicket::State::kFailed;
      ++stats_.fallbacks;
    }
  }
  changed_.notify_all();
}

// Enqueues everything. kTooLarge: there is no memory for so much; kFailed: the host has to do it. With either nothing is under way.
ScanQueue::Start ScanQueue::start(ScanRun& run) noexcept {
  Runtime& runtime = cache_.runtime();
  const Entered entered(runtime);
  ScanLane& lane = *run.lane;
  Start end = Start::kFailed;
  try {
    const DevicePage* base = nullptr;
    for (const auto& list : run.tickets[0]->pins) base = list != nullptr ? list->device_table() : base;
    const DevicePage* known = nullptr;
    if (!base_.compare_exchange_strong(known, base)) base = known;
    run.batch =
        std::make_unique<ScanBatch>(run.tickets, cache_.pool(), limits_, std::min(kScanPartBytes, launch_bytes_ / 2), base);
    const ScanBatch& batch = *run.batch;
    if (!batch.fits()) return Start::kTooLarge;
    if (!bring_books(lane.stream)) return Start::kFailed;
    if (run.tickets.size() > 1 && batch.bytes() > kLaneBytes) return Start::kTooLarge;
    if (!lane.reserve(cache_, batch.bytes(), batch.image_bytes() + batch.result_bytes())) {
      return cache_.failed() ? Start::kFailed : Start::kTooLarge;
    }
    unsigned char* const device = lane.block->block.memory;
    batch.pack(lane.host, device);
    unsigned char* const results = lane.host + batch.image_bytes();
    const auto enqueue = [&] { return batch.run(runtime, device_books_, lane.host, device, results, lane.stream); };
    const std::string key = lane.plain == nullptr ? batch.key(device_books_, lane.host, device, results) : std::string();
    bool well = batch.wait(runtime, lane.stream) == Status::kOk && runtime.record(lane.begin, lane.stream) == Status::kOk;
    if (key.empty()) {
      well = well && enqueue() == Status::kOk;
    } else {
      well = well && lane.graphs.run(runtime, lane.stream, key, enqueue, &run.replayed) == Status::kOk;
    }
    well = well && runtime.record(lane.end, lane.stream) == Status::kOk;
    well = well && lane.clean(runtime, batch.bytes()) == Status::kOk;
    if (well) return Start::kStarted;
    cache_.fail();
  } catch (const std::bad_alloc&) {
    end = Start::kTooLarge;
  } catch (const std::runtime_error& error) {  // of a launch
    try {
      cache_.fail(error.what());
    } catch (const std::bad_alloc&) {
      cache_.fail();
    }
  }
  static_cast<void>(runtime.synchronize(lane.stream));
  lane.tidy(cache_);
  return end;
}

// Of a pool with codebooks: copies them to the device, once. False: the host has to do it.
bool ScanQueue::bring_books(Stream stream) noexcept {
  const PoolPort& pool = cache_.pool();
  const std::lock_guard<std::mutex> lock(books_mutex_);
  if (pool.pq_dim == 0 || books_ != nullptr) return true;
  const int64_t width = pool.pq_dim * pool.dsub;
  const auto bytes = static_cast<int64_t>(sizeof(float)) * width;  // a multiple of 128
  try {
    books_ = cache_.reserve(33 * bytes, stream);
  } catch (const std::bad_alloc&) {
  }
  if (books_ == nullptr) return false;
  Runtime& runtime = cache_.runtime();
  auto* const at = reinterpret_cast<float*>(books_->block.memory);
  device_books_ = PqPoolBooks{at, at + 16 * width, at + 32 * width};
  const bool well = runtime.copy_in(at, pool.codebooks, 16 * bytes, stream) == Status::kOk &&
                    runtime.copy_in(at + 16 * width, pool.beside, 16 * bytes, stream) == Status::kOk &&
                    runtime.copy_in(at + 32 * width, pool.largest, bytes, stream) == Status::kOk &&
                    runtime.synchronize(stream) == Status::kOk;  // for the launches of all lanes
  if (well) return true;
  cache_.fail();
  static_cast<void>(runtime.synchronize(stream));
  cache_.give_back(&books_);
  return false;
}

// Waits for a launch and hands out what it found.
void ScanQueue::complete(ScanRun* run, std::unique_lock<std::mutex>& lock) noexcept {
  run->claimed = true;
  lock.unlock();
  Runtime& runtime = cache_.runtime();
  bool well = false;
  float milliseconds = 0.0f;
  {
    const Entered entered(runtime);
    ScanLane& lane = *run->lane;
    well = runtime.synchronize(lane.end) == Status::kOk;
    if (!well) {
      cache_.fail();
      static_cast<void>(runtime.synchronize(lane.stream));
    }
    if (well && runtime.elapsed(&milliseconds, lane.begin, lane.end) != Status::kOk) milliseconds = 0.0f;
    if (well) run->batch->unpack(lane.host + run->batch->image_bytes());
    lane.tidy(cache_);
  }
  lock.lock();
  stats_.device_ms += static_cast<double>(milliseconds);
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&](const auto& other) { return other.get() == run; });
  std::unique_ptr<ScanRun> owned = std::move(*found);
  runs_.erase(found);
  close(std::move(owned), well);
}

// Under the mutex: the tickets are done, the lane is free.
void ScanQueue::close(std::unique_ptr<ScanRun> run, bool well) noexcept {
  for (ScanTicket* ticket : run->tickets) {
    const bool done = well && !ticket->lost;
    ticket->state = done ? ScanTicket::State::kDone : ScanTicket::State::kFailed;
    stats_.fallbacks += done ? 0 : 1;
    ticket->run = nullptr;
  }
  run->lane->busy = false;
  changed_.notify_all();
}

QueueStats ScanQueue::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stats_;
}

// --------------------------------------------------------------------------------------------- the port

namespace {

void* begin_scan(void* queue, const ScanCall* call, uint8_t* taken) {
  try {
    if (same_port(*call)) return static_cast<ScanQueue*>(queue)->begin(*call, taken);
  } catch (const std::bad_alloc&) {  // the host answers
  }
  return nullptr;
}

}  // namespace

ScanPort ScanQueue::port(int64_t least_work) {
  ScanPort port;
  port.cache = this;
  port.pool = cache_.pool().pool;
  port.least_work = least_work;
  port.most_results = most_results();
  port.begin = begin_scan;
  port.finish = [](void* cache, void* ticket, ScanFound* found) {
    ScanTicket* const own = static_cast<ScanTicket*>(ticket);
    if (!same_port(*found) || !static_cast<ScanQueue*>(cache)->finish(own)) return false;
    found->k = own->call.k;
    found->candidates = own->candidates.data();
    found->counts = own->counts.data();
    found->rows_seen = own->rows_seen;
    found->rows_rescored = own->rows_rescored;
    return true;
  };
  port.end = [](void* cache, void* ticket) { static_cast<ScanQueue*>(cache)->end(static_cast<ScanTicket*>(ticket)); };
  return port;
}

}  // namespace warpmem::cuda
