"""What several subcommands share: options of device and network, and how a run ends."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srlib.files import printable


class Intermixed(argparse.ArgumentParser):
    """Options may stand between, before and after the files, and a first file that may be left out is; and so may
    files whose names begin with a dash.
    """

    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ArgumentParser's; parse_known_intermixed_args calls this one twice itself."""
        if self._inside:
            return super().parse_known_args(args, namespace)
        args = list(sys.argv[1:] if args is None else args)
        args = [f"./{a}" if a.startswith("-") and "." in a and os.path.isfile(a) else a for a in args]
        if "--" in args:  # all that follow are files, which argparse's second pass would take for options
            place = args.index("--") + 1
            args[place:] = [f"./{a}" if a.startswith("-") else a for a in args[place:]]
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


class Failed(Exception):
    """Something outside the program stopped the command, in words: a RuntimeError that is no fault of ours."""


@contextmanager
def plain_warnings() -> Iterator[None]:
    """What the package warns of, as of a picture whose colours are approximate, is a sentence, not a line of code."""
    before: Any = warnings.formatwarning

    def sentence(message: Any, category: Any, *place: Any, **more: Any) -> str:
        own = category is UserWarning and Path(place[0]).is_relative_to(Path(__file__).parents[1])
        return f"warning: {printable(str(message))}\n" if own else before(message, category, *place, **more)

    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = before


def unseen_options(parser: argparse.ArgumentParser) -> None:
    """What no weight of a checkpoint shows."""
    parser.add_argument("--img-range", type=float, help="of a published HAT: 255 for one trained on 0..255; default 1")
    parser.add_argument("--conv-scale", type=float, help="of a published HAT: weight of its convolutions; default 0.01")


def device_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a network runs."""
    add = parser.add_argument
    add("--device", help="cpu, cuda, cuda:1; default: a GPU where there is one")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="arithmetic of the network; default fp32, no TF32",
    )
    add(
        "--features",
        default="device",
        help="where exact keeps its maps: device (default), host, or a folder on a fast disk",
    )


def placed(network: Any, device: str | None) -> Any:
    """The network on the device, or on a GPU where there is one. Raises Failed where it cannot go there."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch without CUDA was asked for it
        raise Failed(f"--device {device}: {error}") from error


def execution(precision: str, features: str) -> Any:
    """The Execution of these options: smaller tiles where memory does not suffice. fp32 is that on a GPU, too, where
    PyTorch would let convolutions round to TF32: exact tiling would then differ from the whole picture by that.
    """
    import torch

    from srlib.tiling.tiled import Execution

    torch.backends.cudnn.allow_tf32 = False

    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return Execution(None, dtype, features, "shrink")


def tile_size(tile: str) -> int | str:
    """A number of LR pixels, or what else was given."""
    return int(tile) if tile.isdigit() else tile


def ended(written: int, skipped: int, failed: dict) -> int:
    """Print what was done; the exit status."""
    again = " (--overwrite makes them again)" if skipped else ""
    print(f"{written} written, {skipped} skipped because they exist{again}, {len(failed)} failed")
    return 1 if failed else 0
