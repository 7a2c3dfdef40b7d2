"""When, from which commit, on which machine and with which versions something was made."""

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("srlib", "torch", "numpy", "pillow", "opencv-python-headless")  # on which results depend


def made_with(root: Path) -> str:
    """Markdown: the date, the commit of the checkout `root`, whether files differ from it, processor, GPU, versions."""
    moment = datetime.now().astimezone()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        (
            f"- Made: {moment:%Y-%m-%d %H:%M} {moment.tzname()}",
            f"- Commit: {_commit(root)}",
            f"- Machine: {_machine()}",
            f"- Versions: Python {platform.python_version()}, {packages}",
        )
    )


def _commit(root: Path) -> str:
    """Of `root` itself: a checkout that it only lies in is another project's."""
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "not known, as the project's folder is no git checkout with a commit"
    status = ("status", "--porcelain", "--untracked-files=no")
    # Where no file's content differs nothing has to be stripped, which takes nbstripout a second a notebook.
    differs = _git(root, "-c", "filter.nbstripout.clean=cat", *status)
    changed = len(_git(root, *status).splitlines()) if differs else 0
    return f"{commit}, with changes in {changed} file{'s' * (changed != 1)}" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{_processor()}, {cores} core{'s' * (cores != 1)}, {platform.system()}"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        gpus.append("Apple GPU")
    return f"{text}; {' and '.join(gpus) if gpus else 'no GPU'}"


def _processor() -> str:
    """Its name where the system tells: Linux in a file, others through Python."""
    known = Path("/proc/cpuinfo")
    for line in known.read_text(errors="replace").splitlines() if known.is_file() else ():
        key, _, name = line.partition(":")
        if key.strip() == "model name":
            return " ".join(name.split())
    return platform.processor() or platform.machine()
