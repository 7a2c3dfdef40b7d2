"""Networks of other projects, by the library spandrel: ESRGAN, SPAN, SwinIR, DAT and forty more, from their weights.

The file is read here (srlib.networks.reading), which runs no code of it; spandrel only recognises the weights.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from srlib.adapters import adapter_for

# How many LR pixels one pixel of the map is on which a network's windows lie, where that is not 1.
_COARSER: dict[str, Callable[[Any], int]] = {"SwinIR": lambda m: m.start_unshuffle, "SCUNet": lambda m: 8}
_SIDES = ("window_size", "split_size", "ws")  # attributes of modules that hold the sides of windows


class Foreign(nn.Module):
    """A network that spandrel built: (B, C, H, W) in [0, 1] -> (B, C, H*scale, W*scale), not clamped.

    network: a module; call: what to call with (network, picture). It keeps its own padding; pictures smaller than
    `minimum`, or whose sides are no multiple of `multiple`, are padded before it as spandrel does, at the right and
    bottom, mirrored as far as that goes and then the edge repeated. square: to equal sides.
    name: of the architecture. window: LR pixels on whose multiples tiles must lie. half, bfloat: whether it may be run
    in fp16 and bf16. own_padding: nobody else is to pad. Where `network` can walk, so can this.
    """

    own_padding = True

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        scale: int,
        channels: int,
        window: int = 1,
        minimum: int = 0,
        multiple: int = 1,
        square: bool = False,
        half: bool = True,
        bfloat: bool = True,
        call: Callable[[Any, Tensor], Tensor] = lambda network, x: network(x),
    ):
        super().__init__()
        self.network, self.name, self.scale, self.window = network, name, scale, window
        self.half_precision, self.bfloat_precision = half, bfloat
        self.config = {"in_chans": channels, "architecture": name, "upscale": scale}
        self._minimum, self._multiple, self._square, self._call = minimum, multiple, square, call
        if hasattr(network, "walk"):
            self.walk = self._walk

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H*scale, W*scale)."""
        H, W = x.shape[-2:]
        return self._call(self.network, self._padded(x))[..., : H * self.scale, : W * self.scale]

    def _walk(self, x: Tensor, run: Callable[..., Tensor], out: Any = None) -> Tensor:
        """As srlib.networks.hat.HAT.walk: the padded picture upscaled, (B, H', W', C)."""
        walk: Callable[..., Tensor] = self.network.walk  # type: ignore[assignment]
        return walk(self._padded(x), run, out)

    def _padded(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, with sides that the network takes."""
        H, W = x.shape[-2:]
        sides = [max(side, self._minimum) for side in (H, W)]
        sides = [max(sides)] * 2 if self._square else sides
        bottom, right = (side + -side % self._multiple - own for side, own in zip(sides, (H, W), strict=True))
        if not bottom and not right:
            return x.clone()  # some write over what they are given
        x = F.pad(x, (0, min(right, W - 1), 0, min(bottom, H - 1)), "reflect")
        return F.pad(x, (0, max(right - W + 1, 0), 0, max(bottom - H + 1, 0)), "replicate")


def spandrel_version() -> str:
    """Of the installed library; empty where there is none."""
    if importlib.util.find_spec("spandrel") is None:
        return ""
    from importlib.metadata import version

    return version("spandrel")


def foreign(state: Mapping[str, Tensor], path: object) -> Foreign | None:
    """The network of these weights, in eval mode; None where spandrel does not know it, or is not installed.

    spandrel-extra-arches' architectures are tried, too, where that is installed. Raises ValueError, naming the file
    `path`, for weights that look like an architecture's but do not fit it, and for a network that does not make
    pictures of pictures of its kind: one for masks, faces, or another number of channels.
    """
    if not spandrel_version():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spandrel's, about functions of torch that it uses
        known = next((a for a in _architectures() if a.detect(dict(state))), None)
        if known is None:
            return None
        try:
            found = known.load(dict(state))
        except Exception as error:  # as many kinds as there are architectures
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{path} has the names of {known.name}, but cannot be loaded as one: {why}") from error
    return _wrapped(found, path)


def _architectures() -> Iterable[Any]:
    from spandrel import MAIN_REGISTRY

    registry = MAIN_REGISTRY.copy()
    if importlib.util.find_spec("spandrel_extra_arches"):
        from spandrel_extra_arches import EXTRA_REGISTRY

        registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return [support.architecture for support in registry.architectures("detection")]


def _wrapped(found: Any, path: object) -> Foreign:
    """A Foreign of what spandrel describes; ValueError for what it cannot be used for."""
    name, channels = found.architecture.name, found.input_channels
    if found.purpose not in ("SR", "Restoration"):
        what = {"Inpainting": "fills holes by a mask", "FaceSR": "restores cut-out faces"}.get(found.purpose, "")
        raise ValueError(f"{path} holds a {name}, which {what or found.purpose}: give a network for whole pictures")
    if channels not in (1, 3) or found.output_channels != channels:
        raise ValueError(
            f"{path} holds a {name} that makes {found.output_channels} channels of {channels}: give a network that "
            "takes and makes 3 (colour) or 1 (grey)"
        )
    module, size = found.model.eval(), found.size_requirements
    adapter: Any = adapter_for(module)
    own = {} if adapter else {"call": found._call_fn}  # the public call clamps, and has no gradient
    return Foreign(
        module if adapter is None else adapter,
        name=name,
        scale=found.scale,
        channels=channels,
        window=math.lcm(size.multiple_of, _grid(module, found.architecture.id) if adapter is None else adapter.window),
        minimum=size.minimum,
        multiple=size.multiple_of,
        square=size.square,
        half=found.supports_half,
        bfloat=found.supports_bfloat16,
        **own,
    ).eval()


def _grid(module: nn.Module, architecture: str) -> int:
    """LR pixels after which a network's windows repeat."""
    sides = {1}
    for part in module.modules():
        for attribute in _SIDES:
            value = getattr(part, attribute, 1)
            values = value if isinstance(value, list | tuple) else [value]
            sides |= {side for side in values if isinstance(side, int) and side > 0}
    coarser = _COARSER.get(architecture, lambda m: 1)(module)
    return math.lcm(*sides) * coarser
