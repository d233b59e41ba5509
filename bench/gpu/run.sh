#!/usr/bin/env bash
# Everything a GPU host has to say, in at most 8 minutes: builds this repository for its device, runs the benchmarks against floors and peers, the conformance suite
# on the device, and compute-sanitizer on a small suite. Writes one JSON, a table, a plot and a log for each step. Needs this repository, a Python >= 3.11 with pip (one
# that sees torch and CuPy: python3, or WARPMEM_PYTHON), a C++ compiler, nvcc, and what of requirements.txt beside this file that Python does not see yet, from an
# index or from a folder. A host with torch, CuPy, Numba and tools to build commonly lacks msgspec, rocksdict and wordllama, and of what that one needs toml, pydantic,
# pydantic-core, annotated-types and typing-inspection: without a network these travel as wheels.
#
#   bench/gpu/run.sh [--out FOLDER] [--venv FOLDER] [--minutes 8] [--steps build,measure,conformance,sanitizer] [--family NAME] [--dry-run]
#
#   WARPMEM_GPU_WHEELS   a folder with those wheels, for a host without a network
#   WARPMEM_GPU_PEERS    a folder with packages of peers (faiss, cuvs), put on the path of a process of their own, or one with packs of them and a setup.sh, which
#                        are set up in the environment's folder (packs.py); ~/peer-site without it
#   WARPMEM_CUDA_TOOLKIT wheels: nvcc from wheels, where the host has none
#
# The environment lies in build/gpu-venv, or --venv, and not among the results, which are seven files. Measuring comes first: five minutes are its own, one process for each family
# (families.py). What the time does not hold is named in the table, and measured by more calls, whose results join the same file:
#
#   bench/gpu/run.sh --minutes 9 --steps measure --family training --family crossover
#   bench/gpu/run.sh --minutes 9 --steps conformance,sanitizer
#   build/gpu-venv/bin/python bench/gpu/measure.py --out FOLDER/DEVICE.json --seconds 540 --only "over its own 10000 rows, d 384" --fill-seconds 270
#   build/gpu-venv/bin/python bench/gpu/measure.py --out FOLDER/DEVICE.json --seconds 540 --only "IVF-PQ" --ivf-rows 10000000
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
