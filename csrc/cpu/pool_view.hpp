// A pool as core/pool_view.hpp describes it to a cache on a device.
#pragma once

#include "../core/pool_view.hpp"
#include "pool.hpp"

namespace warpmem {

// Valid as long as the pool.
PoolPort pool_port(Pool& pool);

inline ListView view_of(int64_t list_id, const ListHead& head) {
  return head ? ListView{list_id, head->version, head->slots, head->live} : ListView{list_id, 0, 0, 0};
}

}  // namespace warpmem
