// Packing of rows with AVX-512.
#include "kernels.hpp"

#define WARPMEM_PACK warpmem_pack_avx512
#include "pack.hpp"

namespace warpmem {

const PackRow kPackAvx512 = pack_row;

}  // namespace warpmem
