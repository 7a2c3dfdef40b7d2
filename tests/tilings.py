"""Tilings for tests: plan and run in one call."""

from dataclasses import fields

from srlib.tiling.plan import plan_tiles
from srlib.tiling.tiled import Execution, auto_plan, tiled_apply

HOW = {field.name for field in fields(Execution)}


def tiled(model, x, *, tile, halo, window=1, offset=(0, 0), **options):
    """tiled_apply with a plan of these tiles (or "auto"); options: its own and those of Execution."""
    how = Execution(**{name: options.pop(name) for name in HOW & options.keys()})
    if tile == "auto":
        plan, options = auto_plan(model, x, halo=halo, window=window, how=how), {"batch": 1, **options}
    else:
        plan = plan_tiles(*x.shape[-2:], tile=tile, halo=halo, window=window, offset=offset)
    return tiled_apply(model, x, plan, how=how, **options)
