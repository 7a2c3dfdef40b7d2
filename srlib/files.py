"""Atomic writes, a lock on a folder, checksums."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path | str, durable: bool = False) -> Iterator[Path]:
    """Atomic write: the block writes to the temporary path it is given, which is renamed to `path` when it succeeds.

    The temporary file lies beside `path` and keeps its suffix (savers choose the format by it); the process id in
    its name keeps two processes apart. On any error, Ctrl-C included, it is removed and `path` is left as it was.
    durable: flush to the disk before renaming, so that the file also survives a power failure.
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
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Lock a folder, created if missing, for this process. BlockingIOError when another process holds the lock.

    patience: seconds to wait for the lock; the children of a killed process may hold it some seconds longer.
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
    """Checksum: 128 bits of SHA-256, in hexadecimal, of bytes or of a sequence of texts."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:32]
    checksum = hashlib.sha256()
    for text in content:
        checksum.update(text.encode() + b"\0")
    return checksum.hexdigest()[:32]


def stamp(path: Path | str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: tells, without reading it, whether a file is still the same."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
