#include <cuda_runtime.h>

#include <cstring>
#include <stdexcept>

#include "current_device.hpp"
#include "device.hpp"
#include "kernels/self_test.cuh"
#include "launch.cuh"

namespace warpmem::cuda {

namespace {

void check(cudaError_t status, const char* step) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(step) + ": " + cudaGetErrorString(status));
}

// Selects a device for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    const EnterFailure failure = enter_device(device);
    if (failure.step != nullptr) {
      throw std::runtime_error(std::string(failure.step) + ": CUDA driver error " + std::to_string(failure.code));
    }
  }
  ~DeviceScope() { leave_device(); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
};

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : bytes_(n * sizeof(T)) { check(cudaMalloc(&data_, bytes_), "cudaMalloc"); }
  ~DeviceArray() { static_cast<void>(cudaFree(data_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return static_cast<T*>(data_); }
  void upload(const T* from) { check(cudaMemcpy(data_, from, bytes_, cudaMemcpyHostToDevice), "upload"); }
  void download(T* to) const { check(cudaMemcpy(to, data_, bytes_, cudaMemcpyDeviceToHost), "download"); }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

class DeviceMemory : public TestMemory {
 public:
  void* allocate(int64_t bytes) override {
    void* memory = nullptr;
    check(cudaMalloc(&memory, static_cast<size_t>(bytes)), "cudaMalloc");
    return memory;
  }
  void release(void* memory) noexcept override { static_cast<void>(cudaFree(memory)); }
  void upload(void* to, const void* from, int64_t bytes) override {
    check(cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice), "upload");
  }
  void download(void* to, const void* from, int64_t bytes) override {
    check(cudaMemcpy(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost), "download");
  }
};

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

}  // namespace

int device_count() noexcept {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // the error is not sticky for the next caller
    return 0;
  }
  return count;
}

std::string unavailable_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count > 0 ? "" : "the CUDA driver reports no device";
  static_cast<void>(cudaGetLastError());
  if (status == cudaErrorInsufficientDriver && driver_version() == 0) return "no CUDA driver is installed";
  return cudaGetErrorString(status);
}

std::vector<Device> devices() {
  std::vector<Device> found;
  const int n = device_count();
  for (int i = 0; i < n; ++i) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    found.push_back(Device{i, properties.name, properties.major, properties.minor, properties.totalGlobalMem});
  }
  return found;
}

DeviceLimits device_limits(int device) {
  const auto attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  DeviceLimits limits;
  limits.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  limits.threads_per_multiprocessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  limits.shared_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  limits.shared_per_multiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  return limits;
}

int driver_version() noexcept {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() noexcept {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

SelfTest self_test(int device) {
  constexpr int64_t kRows = 257;
  constexpr int64_t kDim = 96;
  std::vector<float> rows(kRows * kDim);
  std::vector<float> query(kDim);
  std::vector<double> exponents(kRows);
  uint32_t state = 12345;  // linear congruential generator of Numerical Recipes; any varied numbers do
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
  };
  for (float& x : rows) x = next();
  for (float& x : query) x = next();
  for (int64_t i = 0; i < kRows; ++i)
    exponents[static_cast<size_t>(i)] = -static_cast<double>(i) * 4.01 / 3.0 * static_cast<double>(i % 4);

  const DeviceScope scope(device);
  DeviceArray<float> device_rows(rows.size());
  DeviceArray<float> device_query(query.size());
  DeviceArray<double> device_exponents(exponents.size());
  DeviceArray<float> device_similarities(kRows);
  DeviceArray<double> device_recencies(kRows);
  device_rows.upload(rows.data());
  device_query.upload(query.data());
  device_exponents.upload(exponents.data());

  const SelfTestParams params{device_rows.data(),
                              device_query.data(),
                              device_exponents.data(),
                              device_similarities.data(),
                              device_recencies.data(),
                              kRows,
                              kDim};
  constexpr int64_t kRowsPerBlock = kSelfTestThreads / kWarpSize;
  launch("self_test", self_test_kernel, Grid{(kRows + kRowsPerBlock - 1) / kRowsPerBlock, kSelfTestThreads, 0}, nullptr, params);

  std::vector<float> similarities(kRows);
  std::vector<double> recencies(kRows);
  device_similarities.download(similarities.data());  // waits for the kernel
  device_recencies.download(recencies.data());

  SelfTest result{kRows, kDim, 0, {}};
  for (int64_t i = 0; i < kRows; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool same = same_bits(similarities[at], dot(rows.data() + i * kDim, query.data(), kDim)) &&
                      same_bits(recencies[at], exp2_neg(exponents[at]));
    if (!same) ++result.mismatches;
  }
  DeviceMemory memory;
  result.families = test_families(memory, device_limits(device));
  return result;
}

}  // namespace warpmem::cuda
