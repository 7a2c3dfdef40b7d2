"""Progress bars: in a terminal tqdm's, in a log or an executed notebook a whole line now and then."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

INTERVAL = 30.0  # seconds between two lines where there is no terminal


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm on stdout with tqdm's `options`.

    Where stdout is no terminal (a file, a pipe, a notebook's kernel) it prints a line every INTERVAL seconds and,
    unless `leave` is False, one at the end; `mininterval` and `delay` are a terminal's.
    """
    if sys.stdout.isatty():
        return tqdm(iterable, file=sys.stdout, **{"mininterval": 0.5, **options})
    return _Lines(iterable, file=sys.stdout, **options)


class _Lines(tqdm):
    """Prints lines like "stage1: 151/450 steps, 4.8 steps/s, loss 0.0288, lr 7.5e-04"; the rate is the average."""

    def __init__(self, iterable: Iterable | None = None, **options: Any) -> None:
        # gui: tqdm itself draws nothing; miniters 1: else its monitor thread would ask for a line every 10 seconds
        ours = {"gui": True, "mininterval": INTERVAL, "miniters": 1, "delay": 0.0}
        super().__init__(iterable, **{**options, **ours})

    def __str__(self) -> str:
        rate = (self.n - self.initial) / max(self.format_dict["elapsed"], 1e-9)
        speed = f"{rate:.1f} {self.unit}s/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/{self.unit}"
        count = f"{self.n}/{self.total}" if self.total else f"{self.n}"
        parts = [f"{count} {self.unit}s", speed, (self.postfix or "").replace("=", " ")]
        return f"{self.desc}: ".removeprefix(": ") + ", ".join(filter(None, parts))

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the line now."""
        self.fp.write(f"{self}\n")
        self.fp.flush()

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = False, **values: Any) -> None:
        """Note the values for the next line."""
        super().set_postfix(ordered_dict, refresh=False, **values)

    def close(self) -> None:
        """Print the last line, unless it says what the one before it said."""
        if not getattr(self, "disable", True) and self.leave and self.n != self.last_print_n:
            self.display()
        super().close()
