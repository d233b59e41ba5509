// Everything device-specific that a kernel may use, and nothing else: kernels include this header and speak of threads only through it. nvcc sees the
// definitions below (sm_80 and newer); g++ sees those of the emulator, simt.hpp, which tests/cpp puts on the include path.
//
//   WARPMEM_KERNEL(n)   heads a kernel of at most n threads a block:  template <...> WARPMEM_KERNEL(256) name(Params p) { ... }
//   WARPMEM_KERNEL_OF   likewise, with registers for so many blocks on a multiprocessor
//   WARPMEM_DEVICE      heads a function that only kernels call
//   WARPMEM_UNROLL      before a loop whose body is written out for each turn; WARPMEM_NO_UNROLL: once;
//                       WARPMEM_UNROLL_BY(n): for n turns
//
// A mask names the lanes that take part, all of which must call. Blocks are one-dimensional and a multiple of 32 threads; grids are one-dimensional.
// Two threads that run the same collective from two lines do not meet in the emulator, whatever the hardware forgives.
#pragma once

#include <cstdint>

#if !defined(__CUDACC__)
#include "simt.hpp"
#else

#define WARPMEM_DEVICE __device__ __forceinline__
#define WARPMEM_UNROLL _Pragma("unroll")
#define WARPMEM_NO_UNROLL _Pragma("unroll 1")
#define WARPMEM_PRAGMA(text) _Pragma(#text)
#define WARPMEM_UNROLL_BY(turns) WARPMEM_PRAGMA(unroll turns)
#define WARPMEM_KERNEL(threads) static __global__ void __launch_bounds__(threads, 1)
#define WARPMEM_KERNEL_OF(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)

namespace warpmem::cuda {

constexpr int kWarpSize = 32;
constexpr uint32_t kFullMask = 0xffffffffu;

// Places -----------------------------------------------------------------------------------------------------------------------------------------
WARPMEM_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
WARPMEM_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
WARPMEM_DEVICE int64_t block_index() { return blockIdx.x; }
WARPMEM_DEVICE int64_t grid_blocks() { return gridDim.x; }
WARPMEM_DEVICE int lane_index() { return static_cast<int>(threadIdx.x % kWarpSize); }
WARPMEM_DEVICE int warp_index() { return static_cast<int>(threadIdx.x / kWarpSize); }

// Collectives of a warp --------------------------------------------------------------------------------------------------------------------------
// T: integers and floating-point numbers of 4 or 8 bytes. The source of a shuffle must be in the mask.
template <typename T>
WARPMEM_DEVICE T shuffle(T value, int source, uint32_t mask = kFullMask) {
  return __shfl_sync(mask, value, source);
}
template <typename T>
WARPMEM_DEVICE T shuffle_xor(T value, int lanes, uint32_t mask = kFullMask) {
  return __shfl_xor_sync(mask, value, lanes);
}
// A lane without a source keeps its own value.
template <typename T>
WARPMEM_DEVICE T shuffle_up(T value, int delta, uint32_t mask = kFullMask) {
  return __shfl_up_sync(mask, value, static_cast<unsigned>(delta));
}
template <typename T>
WARPMEM_DEVICE T shuffle_down(T value, int delta, uint32_t mask = kFullMask) {
  return __shfl_down_sync(mask, value, static_cast<unsigned>(delta));
}

WARPMEM_DEVICE uint32_t ballot(bool predicate, uint32_t mask = kFullMask) { return __ballot_sync(mask, predicate); }
WARPMEM_DEVICE bool any_lane(bool predicate, uint32_t mask = kFullMask) { return __any_sync(mask, predicate) != 0; }
WARPMEM_DEVICE bool all_lanes(bool predicate, uint32_t mask = kFullMask) { return __all_sync(mask, predicate) != 0; }
// The lanes whose value equals the caller's.
WARPMEM_DEVICE uint32_t match_any(uint32_t value, uint32_t mask = kFullMask) { return __match_any_sync(mask, value); }
WARPMEM_DEVICE uint32_t reduce_add(uint32_t value, uint32_t mask = kFullMask) { return __reduce_add_sync(mask, value); }
WARPMEM_DEVICE uint32_t reduce_max(uint32_t value, uint32_t mask = kFullMask) { return __reduce_max_sync(mask, value); }
WARPMEM_DEVICE uint32_t reduce_min(uint32_t value, uint32_t mask = kFullMask) { return __reduce_min_sync(mask, value); }
// What the lanes of the mask wrote before is seen by them after.
WARPMEM_DEVICE void sync_warp(uint32_t mask = kFullMask) { __syncwarp(mask); }

// Barriers and fences ----------------------------------------------------------------------------------------------------------------------------
WARPMEM_DEVICE void sync_threads() { __syncthreads(); }
WARPMEM_DEVICE int sync_threads_count(bool predicate) { return __syncthreads_count(predicate); }
WARPMEM_DEVICE bool sync_threads_or(bool predicate) { return __syncthreads_or(predicate) != 0; }
WARPMEM_DEVICE void fence_block() { __threadfence_block(); }
WARPMEM_DEVICE void fence_device() { __threadfence(); }

// Bits: the argument of lowest_bit and highest_bit is not 0 -----------------------------------------------------------------------------------------
WARPMEM_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }
WARPMEM_DEVICE int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
WARPMEM_DEVICE int highest_bit(uint32_t bits) { return 31 - __clz(static_cast<int>(bits)); }

// Atomics on shared or global memory: int32_t, uint32_t, uint64_t; relaxed. They return the old value. ------------------------------------------------
namespace detail {
template <typename T>
struct AtomicType {
  using type = T;
};
template <>
struct AtomicType<uint64_t> {
  using type = unsigned long long;  // the CUDA functions know no unsigned long
};
template <typename T>
using Atomic = typename AtomicType<T>::type;
template <typename T>
WARPMEM_DEVICE Atomic<T>* as_atomic(T* to) {
  return reinterpret_cast<Atomic<T>*>(to);
}
}  // namespace detail

template <typename T>
WARPMEM_DEVICE T atomic_add(T* to, T value) {
  return atomicAdd(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_min(T* to, T value) {
  return atomicMin(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_max(T* to, T value) {
  return atomicMax(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_or(T* to, T value) {
  return atomicOr(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_and(T* to, T value) {
  return atomicAnd(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_exchange(T* to, T value) {
  return atomicExch(detail::as_atomic(to), static_cast<detail::Atomic<T> >(value));
}
template <typename T>
WARPMEM_DEVICE T atomic_cas(T* to, T expected, T value) {
  return atomicCAS(detail::as_atomic(to), static_cast<detail::Atomic<T> >(expected), static_cast<detail::Atomic<T> >(value));
}

// Memory -----------------------------------------------------------------------------------------------------------------------------------------
// `from` is not written while the kernel runs.
template <typename T>
WARPMEM_DEVICE T load_readonly(const T* from) {
  return __ldg(from);
}
// Reads memory, not a register, what other threads may have written meanwhile.
template <typename T>
WARPMEM_DEVICE T load_volatile(const T* from) {
  return *static_cast<const volatile T*>(from);
}

struct alignas(16) Bytes16 {
  uint32_t word[4];
};

WARPMEM_DEVICE Bytes16 load_16(const void* from) {
  const uint4 v = __ldg(static_cast<const uint4*>(from));
  return Bytes16{{v.x, v.y, v.z, v.w}};
}

// An array in the dynamic shared memory. The emulator checks each index.
template <typename T>
class Shared {
 public:
  WARPMEM_DEVICE Shared(T* data, int64_t) : data_(data) {}
  WARPMEM_DEVICE T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// `count` elements from byte `offset` on, which is aligned for T. All of a block's arrays lie in one piece of dynamic shared memory; who cuts it up
// states the formula in his kernel file.
template <typename T>
WARPMEM_DEVICE Shared<T> shared_array(int64_t offset, int64_t count) {
  extern __shared__ __align__(16) unsigned char warpmem_shared[];
  return Shared<T>(reinterpret_cast<T*>(warpmem_shared + offset), count);
}

// Copies 16 aligned bytes from global to shared memory, past the registers. They are there for the copying thread after a wait that covers their
// group, for others after a barrier behind it.
WARPMEM_DEVICE void copy_async_16(void* shared_to, const void* from) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared_to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
WARPMEM_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all but the `kGroupsLeft` groups committed last.
template <int kGroupsLeft>
WARPMEM_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

// Arithmetic -------------------------------------------------------------------------------------------------------------------------------------
// a * b + c with one rounding or two: for screens whose bound covers both, never for canonical scores.
WARPMEM_DEVICE float fma_or_not(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// IEEE 754 half precision: the nearest, ties to even (core/fp16.hpp), and back.
WARPMEM_DEVICE uint32_t half_bits(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
WARPMEM_DEVICE float half_value(uint32_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<uint16_t>(half)));
  return value;
}

// c plus the products of four signed (unsigned) bytes.
WARPMEM_DEVICE int32_t dp4a(uint32_t a, uint32_t b, int32_t c) { return __dp4a(static_cast<int>(a), static_cast<int>(b), c); }
WARPMEM_DEVICE uint32_t dp4a_unsigned(uint32_t a, uint32_t b, uint32_t c) { return __dp4a(a, b, c); }

// D (16, 8) += A (16, K) B (K, 8) by all lanes of a warp. With g = lane / 4 and t = lane % 4, and P elements to a register (16 bits: P = 2, K = 16;
// 8 bits: P = 4, K = 32), the first element in the low bits:
//   a[i]   row g + 8 (i % 2), columns t P + 4 P (i / 2) ...       b[i]   column g, rows t P + 4 P i ...
//   d[i]   row g + 8 (i / 2), column 2 t + i % 2
// Floating-point sums are in an unknown order and may be truncated: for screens. Integer sums are exact.
WARPMEM_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
WARPMEM_DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
WARPMEM_DEVICE void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace warpmem::cuda

#endif
