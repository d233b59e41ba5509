// The kernels of warpmem._cuda, for the emulator. See emulated_host.cpp.
#include "../../csrc/cuda/kmeans.cu"
#include "../../csrc/cuda/pq.cu"
#include "../../csrc/cuda/scan.cu"
#include "../../csrc/cuda/scan_pq.cu"
#include "../../csrc/cuda/select_k.cu"
