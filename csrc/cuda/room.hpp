// Room in a vector ahead of a change that must not fail.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace warpmem::cuda {

// Afterwards the vector takes `n` elements in all without an allocation. It grows by halves at least: one element at a time costs what push_back costs.
template <typename T>
void room_for(std::vector<T>& vector, size_t n) {
  if (n > vector.capacity()) vector.reserve(std::max(n, vector.capacity() + vector.capacity() / 2));
}

}  // namespace warpmem::cuda
