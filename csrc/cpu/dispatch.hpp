// The one place where the library asks what the processor can do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels.hpp"

namespace warpmem {

// Kernel tables that this build holds and this processor runs, best first. Never empty: "serial" is always there.
const std::vector<const Kernels*>& supported_kernels();

// The table named `isa`, or the best one for "auto". Null when it is unknown, not built or not supported here.
const Kernels* find_kernels(std::string_view isa);

// How the table `kernels` packs rows.
PackRow pack_of(const Kernels& kernels);

// CRC-32C continued from `value`, by instruction where there is one.
uint32_t crc32c(uint32_t value, const void* data, size_t size);

}  // namespace warpmem
