// WARPMEM_HD marks a function that compiles for the host and, under nvcc, for the device.
#pragma once

#if defined(__CUDACC__)
#define WARPMEM_HD __host__ __device__
#else
#define WARPMEM_HD
#endif
