// Packing of rows with AVX2.
#include "kernels.hpp"

#define WARPMEM_PACK warpmem_pack_avx2
#include "pack.hpp"

namespace warpmem {

const PackRow kPackAvx2 = pack_row;

}  // namespace warpmem
