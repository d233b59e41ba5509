// Work that the threads of a scan take from one another, piece by piece.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "workers.hpp"

namespace warpmem {

// Shares [0, n) among the workers; body(worker, i).
template <typename Body>
void share(Workers* workers, int32_t threads, size_t n, const Body& body) {
  struct Job {
    const Body& body;
    size_t n;
    std::atomic<size_t> next{0};
  };
  Job job{body, n};
  const auto work = [](void* context, int32_t worker) {
    Job& mine = *static_cast<Job*>(context);
    for (size_t i = mine.next.fetch_add(1); i < mine.n; i = mine.next.fetch_add(1)) mine.body(static_cast<size_t>(worker), i);
  };
  if (threads > 1) {
    workers->run(threads, work, &job);
  } else {
    work(&job, 0);
  }
}

}  // namespace warpmem
