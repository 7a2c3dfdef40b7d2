"""Atomic writes, names, a lock on a folder, checksums."""

import fcntl
import hashlib
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path | str, durable: bool = False) -> Iterator[Path]:
    """Atomic write: the block writes to the temporary path it is given, which is renamed to `path` when it succeeds.

    The temporary file lies beside `path` and keeps its suffix (savers choose the format by it); the process id in
    its name keeps two processes apart; a long name's is short, so that any name that the disk takes can be written.
    On any error, Ctrl-C included, it is removed and `path` is left as it was.
    durable: flush to the disk before renaming, so that the file also survives a power failure.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = path.stem if len(os.fsencode(path.name)) <= 64 else digest(os.fsencode(path.name))
    temporary = path.with_name(f".{stem}.{os.getpid()}.part{path.suffix[-16:]}")
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


def check_name(path: Path) -> None:
    """Raise OSError, with one sentence, when a name in the path, or the path, is longer than the disk takes.

    Tells it of files in folders that are still to be made, too. The limits are bytes: usually 255 and 4095.
    """
    base = _existing(path.parent)
    names, longest = [len(os.fsencode(name)) for name in path.parts], os.pathconf(base, "PC_NAME_MAX")
    if max(names) > longest:
        raise OSError(f"{path.name}: a name of {max(names)} bytes, the disk takes {longest}: rename it")
    most = os.pathconf(base, "PC_PATH_MAX") - 1 - 16  # the temporary file's name is up to 16 bytes longer
    if (whole := len(os.fsencode(path))) > most:
        raise OSError(f"{path.name}: a path of {whole} bytes, {most} are possible: choose a shorter output")


def check_suffix(path: Path | str, *suffixes: str) -> None:
    """Raise ValueError when a file to be written is called as one of another kind: it may be one, named by mistake."""
    if Path(path).suffix.lower() not in suffixes:
        raise ValueError(f"{path} would be written as {suffixes[0]}: give it that suffix")


def check_writable(folder: Path) -> None:
    """Raise OSError, with one sentence, when no file can be written in the folder, or it cannot be made.

    Tried with a small file, which is removed. A folder that is missing stays so: the nearest one above is tried.
    """
    base = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=base) as file:
            file.write(bytes(4096))  # a full disk may take an empty file
            file.flush()
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({base}: {error.strerror}): choose another folder") from error


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))


def printable(text: Path | str) -> str:
    """The text in one line that any terminal takes: control characters, and bytes of a name that are no UTF-8, become
    escapes, as in a\\nb.png and a\\xff.png.
    """
    odd = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control, surrogate, separators of lines and paragraphs
    shown = (ascii(c)[1:-1] if unicodedata.category(c) in odd else c for c in str(text))
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", "".join(shown))  # os.fsdecode's sign for such a byte


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
        checksum.update(text.encode("utf-8", "surrogateescape") + b"\0")  # names need not be UTF-8
    return checksum.hexdigest()[:32]


def stamp(path: Path | str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: tells, without reading it, whether a file is still the same."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
