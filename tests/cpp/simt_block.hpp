// The engine of the SIMT emulator: one block of threads at a time, each thread a fiber.
//
//   thread runs ──> collective or barrier: it leaves its operands, then hands over to the next runnable thread of its warp, else of the block
//   the last of a group to arrive computes every member's result, makes all of them runnable, and runs on
//   nobody can run, and somebody waits ──> a report: who waits where, for whom, and what those do instead
//
// A group of a warp collective is the lanes of its mask that called the same operation at the same line with the same mask; the group of a barrier is
// the whole block, at the same line. That is stricter than the hardware, which forgives some of it some of the time.
//
// Threads run in order, or in reverse: a kernel that is right without knowing the order gives the same bits both ways. One operating-system thread.
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "simt_races.hpp"
#include "simt_thread.hpp"

namespace simt {

constexpr int kMaxThreads = 1024;
constexpr size_t kGuardBytes = 64;  // before and behind the dynamic shared memory

// A kernel did something that the hardware leaves undefined. The text names kernel, block and thread.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How launches run; a test changes it between two runs of the same kernel.
struct Settings {
  unsigned char fill = 0xcd;  // every byte of the shared memory of every block at its start
  bool reverse = false;       // blocks and threads in reverse order
  bool races = false;         // report races in the shared memory
  int adder = 0;              // products that an mma adds up at a time, truncated as hardware does: 4, 8, 16; 0: in float32
};

struct Copy {
  void* to;
  const void* from;
};

class Machine {
 public:
  Settings settings;
  std::map<std::string, int64_t> launches;  // by kernel
  uint64_t switches = 0;

  static Machine& get() {
    static Machine machine;
    return machine;
  }

  // Runs `body`, the kernel with its arguments, in blocks * threads threads. Throws Error.
  template <typename Body>
  void launch(const char* kernel, int64_t blocks, int threads, int64_t shared_bytes, const Body& body) {
    call_ = [](const void* what) { (*static_cast<const Body*>(what))(); };
    body_ = &body;
    run(kernel, blocks, threads, shared_bytes);
  }

  // What a running kernel asks -------------------------------------------------------------------------------------------------------------------
  SIMT_SMALL int thread_index() const { return current_; }
  SIMT_SMALL int threads() const { return n_threads_; }
  SIMT_SMALL int64_t block_index() const { return block_; }
  SIMT_SMALL int64_t blocks() const { return n_blocks_; }
  SIMT_SMALL int lane() const { return current_ % kWarp; }
  SIMT_SMALL Thread& thread() { return threads_[current_]; }
  SIMT_SMALL Thread* lanes() { return threads_ + current_ / kWarp * kWarp; }  // of the running thread's warp
  unsigned char* shared() { return shared_; }
  int64_t shared_bytes() const { return shared_bytes_; }
  SIMT_SMALL bool watches() const { return settings.races; }
  Races& races() { return races_; }
  std::vector<Copy>& copies() { return copies_[static_cast<size_t>(current_)]; }
  std::vector<size_t>& copy_groups() { return copy_groups_[static_cast<size_t>(current_)]; }

  // Meets the lanes of `mask`; the last to arrive runs complete(), which writes `out` of each of them.
  template <typename Complete>
  SIMT_ENGINE uint64_t collective(Op op, uint32_t mask, Site site, uint64_t in, uint64_t more, const Complete& complete) {
    if (watches()) settle();
    Thread& self = thread();
    const uint32_t bit = uint32_t{1} << lane();
    if ((mask & bit) == 0) left_out(op, mask, site);
    self.op = op;
    self.mask = mask;
    self.site = site;
    self.in = in;
    self.more = more;
    Warp& warp = warps_[current_ / kWarp];
    if (warp.waiting == 0) {
      warp.first = lane();
      warp.mixed = false;
    } else if (!warp.mixed) {
      warp.mixed = !same_group(self, lanes()[warp.first]);
    }
    warp.waiting |= bit;
    if ((warp.waiting & mask) == mask && (!warp.mixed || all_agree(self))) {
      complete();
      if (watches() && op == Op::kSyncWarp) races_.sync_warp(current_ / kWarp, mask);
      release(current_ / kWarp, mask);
    } else {
      wait();
    }
    return self.out;
  }

  // Meets the whole block; returns how many threads brought `predicate`.
  SIMT_ENGINE int barrier(bool predicate, Site site) {
    if (watches()) settle();
    Thread& self = thread();
    self.op = Op::kBarrier;
    self.site = site;
    if (arrived_ == 0) {
      first_arrived_ = current_;
    } else if (!(site == threads_[first_arrived_].site)) {
      diverged(site);
    }
    const int phase = phase_;
    tally_[phase] += predicate ? 1 : 0;
    if (++arrived_ == n_threads_) {
      arrived_ = 0;
      if (watches()) races_.barrier();
      phase_ = 1 - phase;
      tally_[phase_] = 0;
      for (int w = 0; w < n_warps(); ++w) release(w, lanes_of(w));
    } else {
      wait();
    }
    return tally_[phase];
  }

  // Ends the launch with a report. The fibers are left as they are.
  [[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const char* format, ...) {
    char text[768];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_ = place() + text;
    if (current_ < 0) throw_error();
    broken_ = true;
    switch_fiber(thread().fiber, main_);
    __builtin_unreachable();
  }

  // Reports apart from the functions that make them, whose frames are small so that a switch touches little memory.
  [[noreturn]] SIMT_APART void outside(Site site, int lane, uint32_t mask) {
    fail("shuffle at %s reads lane %d, which is not in mask %08x", where(site).c_str(), lane, mask);
  }
  [[noreturn]] SIMT_APART void beyond(int64_t index, int64_t count, size_t bytes) {
    fail("shared memory: index %lld of an array of %lld elements of %zu bytes", static_cast<long long>(index),
         static_cast<long long>(count), bytes);
  }

  std::string place() const {
    return kernel_ + ", block " + std::to_string(block_) + ", thread " + std::to_string(current_) + ": ";
  }

  // Text without a destructor: a fiber that reports never gets as far.
  struct Text {
    char text[192];
    const char* c_str() const { return text; }
  };

  static Text where(Site site) {
    const char* const slash = std::strrchr(site.file, '/');
    Text out;
    std::snprintf(out.text, sizeof out.text, "%s:%d", slash == nullptr ? site.file : slash + 1, site.line);
    return out;
  }

 private:
  Machine() : stacks_(kMaxThreads), copies_(kMaxThreads), copy_groups_(kMaxThreads) {
#if defined(SIMT_ASAN)
    __sanitizer_set_death_callback([] {
      if (get().current_ >= 0) std::fprintf(stderr, "in the emulated %s\n", get().place().c_str());
    });
#endif
  }

  int n_warps() const { return (n_threads_ + kWarp - 1) / kWarp; }
  uint32_t lanes_of(int warp) const {
    const int n = std::min(kWarp, n_threads_ - warp * kWarp);
    return n == kWarp ? ~uint32_t{0} : (uint32_t{1} << n) - 1;
  }

  SIMT_ENGINE static bool same_group(const Thread& a, const Thread& b) {
    return a.op == b.op && a.mask == b.mask && a.site == b.site;
  }

  SIMT_ENGINE bool all_agree(const Thread& self) {
    for (uint32_t rest = self.mask; rest != 0; rest &= rest - 1) {
      if (!same_group(lanes()[__builtin_ctz(rest)], self)) return false;
    }
    return true;
  }

  SIMT_SMALL void release(int warp, uint32_t mask) {
    warps_[warp].waiting &= ~mask;
    warps_[warp].ready |= mask;
    ready_warps_ |= uint32_t{1} << warp;
  }

  // Takes the running thread off the ready lists and runs another; returns when it is ready again.
  SIMT_SMALL void wait() {
    const int next = next_after(current_);
    if (next < 0) stuck();
    hand_over(next);
  }

  SIMT_SMALL int next_after(int thread) {
    const int warp = thread / kWarp;
    uint32_t& ready = warps_[warp].ready;
    ready &= ~(uint32_t{1} << thread % kWarp);
    if (ready != 0) return warp * kWarp + pick(ready);
    ready_warps_ &= ~(uint32_t{1} << warp);
    if (ready_warps_ == 0) return -1;
    const int other = pick(ready_warps_);
    return other * kWarp + pick(warps_[other].ready);
  }

  [[noreturn]] SIMT_APART void left_out(Op op, uint32_t mask, Site site) {
    fail("%s at %s with mask %08x, which leaves out the caller", name_of(op), where(site).c_str(), mask);
  }
  [[noreturn]] SIMT_APART void diverged(Site site) {
    fail("divergent barrier: this thread is at %s, thread %d at %s", where(site).c_str(), first_arrived_,
         where(threads_[first_arrived_].site).c_str());
  }

  SIMT_SMALL int pick(uint32_t bits) const { return settings.reverse ? 31 - __builtin_clz(bits) : __builtin_ctz(bits); }

  SIMT_SMALL void hand_over(int next) {
    Fiber& from = thread().fiber;
    current_ = next;
    ++switches;
    prefetch(threads_[(next + (settings.reverse ? -1 : 1)) & (kMaxThreads - 1)].fiber);  // which most likely follows
    switch_fiber(from, threads_[next].fiber);
  }

  // The running thread is about to let others run.
  SIMT_APART void settle() {
    const Races::Found race = races_.settle(current_);
    if (race.other < 0) return;
    fail("race: byte %lld of the shared memory: this thread, last at %s, %s it; thread %d, last at %s, %s it",
         static_cast<long long>(race.at), where(thread().site).c_str(), race.does, race.other,
         where(threads_[race.other].site).c_str(), race.other_does);
  }

  // Nobody can run. The running thread, or if it is through, the first that waits, is the one that is reported.
  [[noreturn]] SIMT_APART void stuck() {
    if (thread().op == Op::kExited) {
      for (current_ = 0; threads_[current_].op == Op::kExited;) ++current_;
    }
    const Thread self = thread();
    const bool block_wide = self.op == Op::kBarrier;
    int other = -1;
    for (int i = 0; i < n_threads_ && other < 0; ++i) {
      const Thread& candidate = threads_[i];
      const bool same_warp = i / kWarp == current_ / kWarp;
      if (!block_wide && !(same_warp && (self.mask >> i % kWarp & 1) != 0)) continue;
      const bool agrees = candidate.op == self.op && candidate.site == self.site && (block_wide || candidate.mask == self.mask);
      if (!agrees) other = i;
    }
    if (other < 0) {  // the mask names lanes that the block does not have
      fail("%s at %s with mask %08x, but the warp has lanes %08x only", name_of(self.op), where(self.site).c_str(), self.mask,
           lanes_of(current_ / kWarp));
    }
    const Thread& absent = threads_[other];
    Text does{"has exited"};
    if (absent.op == Op::kBarrier) {
      std::snprintf(does.text, sizeof does.text, "waits in barrier at %.120s", where(absent.site).c_str());
    } else if (absent.op != Op::kExited) {
      std::snprintf(does.text, sizeof does.text, "waits in %s at %.120s with mask %08x", name_of(absent.op),
                    where(absent.site).c_str(), absent.mask);
    }
    if (block_wide) fail("divergent barrier at %s: thread %d %s", where(self.site).c_str(), other, does.c_str());
    fail("%s at %s with mask %08x: thread %d does not arrive, it %s", name_of(self.op), where(self.site).c_str(), self.mask,
         other, does.c_str());
  }

  // The life of a fiber: one thread after another, of one block after another.
  static void fiber_main() {
    Machine& machine = get();
    for (;;) {
      machine.call_(machine.body_);
      machine.thread_exits();
    }
  }

  SIMT_ENGINE void thread_exits() {
    if (watches()) settle();
    thread().op = Op::kExited;
    const int next = next_after(current_);
    if (next >= 0) {
      hand_over(next);
    } else if (std::all_of(threads_, threads_ + n_threads_, [](const Thread& t) { return t.op == Op::kExited; })) {
      switch_fiber(thread().fiber, main_);
    } else {
      stuck();
    }
  }

  void run(const char* kernel, int64_t blocks, int threads, int64_t shared_bytes) {
    kernel_ = kernel;
    current_ = -1;
    block_ = 0;
    if (blocks < 1 || threads < 1 || threads > kMaxThreads || shared_bytes < 0) {
      fail("cannot launch %lld blocks of %d threads with %lld bytes of shared memory", static_cast<long long>(blocks), threads,
           static_cast<long long>(shared_bytes));
    }
    ++launches[kernel_];
    n_blocks_ = blocks;
    n_threads_ = threads;
    shared_bytes_ = shared_bytes;
    if (broken_) prepared_ = 0;
    broken_ = false;
    for (; prepared_ < threads; ++prepared_)
      stacks_.prepare(static_cast<size_t>(prepared_), threads_[prepared_].fiber, &fiber_main);
    std::unique_ptr<unsigned char[]> memory(new unsigned char[static_cast<size_t>(shared_bytes) + 2 * kGuardBytes]);
    shared_ = memory.get() + kGuardBytes;
    for (int64_t b = 0; b < blocks; ++b) run_block(settings.reverse ? blocks - 1 - b : b);
    current_ = -1;
  }

  void run_block(int64_t block) {
    block_ = block;
    std::fill(shared_ - kGuardBytes, shared_, kGuard);
    std::fill(shared_, shared_ + shared_bytes_, settings.fill);
    std::fill(shared_ + shared_bytes_, shared_ + shared_bytes_ + kGuardBytes, kGuard);
    set_guards(true);
    if (watches()) races_.begin_block(shared_, shared_bytes_);
    arrived_ = 0;
    tally_[0] = tally_[1] = 0;
    for (int w = 0; w < n_warps(); ++w) {
      warps_[w] = Warp{};
      release(w, lanes_of(w));
    }
    for (int i = 0; i < n_threads_; ++i) {
      threads_[i].op = Op::kRunning;
      threads_[i].site = Site{"the beginning", 0};
      copies_[static_cast<size_t>(i)].clear();
      copy_groups_[static_cast<size_t>(i)].clear();
    }
    if (n_warps() < 32) ready_warps_ = (uint32_t{1} << n_warps()) - 1;
    current_ = settings.reverse ? n_threads_ - 1 : 0;
    ++switches;
    stacks_.enter();
    switch_fiber(main_, thread().fiber);
    stacks_.leave();
    set_guards(false);
    if (broken_) throw_error();
    const auto is_guard = [](unsigned char byte) { return byte == kGuard; };
    const unsigned char* const end = shared_ + shared_bytes_;
    if (!std::all_of(shared_ - kGuardBytes, shared_, is_guard) || !std::all_of(end, end + kGuardBytes, is_guard)) {
      error_ = place() + "some thread of this block wrote outside the dynamic shared memory";
      throw_error();
    }
  }

  [[noreturn]] void throw_error() {
    current_ = -1;
    throw Error(error_);
  }

  // Under AddressSanitizer the guards may not even be read.
  void set_guards([[maybe_unused]] bool on) {
#if defined(SIMT_ASAN)
    if (on) {
      __asan_poison_memory_region(shared_ - kGuardBytes, kGuardBytes);
      __asan_poison_memory_region(shared_ + shared_bytes_, kGuardBytes);
    } else {
      __asan_unpoison_memory_region(shared_ - kGuardBytes, kGuardBytes);
      __asan_unpoison_memory_region(shared_ + shared_bytes_, kGuardBytes);
    }
#endif
  }

  static constexpr unsigned char kGuard = 0xa5;

  Stacks stacks_;
  Fiber main_;
  Thread threads_[kMaxThreads];
  std::vector<std::vector<Copy>> copies_;  // asynchronous copies that were not waited for
  std::vector<std::vector<size_t>> copy_groups_;
  Races races_;
  Warp warps_[kMaxThreads / kWarp];
  uint32_t ready_warps_ = 0;
  int current_ = -1;
  int n_threads_ = 0;
  int prepared_ = 0;
  int arrived_ = 0;
  int first_arrived_ = 0;  // the thread that waits longest in the barrier
  int phase_ = 0;
  int tally_[2] = {0, 0};
  int64_t block_ = 0;
  int64_t n_blocks_ = 0;
  int64_t shared_bytes_ = 0;
  unsigned char* shared_ = nullptr;
  void (*call_)(const void*) = nullptr;
  const void* body_ = nullptr;
  bool broken_ = false;
  std::string kernel_;
  std::string error_;
};

}  // namespace simt
