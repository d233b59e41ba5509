#!/usr/bin/env bash
# Everything a GPU host has to say, in at most 8 minutes: builds this repository for its device, tests its kernels, runs the benchmarks against floors and peers, the
# conformance suite on the device, and compute-sanitizer on a small suite. Writes one JSON, a table, a plot and a log for each step. Needs this repository, a Python >=
# 3.11 with pip (one that sees torch and CuPy: python3, or WARPMEM_PYTHON), a C++ compiler, nvcc, and what of requirements.txt beside this file that Python does not see
# yet, from an index or from a folder. A host with torch, CuPy, Numba and tools to build commonly lacks msgspec, rocksdict and wordllama, and of what that one needs toml,
# pydantic, pydantic-core, annotated-types and typing-inspection: without a network these travel as wheels, together 26 MB.
#
#   bench/gpu/run.sh [--out FOLDER] [--venv FOLDER] [--minutes 8] [--steps build,selftest,peers,measure,conformance,sanitizer]
#                    [--family NAME[=SECONDS]] [--measure "OPTIONS of measure.py"] [--quick] [--dry-run]
#
#   WARPMEM_GPU_WHEELS   a folder with those wheels, for a host without a network
#   WARPMEM_GPU_PEERS    a folder with packages of peers (faiss, cuvs), put on the path of a process of their own, or one with packs of them and a setup.sh, which
#                        are set up in the environment's folder (packs.py); what an earlier call set up stays; ~/peer-site without it. FAISS's package needs
#                        cuVS's beside it (libcuvs, libraft, librmm), and cuVS's no other
#   WARPMEM_GPU_HOST_GIB host memory to count on, where a virtual machine says less than it can have
#   WARPMEM_CUDA_TOOLKIT wheels: nvcc from wheels, where the host has none
#
# The environment lies in build/gpu-venv, or --venv, and not among the results, which are seven files. Who calls again with the same sources does not wait for another
# build. Measuring comes before the suite and five minutes are its own, one process for each family (families.py). What the time does not hold is named in the table, and
# measured by more calls, whose results join the same file; of calls that write to different folders, report.py joins the files.
#
# Where half an hour is all there is, in calls of ten minutes on a host that forgets everything when it rests:
#
#   0. where packs and wheels do not travel together, cuVS alone, in half a minute: bench/gpu/run.sh --steps peers
#   1. what breaks, in 7 minutes, to mend it before the time is spent (set up here: FAISS):
#      bench/gpu/run.sh --minutes 8 --quick --family exact-384 --family owners-384 --family ivf_pq --family select_k --family training --family changes
#   2. the figures that need no large fill:
#      bench/gpu/run.sh --minutes 9.5 --steps build,selftest,measure --family exact-384 --family exact-768 --family memory --family changes --family select_k
#                       --family training --family vram_cache
#   3. at once behind it, the large ones, 4,096 owners and ten million rows:
#      bench/gpu/run.sh --minutes 9.5 --steps build,measure --family ivf_pq=270 --family owners-384=270 --measure "--ivf-rows 10000000 --fill-seconds 130"
#   4. with what is left: owners-768=240, crossover, the rest of the suite (--steps conformance,sanitizer)
#
# --dry-run builds nothing and measures with NumPy in the device's place, on tiny sizes: it tests this script.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for name in ${WARPMEM_PYTHON:-} python3 python3.12 python3.11 python3.13; do
  if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    exec "$name" "$here/run.py" "$@"
  fi
done
echo "bench/gpu/run.sh: no Python >= 3.11 was found" >&2
exit 1
