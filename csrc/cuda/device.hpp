// What the host asks of CUDA devices. No CUDA header is needed to include this. Nothing here runs before it is called: importing the module creates
// no context and works without a driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../core/device_limits.hpp"
#include "self_test.hpp"

namespace warpmem::cuda {

struct Device {
  int index = 0;
  std::string name;
  int major = 0;
  int minor = 0;
  size_t memory = 0;  // bytes
};

struct SelfTest {
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t mismatches = 0;  // rows whose similarity or recency differs from the host in any bit
  std::vector<FamilyTest> families;

  bool passed() const {
    for (const FamilyTest& family : families) {
      if (family.mismatches != 0) return false;
    }
    return mismatches == 0;
  }
};

// Number of usable devices; 0 without a driver. Never throws.
int device_count() noexcept;

// Why device_count() is 0, or an empty string.
std::string unavailable_reason();

// All devices. Throws std::runtime_error when CUDA fails.
std::vector<Device> devices();

// What the planners of core/ need to know. Throws std::runtime_error when CUDA fails.
DeviceLimits device_limits(int device);

// 1000 * major + 10 * minor, as CUDA counts; 0 without a driver.
int driver_version() noexcept;
int runtime_version() noexcept;

// Runs the canonical scorer, and then every family of kernels (self_test.hpp), on the device and on the host over the same data and compares the bits. Throws std::runtime_error when CUDA fails.
SelfTest self_test(int device);

}  // namespace warpmem::cuda
