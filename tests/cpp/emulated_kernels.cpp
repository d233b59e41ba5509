// The kernels of warpmem._cuda, for the emulator. See emulated_host.cpp.
#include "../../csrc/cuda/scan.cu"
