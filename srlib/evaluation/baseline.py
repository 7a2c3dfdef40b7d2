"""What models are compared with: bicubic upscaling, or, where they keep the size, the picture as it came in."""

from collections.abc import Iterable

BASELINES = ("bicubic", "input")


def baseline(scale: int) -> str:
    """The name under which `evaluate` scores what models of this scale are compared with."""
    return BASELINES[0] if scale > 1 else BASELINES[1]


def in_words(name: str) -> str:
    """A baseline's name in a sentence: "bicubic", "the input"."""
    return name if name == BASELINES[0] else f"the {name}"


def baseline_of(variants: Iterable[str]) -> str:
    """The baseline among the variants of an evaluation. Raises KeyError where none is."""
    given = set(variants)
    for name in BASELINES:
        if name in given:
            return name
    raise KeyError(f"none of {', '.join(BASELINES)} is among {', '.join(sorted(given))}")
