"""The workloads of a device against their floors and peers, on the same data in the same run.

    python bench/gpu/measure.py --out results.json [--dry-run]

Data is made on the device. A floor is the bytes of all float16 rows over the copy bandwidth measured first.
Every result of ours is compared with float64 products, and a workload whose answer is wrong has no time.
Peers that are not installed, or fail, are noted with the reason; faiss and cuvs run in processes of their own
(peers.py) on the same data. --dry-run: NumPy in the device's place and tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import data
import peers

HERE = Path(__file__).resolve().parent


@dataclass
class Sizes:
    """How much there is of everything."""

    rows: int = 1_000_000
    dims: tuple[int, ...] = (384, 768)
    batches: tuple[int, ...] = (1, 32, 1024)
    owners: int = 400
    owner_rows: int = 10_000
    zipf_most: int = 300_000
    rounds: int = 15


TINY = Sizes(rows=3000, dims=(24, 40), batches=(1, 5), owners=12, owner_rows=70, zipf_most=500, rounds=3)


class Device:
    """The array module and its clock."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        if dry:
            self.xp: Any = np
            self.name = "NumPy"
        else:
            import cupy

            self.xp = cupy
            self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode().replace(" ", "-")

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if not self.dry:
            self.xp.cuda.Device().synchronize()

    def milliseconds(self, call: Callable[[], object], rounds: int) -> float:
        """The median of `rounds` calls, each to its end, behind one that warms up."""
        times = []
        for _ in range(rounds + 1):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            times.append((time.perf_counter() - started) * 1e3)
        return statistics.median(times[1:])

    def bandwidth(self, n_bytes: int) -> float:
        """Bytes per second that a copy reads and writes."""
        source = self.xp.zeros(n_bytes // 4, self.xp.float32)
        target = self.xp.empty_like(source)

        def copy() -> None:
            target[...] = source

        return 2 * source.nbytes / (self.milliseconds(copy, 9) * 1e-3)


class Ours:
    """A pool of the backend that is measured, filled list by list, with everything loaded."""

    def __init__(self, device: Device, dim: int, storage: str = "f16") -> None:
        self.device, self.dim = device, dim
        if device.dry:
            from warpmem.index.numpy_ref import NumpyBackend

            self.pool: Any = NumpyBackend().pool(dim, 1, storage=storage)
        else:
            from warpmem.index.cuda_backend import CudaBackend  # type: ignore[import-not-found]

            backend = CudaBackend(least_work=0)
            reason = backend.available()
            if reason is not None:
                raise peers.Unavailable(reason)
            self.pool = backend.pool(dim, 1, storage=storage, threads=os.cpu_count() or 1)

    def add(self, list_ids: Any, rows: Any) -> None:
        """Rows of the device, by list; row ids count on, and column 0 counts from 0 to 9."""
        host = data.to_host(rows)
        for start in range(0, len(host), data.CHUNK):
            part = host[start : start + data.CHUNK]
            ids = np.arange(start, start + len(part), dtype=np.int64)
            self.pool.apply(
                [], list_ids[start : start + len(part)], ids, ids.astype(np.uint32), (ids % 10)[:, None], part
            )

    def load(self) -> None:
        """Everything onto the device."""
        if hasattr(self.pool, "warm"):
            self.pool.warm(self.pool.lists(), wait=True)

    def search(self, queries: Any, segments: Any, k: int) -> Any:
        """(scores, similarities, list ids, row ids, counts), on the device when there is one."""
        options = {} if self.device.dry else {"results": "device"}
        return self.pool.scan(queries, segments, k, **options)


class Bench:
    """All workloads; each adds a result, or the reason why there is none."""

    def __init__(self, device: Device, sizes: Sizes, seconds: float) -> None:
        self.device, self.sizes = device, sizes
        self.results: list[dict[str, Any]] = []
        self.end = time.monotonic() + seconds
        self.copy = device.bandwidth(1 << (20 if device.dry else 30))
        self.outside = [] if device.dry else peers.outside()

    def workload(self, name: str, body: Callable[[dict[str, Any]], None]) -> None:
        """Run one and note its result under `name`."""
        result: dict[str, Any] = {"workload": name}
        if time.monotonic() > self.end:
            result["skipped"] = "no time was left"
        else:
            try:
                body(result)
            except peers.Unavailable as error:
                result["skipped"] = str(error)
        self.results.append(result)
        print(json.dumps(result), flush=True)

    def compare(
        self, result: dict[str, Any], ours: Callable[[], object], row_bytes: float, others: Any
    ) -> None:
        """Our median and the floor of `row_bytes`; then each peer's median and its ratio to ours."""
        rounds = self.sizes.rounds
        result["ours_ms"] = self.device.milliseconds(ours, rounds)
        result["floor_ms"] = row_bytes / self.copy * 1e3
        result["peers"] = {}
        for name, make in others.items():
            try:
                call = make()
                value = call if isinstance(call, float) else self.device.milliseconds(call, rounds)
            except peers.Unavailable as error:
                result["peers"][name] = {"skipped": str(error)}
                continue
            result["peers"][name] = {"ms": value, "ratio": value / result["ours_ms"]}

    def check(self, found: Any, queries: Any, rows: Any, lists: Any, allowed: Any, k: int) -> bool:
        """Whether the first answers are those of float64 products over `allowed` rows, to 1e-3."""
        xp = self.device.xp
        similarities, row_ids, counts = (np.asarray(data.to_host(xp.asarray(found[i]))) for i in (1, 3, 4))
        for q in range(min(3, len(queries))):
            mask = (lists == lists.dtype.type(self.list_of(q, lists))) & allowed
            wide = data.to_host(rows[xp.asarray(mask)].astype(xp.float64) @ queries[q].astype(xp.float64))
            ids = np.flatnonzero(mask)
            n = min(k, len(ids))
            best = np.sort(wide)[::-1][:n]
            given = set(row_ids[q, :n].tolist())
            if counts[q] != n or len(given) != n or not given <= set(ids.tolist()):
                return False
            by_id = dict(zip(ids.tolist(), wide.tolist(), strict=True))
            exact = np.array([by_id[i] for i in row_ids[q, :n].tolist()])
            if np.abs(similarities[q, :n] - exact).max() > 1e-3 or np.abs(exact - best).max() > 1e-3:
                return False
        return True

    def list_of(self, q: int, lists: Any) -> int:
        """The list that query q asks."""
        return 0 if lists.max() == 0 else q

    def exact(self, dim: int) -> None:
        """One list of many rows, in several batches."""
        sizes, xp = self.sizes, self.device.xp
        rows = data.mixture(xp, sizes.rows, dim, 1)
        queries = data.mixture(xp, max(sizes.batches), dim, 2)
        lists = np.zeros(sizes.rows, np.int64)

        def fill() -> Ours:
            ours = Ours(self.device, dim)
            ours.add(lists, rows)
            ours.load()
            return ours

        made: list[Ours] = []
        for batch in sizes.batches:
            for k in (10, 100) if batch == max(sizes.batches) else (10,):

                def body(result: dict[str, Any], batch: int = batch, k: int = k) -> None:
                    if not made:
                        made.append(fill())
                    asked = queries[:batch]
                    segments = [(q, 0, 0, (), (), None) for q in range(batch)]
                    result["correct"] = self.check(
                        made[0].search(asked, segments, k), asked, rows, lists, np.ones(len(lists), bool), k
                    )
                    if not result["correct"]:
                        raise peers.Unavailable("the answer is wrong")
                    others = peers.brute_force(self.device, rows, asked, k)
                    for name in self.outside:
                        spec = {"rows": sizes.rows, "dim": dim, "batch": batch, "k": k}
                        others[name] = lambda name=name, spec=spec: peers.ask(name, spec)
                    self.compare(
                        result,
                        lambda: made[0].search(asked, segments, k),
                        2.0 * sizes.rows * dim * max(1, batch // 184),
                        others,
                    )

                self.workload(f"exact, {batch} queries, {sizes.rows} rows, d {dim}, k {k}", body)

    def owners(self, dim: int, zipf: bool) -> None:
        """Every query over its own list; with `zipf` of very different sizes, and with a filter each."""
        sizes, xp = self.sizes, self.device.xp
        each = (
            data.zipf_sizes(sizes.owners, sizes.zipf_most, 100 if not self.device.dry else 3)
            if zipf
            else [sizes.owner_rows] * sizes.owners
        )
        rows = data.mixture(xp, sum(each), dim, 3)
        queries = data.mixture(xp, sizes.owners, dim, 4)
        lists = np.repeat(np.arange(sizes.owners), each).astype(np.int64)
        terms = ((0, 0, 0, 4),) if zipf else ()
        segments = [(q, q, 0, terms, (), None) for q in range(sizes.owners)]
        allowed = np.arange(len(lists)) % 10 <= 4 if zipf else np.ones(len(lists), bool)

        def body(result: dict[str, Any]) -> None:
            ours = Ours(self.device, dim)
            ours.add(lists, rows)
            ours.load()
            result["correct"] = self.check(
                ours.search(queries, segments, 10), queries, rows, lists, allowed, 10
            )
            if not result["correct"]:
                raise peers.Unavailable("the answer is wrong")
            others = {} if zipf else peers.padded_batches(self.device, rows, queries, sizes.owner_rows, 10)
            others |= peers.loop(self.device, rows, queries, each, 10) if zipf else {}
            self.compare(result, lambda: ours.search(queries, segments, 10), 2.0 * sum(each) * dim, others)

        kind = f"{min(each)} to {max(each)} rows, with a filter" if zipf else f"{sizes.owner_rows} rows"
        self.workload(f"{sizes.owners} queries, each over its own {kind}, d {dim}", body)

    def changes(self, dim: int) -> None:
        """How much slower searches are while rows are removed and added."""
        sizes, xp = self.sizes, self.device.xp
        n = sizes.rows // 2
        rows = data.mixture(xp, n, dim, 5)
        query = data.mixture(xp, 1, dim, 6)

        def body(result: dict[str, Any]) -> None:
            ours = Ours(self.device, dim)
            ours.add(np.zeros(n, np.int64), rows)
            ours.load()
            segments = [(0, 0, 0, (), (), None)]

            def p99(seconds: float) -> float:
                times = []
                end = time.monotonic() + seconds
                while time.monotonic() < end or len(times) < 5:
                    started = time.perf_counter()
                    ours.search(query, segments, 10)
                    self.device.wait()
                    times.append((time.perf_counter() - started) * 1e3)
                return float(np.percentile(times, 99))

            span = 0.2 if self.device.dry else 4.0
            idle = p99(span)
            stop = threading.Event()
            host = data.to_host(rows[:100])

            def writer() -> None:
                ids = np.arange(100, dtype=np.int64)
                while not stop.is_set():
                    ours.pool.apply(
                        [(0, int(i)) for i in ids], np.zeros(100, np.int64), ids, ids.astype(np.uint32),
                        (ids % 10)[:, None], host,
                    )  # fmt: skip

            thread = threading.Thread(target=writer)
            thread.start()
            try:
                result["ours_ms"] = p99(span)
            finally:
                stop.set()
                thread.join()
            result["idle_ms"], result["ratio_to_idle"] = idle, result["ours_ms"] / idle

        self.workload(f"p99 of a search of {n} rows beside a writer, d {dim}", body)

    def run(self) -> None:
        """All of them, the shortest dimension first."""
        for dim in self.sizes.dims:
            self.exact(dim)
            self.owners(dim, zipf=False)
            self.owners(dim, zipf=True)
        self.changes(self.sizes.dims[0])


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Workloads of a device against floors and peers.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    device = Device(arguments.dry_run)
    seconds = float(os.environ.get("WARPMEM_BENCH_SECONDS", "200"))
    bench = Bench(device, TINY if device.dry else Sizes(), seconds)
    bench.run()
    report = {"device": device.name, "copy_bytes_per_second": bench.copy, "results": bench.results}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    wrong = [r["workload"] for r in bench.results if r.get("correct") is False]
    for name in wrong:
        print(f"wrong: {name}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
