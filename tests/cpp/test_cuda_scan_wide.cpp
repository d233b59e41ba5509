// The scan's kernels for many queries in the emulator: equal, bit for bit, to the CPU core's scan of the same pages. test_cuda_scan has the others.
#include "scan_variants.hpp"

using namespace scan_cases;

TEST(middle_of_eight) { check_variant("scan_middle_1", ScanShape::kMiddle, {4, 7, 8}, 4000); }
TEST(middle) { check_variant("scan_middle_4", ScanShape::kMiddle, {9, 33, 63}, 5000); }
TEST(large) { check_variant("scan_large", ScanShape::kLarge, {64, 70, 130}, 6000); }

int main(int argc, char** argv) { return check::run_tests(argc, argv); }
