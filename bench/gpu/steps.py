"""Steps of a run: each ends in its time, keeps what it wrote in a log, and says why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
LAST = 40
"""Lines of a log that a step which failed tells."""


@dataclass
class Step:
    """How one step ended: "ok", "failed", "skipped" with a reason, or "timeout"."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""


class Skipped(Exception):
    """A step that cannot run here; the message says why."""


class Failed(Exception):
    """A command that failed; the message ends with the last lines that it wrote."""


class TooLong(Failed):
    """A command that was ended since its time was over."""


class Steps:
    """The steps so far, and the time that is left. Logs lie in `out`, one for the steps of each `log`."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out = out
        self.steps: list[Step] = []
        self.environment: dict[str, str] = dict(os.environ)
        self._end = time.monotonic() + seconds
        self._log = out / "run.log"

    @property
    def left(self) -> float:
        return max(1.0, self._end - time.monotonic())

    def step(self, name: str, body: Callable[[], None], log: str | None = None) -> bool:
        """Run one step and note how it ended."""
        print(f"=== {name}", flush=True)
        self._log = self.out / f"{log or name}.log"
        started = time.monotonic()
        step = Step(name, "ok")
        try:
            body()
        except Skipped as error:
            step.status, step.reason = "skipped", str(error)
        except TooLong as error:
            step.status, step.reason = "timeout", str(error)
        except (Failed, subprocess.CalledProcessError, OSError, ValueError) as error:
            step.status, step.reason = "failed", str(error)
        step.seconds = round(time.monotonic() - started, 2)
        self.steps.append(step)
        print(f"--- {name}: {step.status} {step.reason}".split("\n", 1)[0], flush=True)
        return step.status == "ok"

    def call(self, *command: str | Path, limit: float, **environment: str) -> None:
        """A command whose output is shown and kept in the log. Failed, or TooLong past its limit, when it is
        ended with all that it started."""
        arguments = [str(part) for part in command]
        limit = min(limit, self.left)
        with self._log.open("a") as log:
            log.write(f"$ {' '.join(arguments)}\n")
            running = subprocess.Popen(
                arguments, cwd=ROOT, env={**self.environment, **environment}, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            last: deque[str] = deque(maxlen=LAST)
            reader = threading.Thread(target=_copy, args=(running.stdout, log, last), daemon=True)
            reader.start()
            try:
                status = running.wait(limit)
            except subprocess.TimeoutExpired:
                _end(running, reader)
                raise TooLong(f"more than {limit:.0f} s\n" + "".join(last)) from None
            except BaseException:
                _end(running, reader)
                raise
            reader.join(5.0)
        if status != 0:
            raise Failed(f"exit status {status}\n" + "".join(last))


def _end(running: subprocess.Popen[str], reader: threading.Thread) -> None:
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    reader.join(5.0)


def _copy(source: IO[str], log: IO[str], last: deque[str]) -> None:
    """Every line into the log, onto the screen and among the last."""
    with source:
        for line in source:
            last.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()
            try:
                log.write(line)
                log.flush()
            except ValueError:  # what it left running still writes, and nobody waits for it
                return
