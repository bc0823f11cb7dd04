"""Asking only which sequences are extractible, against scoring all of each: the gain, and that both agree.

    python tests/benchmarks/cheaper.py [--quick]

A score needs every token of the continuation; whether it is recalled word for word does not.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Figure, Line, alone, median, once, ratio, take_turns
from materials import demo_series


def measured(folder: str, metric: str, ckpts: str, chunks: str, sequences: int) -> dict[str, Any]:
    """One run with an empty store, from the call to the result, and the outcome of each sequence."""
    import analysis360 as a360
    from analysis360.engines import torch_engine  # noqa: F401 (imported before the clock starts)

    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        asked: dict[str, Any] = {"chunks": chunks, "sequences": sequences, "engine": "torch"}
        result = a360.memorization(folder, ckpts, metric=metric, out=out, progress=False, **asked)
        seconds = time.perf_counter() - began
        frame = result.frame()
    names = [name for name in ("ckpt", "chunk", "position", "row") if name in frame]
    keys = frame[names].astype(str).agg("/".join, axis=1)
    outcomes = frame["extractible"].astype(bool)
    return {"seconds": seconds, "outcomes": dict(zip(keys, outcomes.tolist(), strict=True))}


def lines(quick: bool) -> list[Line]:
    """The gain on the demo series, and the share of sequences whose outcome is the same."""
    import inspect

    from harness import missing

    import analysis360 as a360

    if "metric" not in inspect.signature(a360.memorization).parameters:
        return [missing("extractible alone beside scores", "memorization takes no metric yet")]
    with tempfile.TemporaryDirectory() as scratch:
        what = demo_series(Path(scratch) / "demo")
        selection = {"ckpts": "3:36:16", "chunks": "0:36:12", "sequences": 16}
        if not quick:
            selection = {"ckpts": "3:36:8", "chunks": "0:36:3", "sequences": 128}
        given = {"folder": str(Path(scratch) / "demo"), **selection}
        names = ("score", "extractible")
        rounds = take_turns({name: once(measured, metric=name, **given) for name in names}, 1 if quick else 5)
    score, cheap = (rounds[-1][name].facts["outcomes"] for name in names)
    alike = sum(cheap.get(key) == outcome for key, outcome in score.items()) / len(score)
    sure = sum(score.values())
    rates = f"{median(rounds, 'extractible'):.1f} s and {median(rounds, 'score'):.1f} s"
    return [
        Line(f"{what}: extractible alone beside scores", ratio(rounds, "score", "extractible"), detail=rates),
        Line(
            f"{what}: extractible the same either way",
            Figure(alike, alike, alike),
            "%",
            at_least=1,
            detail=f"{len(score):,} sequences, {sure:,} extractible",
        ),
    ]


if __name__ == "__main__":
    alone(lines, __doc__)
