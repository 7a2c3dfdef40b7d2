"""Validation pictures, shared out among the processes of a training."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from srlib.evaluation.counted import Pairs

_Scores = TypeVar("_Scores")


def scored_together(pairs: Pairs, score: Callable[[dict], _Scores]) -> list[_Scores]:
    """[score(item) for item in pairs], in their order and the same on all processes, each of which does its share."""
    process = PartialState()
    mine = range(process.process_index, len(pairs), process.num_processes)
    scores = [(index, score(pairs[index])) for index in mine]
    if process.num_processes > 1:
        scores = gather_object(scores)
    return [own for _, own in sorted(scores, key=lambda entry: entry[0])]
