// The choice among the tables of op_kernels.hpp, as dispatch.hpp makes it for the scan.
#pragma once

#include <string_view>
#include <vector>

#include "op_kernels.hpp"

namespace warpmem {

// Tables that this build holds and this processor runs, best first. Never empty: "serial" is always there.
const std::vector<const OpKernels*>& supported_op_kernels();

// The table named `isa`, or the best one for "auto". Null when it is unknown, not built or not supported here.
const OpKernels* find_op_kernels(std::string_view isa);

}  // namespace warpmem
