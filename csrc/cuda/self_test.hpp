// Does a device compute what the host computes? Every family of kernels over small made-up data, each variant forced, compared bit for bit. No CUDA header
// is needed to include this.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../core/device_limits.hpp"

namespace warpmem::cuda {

struct FamilyTest {
  std::string family;
  int64_t cases = 0;
  int64_t mismatches = 0;  // cases of which some result differs from the host's in any bit
};

// The current device's memory, for tests: copies wait. Functions throw std::runtime_error when the device fails.
class TestMemory {
 public:
  virtual ~TestMemory() = default;
  virtual void* allocate(int64_t bytes) = 0;  // aligned to 256 bytes
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void download(void* to, const void* from, int64_t bytes) = 0;  // behind all that was launched
};

// Throws std::runtime_error when the device fails, std::bad_alloc.
std::vector<FamilyTest> test_families(TestMemory& memory, const DeviceLimits& limits);

// self_test_kmeans.cpp
FamilyTest test_kmeans(TestMemory& memory, const DeviceLimits& limits);

// self_test_scan.cpp
FamilyTest test_scan(TestMemory& memory, const DeviceLimits& limits);
FamilyTest test_scan_pq(TestMemory& memory, const DeviceLimits& limits);

}  // namespace warpmem::cuda
