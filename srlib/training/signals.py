"""Ctrl-C, the kernel's stop button and a scheduler's SIGTERM, taken at the next good moment."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """Within the block SIGINT and SIGTERM are noted in `requested` instead of raising, unless `patient` is False.

    A second one raises at once, for those who cannot wait. Outside the main thread, where Python hears no signals,
    nothing changes.
    """

    def __init__(self) -> None:
        self.requested = ""  # the signal's name
        self.patient = False
        self._before: dict[int, Any] = {}  # handlers

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._hear) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = bool(self.requested), signal.Signals(number).name
        if again or not self.patient:
            raise KeyboardInterrupt(self.requested)


def leave_to_parent(_: int) -> None:
    """For a loader's worker: Ctrl-C, and a SIGTERM to the whole group of processes, are its parent's business.

    A second SIGTERM ends it: the parent's own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
