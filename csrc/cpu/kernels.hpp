// What one instruction set provides. The tables live in one file per instruction set; dispatch.cpp picks among them at run time.
//
// The ISA files are compiled with flags that the rest of the library is not. They must not instantiate anything inline from a shared header: the
// linker keeps one copy of an inline function, and it could keep the one with instructions that the machine lacks. They include only this file.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace warpmem {

struct Kernels {
  const char* name;

  // For each set bit i of `mask`: similarities[i] = canonical dot of row i (rows + i * padded) with the query, whose float32 elements were widened to
  // float64. `padded` is a multiple of 32 and both sides are padded with zeros. Other entries of `similarities` are not touched.
  void (*dots)(const float* rows, int64_t padded, uint64_t mask, const double* query, float* similarities);
};

extern const Kernels kSerialKernels;
#if defined(WARPMEM_HAVE_AVX2)
extern const Kernels kAvx2Kernels;
#endif

#if defined(WARPMEM_HAVE_SSE42)
uint32_t crc32c_sse42(uint32_t value, const void* data, size_t size);
#endif

}  // namespace warpmem
