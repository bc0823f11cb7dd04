"""Benchmarks over training: every value, interval, stage and gap stands where it was planted, and can be read."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D

from analysis360 import figures
from analysis360.errors import Analysis360Error
from analysis360.figures import Stage
from analysis360.figures.evaluations import CHANCE

PAPER = ["ARC", "HellaSwag", "MMLU", "TruthfulQA", "HumanEval", "MBPP"]
METRICS = dict(zip(PAPER, ["acc_norm", "acc_norm", "acc", "mc2", "pass@1", "pass@1"], strict=True))
STAGES = [Stage("first half", 0, 345e9), Stage("with code", 345e9, 1272e9), Stage("code", 1272e9, 1382e9)]
quick = settings(deadline=None, database=None, max_examples=25)


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


def frame(
    checkpoints: int, benchmarks: list[str] = PAPER[:4], series: str = "amber", total: float = 1.382e12
) -> pd.DataFrame:
    """Values and errors that differ from row to row."""
    rows = [
        (series, f"ckpt_{i:03d}", total * (i + 1) / checkpoints, name, METRICS[name], n)
        for n, name in enumerate(benchmarks, 100)
        for i in range(checkpoints)
    ]
    made = pd.DataFrame(rows, columns=["series", "ckpt", "tokens", "benchmark", "metric", "n"])
    draws = np.random.default_rng(len(made))
    return made.assign(value=draws.uniform(0.2, 0.7, len(made)), stderr=draws.uniform(0.01, 0.03, len(made)))


def of(table: pd.DataFrame, benchmark: str, series: str = "amber") -> pd.DataFrame:
    return table[(table["benchmark"] == benchmark) & (table["series"] == series)].sort_values("tokens")


def line(ax: Axes, label: str = "amber") -> Line2D:
    [found] = [line for line in ax.lines if line.get_label() == label]
    return found


def bars(ax: Axes) -> list[list[float]]:
    """x, low and high of every error bar."""
    collections = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_gid() != "stages"]
    return [[s[0][0], s[0][1], s[1][1]] for c in collections for s in c.get_segments()]


def stages_of(ax: Axes) -> list[float]:
    [lines] = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_gid() == "stages"]
    assert lines.get_linestyle()[0][1] is not None
    return [float(segment[0][0]) for segment in lines.get_segments()]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def interval(part: pd.DataFrame) -> tuple[Any, Any]:
    value, error = (part[name].to_numpy() for name in ("value", "stderr"))
    return 100 * (value - 1.96 * error), 100 * (value + 1.96 * error)


@pytest.mark.parametrize("checkpoints", [1, 4, 36, 360])
@pytest.mark.parametrize("several", [False, True], ids=["one series", "three series"])
def test_every_value_is_drawn_in_percent_over_tokens_and_can_be_read(checkpoints: int, several: bool) -> None:
    names = ["amber", "b", "c"] if several else ["amber"]
    table = pd.concat([frame(checkpoints, PAPER, name) for name in names])
    axes = figures.plot_benchmarks(table.sample(frac=1, random_state=0), stages=STAGES)
    assert [ax.get_title(loc="left") for ax in axes] == PAPER
    figure = axes[0].figure
    figure.canvas.draw()
    for ax, benchmark in zip(axes, PAPER, strict=True):
        for name in names:
            part = of(table, benchmark, name)
            np.testing.assert_array_equal(line(ax, name).get_xdata(), part["tokens"])
            np.testing.assert_allclose(line(ax, name).get_ydata(), 100 * part["value"])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("tokens trained", f"{METRICS[benchmark]} (%)")
        legible(ax)


def legible(ax: Axes) -> None:
    """Tick labels lie apart, and all that is written lies within the figure."""
    renderer = ax.figure.canvas.get_renderer()
    for labels, low, high in ((ax.get_xticklabels(), "x0", "x1"), (ax.get_yticklabels(), "y0", "y1")):
        boxes = sorted(
            (t.get_window_extent(renderer) for t in labels if t.get_text()), key=lambda b: getattr(b, low)
        )
        assert all(getattr(a, high) <= getattr(b, low) for a, b in itertools.pairwise(boxes))
    for text in [*ax.texts, ax.xaxis.label, ax.yaxis.label]:
        box = text.get_window_extent(renderer)
        assert ax.figure.bbox.x0 <= box.x0 <= box.x1 <= ax.figure.bbox.x1, text.get_text()
        assert ax.figure.bbox.y0 <= box.y0 <= box.y1 <= ax.figure.bbox.y1, text.get_text()


def test_few_checkpoints_have_bars_and_many_a_band() -> None:
    few, many = frame(12), frame(13)
    for ax, name in zip(figures.plot_benchmarks(few), PAPER, strict=False):
        part = of(few, name)
        np.testing.assert_allclose(bars(ax), np.stack([part["tokens"], *interval(part)], axis=1))
        assert f"n = {part['n'].iloc[0]}; bars: 95 %" in texts(ax)
    for ax, name in zip(figures.plot_benchmarks(many), PAPER, strict=False):
        part = of(many, name)
        [band] = [c for c in ax.collections if isinstance(c, PolyCollection)]
        for x, low, high in zip(part["tokens"], *interval(part), strict=True):
            y = band.get_paths()[0].vertices[np.isclose(band.get_paths()[0].vertices[:, 0], x), 1]
            assert (y.min(), y.max()) == (pytest.approx(low), pytest.approx(high))
        assert not bars(ax)
        assert f"n = {part['n'].iloc[0]}; band: 95 %" in texts(ax)


def test_intervals_end_at_0_and_100_percent_and_unknown_errors_have_none() -> None:
    table = frame(3, ["ARC"]).assign(value=[0.01, 0.5, 0.99], stderr=[0.1, np.nan, 0.1])
    [ax] = figures.plot_benchmarks(table)
    np.testing.assert_allclose([bar[1:] for bar in bars(ax)], [[0, 20.6], [79.4, 100]])
    [ax] = figures.plot_benchmarks(table.assign(stderr=np.nan, n=np.nan))
    assert not bars(ax)
    assert "" in texts(ax)


@quick
@given(st.integers(13, 60).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n)).filter(any))
def test_missing_values_are_gaps_and_what_stands_alone_is_marked(known: list[bool]) -> None:
    table = frame(len(known), ["ARC"])
    table.loc[~np.array(known), "value"] = np.nan
    [ax] = figures.plot_benchmarks(table)
    y = np.asarray(line(ax).get_ydata(), float)
    assert np.isfinite(y).tolist() == known
    lone = [k and True not in known[max(i - 1, 0) : i] + known[i + 1 : i + 2] for i, k in enumerate(known)]
    assert [bar[0] for bar in bars(ax)] == table["tokens"][lone].tolist()
    if len(known) > 40:
        assert line(ax).get_marker() in ("", "None")
        [marks] = [m for m in ax.lines if m.get_linestyle() == "None"]
        np.testing.assert_array_equal(marks.get_xdata(), table["tokens"][lone])
    plt.close("all")


def test_chance_is_a_dotted_line_where_it_is_known_or_given() -> None:
    def lines(axes: tuple[Axes, ...]) -> list[list[float]]:
        return [[float(y.get_ydata()[0]) for y in ax.lines if y.get_linestyle() == ":"] for ax in axes]

    table = frame(5)
    assert lines(figures.plot_benchmarks(table)) == [[25], [25], [25], []]
    axes = figures.plot_benchmarks(table, chance={**CHANCE, "TruthfulQA": 0.225})
    assert lines(axes)[3] == [22.5]
    assert "chance\n22.5 %" in texts(axes[3])
    assert lines(figures.plot_benchmarks(table, chance={})) == [[], [], [], []]


def test_chance_is_what_the_frame_says_where_it_does() -> None:
    table = frame(5).assign(chance=np.nan)
    table.loc[table["benchmark"] == "ARC", "chance"] = 0.2505
    axes = figures.plot_benchmarks(table)
    assert [[y.get_ydata()[0] for y in ax.lines if y.get_linestyle() == ":"] for ax in axes] == [
        [25.05],
        [],
        [],
        [],
    ]
    axes = figures.plot_benchmarks(table, chance={"MMLU": 0.3})
    assert [[y.get_ydata()[0] for y in ax.lines if y.get_linestyle() == ":"] for ax in axes] == [
        [],
        [],
        [30],
        [],
    ]


def test_what_is_no_fraction_is_drawn_as_it_is() -> None:
    for metric, value in (("word_perplexity", 20.0), ("bits_per_byte", 0.9), ("bleu", 31.0)):
        table = frame(5, ["ARC"]).assign(metric=metric, value=value, stderr=0.5 * value)
        [ax] = figures.plot_benchmarks(table)
        assert ax.get_ylabel() == metric
        assert not any(text.startswith("chance") for text in texts(ax))
        np.testing.assert_allclose(line(ax).get_ydata(), value)
        np.testing.assert_allclose([bar[1:] for bar in bars(ax)], [[0.02 * value, 1.98 * value]] * 5)


def test_what_was_never_asked_has_no_panel() -> None:
    table = frame(5, ["ARC"])
    table.loc[5] = {**table.loc[4], "ckpt": "ckpt_005", "metric": "", "value": np.nan}
    assert len(figures.plot_benchmarks(table)) == 1


def test_stages_part_the_panels_by_name_as_far_as_training_went() -> None:
    for ax in figures.plot_benchmarks(frame(143, PAPER), stages=STAGES):
        assert stages_of(ax) == [345e9, 1272e9]
        assert set(texts(ax)) >= {"first half", "with code", "code"}
    for ax in figures.plot_benchmarks(frame(143, total=1.2e12), stages=STAGES):
        assert stages_of(ax) == [345e9]
        assert "code" not in texts(ax)


def test_without_tokens_checkpoints_stand_in_their_order_and_the_axis_says_so() -> None:
    table = frame(20, ["ARC", "MMLU"]).assign(tokens=np.nan)
    order = [f"ckpt_{i:03d}" for i in range(20)]
    shuffled = table.sample(frac=1, random_state=0)
    shuffled["ckpt"] = pd.Categorical(shuffled["ckpt"], ["unused", *order], ordered=True)
    for made in (table, shuffled):
        for ax, name in zip(figures.plot_benchmarks(made, stages=STAGES), ["ARC", "MMLU"], strict=True):
            assert ax.get_xlabel() == "checkpoints in order\n(tokens trained unknown, so no stages)"
            np.testing.assert_array_equal(line(ax).get_xdata(), np.arange(20))
            np.testing.assert_allclose(line(ax).get_ydata(), 100 * table[table["benchmark"] == name]["value"])
            assert [label.get_text() for label in ax.get_xticklabels()][-1] == "ckpt_019"
            assert "first half" not in texts(ax)
            ax.figure.canvas.draw()
            legible(ax)
    one_unknown = frame(20, ["ARC"])
    one_unknown.loc[3, "tokens"] = np.nan
    both = pd.concat([one_unknown, frame(7, ["ARC"], "b")])
    [ax] = figures.plot_benchmarks(both)
    assert ax.get_xlabel() == "checkpoints in order\n(tokens trained unknown)"
    np.testing.assert_array_equal(line(ax, "b").get_xdata(), np.arange(7))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_series_differ_in_shade_and_shape_and_are_named(count: int) -> None:
    names = [f"series ${i}$" for i in range(count)]
    table = pd.concat([frame(5, series=name) for name in names])
    axes = figures.plot_benchmarks(table)
    [key] = axes[0].figure.legends
    labels = [text.get_text() for text in key.get_texts()]
    assert labels == [name.replace("$", r"\$") for name in names]
    for ax in axes:
        lines = [line(ax, label) for label in labels]
        assert len({mpl.colors.to_hex(each.get_color()) for each in lines}) == count
        assert len({(each.get_marker(), str(each.get_linestyle())) for each in lines}) == count
    _, given_axes = plt.subplots(2, 2)
    figures.plot_benchmarks(table, given_axes.ravel())
    assert [len(text.get_texts()) for text in [given_axes[1, 1].get_legend()]] == [count]


def test_given_axes_are_used_and_a_metric_has_a_panel_of_its_own() -> None:
    table = frame(4, ["TruthfulQA", "ARC"])
    table = pd.concat([table, table.assign(metric="acc"), frame(4, ["MBPP"]).assign(benchmark="BOLD")])
    made, given_axes = plt.subplots(1, 5)
    before = plt.get_fignums()
    assert figures.plot_benchmarks(table, given_axes) == tuple(given_axes)
    assert plt.get_fignums() == before
    titles = [(ax.get_title(loc="left"), ax.get_ylabel()) for ax in made.axes]
    assert titles == [
        ("ARC", "acc_norm (%)"),
        ("ARC", "acc (%)"),
        ("TruthfulQA", "mc2 (%)"),
        ("TruthfulQA", "acc (%)"),
        ("BOLD", "pass@1 (%)"),
    ]
    with pytest.raises(Analysis360Error, match="expected 5 Axes, one a benchmark and metric, got 2"):
        figures.plot_benchmarks(table, given_axes[:2])


def test_what_cannot_be_drawn_is_said() -> None:
    table = frame(3)
    refused = {
        "lacks the columns stderr": table.drop(columns="stderr"),
        "the table is empty; evaluate some checkpoints first": table[:0],
        "no checkpoint has a value": table.assign(value=np.nan),
        "amber, ckpt_000, ARC, acc_norm: two values": pd.concat([table, table]),
    }
    for message, bad in refused.items():
        with pytest.raises(Analysis360Error, match=message):
            figures.plot_benchmarks(bad)
    assert not plt.get_fignums()
    table.loc[table["benchmark"] == "MMLU", "value"] = np.nan
    axes = figures.plot_benchmarks(table)
    assert ["no checkpoint has a value" in texts(ax) for ax in axes] == [False, False, True, False]
