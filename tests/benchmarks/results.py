"""Results at the size of the real thing: 360 checkpoints x 360 chunks x 1000 sequences, 129.6 million rows.

    python tests/benchmarks/results.py [--quick]

Correlation between checkpoints over the sequences that both had been trained on (checkpoint i has seen chunks
0 to i): `result.correlation`, with its held-out control, against `pandas.DataFrame.corr` of the same scores with
NaN where unseen, and against the bare matrix products of the same shapes in single precision, one a chunk, that
nobody can leave out. pandas walks all sequences for every pair of checkpoints, so it is timed on every tenth
sequence and multiplied by ten. Then Figure 8 of 28 checkpoints, from a new process to the drawn figure.

The stores are made up, in the format of real ones and by the same writer (some minutes; 1.6 GB for a while).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Line, Loaded, alone, figure, median, once, ratio, take_turns

EVERY = 10
SECONDS, MEGABYTES = 3.0, 1024.0


def store(folder: str, checkpoints: int, chunks: int, sequences: int) -> None:
    """Make a series and its results."""
    from synthetic_store import Synthetic, fill

    fill(Synthetic(Path(folder), checkpoints, chunks, sequences), sequences)


def opened(folder: str) -> Any:
    """The result, nothing of its rows read."""
    import analysis360 as a360

    how: dict[str, Any] = {"engine": "torch", "compute": False, "progress": False}
    return a360.memorization(f"{folder}/series", out=f"{folder}/results", **how)


def ours(folder: str) -> Callable[[], object]:
    """Figure 9's tables from a result that was read before."""
    result = opened(folder)
    return lambda: result.correlation("score").r


def from_the_store(folder: str) -> dict[str, Any]:
    """A new process: open the store, read it, correlate."""
    import analysis360.api  # noqa: F401 (imports are not what is timed here)

    began = time.perf_counter()
    opened(folder).correlation("score")
    return {"seconds": time.perf_counter() - began}


def products(checkpoints: int, chunks: int, sequences: int) -> Callable[[], object]:
    """The products alone: of every chunk, the rows of the checkpoints that have seen it."""
    import numpy as np

    done = np.round(np.linspace(chunks / checkpoints, chunks, checkpoints))
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 33, (checkpoints, sequences)).astype(np.float32)
    blocks = [counts[int((done <= chunk).sum()) :].copy() for chunk in range(chunks)]

    def run() -> None:
        for block in blocks:
            _ = block @ block.T

    return run


def by_pandas(folder: str, every: int) -> dict[str, Any]:
    """`DataFrame.corr` of every so-manieth sequence."""
    import numpy as np
    import pandas as pd

    result = opened(folder)
    matrix = result.matrix("score").iloc[:, ::every]
    chunk = matrix.columns.get_level_values("chunk")
    first = pd.Series(result.series.exposure.first(), [x.name for x in result.series.chunks])
    first = first.reindex(chunk).to_numpy()
    done = np.array([result.series.exposure.positions(x.index) for x in result.checkpoints])
    values = np.where(first[None, :] <= done[:, None], matrix.to_numpy(np.float64), np.nan)
    frame = pd.DataFrame(values.T[~np.isnan(first)])
    del matrix, values, result
    began = time.perf_counter()
    frame.corr()
    return {"seconds": (time.perf_counter() - began) * every}


def figure_8(folder: str) -> None:
    """Open the store and draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    opened(folder).plot_chunks().figure.savefig(f"{folder}/figure8.png")


def correlation(folder: str, quick: bool) -> list[Line]:
    """Against pandas and against the products."""
    size, sequences, every = (12, 1000, 1) if quick else (360, 1000, EVERY)
    shape = {"checkpoints": size, "chunks": size, "sequences": sequences}
    once(store, folder=folder, **shape)()
    with Loaded(ours, folder=folder) as warm, Loaded(products, **shape) as bare:
        contestants = {"ours": warm, "products": bare, "store": once(from_the_store, folder=folder)}
        rounds = take_turns(contestants, 1 if quick else 5)
        slow = take_turns({"ours": warm, "pandas": once(by_pandas, folder=folder, every=every)}, 1)
    what = f"correlation, {size} checkpoints x {size * sequences:,} sequences"
    pandas = slow[0]["pandas"].seconds
    rule = f", from every {every}th sequence" if every > 1 else ""
    return [
        Line(
            f"{what}: beside pandas",
            ratio(slow, "pandas", "ours"),
            at_least=20,
            detail=f"{slow[0]['ours'].seconds:.2f} s and {pandas:.0f} s{rule}",
        ),
        Line(
            f"{what}: opening and reading the store too, beside pandas without either",
            figure(rounds, lambda one: pandas / one["store"].seconds, "store"),
            detail=f"{median(rounds, 'store'):.1f} s and {pandas:.0f} s{rule}",
        ),
        Line(
            f"{what}: seconds beside those of the products alone",
            ratio(rounds, "ours", "products"),
            at_most=2,
            detail=f"{median(rounds, 'ours'):.2f} s and {median(rounds, 'products'):.2f} s",
        ),
        Line(
            f"{what}, from the store: peak memory beside {MEGABYTES:g} MB",
            figure(rounds, lambda one: one["store"].peak / MEGABYTES, "store"),
            at_most=1,
            detail=f"{max(one['store'].peak for one in rounds):.0f} MB",
        ),
    ]


def drawing(folder: str, quick: bool) -> list[Line]:
    """Figure 8, from a new process."""
    size, sequences = ((4, 8), 1000) if quick else ((28, 360), 1000)
    once(store, folder=folder, checkpoints=size[0], chunks=size[1], sequences=sequences)()
    rounds = take_turns({"figure": once(figure_8, folder=folder)}, 1 if quick else 7)
    what = f"Figure 8 of {size[0] * (size[1] + 4) * sequences:,} rows in a new process"
    peak = max(one["figure"].peak for one in rounds)
    return [
        Line(
            f"{what}: beside {SECONDS:g} s",
            figure(rounds, lambda one: one["figure"].seconds / SECONDS),
            at_most=1,
            detail=f"{median(rounds, 'figure'):.2f} s, imports and all",
        ),
        Line(
            f"{what}: peak memory beside {MEGABYTES:g} MB",
            figure(rounds, lambda one: one["figure"].peak / MEGABYTES),
            at_most=1,
            detail=f"{peak:.0f} MB",
        ),
    ]


def lines(quick: bool) -> list[Line]:
    """Correlation, then the figure."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/digests"
        return [*drawing(f"{scratch}/some", quick), *correlation(f"{scratch}/all", quick)]


if __name__ == "__main__":
    alone(lines, __doc__)
