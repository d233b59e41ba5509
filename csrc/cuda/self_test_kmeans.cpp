// The self-test of the nearest centroid and of means: every screen, and every way on from one.
#include <algorithm>

#include "../cpu/kmeans.hpp"
#include "../cpu/op_dispatch.hpp"
#include "kmeans.hpp"
#include "test_array.hpp"

namespace warpmem::cuda {
namespace {

constexpr int64_t kElements = 40;

// What becomes of most rows behind a screen by halves: see kernels/nearest_halves.cuh. A test of which they do not take that way has shown nothing.
enum class Way { kAny, kFew, kSettled, kScreenedAgain };

struct NearestCase {
  int64_t rows;
  int64_t k;
  int64_t like;  // centroids that half precision cannot tell apart stand in groups of so many
  NearestScreen screen;
  Way way;
};

constexpr NearestCase kNearestCases[] = {
    {600, 7, 1, NearestScreen::kChosen, Way::kAny},
    {600, 90, 1, NearestScreen::kChosen, Way::kAny},
    {600, 90, 1, NearestScreen::kHalves64, Way::kAny},
    {600, 300, 1, NearestScreen::kHalves128, Way::kAny},
    {600, 60, 3, NearestScreen::kHalves32, Way::kFew},
    {600, 240, 20, NearestScreen::kHalves128, Way::kSettled},
    {kHalvesSettled + 176, 120, 10, NearestScreen::kHalves64, Way::kScreenedAgain},
    {100, 420, 20, NearestScreen::kHalves32, Way::kSettled},
};

std::vector<float> centroids_of(const NearestCase& test) {
  std::vector<float> out = test_numbers(test.k * kElements, 3);
  const int64_t groups = test.k / test.like;
  for (int64_t at = groups * kElements; at < test.k * kElements; ++at) {
    const float first = out[static_cast<size_t>(at % (groups * kElements))];
    out[static_cast<size_t>(at)] = first * (1.0f + 1e-6f * static_cast<float>(at % 7));
  }
  return out;
}

bool took(Way way, const NearestCounts& counts, int64_t rows) {
  const auto most = static_cast<uint64_t>(rows - rows / 4);
  if (way == Way::kFew) return counts.few >= most;
  if (way == Way::kSettled) return counts.many >= most && counts.many <= static_cast<uint64_t>(kHalvesSettled);
  if (way == Way::kScreenedAgain) return counts.many > static_cast<uint64_t>(kHalvesSettled) && counts.doubtful >= most;
  return true;
}

// Means of the rows by centroid, added in order; that of no rows stays.
std::vector<float> means_of(const std::vector<float>& rows, const std::vector<int32_t>& owner, std::vector<float> means) {
  std::vector<double> sums(means.size(), 0.0);
  std::vector<int64_t> sizes(means.size() / kElements, 0);
  for (size_t i = 0; i < owner.size(); ++i) {
    const auto c = static_cast<size_t>(owner[i]);
    ++sizes[c];
    for (size_t d = 0; d < kElements; ++d) sums[c * kElements + d] += static_cast<double>(rows[i * kElements + d]);
  }
  for (size_t at = 0; at < means.size(); ++at) {
    const int64_t size = sizes[at / kElements];
    if (size > 0) means[at] = static_cast<float>(sums[at] / static_cast<double>(size));
  }
  return means;
}

void test_case(TestMemory& memory, const DeviceLimits& limits, const NearestCase& test, FamilyTest* family) {
  const std::vector<float> rows = test_numbers(test.rows * kElements, 2);
  const std::vector<float> start = centroids_of(test);
  const TestArray<float> on_device(memory, rows);
  const TestArray<float> centroids(memory, start);
  const TestArray<int32_t> index(memory, test.rows);
  const TestArray<double> values(memory, test.rows);
  const NearestPlan plan = plan_nearest(test.rows, kElements, test.k, 1, limits, test.screen);
  const TestArray<unsigned char> workspace(memory, plan.workspace_bytes);
  AssignArguments assign;
  assign.rows = on_device.data();
  assign.row_stride = kElements;
  assign.centroids = centroids.data();
  assign.index = index.data();
  assign.values = values.data();
  assign.workspace = workspace.data();
  nearest(plan, assign, nullptr);
  std::vector<int32_t> owner(static_cast<size_t>(test.rows));
  std::vector<double> distances(owner.size());
  kmeans_assign(*find_op_kernels("auto"), rows.data(), test.rows, kElements, start.data(), test.k, false, 1, owner.data(),
                distances.data());
  NearestCounts counts;
  memory.download(&counts, workspace.data(), sizeof counts);
  count_case(family, index.holds(owner) && values.holds(distances) && took(test.way, counts, test.rows));

  const UpdatePlan update = plan_update(test.rows, kElements, test.k);
  const TestArray<unsigned char> scratch(memory, update.workspace_bytes);
  UpdateArguments arguments;
  arguments.rows = on_device.data();
  arguments.index = index.data();
  arguments.centroids = centroids.data();
  arguments.workspace = scratch.data();
  kmeans_update(update, arguments, nullptr);
  count_case(family, centroids.holds(means_of(rows, owner, start)));
}

}  // namespace

FamilyTest test_kmeans(TestMemory& memory, const DeviceLimits& limits) {
  FamilyTest family{"kmeans", 0, 0};
  for (const NearestCase& test : kNearestCases) test_case(memory, limits, test, &family);
  return family;
}

}  // namespace warpmem::cuda
