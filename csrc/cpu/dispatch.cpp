#include "dispatch.hpp"

#include "../core/crc32c.hpp"

namespace warpmem {

const std::vector<const Kernels*>& supported_kernels() {
  static const std::vector<const Kernels*> tables = [] {
    std::vector<const Kernels*> found;
    // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
#if defined(WARPMEM_HAVE_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      found.push_back(&kAvx512Kernels);
    }
#endif
#if defined(WARPMEM_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
      found.push_back(&kAvx2Kernels);
#endif
    found.push_back(&kSerialKernels);
    return found;
  }();
  return tables;
}

const Kernels* find_kernels(std::string_view isa) {
  if (isa == "auto") return supported_kernels().front();
  for (const Kernels* table : supported_kernels()) {
    if (isa == table->name) return table;
  }
  return nullptr;
}

PackRow pack_of(const Kernels& kernels) {
#if defined(WARPMEM_HAVE_AVX512)
  if (&kernels == &kAvx512Kernels) return kPackAvx512;
#endif
#if defined(WARPMEM_HAVE_AVX2)
  if (&kernels == &kAvx2Kernels) return kPackAvx2;
#endif
  static_cast<void>(kernels);
  return kPackSerial;
}

uint32_t crc32c(uint32_t value, const void* data, size_t size) {
#if defined(WARPMEM_HAVE_SSE42)
  static const bool by_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (by_instruction) return crc32c_sse42(value, data, size);
#endif
  return crc32c_portable(value, data, size);
}

}  // namespace warpmem
