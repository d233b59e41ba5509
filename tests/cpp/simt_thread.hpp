// What the SIMT emulator (simt_block.hpp) keeps of each thread and warp.
#pragma once

#include <cstdint>
#include <cstring>

#include "simt_fiber.hpp"

namespace simt {

constexpr int kWarp = 32;

struct Site {
  const char* file = "";
  int line = 0;
  SIMT_SMALL bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
};

enum class Op : uint8_t { kRunning, kShuffle, kBallot, kMatch, kReduce, kSyncWarp, kMma, kBarrier, kExited };

inline const char* name_of(Op op) {
  constexpr const char* kNames[] = {"running", "shuffle", "ballot", "match", "reduce", "sync_warp", "mma", "barrier", "exited"};
  return kNames[static_cast<int>(op)];
}

// On x86-64 one line of the cache.
struct alignas(64) Thread {
  Fiber fiber;
  uint64_t in = 0;    // operand of the collective
  uint64_t more = 0;  // second operand
  uint64_t out = 0;   // its result, written by the last to arrive
  Site site;          // where it waits, or waited last; so are mask and op
  uint32_t mask = 0;
  Op op = Op::kExited;
};

struct Warp {
  uint32_t ready = 0;    // lanes that can run
  uint32_t waiting = 0;  // lanes that wait in a collective
  int first = 0;         // the lane that waits longest
  bool mixed = false;    // whether any of them waits for something else than the first
};

}  // namespace simt
