"""Fakes of pools before which a device stands, for the tests of its recovery."""

from __future__ import annotations

from collections.abc import Callable

from virtual_time import VirtualTime
from warpmem.index.device_recovery import DeviceRecovery


class Pool:
    """Rebuilds its device as `answers` says."""

    device = 3

    def __init__(self, recovery: DeviceRecovery, pause: float = 1.0) -> None:
        self.failed = True
        self.tries = 0
        self.recovery = recovery
        self.pause = pause
        self.answers: Callable[[], bool] = lambda: False
        recovery.join(self)

    def close(self) -> None:
        self.pause = 0.0
        self.recovery.close(self)

    def rebuild(self, *, at_a_turn: bool = False) -> bool:
        self.tries += 1
        if not self.answers():
            return False
        self.failed = False
        self.recovery.answered(self)
        return True


def several(time: VirtualTime, *pauses: float) -> list[Pool]:
    recovery = DeviceRecovery(clock=time.clock, wait=time.wait)
    return [Pool(recovery, pause) for pause in pauses]
