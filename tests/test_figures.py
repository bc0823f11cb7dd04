"""Figures of 9, 36 and 360 checkpoints: what they draw, that they can be read, and that they are reproducible."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh

from analysis360 import figures, summaries
from analysis360.errors import Analysis360Error

_spec = importlib.util.spec_from_file_location(
    "synthetic_frame", Path(__file__).with_name("synthetic_frame.py")
)
synthetic_frame = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic_frame)


def metrics(steps=4000):
    step = np.arange(steps)
    loss = 2 + 6 * np.exp(-step / 60) + np.random.default_rng(0).normal(0, 0.05, steps)
    loss[1000:1002] = np.nan
    return pd.DataFrame({"step": step, "tokens": step * 4e6, "loss": loss, "learning_rate": 3e-4})


@pytest.fixture(scope="module", params=[(9, 40), (36, 10), (360, 2)], ids=lambda p: f"{p[0]} checkpoints")
def tables(request):
    checkpoints, sequences = request.param
    frame = synthetic_frame.make_frame(checkpoints, max(checkpoints, 36), sequences)
    counts = {"train": max(checkpoints, 36), "held-out": 3}
    grid = summaries.grid_of(frame, 32)
    return {
        "n": checkpoints,
        "summary": summaries.summary(grid, counts),
        "distribution": summaries.distribution(grid),
        "chunks": summaries.chunk_groups(grid),
        "correlation": summaries.correlations(grid),
        "phi": summaries.correlations(grid, "extractible"),
        "curves": summaries.canary_curves(frame),
        "control": summaries.control_check(frame, 2000, 32),
        "exposure": summaries.exposure_profile(grid),
    }


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def draw(tables):
    yield figures.plot_distribution(tables["distribution"])
    yield figures.plot_chunks(tables["chunks"])
    yield figures.plot_chunks(tables["chunks"], held_out=tables["summary"])
    yield figures.plot_correlation(tables["correlation"])
    if tables["phi"].r.notna().any(axis=None):
        yield figures.plot_correlation(tables["phi"])
    yield from figures.plot_canaries(tables["curves"], tables["control"])
    yield figures.plot_exposure(tables["exposure"])
    yield figures.plot_summary(tables["summary"])
    yield figures.plot_loss(metrics())


def overlaps(labels, renderer, axis):
    boxes = [t.get_window_extent(renderer) for t in labels if t.get_text() and t.get_visible()]
    low, high = ("x0", "x1") if axis == "x" else ("y0", "y1")
    boxes.sort(key=lambda box: getattr(box, low))
    return any(getattr(a, high) > getattr(b, low) for a, b in itertools.pairwise(boxes))


def test_every_figure_is_titled_labelled_and_legible(tables):
    for ax in draw(tables):
        ax.figure.canvas.draw()
        renderer = ax.figure.canvas.get_renderer()
        assert ax.get_title(loc="left")
        assert ax.get_xlabel()
        assert any(
            "sequences" in t or "canaries" in t or "steps" in t or "%" in t or "n =" in t for t in texts(ax)
        )
        if not ax.get_xticklabels()[0].get_rotation():
            assert not overlaps(ax.get_xticklabels(), renderer, "x"), ax.get_title(loc="left")
        assert not overlaps(ax.get_yticklabels(), renderer, "y"), ax.get_title(loc="left")
        note = next(t for t in ax.texts if t.get_fontsize() == 8)
        assert note.get_window_extent(renderer).x1 <= ax.figure.bbox.x1


def texts(ax):
    legend = ax.get_legend()
    return [t.get_text() for t in ax.texts] + ([t.get_text() for t in legend.get_texts()] if legend else [])


def test_a_given_ax_is_used_and_returned(tables):
    _, (one, two) = plt.subplots(1, 2)
    before = plt.get_fignums()
    assert figures.plot_summary(tables["summary"], one) is one
    assert figures.plot_chunks(tables["chunks"], two) is two
    assert figures.plot_canaries(tables["curves"], axes=[one, two]) == (one, two)
    assert plt.get_fignums() == before


def test_distribution_writes_n_and_the_share_at_one(tables):
    ax = figures.plot_distribution(tables["distribution"])
    last = tables["distribution"].iloc[-1]
    assert f"{100 * last['extractible_share']:.2f} %   n = {last['n']:,}" in texts(ax)
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows[-1] == str(last["ckpt"])
    assert len(rows) == (9 if tables["n"] == 9 else 18)


def test_chunks_mark_the_latest_group_of_every_checkpoint(tables):
    ax = figures.plot_chunks(tables["chunks"])
    if tables["n"] > figures.ROWS_AS_LINES:
        assert ax.get_ylabel() == "checkpoint"
        return
    marks = [line for line in ax.lines if line.get_marker() == "o" and line.get_linestyle() == "None"]
    assert len(marks) == tables["n"]
    latest = tables["chunks"][tables["chunks"]["latest"]]
    assert [line.get_ydata()[0] for line in marks] == pytest.approx(100 * latest["score_mean"])
    assert "(%)" in ax.get_ylabel()


def test_correlation_writes_numbers_only_where_they_fit(tables):
    ax = figures.plot_correlation(tables["correlation"])
    numbers = [t for t in texts(ax) if t.replace(".", "").replace("-", "").isdigit()]
    assert len(numbers) == (81 if tables["n"] == 9 else 0)


def test_canaries_and_what_chance_allows(tables):
    left, right = figures.plot_canaries(tables["curves"], tables["control"])
    labels = texts(right)
    assert [t for t in labels if t.endswith("×")] == ["1 ×", "4 ×", "16 ×", "64 ×"]
    # a band of one in a hundred would not be seen beside the lines
    assert "never (n = 6)\nchance (99.9 %): up to 1 %" in labels
    assert any(label.startswith("first planted") for label in labels)
    assert left.get_xlim() == right.get_xlim()
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1
    assert not left.collections
    wide = tables["control"].assign(hits_high=tables["control"]["tokens_scored"] // 10)
    left, right = figures.plot_canaries(tables["curves"], wide)
    assert {"never (n = 6)", "chance (99.9 %)"} <= set(texts(right))
    assert len(left.collections) == 1


def test_a_planting_of_several_kinds_is_explained(tables):
    together = tables["curves"].assign(planted_first_tokens=1e9)
    apart = tables["curves"].assign(planted_first_tokens=1e9 * tables["curves"]["repeats"])
    for curves, label in ((together, "first planted\n(black: several kinds)"), (apart, "first planted")):
        assert label in texts(figures.plot_canaries(curves)[1])


def test_lines_of_canaries_differ_in_shade_and_shape(tables):
    _, right = figures.plot_canaries(tables["curves"])
    lines = [line for line in right.lines if line.get_label().endswith("×")]
    assert len({line.get_color() for line in lines}) == len(lines) == 4
    if tables["n"] <= 40:
        assert len({line.get_marker() for line in lines}) == 4


def test_a_legend_of_exposure_hides_no_interval(tables):
    ax = figures.plot_exposure(tables["exposure"])
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_few_chunk_lines_have_bands_and_each_its_name(tables):
    ax = figures.plot_chunks(tables["chunks"])
    if tables["n"] > 12:
        return
    bands = {tuple(band.get_facecolor()[0]) for band in ax.collections if isinstance(band, PolyCollection)}
    assert len(bands) == 3
    named = {text.get_text(): text.xy for text in ax.texts if text.get_text().startswith("ckpt_")}
    discs = [line for line in ax.lines if line.get_marker() == "o" and line.get_linestyle() == "None"]
    assert [named[str(name)] for name in tables["chunks"]["ckpt"].unique()] == [
        (disc.get_xdata()[0], disc.get_ydata()[0]) for disc in discs
    ]
    assert ax.get_legend() is None
    last = tables["chunks"]["group"] == tables["chunks"]["group"].max()
    shared = figures.plot_chunks(tables["chunks"].assign(latest=last))  # names would lie upon one another
    assert len(shared.get_legend().get_texts()) == tables["n"]


def test_what_is_zero_or_undefined_everywhere_is_not_drawn(tables):
    zero = tables["chunks"].assign(score_mean=0.0)
    with pytest.raises(Analysis360Error, match="0 for every checkpoint and chunk"):
        figures.plot_chunks(zero)
    undefined = replace(tables["correlation"], r=tables["correlation"].r * np.nan)
    with pytest.raises(Analysis360Error, match="undefined between every two checkpoints: scores do not vary"):
        figures.plot_correlation(undefined)
    assert not plt.get_fignums()


@pytest.mark.parametrize("checkpoints", [9, 45])
def test_without_scores_the_extractible_share_is_drawn(checkpoints):
    frame = synthetic_frame.make_frame(checkpoints, 45, 40)
    frame = frame.assign(score=np.float32(np.nan), score_in_document=np.float32(np.nan))
    grid = summaries.grid_of(frame, 32)
    table = summaries.summary(grid, {"train": 45, "held-out": 3})
    curves = summaries.canary_curves(frame)
    ax = figures.plot_summary(table)
    assert (ax.get_ylabel(), ax.get_title(loc="left")) == (SHARE, "Extractibility over training")
    line = next(line for line in ax.lines if line.get_label().startswith("trained text"))
    assert line.get_ydata() == pytest.approx(100 * shares(table[table["group"] == "trained text"]))
    left, _ = figures.plot_canaries(curves)
    assert left.get_ylabel() == SHARE
    never = next(line for line in left.lines if line.get_linestyle() == "--")
    assert never.get_ydata() == pytest.approx(100 * shares(curves[curves["repeats"] == 0]))
    ax = figures.plot_chunks(summaries.chunk_groups(grid), held_out=table)
    assert ax.get_title(loc="left") == "Extractibility by when the text was seen"
    bar = [other.get_ylabel() for other in ax.figure.axes if other is not ax]
    assert SHARE in [ax.get_ylabel(), *bar]
    for found in [ax, *left.figure.axes[:2]]:
        drawn = [line.get_ydata() for line in found.lines]
        drawn += [mesh.get_array() for mesh in found.collections if isinstance(mesh, QuadMesh)]
        dots = [dots.get_offsets()[:, 1] for dots in found.collections if isinstance(dots, PathCollection)]
        for y in [*drawn, *dots]:
            assert not len(y) or np.isfinite(np.ma.filled(np.ma.asarray(y, float), np.nan)).any()


SHARE = "extractible sequences (%)"


def shares(table):
    return table.sort_values("tokens")["extractible_share"].to_numpy()


def test_loss_counts_steps_that_were_not_finite():
    ax = figures.plot_loss(metrics())
    assert "not finite (2 steps)" in texts(ax)
    assert "nats per token" in ax.get_ylabel()
    figures.plot_loss(metrics(1).drop(columns="learning_rate"))


@pytest.mark.parametrize(
    "plot", [figures.plot_loss, figures.plot_distribution, figures.plot_chunks, figures.plot_exposure]
)
def test_nothing_to_draw_is_said(plot):
    with pytest.raises(Analysis360Error, match="lacks the columns"):
        plot(pd.DataFrame())


def test_an_empty_table_is_said():
    with pytest.raises(Analysis360Error, match="the table is empty"):
        figures.plot_loss(metrics(0))


def test_saved_bytes_do_not_depend_on_when(tmp_path):
    first = figures.save(figures.plot_loss(metrics(300)).figure, tmp_path / "a.v1")
    time.sleep(1.1)
    second = figures.save(figures.plot_loss(metrics(300)).figure, str(tmp_path / "b.v1"))
    assert [p.name for p in first] == ["a.v1.png", "a.v1.pdf"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.v1.pdf", "a.v1.png", "b.v1.pdf", "b.v1.png"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    figure = figures.plot_loss(metrics(300)).figure

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Analysis360Error, match="No space left"):
        figures.save(figure, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Analysis360Error, match="cannot write"):
        figures.save(figure, tmp_path / "no" / "a")


def test_importing_changes_no_pyplot_state():
    # MPLBACKEND: merely reading every rcParam would otherwise choose a backend, and load pyplot for it
    code = (
        "import matplotlib as m; before = dict(m.rcParams); import sys, analysis360.figures;"
        "assert dict(m.rcParams) == before, 'rcParams'; assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'"
    )
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parents[1])
