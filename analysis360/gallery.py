"""Every figure of what is stored, or of a training run alone, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis360 import figures
from analysis360.biases import BiasResult
from analysis360.continued import TEXTS
from analysis360.errors import Analysis360Error, NotStoredError, StoreError
from analysis360.figures.drawing import write_whole
from analysis360.figures.evaluations import plot_benchmarks
from analysis360.figures.stages import Stage
from analysis360.metrics import read_log, stages_of
from analysis360.perplexities import PerplexityResult
from analysis360.results import MemorizationResult
from analysis360.series import Series
from analysis360.tasks.bold import TASK

MEMORIZED = (
    *("summary", "figure7_distribution", "figure8_chunks", "figure9_score", "figure9_extractible"),
    *("exposure", "canaries"),
)
NEED_SCORES = ("figure7_distribution", "figure9_score", "exposure")
Drawings = dict[str, Callable[[], Axes]]


def draw_all(result: MemorizationResult, to: Path) -> Iterator[str]:
    """Draw the training run, Figures 7, 8 and 9, canaries, exposure and summary as PNG and PDF.

    Yields a line for each: its paths, or why the result has nothing to draw there; and one line for all
    that would need scores where only extractibility is known.
    """
    _prepare(to)
    drawings = _drawings(result)
    if not result.task.how.scored:
        removed = _remove(to, NEED_SCORES)
        for name in NEED_SCORES:
            del drawings[name]
        yield f"not drawn: {', '.join(NEED_SCORES)}: they need scores; run with --metric score{removed}"
    for name, draw in drawings.items():
        try:
            ax = draw()
        except Analysis360Error as error:
            yield f"{name}: not drawn: {error}{_remove(to, [name])}"
            continue
        yield _save(ax, to / name)


def draw_training(series: Series, to: Path, missing: NotStoredError) -> Iterator[str]:
    """Draw the training run alone: that needs its metrics only, and nothing stored.

    Yields a line for each figure, and one that says why there are no others: `missing`, which is raised where
    there are no metrics to draw either.
    """
    matplotlib.use("Agg")
    try:
        drawn = {name: draw() for name, draw in _training(series).items()}
    except Analysis360Error as error:
        missing.add_note(f"nor can training be drawn: {error}")
        drawn = {}
    if not drawn:
        raise missing
    _prepare(to)
    for name, ax in drawn.items():
        yield _save(ax, to / name)
    yield f"not drawn: what is memorized: {missing}{_remove(to, MEMORIZED)}"


def draw_evaluations(series: Series, summary: pd.DataFrame, to: Path) -> Iterator[str]:
    """Draw benchmarks over training, Figures 4 and 6. Yields a line as `draw_all` does."""
    _prepare(to)
    stages = [Stage(*stage) for stage in stages_of(series)]
    yield _save(plot_benchmarks(summary, stages=stages)[0], to / "figure4_benchmarks")


def draw_losses(results: Iterable[PerplexityResult], to: Path) -> Iterator[str]:
    """Draw loss over training, of chunks and of text, a figure for each window. Yields a line as `draw_all` does."""
    for result in results:
        _prepare(to)
        how = result.task.how
        name = (
            f"perplexity_chunks_{how.window}" if how.chunks else f"perplexity_text_{how.window}_{how.stride}"
        )
        name += "" if how.chunks or how.prefix else "_no_prefix"
        name += f"_seed_{how.seed}" if how.seed else ""
        yield _save(result.plot(), to / name)


def draw_biases(result: BiasResult, to: Path) -> Iterator[str]:
    """Draw groups over training and gaps at the last checkpoint, and write a table. Yields lines as `draw_all`.

    Files are named after the task, and after the text that is scored where it is not the continuation alone.
    """
    _prepare(to)
    task, text = result.continued.task.name, result.continued.text
    name = task if text == TEXTS[0] else f"{task}_{text}"
    measure = None if task == TASK else result.continued.metrics[0].measures[-1]
    yield _save(result.plot(measure=measure)[0], to / f"{name}_groups")
    try:
        yield _save(result.plot_gaps(measure=measure)[0], to / f"{name}_gaps")
    except Analysis360Error as error:
        yield f"{name}_gaps: not drawn: {error}{_remove(to, [f'{name}_gaps'])}"
    tables = [to / f"{name}{suffix}" for suffix in (".md", ".tex")]
    for path, form in zip(tables, ("markdown", "latex"), strict=True):
        write_whole(path, result.table(form=form).encode())
    yield "  ".join(map(str, tables))


def _prepare(to: Path) -> None:
    """A folder to draw into, without a screen."""
    matplotlib.use("Agg")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"figures folder {to} is not writable: {error.strerror}; choose another --to"
        ) from None


def _save(ax: Axes, base: Path) -> str:
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    png, pdf = figures.save(figure, base)
    return f"{png}  {pdf}"


def _remove(to: Path, names: Iterable[str]) -> str:
    """Remove older figures, which would be taken for this result's; says which, for the end of a line."""
    files = [to / f"{name}{suffix}" for name in names for suffix in (".png", ".pdf")]
    there = [str(file) for file in files if file.exists()]
    for file in there:
        Path(file).unlink(missing_ok=True)
    return f"; removed from an earlier run: {'  '.join(there)}" if there else ""


def _training(series: Series) -> Drawings:
    """What the metrics alone show; nothing for a series without any."""
    log = cache(lambda: read_log(series))
    count = len(series.checkpoints)
    drawings: Drawings = {
        "figure3_loss": lambda: figures.plot_loss(log().metrics, events=log().events, checkpoints=count),
        "figure3_training": lambda: figures.plot_training(*log(), count)[0],
    }
    return drawings if series.manifest.metrics else {}


def _drawings(result: MemorizationResult) -> Drawings:
    drawings: Drawings = {
        "summary": lambda: figures.plot_summary(result.summary()),
        "figure7_distribution": result.plot_distribution,
        "figure8_chunks": result.plot_chunks,
        "figure9_score": lambda: result.correlation("score").plot(),
        "figure9_extractible": lambda: result.correlation("extractible").plot(),
        "exposure": result.plot_exposure,
    }
    drawings |= _training(result.series)
    if result.series.canaries:
        drawings["canaries"] = lambda: result.plot_canaries()[0]
    return drawings
