"""Every figure of a memorization result, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis360 import figures, summaries
from analysis360.errors import StoreError
from analysis360.results import MemorizationResult


def draw_all(result: MemorizationResult, to: Path) -> Iterator[Path]:
    """Draw the loss curve, Figures 7, 8 and 9, canaries, exposure and summary; yields each PNG and PDF."""
    matplotlib.use("Agg")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"figures folder {to} is not writable: {error.strerror}; choose another --to"
        ) from None
    for name, draw in _drawings(result).items():
        axes = draw()
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        yield from figures.save(figure, to / name)


def _drawings(result: MemorizationResult) -> dict[str, Callable[[], Axes]]:
    frame = result.frame()
    drawings: dict[str, Callable[[], Axes]] = {
        "summary": lambda: figures.plot_summary(result.summary()),
        "figure7_distribution": result.plot_distribution,
        "figure8_chunks": result.plot_chunks,
        "figure9_score": lambda: result.correlation("score").plot(),
        "figure9_extractible": lambda: result.correlation("extractible").plot(),
        "exposure": result.plot_exposure,
    }
    metrics = result.metrics()
    if metrics is not None and len(metrics):
        drawings["figure3_loss"] = lambda: figures.plot_loss(metrics)
    if result.series.canaries:
        drawings["canaries"] = lambda: _canaries(result, frame)
    return drawings


def _canaries(result: MemorizationResult, frame: pd.DataFrame) -> Axes:
    listed = result.series.manifest.canaries
    ordinary = listed.ordinary_ids if listed else None
    check = (
        summaries.control_check(frame, ordinary, result.task.how.continuation_tokens) if ordinary else None
    )
    axes = figures.plot_canaries(summaries.canary_curves(frame), check)
    return axes[0] if isinstance(axes, tuple | list) else axes
