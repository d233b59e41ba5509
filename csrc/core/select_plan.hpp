// How select_k runs on a device: which kernel, how rows are cut, how much memory. A pure function of the shape and of the device's limits.
//
//   k <= 32     warp    the k best of a warp's share in one register a lane
//   k <= 256    queue   a block's queue in shared memory, cut back to k when it is full
//   k <= 4,096  radix   a block finds the digits of the k-th key by counting, then collects and sorts what is not smaller
//
// Few long rows are cut into parts, each selected by a block of its own; a second launch selects from the parts' k best.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "device_limits.hpp"
#include "select_k.hpp"

namespace warpmem {

enum class SelectVariant : int32_t { kWarp, kQueue, kRadix };

constexpr int32_t kSelectWarpK = 32;
constexpr int32_t kSelectQueueK = 256;
constexpr int32_t kSelectThreads = 256;
constexpr int32_t kSelectRadixThreads = 512;
constexpr int32_t kSelectUnroll = 4;            // scores a thread has in flight
constexpr int32_t kSelectQueueCapacity = 2048;  // >= kSelectQueueK + kSelectThreads * kSelectUnroll, a power of two
constexpr int32_t kSelectBins = 2048;           // of a digit of at most 11 bits
constexpr int64_t kSelectHeaderBytes = 256;     // counters in front of the shared memory
constexpr int64_t kSelectPartItems = 16384;     // shorter parts are not worth a block and a second launch

// One launch: `units` selections of k out of `part_items` (the last of a row: fewer).
struct SelectStage {
  SelectVariant variant = SelectVariant::kWarp;
  int64_t items = 0;  // of a row
  int64_t parts = 1;  // of a row
  int64_t part_items = 0;
  int64_t blocks = 0;
  int32_t threads = 0;
  int32_t warps_per_unit = 0;  // kWarp: 1, or all of the block
  int32_t capacity = 0;        // items in shared memory
  int64_t shared_bytes = 0;
};

struct SelectPlan {
  int64_t rows = 0;
  int64_t k = 0;
  bool ordered = false;  // ordinals come before the index among equal scores
  SelectStage first;
  SelectStage second;  // blocks = 0: not needed
  int64_t workspace_bytes = 0;
};

// What a test or a caller with measurements of his own may prescribe; 0 and negative numbers leave the choice to the plan.
struct SelectChoice {
  int32_t variant = -1;  // a SelectVariant that can do k
  int64_t parts = 0;
  int32_t warps_per_unit = 0;
};

inline const char* select_variant_name(SelectVariant variant) {
  constexpr const char* kNames[] = {"warp", "queue", "radix"};
  return kNames[static_cast<int>(variant)];
}

inline int64_t select_item_bytes(bool ordered) { return ordered ? 12 : 8; }

inline int32_t select_power_of_two(int64_t n) {
  int32_t power = 1;
  while (power < n) power *= 2;
  return power;
}

inline SelectStage plan_select_stage(int64_t rows, int64_t items, int64_t k, bool ordered, const DeviceLimits& limits,
                                     bool may_split, const SelectChoice& choice) {
  SelectStage stage;
  stage.items = items;
  stage.variant = k <= kSelectWarpK ? SelectVariant::kWarp : k <= kSelectQueueK ? SelectVariant::kQueue : SelectVariant::kRadix;
  if (choice.variant >= 0) stage.variant = static_cast<SelectVariant>(choice.variant);
  stage.threads = stage.variant == SelectVariant::kRadix ? kSelectRadixThreads : kSelectThreads;
  const int64_t item_bytes = select_item_bytes(ordered);
  if (stage.variant == SelectVariant::kWarp) {
    stage.capacity = kSelectThreads;
  } else if (stage.variant == SelectVariant::kQueue) {
    stage.capacity = kSelectQueueCapacity;
  } else {
    stage.capacity = 2 * std::max(select_power_of_two(k), 512);
    if (kSelectHeaderBytes + stage.capacity * item_bytes > limits.shared_per_block) stage.capacity /= 2;
  }
  stage.shared_bytes = kSelectHeaderBytes + stage.capacity * item_bytes;
  if (stage.variant == SelectVariant::kRadix)
    stage.shared_bytes = std::max<int64_t>(stage.shared_bytes, kSelectHeaderBytes + kSelectBins * 4);
  const int64_t resident = resident_blocks(limits, stage.threads, stage.shared_bytes);
  if (may_split) {
    const int64_t shortest = std::max<int64_t>(kSelectPartItems, 8 * k);
    stage.parts = std::clamp<int64_t>(resident / std::max<int64_t>(rows, 1), 1, std::max<int64_t>(1, items / shortest));
    if (choice.parts > 0) stage.parts = choice.parts;
  }
  const int64_t granule = stage.threads * kSelectUnroll;
  stage.part_items = std::max<int64_t>(1, (items + stage.parts - 1) / stage.parts);
  if (choice.parts <= 0) stage.part_items = (stage.part_items + granule - 1) / granule * granule;
  stage.parts = std::max<int64_t>(1, (items + stage.part_items - 1) / stage.part_items);
  const int64_t units = rows * stage.parts;
  int64_t units_per_block = 1;
  if (stage.variant == SelectVariant::kWarp) {
    const int32_t warps = kSelectThreads / 32;
    // A warp of its own for each row when rows are short or many: no merging between warps.
    stage.warps_per_unit = stage.part_items <= granule || units >= warps * resident ? 1 : warps;
    if (choice.warps_per_unit > 0) stage.warps_per_unit = choice.warps_per_unit;
    units_per_block = warps / stage.warps_per_unit;
  }
  stage.blocks = std::min((units + units_per_block - 1) / units_per_block, 8 * resident);
  return stage;
}

// k within 1..kSelectMaxK, columns <= kSelectMaxColumns.
inline SelectPlan plan_select_k(int64_t rows, int64_t columns, int64_t k, bool ordered, const DeviceLimits& limits,
                                const SelectChoice& choice = {}) {
  SelectPlan plan;
  plan.rows = rows;
  plan.k = k;
  plan.ordered = ordered;
  plan.first = plan_select_stage(rows, columns, k, ordered, limits, true, choice);
  if (plan.first.parts > 1) {
    SelectChoice second = choice;
    second.parts = 1;
    plan.second = plan_select_stage(rows, plan.first.parts * k, k, ordered, limits, false, second);
    // Keys, then indexes, of all parts; then a threshold for each row.
    const int64_t items = rows * plan.first.parts * k;
    plan.workspace_bytes = items * 8 + rows * 8 + (ordered ? items * 4 : 0);
  }
  return plan;
}

inline std::string describe(const SelectPlan& plan) {
  const auto stage = [](const SelectStage& s) {
    char text[160];
    std::snprintf(text, sizeof text, "%s: %lld parts of %lld, %lld blocks of %d threads, %lld bytes shared",
                  select_variant_name(s.variant), static_cast<long long>(s.parts), static_cast<long long>(s.part_items),
                  static_cast<long long>(s.blocks), s.threads, static_cast<long long>(s.shared_bytes));
    return std::string(text);
  };
  std::string out = "select_k " + std::to_string(plan.k) + " of " + std::to_string(plan.first.items) + " in " +
                    std::to_string(plan.rows) + " rows; " + stage(plan.first);
  if (plan.second.blocks > 0) out += "; then " + stage(plan.second);
  return out;
}

}  // namespace warpmem
