"""Every figure of a memorization result, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis360 import figures
from analysis360.errors import Analysis360Error, StoreError
from analysis360.results import MemorizationResult

NEED_SCORES = ("figure7_distribution", "figure9_score", "exposure")


def draw_all(result: MemorizationResult, to: Path) -> Iterator[str]:
    """Draw the loss curve, Figures 7, 8 and 9, canaries, exposure and summary as PNG and PDF.

    Yields a line for each: its paths, or why the result has nothing to draw there; and one line for all
    that would need scores where only extractibility is known.
    """
    matplotlib.use("Agg")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"figures folder {to} is not writable: {error.strerror}; choose another --to"
        ) from None
    drawings = _drawings(result)
    if not result.task.how.scored:
        for name in NEED_SCORES:
            del drawings[name]
            _remove(to / name)
        yield f"not drawn: {', '.join(NEED_SCORES)}: they need scores; run with --metric score"
    for name, draw in drawings.items():
        try:
            figure = draw().get_figure()
        except Analysis360Error as error:
            _remove(to / name)
            yield f"{name}: not drawn: {error}"
            continue
        assert isinstance(figure, Figure)
        png, pdf = figures.save(figure, to / name)
        yield f"{png}  {pdf}"


def _remove(base: Path) -> None:
    """An older figure would be taken for this result's."""
    for suffix in (".png", ".pdf"):
        base.with_suffix(suffix).unlink(missing_ok=True)


def _drawings(result: MemorizationResult) -> dict[str, Callable[[], Axes]]:
    drawings: dict[str, Callable[[], Axes]] = {
        "summary": lambda: figures.plot_summary(result.summary()),
        "figure7_distribution": result.plot_distribution,
        "figure8_chunks": result.plot_chunks,
        "figure9_score": lambda: result.correlation("score").plot(),
        "figure9_extractible": lambda: result.correlation("extractible").plot(),
        "exposure": result.plot_exposure,
    }
    if result.series.manifest.metrics:
        drawings["figure3_loss"] = lambda: figures.plot_loss(result.metrics())
    if result.series.canaries:
        drawings["canaries"] = lambda: result.plot_canaries()[0]
    return drawings
