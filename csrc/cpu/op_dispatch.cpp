#include "op_dispatch.hpp"

namespace warpmem {
namespace {

const OpKernels kSerialOps = {"serial", &kSerialSelect, &kSerialNearest, &kSerialNearest, &kSerialPq};
#if defined(WARPMEM_HAVE_AVX2)
const OpKernels kAvx2Ops = {"avx2", &kAvx2Select, &kAvx2Nearest, &kAvx2Nearest, &kAvx2Pq};
#endif
// Narrower blocks do better on short rows; every machine with AVX-512 has AVX2.
#if defined(WARPMEM_HAVE_AVX512)
const OpKernels kAvx512Ops = {"avx512", &kAvx512Select, &kAvx512Nearest, &kAvx2Nearest, &kAvx512Pq};
#endif

}  // namespace

const std::vector<const OpKernels*>& supported_op_kernels() {
  static const std::vector<const OpKernels*> tables = [] {
    std::vector<const OpKernels*> found;
    // __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
#if defined(WARPMEM_HAVE_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
      found.push_back(&kAvx512Ops);
    }
#endif
#if defined(WARPMEM_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2Ops);
#endif
    found.push_back(&kSerialOps);
    return found;
  }();
  return tables;
}

const OpKernels* find_op_kernels(std::string_view isa) {
  if (isa == "auto") return supported_op_kernels().front();
  for (const OpKernels* table : supported_op_kernels()) {
    if (isa == table->name) return table;
  }
  return nullptr;
}

}  // namespace warpmem
