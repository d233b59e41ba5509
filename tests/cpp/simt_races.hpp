// Races in shared memory, for the SIMT emulator: two threads of a block touch the same word, one of them writes it, and nothing orders the two. What orders
// memory is a barrier of the block and, between lanes that both take part, sync_warp; shuffles and votes do not, although the emulator's threads take
// turns at them.
//
//   operator[] of Shared -> touch(): address and bytes as they are          the thread's next collective, barrier or end -> settle(): a write where bytes differ
//
// Between two settles a thread runs alone, so a write that leaves the bytes as they are cannot be told from a read; all others are seen. For each word its
// last write, last atomic operation and last reads by two threads are known, so a race among three threads may be missed; what is reported is one.
// A stamp counts what orders memory; it never goes back, so nothing has to be cleared between blocks.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "simt_fiber.hpp"

namespace simt {

class Races {
 public:
  struct Found {
    int other = -1;  // thread; -1: no race
    const char* does = "";
    const char* other_does = "";
    int64_t at = 0;  // byte of the shared memory
  };

  void begin_block(unsigned char* shared, int64_t bytes) {
    shared_ = shared;
    if (words_.size() < static_cast<size_t>(bytes)) words_.resize(static_cast<size_t>(bytes));
    log_.clear();
    barrier();
  }
  // All threads have met.
  void barrier() { met_ = ++now_; }
  // These lanes of a warp have.
  void sync_warp(int warp, uint32_t mask) {
    ++now_;
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) synced_[warp * 32 + __builtin_ctz(rest)] = now_;
  }

  SIMT_ENGINE void touch(const void* at, size_t bytes) {
    Access access{};
    for (size_t done = 0; done < bytes; done += access.bytes) {
      access.at = static_cast<const unsigned char*>(at) + done;
      access.bytes = static_cast<uint32_t>(bytes - done < sizeof access.before ? bytes - done : sizeof access.before);
      std::memcpy(access.before, access.at, access.bytes);
      log_.push_back(access);
    }
  }
  // An atomic operation on what was touched last, if it is in the shared memory.
  void atomic(const void* at) {
    if (!log_.empty() && log_.back().at == at) log_.back().atomic = true;
  }
  // A write whose bytes may be what they were.
  void write(const void* at, size_t bytes) {
    const size_t first = log_.size();
    touch(at, bytes);
    for (size_t i = first; i < log_.size(); ++i) log_[i].writes = true;
  }

  // What `thread` has touched since it was last settled. The first race found.
  SIMT_ENGINE Found settle(int thread) {
    Found found;
    for (const Access& access : log_) {
      const bool writes = access.writes || std::memcmp(access.before, access.at, access.bytes) != 0;
      const uint32_t step = access.bytes < 4 ? 1 : 4;
      for (uint32_t i = 0; i < access.bytes && found.other < 0; i += step) {
        const int64_t at = access.at + i - shared_;
        found = meet(words_[static_cast<size_t>(at)], thread, access.atomic, writes);
        found.at = at;
      }
    }
    log_.clear();
    return found;
  }

 private:
  struct Access {
    const unsigned char* at;
    uint32_t bytes;
    bool atomic;
    bool writes;
    unsigned char before[8];
  };
  struct Mark {
    uint64_t stamp = 0;  // 0: none
    int thread = 0;
  };
  struct Word {
    Mark write, atomic, reads[2];
  };

  // Whether both threads have met since the other left the mark.
  SIMT_ENGINE bool ordered(const Mark& mark, int thread) const {
    if (mark.stamp < met_ || mark.thread == thread) return true;
    return mark.thread / 32 == thread / 32 && mark.stamp < synced_[thread] && mark.stamp < synced_[mark.thread];
  }

  SIMT_ENGINE Found meet(Word& word, int thread, bool atomic, bool writes) const {
    const char* const does = atomic ? "changes" : writes ? "writes" : "reads";
    const Mark mark{now_, thread};
    if (!ordered(word.write, thread)) return {word.write.thread, does, "wrote", 0};
    if (!atomic && !ordered(word.atomic, thread)) return {word.atomic.thread, does, "changed", 0};
    if (atomic || writes) {
      for (const Mark& read : word.reads) {
        if (!ordered(read, thread)) return {read.thread, does, "read", 0};
      }
    }
    if (atomic) {
      word.atomic = mark;
    } else if (writes) {
      word.write = mark;
    } else if (word.reads[0].thread == thread || ordered(word.reads[0], thread)) {
      word.reads[0] = mark;
    } else {
      word.reads[1] = mark;
    }
    return {};
  }

  unsigned char* shared_ = nullptr;
  std::vector<Word> words_;  // by byte: of an access to more, every fourth
  std::vector<Access> log_;  // of the running thread
  uint64_t now_ = 1;
  uint64_t met_ = 1;
  uint64_t synced_[1024] = {};
};

}  // namespace simt
