// Portable packing of rows.
#include "kernels.hpp"

#define WARPMEM_PACK warpmem_pack_serial
#include "pack.hpp"

namespace warpmem {

const PackRow kPackSerial = pack_row;

}  // namespace warpmem
