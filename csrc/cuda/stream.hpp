// A CUDA stream, without a CUDA header: the same type as cudaStream_t. Null is the default stream.
#pragma once

struct CUstream_st;

namespace warpmem::cuda {

using Stream = CUstream_st*;

}  // namespace warpmem::cuda
