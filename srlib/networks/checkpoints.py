"""Model files: safetensors that carry the model's configuration, published checkpoints of the networks here, and those
of other networks that the library spandrel knows.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from safetensors.torch import save
from torch import Tensor, nn

from srlib.files import atomic
from srlib.networks.diffir import DiffIR
from srlib.networks.diffir_files import diffir_weights, is_diffir
from srlib.networks.eraser import TiledSR, eraser_config
from srlib.networks.foreign import Foreign, foreign, spandrel_version
from srlib.networks.hat import HAT
from srlib.networks.named_weights import weights_path
from srlib.networks.reading import hat_prefixes, read
from srlib.networks.restormer import Restormer
from srlib.networks.restormer_files import is_restormer, restormer_weights
from srlib.networks.wrappers import bare_names, unwrapped

_Model = TypeVar("_Model", bound=nn.Module)
# What tiles are put through.
NETWORKS: dict[str, type[nn.Module]] = {"HAT": HAT, "Restormer": Restormer, "DiffIR": DiffIR}


def save_model(path: Path | str, model: nn.Module, **facts: Any) -> Path:
    """Write the weights of `model` and, as metadata, its class name, its `config` and `facts` (JSON values).

    A HAT is written under the published names, so that other programs open it; of a compiled, parallel or averaged
    model the network inside is written. Atomic. Raises ValueError for a model without a `config`.
    """
    model = unwrapped(model)
    if not isinstance(getattr(model, "config", None), Mapping):
        raise ValueError(f"a {type(model).__name__} has no config, without which a file of it could not be loaded")
    metadata = {"kind": type(model).__name__, "config": json.dumps(model.config), "facts": json.dumps(facts)}
    state = {k: v.detach().cpu().contiguous() for k, v in bare_names(model.state_dict()).items()}
    with atomic(path, durable=True) as temporary:
        temporary.write_bytes(save(state, metadata))  # save_file's would be readable by its owner only
    return Path(path)


def load_model(path: Path | str, kind: type[_Model]) -> _Model:
    """The model of class `kind` that save_model wrote: kind(**config) with its weights, in eval mode.

    Raises FileNotFoundError, or ValueError for a file of another kind; the message names the file.
    """
    state, metadata = read(path)
    if _kind(metadata) not in ("OptimizedModule", kind.__name__):  # the former of older files
        raise ValueError(f"{path} holds {_kind(metadata) or 'a foreign model'}, not {kind.__name__}")
    return _filled(_built(kind, _config(metadata, path), path), state, path)


def load(
    path: Path | str,
    *,
    img_range: float | None = None,
    conv_scale: float | None = None,
    checkpointing: bool | None = None,
    answer: str | None = None,
    light: bool = False,
    **changes: Any,
) -> TiledSR:
    """The TiledSR in `path`; a bare HAT, Restormer or DiffIR, own or published, gets a new eraser (the identity), and
    so does any other network that spandrel knows, where that is installed. A name of
    srlib.networks.named_weights.NAMED stands for a file, too, unless a file has that name.

    img_range, conv_scale, checkpointing: arguments of HAT that no weight shows; None for the file's, which published
    files lack: then HAT's defaults. Other values of the first two than a file states are refused: its weights were
    trained with these. answer: of a network with two, "low" (None, too) or "high". light: whether the
    network may be one of log-mapped light, as 08_hdr trains it; of pictures it would make others, and wrong ones, so
    that without it ValueError is raised. changes: arguments of TiledSR that override the file's, such as use_tiling or
    tile_size.
    """
    told = {"img_range": img_range, "conv_scale": conv_scale, "checkpointing": checkpointing}
    told = {name: value for name, value in told.items() if value is not None}
    path = weights_path(path)
    state, config = _described(path)
    if isinstance(config, Foreign):
        if told or answer:
            raise ValueError(
                f"{path} holds a {config.name}: {', '.join(told) or 'answer'} is no setting of it, leave it out"
            )
        return TiledSR(cast(HAT, config), **changes).eval()
    kind = _network(config.pop("network", "HAT"), path)
    _agreed({"img_range": img_range, "conv_scale": conv_scale}, config.get("hat", config), kind, path)
    if "hat" not in config:
        if config.get("stage") == 1:
            raise ValueError(
                f"{path} holds DiffIR's first stage, which reads the ground truth and can restore nothing new: give "
                "the second"
            )
        if config.get("light") and not light:
            raise ValueError(f"{path} holds a network that makes light (HDR), not pictures: srlib hdr applies it")
        network = _answering(_filled(_built(kind, {**config, **told}, path), state, path), answer, path)
        return TiledSR(network, **changes).eval()
    network = _answering(_built(kind, {**config.pop("hat"), **told}, path), answer, path)
    model = _filled(_built(TiledSR, {"hat_model": network, **config, **changes}, path), state, path)
    model.gains = changes.get("gains", model.gains)  # the weights bring the file's, and its radius
    return model


def _agreed(told: Mapping[str, float | None], config: Mapping[str, Any], kind: type, path: Path | str) -> None:
    """Raise ValueError where one of HAT's arguments is told to another network, or is not what the file states."""
    for name, value in told.items():
        if value is None:
            continue
        if kind is not HAT:
            raise ValueError(f"{path} holds a {kind.__name__}: {name} is no setting of it, leave it out")
        if name in config and value != config[name]:
            raise ValueError(f"{path} was trained with {name} {config[name]}, not {value}: leave it out")


def load_hat(path: Path | str, **changes: Any) -> HAT:
    """The HAT in `path`: saved here (alone or inside a TiledSR), or a published checkpoint, whose
    configuration is read from the shapes of its weights.

    changes: arguments of HAT that no weight shows (conv_scale, img_range, drop_path_rate, ...).
    """
    state, config = _described(path)
    if isinstance(config, Foreign):
        raise ValueError(f"{path} holds a {config.name}, not a HAT")
    if (kind := config.pop("network", "HAT")) != "HAT":
        raise ValueError(f"{path} holds a {kind}, not a HAT")
    if "hat" in config:
        config, state = config["hat"], _below("hat_model.", state)
    return _filled(_built(HAT, {**config, **changes}, path), state, path)


def load_diffir(path: Path | str, **changes: Any) -> DiffIR:
    """The DiffIR in `path`, of either stage, saved here or published. changes: arguments that override the file's.

    Raises FileNotFoundError, or ValueError for a file of another network.
    """
    state, config = _described(path)
    kind = config.name if isinstance(config, Foreign) else config.pop("network", "HAT")
    if isinstance(config, Foreign) or kind != "DiffIR":
        raise ValueError(f"{path} holds a {kind}, not a DiffIR")
    return _filled(_built(DiffIR, {**config, **changes}, path), state, path)


def _described(path: Path | str) -> tuple[dict[str, Tensor], dict | Foreign]:
    """(weights, configuration) of the TiledSR, whose configuration has "hat", or of the network in a file; of another
    network than HAT the configuration has its name as "network". Where no configuration is in it, it is read from the
    weights, which may have a prefix before all names, or beside another network's; of what is none of the networks
    here, the network itself stands in its place. Raises ValueError for other models, and for several HATs in one file.
    """
    state, metadata = read(path)
    if config := _config(metadata, path):
        if _kind(metadata) not in ("TiledSR", "OptimizedModule", *NETWORKS):
            raise ValueError(f"{path} holds {_kind(metadata)}, not a TiledSR, {' or '.join(NETWORKS)}")
        if _kind(metadata) in NETWORKS:
            config["network"] = _kind(metadata)
        return state, {"radius": 0, **config} if "hat" in config else config  # older files have no radius
    prefixes = hat_prefixes(state)
    if len(prefixes) > 1:
        raise ValueError(f"{path} holds several HATs, {', '.join(prefixes)}: save one of them alone")
    prefix = prefixes[0] if prefixes else ""
    tiled = prefix.removesuffix("hat_model.")
    if tiled != prefix and f"{tiled}out_conv.weight" in state:
        state = _below(tiled, state)
        return state, {"hat": hat_config(_below("hat_model.", state), path), **eraser_config(state)}
    state = _below(prefix, state)
    if is_diffir(state):
        state, config = diffir_weights(state, path)
        return state, {**config, "network": "DiffIR"}
    if is_restormer(state):
        state, config = restormer_weights(state, path)
        return state, {**config, "network": "Restormer"}
    if not prefixes and (other := foreign(state, path)) is not None:
        return state, other
    return state, hat_config(state, path)


def _network(name: str, path: Path | str) -> type[nn.Module]:
    if name not in NETWORKS:
        raise ValueError(f"{path} holds a {name}, which this version does not know: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _answering(network: Any, answer: str | None, path: Path | str) -> Any:
    """The network, told which of its two answers is wanted. ValueError where it has one."""
    two = getattr(network, "answers", "") == "two"
    if answer and not two:
        raise ValueError(f"{path} holds a network with one answer: there is no {answer!r} to choose")
    if two:
        network.answer = answer or "low"
    return network


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _kind(metadata: Mapping[str, str]) -> str:
    return metadata.get("kind", "")


def _config(metadata: Mapping[str, str], path: Path | str) -> dict:
    """The configuration that save_model wrote; empty in other programs' files."""
    if not _kind(metadata):
        return {}
    try:
        config = json.loads(metadata.get("config", "{}"))
    except ValueError:
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("hat", {}), dict):
        raise ValueError(f"{path} is damaged, the configuration in it cannot be read: download or copy it again")
    return config


def hat_config(state: Mapping[str, Tensor], path: Path | str = "the checkpoint") -> dict:
    """HAT's arguments as far as the weights show them. Raises ValueError when they are not a HAT's."""
    block = "layers.0.residual_group.blocks.0."
    overlap_table = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    groups = len({k.split(".")[1] for k in state if k.startswith("layers.")})
    needed = ["conv_first.weight", "conv_last.weight", block + "attn.relative_position_bias_table", overlap_table]
    needed += [block + k for k in ("conv_block.cab.0.weight", "conv_block.cab.3.attention.1.weight", "mlp.fc1.weight")]
    needed += [f"layers.{g}.residual_group.blocks.0.attn.relative_position_bias_table" for g in range(groups)]
    missing = [k for k in needed if k not in state]
    if missing:
        version = spandrel_version()
        others = f"none that spandrel {version} knows" if version else "to read others install spandrel (srlib[any])"
        raise ValueError(
            f"{path} is none of HAT, Restormer and DiffIR, and {others}: it has no {missing[0]}, but "
            f"{', '.join(list(state)[:4])}, ..."
        )
    try:
        return _from_shapes(state, groups)
    except (LookupError, ValueError, ZeroDivisionError):
        raise ValueError(f"{path} is not a HAT: it has a HAT's names, but weights of other shapes") from None


def _from_shapes(state: Mapping[str, Tensor], groups: int) -> dict:
    block = "layers.0.residual_group.blocks.0."
    overlap_table = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    depths, heads = [], []
    for g in range(groups):
        prefix = f"layers.{g}.residual_group.blocks."
        depths.append(len({k.split(".")[4] for k in state if k.startswith(prefix)}))
        heads.append(state[f"{prefix}0.attn.relative_position_bias_table"].shape[1])
    embed_dim, in_chans = state["conv_first.weight"].shape[:2]
    window = (math.isqrt(state[block + "attn.relative_position_bias_table"].shape[0]) + 1) // 2
    key_window = math.isqrt(state[overlap_table].shape[0]) + 1 - window
    upsample = [v for k, v in state.items() if k.startswith("upsample.") and k.endswith(".weight")]
    return {
        "in_chans": in_chans,
        "upscale": math.prod(math.isqrt(v.shape[0] // v.shape[1]) for v in upsample),
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "compress_ratio": embed_dim // state[block + "conv_block.cab.0.weight"].shape[0],
        "squeeze_factor": embed_dim // state[block + "conv_block.cab.3.attention.1.weight"].shape[0],
        "overlap_ratio": _ratio(key_window - window, window),
        "mlp_ratio": _ratio(state[block + "mlp.fc1.weight"].shape[0], embed_dim),
        "num_feat": state["conv_last.weight"].shape[1],
    }


def _ratio(part: int, whole: int) -> float:
    """What `whole` is multiplied by and rounded down to give `part`."""
    ratio = part / whole
    return ratio if int(whole * ratio) == part else math.nextafter(ratio, math.inf)


def _built(kind: type[_Model], arguments: Mapping, path: Path | str) -> _Model:
    try:
        return kind(**arguments)
    except TypeError as error:  # an argument that this version does not have, or a misspelt change
        raise ValueError(f"{path} describes a {kind.__name__} that this version cannot build: {error}") from error


def _filled(model: _Model, state: Mapping[str, Tensor], path: Path | str) -> _Model:
    """Load the weights; on a mismatch name the first layer that differs and how."""
    own = model.state_dict()
    for name in own:
        if name not in state:
            raise ValueError(f"{path} lacks {name}, which this {type(model).__name__} has")
        if own[name].shape != state[name].shape:
            raise ValueError(
                f"{path}: {name} is {tuple(state[name].shape)}, this {type(model).__name__} needs "
                f"{tuple(own[name].shape)}"
            )
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ValueError(f"{path} has {unknown[0]}, unknown to this {type(model).__name__}")
    model.load_state_dict(state)
    return model.eval()
