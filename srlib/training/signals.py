"""Ctrl-C, the kernel's stop button and a scheduler's SIGTERM stop a training at the end of the current step."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """A context manager: while `patient`, SIGINT and SIGTERM only set `requested`; otherwise they raise at once.

    They raise KeyboardInterrupt, and so does a second signal, patient or not. Outside the main thread, where Python
    cannot handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = ""  # the signal's name; empty: none
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
    """A DataLoader's worker_init_fn: workers ignore Ctrl-C and the first SIGTERM, which a scheduler sends to all.

    Their parent stops them, after its step, with a second SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
