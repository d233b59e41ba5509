#!/usr/bin/env bash
# Everything a GPU host has to say, in at most 8 minutes: builds this repository for its device, runs the conformance suite on it, compute-sanitizer on a small
# suite, and the benchmarks against floors and peers. Writes one JSON, a table and a plot. Needs this repository, Python >= 3.11, a C++ compiler, and the wheels that
# requirements.txt beside this file names, from an index or from a folder:
#
#   bench/gpu/run.sh [--out FOLDER] [--minutes 8] [--dry-run]
#
#   WARPMEM_GPU_WHEELS   a folder with those wheels, for a host without a network
#   WARPMEM_GPU_PEERS    a folder with packages of peers (faiss, cuvs), put on the path of a process of their own; ~/peer-site without it
#   WARPMEM_CUDA_TOOLKIT wheels: nvcc from wheels, where the host has none
#
# What 8 minutes do not hold is named in the table, and measured by more calls, whose results join the same file:
#
#   FOLDER/venv/bin/python bench/gpu/measure.py --out FOLDER/DEVICE.json --seconds 540 --only "exact" --only "host or device"
#   FOLDER/venv/bin/python bench/gpu/measure.py --out FOLDER/DEVICE.json --seconds 540 --only "over its own 10000 rows, d 384" --fill-seconds 270
#   FOLDER/venv/bin/python bench/gpu/measure.py --out FOLDER/DEVICE.json --seconds 540 --only "IVF-PQ" --ivf-rows 10000000
#
# --dry-run builds nothing and measures with NumPy in the device's place, on tiny sizes: it tests this script.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for name in ${WARPMEM_PYTHON:-} python3.12 python3.11 python3.13 python3; do
  if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    exec "$name" "$here/run.py" "$@"
  fi
done
echo "bench/gpu/run.sh: no Python >= 3.11 was found" >&2
exit 1
