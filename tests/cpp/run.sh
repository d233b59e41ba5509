#!/bin/sh
# Builds and runs the C++ tests with the compiler alone: all of them under AddressSanitizer and UndefinedBehaviorSanitizer, the concurrent one also
# under ThreadSanitizer; the CUDA kernels (test_cuda_*) in the emulator of simt.hpp. Also checks that the files with their own instruction-set flags
# give the linker nothing to share.
# Usage: tests/cpp/run.sh [build folder]. The exit code is 0 when everything passed, and the emulated tests took no more than 300 s of processor time,
#        or WARPMEM_EMULATED_SECONDS.
#        tests/cpp/run.sh coverage [build folder]   runs the emulated tests alone and prints which lines of csrc/cuda/kernels they reach
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mode=all
if [ "${1:-}" = coverage ]; then
  mode=coverage
  shift
fi
if [ $# -gt 0 ]; then
  build=$1
  mkdir -p "$build"
else
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
fi
cxx=${CXX:-g++}
flags="-std=c++17 -g -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow -Werror -fno-omit-frame-pointer"
sources="arena dispatch pack_serial pages pool pool_open pool_read pool_save pool_view scan scan_device scan_filter scan_pq scan_task serial workers"
sources="$sources postings kmeans kmeans_serial mmr nearest op_dispatch pq pq_serial select_k select_k_serial"
defines=""
case $(uname -m) in
  x86_64 | amd64)
    sources="$sources avx2 avx512 crc32c_sse42"
    defines="-DWARPMEM_HAVE_AVX2=1 -DWARPMEM_HAVE_SSE42=1"
    family_simd="pack_avx2 pack_avx512 kmeans_avx2 kmeans_avx512 pq_avx2 pq_avx512 select_k_avx2 select_k_avx512"
    sources="$sources $family_simd"
    defines="$defines -DWARPMEM_HAVE_AVX512=1"
    ;;
esac

isa_flags() {
  case $1 in
    avx2) echo "-mavx2 -mfma -mf16c" ;;
    avx512) echo "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c" ;;
    *_avx2) echo "-mavx2 -mfma" ;;
    # GCC 12 takes the deliberately undefined operands of its own AVX-512 headers for mistakes.
    *_avx512) echo "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -Wno-uninitialized -Wno-maybe-uninitialized" ;;
    crc32c_sse42) echo "-msse4.2" ;;
  esac
}

# build_and_run NAME SANITIZER OPTIMISATION TEST...
build_and_run() {
  name=$1 sanitizer=$2 optimisation=$3
  shift 3
  objects=""
  for source in $sources; do
    object="$build/$source.$name.o"
    # shellcheck disable=SC2046,SC2086
    $cxx $flags $optimisation $sanitizer $defines $(isa_flags "$source") -c "$root/csrc/cpu/$source.cpp" -o "$object"
    objects="$objects $object"
  done
  for test in "$@"; do
    # shellcheck disable=SC2086
    $cxx $flags $optimisation $sanitizer $defines -I"$here" "$here/$test.cpp" $objects -pthread -o "$build/$test.$name"
  done
}

asan="-fsanitize=address,undefined -fno-sanitize-recover=all"
emulated="test_simt test_simt_races test_cuda_select test_cuda_kmeans test_cuda_halves test_cuda_pq test_cuda_scan test_cuda_scan_wide test_cuda_mmr test_cuda_pages"
emulated="$emulated test_cuda_scan_pq test_cuda_self_test test_page_cache test_page_cache_faults test_cache_faults test_cache_costs"
emulated="$emulated test_scan_queue test_scan_batches test_cuda_runtime test_scan_graphs test_kmeans_train"
if [ $mode = coverage ]; then
  build_and_run plain "" -O2
  # shellcheck disable=SC2086
  for test in $emulated; do
    (cd "$build" && $cxx $flags -O1 --coverage $defines -I"$here" -I"$here/fake_cuda" -c "$here/$test.cpp" -o "$test.o" &&
      $cxx --coverage "$test.o" $objects -pthread -o "$test.covered" && "./$test.covered")
  done
  python3 "$root/tools/kernel_coverage.py" "$build"
  exit
fi
build_and_run asan "$asan" -O1 test_core test_file test_pool test_pq_pool test_screen test_scan test_kernels test_rows test_postings &
first=$!
(
  build_and_run tsan -fsanitize=thread -O1 test_file test_pool test_pq_pool test_scan test_kernels test_page_cache_faults test_queue_threads
  # Compiled here, where less is to be done, and linked when the objects beside them are there.
  for test in $emulated; do
    # shellcheck disable=SC2086
    $cxx $flags -O1 $asan $defines -I"$here" -I"$here/fake_cuda" -c "$here/$test.cpp" -o "$build/$test.asan.o"
  done
) &
second=$!
wait $first
wait $second
objects=""
for source in $sources; do objects="$objects $build/$source.asan.o"; done
for test in $emulated; do
  # shellcheck disable=SC2086
  $cxx $asan "$build/$test.asan.o" $objects -pthread -o "$build/$test.asan"
done
(
  began=$(date +%s)
  for test in $emulated; do "$build/$test.asan" || exit; done
  ended=$(date +%s)
  times >"$build/emulated.times" # a pipe would make another shell, without these children
  spent=$(awk 'NR == 2 { gsub(/[ms]/, " "); printf "%d", 60 * $1 + $2 + 60 * $3 + $4 }' "$build/emulated.times")
  echo "emulated tests: $spent s of processor time in $((ended - began)) s"
  most=${WARPMEM_EMULATED_SECONDS:-300}
  [ "$spent" -le "$most" ] || { echo "that is more than $most s (WARPMEM_EMULATED_SECONDS)" >&2; exit 1; }
) &
first=$!
"$build/test_core.asan"
"$build/test_file.asan"
"$build/test_pool.asan"
"$build/test_pq_pool.asan"
"$build/test_screen.asan"
"$build/test_scan.asan"
"$build/test_kernels.asan"
"$build/test_rows.asan"
"$build/test_postings.asan"
"$build/test_file.tsan" beside_a_writer
"$build/test_pool.tsan" readers_beside_a_writer
"$build/test_pq_pool.tsan" beside_a_writer
"$build/test_scan.tsan" beside_a_writer
"$build/test_page_cache_faults.tsan" beside_a_writer
"$build/test_queue_threads.tsan"
"$build/test_kernels.tsan" forked_work
"$build/test_kernels.tsan" encoding_and_training
wait $first

case $sources in
  *avx2*)
    # shellcheck disable=SC2086
    for source in avx2 avx512 crc32c_sse42 $family_simd; do
      $cxx -std=c++17 -O3 -ffp-contract=off $defines $(isa_flags $source) -c "$root/csrc/cpu/$source.cpp" -o "$build/$source.o"
      if nm "$build/$source.o" | grep -E ' [VWu] ' | grep -v 'warpmem_pack_'; then
        echo "$source.cpp: the linker could choose the inline functions above for machines without this instruction set" >&2
        exit 1
      fi
    done
    ;;
esac
echo "C++ tests passed"
