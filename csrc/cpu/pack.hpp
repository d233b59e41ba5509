// Rows are packed by the code of core/page.hpp, compiled once for each instruction set: a compiler's own vectors are what it needs, and rounding is the same
// in all (no contraction). So that the linker cannot exchange one copy of an inline function for another, each file that includes this has a namespace of
// its own for all of core, named by WARPMEM_PACK; it includes nothing else but kernels.hpp, before.
//
// Who includes it must not use what it brings elsewhere: its PageLayout is another type than everyone's, with the same members in the same places. Only a pointer passes
// between the two, and link-time optimisation must not look through it: it is off for warpmem_core.
#pragma once

#define warpmem WARPMEM_PACK
#include "../core/page.hpp"
#undef warpmem

namespace warpmem {
namespace {

void pack_row(const void* layout, const void* page, int slot, int64_t row_id, uint32_t ordinal, const int64_t* columns,
              const float* vector) {
  static_cast<const WARPMEM_PACK::PageLayout*>(layout)->pack(*static_cast<const WARPMEM_PACK::PageMemory*>(page), slot, row_id,
                                                             ordinal, columns, vector);
}

}  // namespace
}  // namespace warpmem
