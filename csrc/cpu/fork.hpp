// Work shared over threads for one call: started, joined, and whatever a piece throws is thrown again in the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace warpmem {

// Calls body(begin, end) over [0, n) in pieces of `piece`, on at most `threads` threads of which the caller is one. Pieces are taken in order as
// threads become free: body must not care who runs it. When no more threads can be started, the others do the work.
template <typename Body>
void fork_pieces(int64_t n, int64_t piece, int64_t threads, const Body& body) {
  const int64_t pieces = (n + piece - 1) / piece;
  if (threads > pieces) threads = pieces;
  if (threads <= 1) {
    for (int64_t begin = 0; begin < n; begin += piece) body(begin, begin + piece < n ? begin + piece : n);
    return;
  }
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  const auto work = [&]() noexcept {
    try {
      for (;;) {
        const int64_t at = next.fetch_add(1, std::memory_order_relaxed);
        if (at >= pieces || failed.load(std::memory_order_relaxed)) return;
        const int64_t begin = at * piece;
        body(begin, begin + piece < n ? begin + piece : n);
      }
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads - 1));
  for (int64_t t = 1; t < threads; ++t) {
    try {
      others.emplace_back(work);
    } catch (const std::exception&) {  // no more threads, or no memory for one
      break;
    }
  }
  work();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace warpmem
