"""A swap of checkpoints against a start: `load` of another checkpoint, verified, against a fresh process.

    python tests/benchmarks/swap.py [--quick]

A start is what a run for one checkpoint pays: the process, its imports, the engine, the first load. Both
models have tied embeddings, where a swap is hardest. Two checkpoints take turns, so that every swap is one.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness import Line, Loaded, alone, median, missing, once, ratio, take_turns
from materials import altered, seven_million


def opened(kind: str, folder: str) -> Any:
    """An engine with a first checkpoint, and how to load another."""
    from analysis360.engines import open_engine
    from analysis360.places import LocalFolder
    from analysis360.series import Checkpoint

    engine = open_engine(kind, dtype="float32", max_tokens=64)

    def load(place: str) -> None:
        engine.load(Checkpoint(Path(place).name, 0, LocalFolder(Path(place))))

    load(folder)
    return load


def start(kind: str, folder: str) -> None:
    """All that comes before the first sequence."""
    opened(kind, folder)


def swap(kind: str, folders: list[str]) -> Callable[[], None]:
    """One swap at each turn."""
    load, following = opened(kind, folders[0]), itertools.cycle(folders[1:] + folders[:1])
    return lambda: load(next(following))


def measure(name: str, folders: list[str], repeats: int) -> list[Line]:
    """Both engines on one model; one pair of contestants at a time, as memory is short."""
    found = []
    for kind in ("vllm", "torch"):
        with ExitStack() as stack:
            warm = stack.enter_context(Loaded(swap, kind=kind, folders=folders))
            rounds = take_turns({"start": once(start, kind=kind, folder=folders[0]), "swap": warm}, repeats)
        detail = f"{median(rounds, 'swap'):.2f} s and {median(rounds, 'start'):.1f} s"
        what = f"{name}: a swap of {kind} as a share of a start"
        found.append(Line(what, ratio(rounds, "swap", "start"), "%", at_most=0.05, detail=detail))
    return found


def lines(quick: bool) -> list[Line]:
    """A pretrained model of 135 M parameters, and a random one of 6.9 M."""
    from pretrained import smollm2
    from wheels import UnavailableError

    with tempfile.TemporaryDirectory() as scratch:
        seven = [str(seven_million(Path(scratch) / f"seven{i}", i, tied=True)) for i in range(2)]
        found = measure("6.9 M, random", seven, 1 if quick else 5)
        if quick:
            return found
        try:
            once(altered, source=str(smollm2()), folder=f"{scratch}/pretrained")()
            return measure("135 M, pretrained", [str(smollm2()), f"{scratch}/pretrained/000"], 5) + found
        except UnavailableError as error:
            return [missing("135 M, pretrained", str(error)), *found]


if __name__ == "__main__":
    alone(lines, __doc__)
