"""Files that are either whole or not there."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path | str, durable: bool = False) -> Iterator[Path]:
    """Write to the yielded temporary path beside `path`; it takes the name `path` only when the block succeeds.

    The temporary keeps the suffix (savers choose the format by it) and the process id, so that two
    processes never share one. On any error, Ctrl-C included, it is removed and `path` is left as it was.
    durable: on the disk before it takes the name, so that it is whole after a power failure, too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def only_here(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder, made if need be, for this process. BlockingIOError, in words, when another one holds it.

    patience: seconds to wait for that one's end; a killed process's children may live some seconds longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder, time.monotonic() + patience)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, until: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise BlockingIOError(f"another run is writing to {folder}: wait for its end, or stop it") from None
            time.sleep(0.2)
        except OSError:
            return None  # some network disks have no locks


def digest(content: bytes | Iterable[str]) -> str:
    """128 bits of SHA-256 of bytes, or of texts one after the other, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:32]
    whole = hashlib.sha256()
    for text in content:
        whole.update(text.encode() + b"\0")
    return whole.hexdigest()[:32]


def stamp(path: Path | str) -> tuple[int, int]:
    """Bytes and time of change (ns): the cheap question whether a file is still the same."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
