"""A whole study end to end, against what people do; and memory at 36 and at 360 checkpoints.

    python tests/benchmarks/sweep.py [--quick]

36 checkpoints x 36 chunks x 16 sequences of the demo series, one command, nothing stored before. The
published way loads the model and reads the chunk for each of the 1296 pairs and generates at batch 32; a
careful script starts a fresh vLLM engine a checkpoint and gives it all prompts at once. Of both a stated
part is run and multiplied: pairs are timed one by one, imports once; checkpoints as whole processes.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peers
from harness import Contestant, Figure, Line, Run, alone, command, figure, median, once, ratio, take_turns
from materials import SMALL, altered, demo_series, random_llama, write_chunk, write_manifest

K = L = 32


def ours(series: Path, sequences: int, *more: str) -> Contestant:
    """The command, with an empty store at each turn."""
    words = [sys.executable, "-m", "analysis360.cli", "memorization", "--series", str(series)]
    words += ["--sequences", str(sequences), "--engine", "torch", *more]

    def run() -> Run:
        with tempfile.TemporaryDirectory() as out:
            return command([*words, "--out", out])()

    return run


def times(contestant: Contestant, factor: Callable[[Run], float]) -> Contestant:
    """A contestant whose seconds are extrapolated from a part."""

    def run() -> Run:
        part = contestant()
        return replace(part, seconds=factor(part))

    return run


def part_of(everything: list[tuple[str, str]], size: int) -> list[tuple[str, str]]:
    """Pairs spread evenly."""
    return everything[:: max(1, len(everything) // size)][:size]


def end_to_end(folder: Path, quick: bool) -> list[Line]:
    """The command against the two peers."""
    size, sequences, repeats = (3, 4, 1) if quick else (36, 16, 3)
    what = demo_series(folder, size, size)
    chunks = [f"train/{i:03d}.jsonl" for i in range(size)]
    pairs = list(itertools.product([f"checkpoints/{i:03d}" for i in range(size)], chunks))
    sample = part_of(pairs, 4 if quick else 36)
    given = {"folder": str(folder), "sequences": sequences, "k": K, "n": L}

    def all_pairs(run: Run) -> float:
        each: list[float] = run.facts["pairs"]
        return run.seconds - sum(each) + statistics.mean(each) * len(pairs)

    def all_checkpoints(run: Run) -> float:
        return run.seconds * size

    one = f"checkpoints/{size // 2:03d}"
    contestants = {
        "ours": ours(folder, sequences),
        "published": times(once(peers.published, pairs=sample, **given), all_pairs),
        "careful": times(once(peers.careful, checkpoint=one, chunks=chunks, **given), all_checkpoints),
    }
    rounds = take_turns(contestants, repeats)
    parts = {"published": f"{len(sample)} of {len(pairs)} pairs", "careful": f"1 of {size} checkpoints"}
    names = {"published": "the published pipeline", "careful": "a vLLM script, an engine a checkpoint"}
    return [
        Line(
            f"{what}, {size} x {size} x {sequences}: sweep (torch) beside {names[peer]}",
            ratio(rounds, peer, "ours"),
            at_least=5,
            detail=f"{median(rounds, 'ours'):.0f} s and {median(rounds, peer):,.0f} s, from {parts[peer]}",
        )
        for peer in parts
    ]


def many(folder: Path, checkpoints: int) -> Path:
    """A series of very small models, each another content."""
    shape = {**SMALL, "num_hidden_layers": 2, "vocab_size": 2048}
    once(random_llama, folder=str(folder / "model"), **shape)()
    once(altered, source=str(folder / "model"), folder=str(folder / "checkpoints"), copies=checkpoints)()
    for i in range(2):
        write_chunk(folder / f"train/{i:03d}.jsonl", i, rows=8, row_tokens=65, vocabulary=2048)
    write_manifest(folder, "many", checkpoints, 2, 65)
    return folder


def memory(folder: Path, quick: bool) -> Line:
    """The largest resident set of the same command at ten times the checkpoints."""
    few, all_of_them = (3, 30) if quick else (36, 360)
    series = many(folder, all_of_them)
    contestants = {"few": ours(series, 4, "--ckpts", f"0:{few}"), "all": ours(series, 4)}
    rounds = take_turns(contestants, 1 if quick else 3)
    found: Figure = figure(rounds, lambda one: one["all"].peak / one["few"].peak)
    peaks = [statistics.median(one[name].peak for one in rounds) for name in ("all", "few")]
    what = f"peak memory of a sweep at {all_of_them} checkpoints beside {few}"
    return Line(what, found, at_most=1.1, detail=f"{peaks[0]:.0f} MB and {peaks[1]:.0f} MB")


def lines(quick: bool) -> list[Line]:
    """Time, then memory."""
    with tempfile.TemporaryDirectory() as scratch:
        return [
            *end_to_end(Path(scratch) / "demo", quick),
            memory(Path(scratch) / "many", quick),
        ]


if __name__ == "__main__":
    alone(lines, __doc__)
