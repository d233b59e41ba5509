// What launches would do, without doing it: two sequences with equal records are the same work, to the last parameter. launch.cuh writes it.
#pragma once

#include <cstddef>
#include <string>

namespace warpmem::cuda {

// While this thread has one, launches and fills are appended to it and not made.
inline thread_local std::string* launch_record = nullptr;

class RecordingLaunches {
 public:
  explicit RecordingLaunches(std::string* record) { launch_record = record; }
  ~RecordingLaunches() { launch_record = nullptr; }
  RecordingLaunches(const RecordingLaunches&) = delete;
  RecordingLaunches& operator=(const RecordingLaunches&) = delete;
};

// Bytes between members may differ between equal values: then two records differ although the work is the same, never the other way round.
template <typename T>
void append_bytes(std::string* record, const T& value) {
  record->append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace warpmem::cuda
