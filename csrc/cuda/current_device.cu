#include "current_device.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <new>

namespace warpmem::cuda {

namespace {

// Asked of the runtime library, because libcuda is not linked.
void* entry_point(const char* name) noexcept {
  void* found = nullptr;
#if CUDART_VERSION >= 12050
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, nullptr);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, nullptr);
#endif
  if (status == cudaSuccess) return found;
  static_cast<void>(cudaGetLastError());
  return nullptr;
}

struct Driver {
  decltype(&cuDeviceGet) device = reinterpret_cast<decltype(&cuDeviceGet)>(entry_point("cuDeviceGet"));
  decltype(&cuDevicePrimaryCtxRetain) retain =
      reinterpret_cast<decltype(&cuDevicePrimaryCtxRetain)>(entry_point("cuDevicePrimaryCtxRetain"));
  decltype(&cuCtxPushCurrent) push = reinterpret_cast<decltype(&cuCtxPushCurrent)>(entry_point("cuCtxPushCurrent"));
  decltype(&cuCtxPopCurrent) pop = reinterpret_cast<decltype(&cuCtxPopCurrent)>(entry_point("cuCtxPopCurrent"));
  decltype(&cuThreadExchangeStreamCaptureMode) exchange =
      reinterpret_cast<decltype(&cuThreadExchangeStreamCaptureMode)>(entry_point("cuThreadExchangeStreamCaptureMode"));

  bool there() const noexcept {
    return device != nullptr && retain != nullptr && push != nullptr && pop != nullptr && exchange != nullptr;
  }
};

const Driver& driver() noexcept {
  static const Driver found;
  return found;
}

EnterFailure context_of(int device, CUcontext* out) noexcept {
  static std::mutex& mutex = *new std::mutex;  // neither ends with the process: a thread may still be at work then
  static std::map<int, CUcontext>& known = *new std::map<int, CUcontext>;
  const std::lock_guard<std::mutex> lock(mutex);
  try {
    CUcontext& context = known[device];
    if (context == nullptr) {
      CUdevice handle = 0;
      if (const CUresult code = driver().device(&handle, device)) return {"cuDeviceGet", static_cast<int>(code)};
      if (const CUresult code = driver().retain(&context, handle)) {
        context = nullptr;
        return {"cuDevicePrimaryCtxRetain", static_cast<int>(code)};
      }
    }
    *out = context;
    return {};
  } catch (const std::bad_alloc&) {
    return {"memory of the host", CUDA_ERROR_OUT_OF_MEMORY};
  }
}

// How often the thread has entered, and its mode before.
struct Entries {
  int depth = 0;
  bool exchanged = false;
  CUstreamCaptureMode before = CU_STREAM_CAPTURE_MODE_GLOBAL;
};
thread_local Entries entries;

}  // namespace

EnterFailure enter_device(int device) noexcept {
  if (!driver().there()) return {"cudaGetDriverEntryPoint", CUDA_ERROR_NOT_FOUND};
  CUcontext context = nullptr;
  const EnterFailure failure = context_of(device, &context);
  if (failure.step != nullptr) return failure;
  const CUresult code = driver().push(context);
  if (code != CUDA_SUCCESS) return {"cuCtxPushCurrent", static_cast<int>(code)};
  if (++entries.depth == 1) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    entries.exchanged = driver().exchange(&mode) == CUDA_SUCCESS;
    entries.before = mode;
  }
  return {};
}

// A context that cannot be popped is one that is gone, and so is all that was in it.
void leave_device() noexcept {
  if (--entries.depth == 0 && entries.exchanged) static_cast<void>(driver().exchange(&entries.before));
  CUcontext popped = nullptr;
  static_cast<void>(driver().pop(&popped));
}

}  // namespace warpmem::cuda
