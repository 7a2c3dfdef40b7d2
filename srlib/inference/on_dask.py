"""A folder's pictures as tasks, by the workers of a Dask cluster or processes of this machine."""

import io
import os
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from srlib.data.parallel import in_parallel
from srlib.data.picture import Picture
from srlib.files import printable
from srlib.inference.extras import Extras, upscale_with
from srlib.inference.folders import Results, check_size, say_failed, upscale_files
from srlib.networks.checkpoints import load
from srlib.networks.eraser import TiledSR
from srlib.tiling.tiled import Execution

_ONE = threading.Lock()  # a worker with several threads does one picture at a time, and prints of it alone


@dataclass(frozen=True)
class Task:
    """What every worker is to do with a picture. model, told: what `load` takes, told being pairs (name, value).
    device: where the network goes. The rest as of upscale_folder.
    """

    model: str
    device: str
    told: tuple[tuple[str, Any], ...] = ()
    extras: Extras = Extras()
    quality: int = 95
    how: Execution = Execution(on_oom="shrink")
    options: dict = field(default_factory=dict)


def upscale_on_workers(task: Task, overwrite: bool, jobs: int, pairs: dict[Path, Path]) -> Results:
    """The pairs' pictures, upscaled and written by srlib.data.parallel's workers, as upscale_files does one by one.

    Every worker loads the network once, and must see all files under the same paths. Returns and raises what
    upscale_files does; RuntimeError when a worker is killed.
    """
    todo = {path: target for path, target in pairs.items() if overwrite or not os.path.exists(target)}  # any name
    written, failed = 0, {}
    arguments = [(task, path.absolute(), target.absolute()) for path, target in todo.items()]
    names = {path.absolute(): path for path in todo}
    for number, (there, said, why) in enumerate(in_parallel(_one, arguments, jobs, "upscaled", True), 1):
        path = names[there]
        print("\n".join([f"{number}/{len(todo)} {printable(path)}", *said]), flush=True)
        if why is None:
            written += 1
        else:
            failed[path] = why
            say_failed(why)
    return written, len(pairs) - len(todo), failed


def _one(task: Task, path: Path, target: Path) -> tuple[Path, list[str], str | None]:
    """(path, what there is to say of it, why it failed)."""
    torch.backends.cudnn.allow_tf32 = False  # as srlib.commands.options.execution has it in the command's own process
    with _ONE, redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()):
        model = _loaded(task.model, task.told, task.device)

        def work(picture: Picture, _: Path) -> Picture:
            large, report = upscale_with(model, picture, task.extras, how=task.how, **task.options)
            print("   " + str(report).replace("\n", "\n   "))
            return large

        about: dict[str, Any] = {
            "scale": model.scale,
            "quality": task.quality,
            "check": partial(check_size, task.extras),
        }
        failed = upscale_files({path: target}, work, overwrite=True, **about)[2]
    return path, said.getvalue().splitlines()[1:], failed.get(path)  # the first line has its number


@lru_cache(maxsize=1)
def _loaded(model: str, told: tuple[tuple[str, Any], ...], device: str) -> TiledSR:
    return load(model, **dict(told)).to(device)
