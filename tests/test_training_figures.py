"""Figures of the training run: every mark stands where it was planted, and nothing planted is thinned away."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import same_color

from analysis360 import figures
from analysis360.errors import Analysis360Error
from analysis360.figures.drawing import VERMILLION
from analysis360.figures.training import COLUMNS, MARKS, extremes

STEP_TOKENS = 4_000_000
STAGES = ("first half", "text and code", "code")


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


def run(steps: int, stages: tuple[str, ...] = ("all",), chunks: int = 10) -> pd.DataFrame:
    """A quiet run: stages of equal length, chunks of equal length, no spike and nothing given up."""
    step = np.arange(steps)
    noise = np.random.default_rng(0).normal(0, 0.02, steps)
    chunk = step * chunks // steps
    columns = {
        "step": step,
        "chunk": chunk,
        "stage": np.array(stages)[step * len(stages) // steps],
        "position": chunk,
        "tokens": (step + 1) * STEP_TOKENS,
        "loss": 2 + 4 * np.exp(-step / steps * 50) + noise,
        "learning_rate": 3e-4 * (1 - 0.9 * step / steps),
        "gradient_norm": np.exp(noise),
        "tokens_per_second": 1e5 * (1 + noise),
        "mfu": 0.4 * (1 + noise),
        "spike": np.where(step < 5, np.nan, noise),
    }
    return pd.DataFrame(columns)


def abandoned(*places: tuple[int, int]) -> pd.DataFrame:
    """Events of (chunk, tokens)."""
    why = {"event": "abandoned", "loss": None, "gradient_norm": None, "reason": "the loss is not finite"}
    return pd.DataFrame([{**why, "chunk": c, "position": c, "step": 0, "tokens": t} for c, t in places])


def verticals(ax: Axes, dashed: bool) -> list[float]:
    """Tokens of the vertical lines between stages (dashed), or at what was given up."""
    found = [
        x for x in ax.collections if isinstance(x, LineCollection) and (x.get_gid() == "stages") is dashed
    ]
    for lines in found:
        assert (lines.get_linestyle()[0][1] is not None) is dashed
        for segment in lines.get_segments():
            (x0, y0), (x1, y1) = segment
            assert (x0, y0, y1) == (x1, 0, 1)
            assert lines.get_transform().transform((x0, 0))[0] == ax.transData.transform((x0, 0))[0]
    return [float(segment[0][0]) for lines in found for segment in lines.get_segments()]


def legend(ax: Axes) -> list[str]:
    found = ax.get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


def line(ax: Axes, start: str) -> Any:
    return next(x for x in ax.lines if str(x.get_label()).startswith(start))


def note(ax: Axes) -> str:
    return next(text.get_text() for text in ax.texts if " step" in text.get_text())


def test_stages_are_parted_by_dashed_lines_and_named_over_their_middle() -> None:
    ax = figures.plot_loss(run(300, STAGES))
    assert verticals(ax, dashed=True) == [100 * STEP_TOKENS, 200 * STEP_TOKENS]
    ax.figure.canvas.draw()
    names = {text.get_text(): text for text in ax.texts if text.get_text() in STAGES}
    assert list(names) == list(STAGES)
    for i, name in enumerate(STAGES):
        box = names[name].get_window_extent()
        middle = ax.transData.inverted().transform(((box.x0 + box.x1) / 2, 0))[0]
        assert middle == pytest.approx((50 + 100 * i) * STEP_TOKENS, abs=10 * STEP_TOKENS)
        assert box.y0 > ax.bbox.y1
    assert "3 stages" in note(ax)


@pytest.mark.parametrize("without", [[], ["stage"]])
def test_one_stage_is_neither_parted_nor_named(without: list[str]) -> None:
    ax = figures.plot_loss(run(300).drop(columns=without))
    assert verticals(ax, dashed=True) == []
    assert not [text for text in ax.texts if text.get_text() == "all"]
    assert "stage" not in note(ax)


def test_a_stage_that_comes_again_with_the_first_chunks_is_a_stretch_of_its_own() -> None:
    ax = figures.plot_loss(run(300, ("first", "second", "first")))
    assert verticals(ax, dashed=True) == [100 * STEP_TOKENS, 200 * STEP_TOKENS]
    assert [text.get_text() for text in ax.texts][:3] == ["first", "second", "first"]
    assert "2 stages" in note(ax)


def test_a_stage_named_like_a_formula_is_a_name(tmp_path: Path) -> None:
    ax = figures.plot_loss(run(400, ("$x_{$", "50 % $a$")))
    figures.save(ax.figure, tmp_path / "drawn")  # a formula that does not parse would stop it


def test_names_of_many_stages_never_overlap() -> None:
    names = tuple(f"stage {i} of web text" for i in range(25))
    ax = figures.plot_loss(run(500, names))
    assert len(verticals(ax, dashed=True)) == 24
    assert "25 stages" in note(ax)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 5
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    title = ax._left_title.get_window_extent()  # type: ignore[attr-defined]
    assert not any(title.overlaps(box) for box in boxes)


def test_names_of_narrow_stages_stay_within_the_axes() -> None:
    metrics = run(300).assign(stage="a long middle")
    metrics.loc[:3, "stage"], metrics.loc[296:, "stage"] = "the very first stage", "the last of the stages"
    ax = figures.plot_loss(metrics)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if "stage" in text.get_text()][:2]
    assert len(boxes) == 2
    assert all(ax.bbox.x0 - 1 <= box.x0 < box.x1 <= ax.bbox.x1 + 1 for box in boxes)


def test_the_median_does_not_cross_a_change_of_stage() -> None:
    metrics = run(10_000, ("a", "b"))
    metrics["loss"] = np.where(metrics["stage"] == "a", 3.0, 2.0)
    ax = figures.plot_loss(metrics)
    smooth = line(ax, "median of 100 steps")
    x, y = smooth.get_xdata(), smooth.get_ydata()
    np.testing.assert_array_equal(y, np.where(x <= 5000 * STEP_TOKENS, 3.0, 2.0))


def test_chunks_given_up_are_marked_where_that_was_and_listed() -> None:
    events = abandoned((7, 123_000_000), (2, 611_500_000))
    ax = figures.plot_loss(run(300), events=events)
    label = "given up: 2 chunks (7, 2)"
    assert label in legend(ax)
    mark = line(ax, label)
    assert list(mark.get_xdata()) == [123_000_000, 611_500_000]
    assert same_color(mark.get_markerfacecolor(), VERMILLION)
    assert mark.get_transform().transform((123e6, 0.5))[0] == ax.transData.transform((123e6, 0))[0]
    assert verticals(ax, dashed=False) == [123_000_000, 611_500_000]


def test_many_chunks_given_up_are_counted_and_again_is_said() -> None:
    events = abandoned(*((c, c * 10**7) for c in range(17)), (3, 10**9))
    events = pd.concat([events, pd.DataFrame([{"event": "resumed", "chunk": 99, "tokens": 5}])])
    ax = figures.plot_loss(run(300), events=events)
    assert "given up: 17 chunks, 18 times" in legend(ax)
    one = figures.plot_loss(run(300), events=abandoned((4, 10**8)))
    assert "given up: 1 chunk (4)" in legend(one)


def test_what_was_given_up_beyond_the_last_step_is_in_the_figure() -> None:
    ax = figures.plot_loss(run(100), events=abandoned((9, 200 * STEP_TOKENS)))
    assert ax.get_xlim()[1] > 200 * STEP_TOKENS
    assert ax.get_xlim()[0] < STEP_TOKENS


def test_no_events_leave_no_mark() -> None:
    for events in (None, pd.DataFrame(), abandoned().reindex(columns=["event", "chunk", "tokens"])):
        ax = figures.plot_loss(run(300), events=events)
        assert verticals(ax, dashed=False) == []
        assert legend(ax) == ["each step", "median of 3 steps"]


def test_spikes_are_marked_on_the_line_and_counted_from_the_threshold_on() -> None:
    metrics = run(300)
    for step, spike, loss in ((150, 6.0, 2.5), (250, 40.0, 3.0), (200, 5.99, 2.4)):
        metrics.loc[step, ["spike", "loss"]] = (spike, loss)
    ax = figures.plot_loss(metrics)
    label = "spike: 6 robust σ or more (2 steps)"
    assert label in legend(ax)
    mark = line(ax, label)
    assert list(mark.get_xdata()) == [151 * STEP_TOKENS, 251 * STEP_TOKENS]
    assert list(mark.get_ydata()) == [2.5, 3.0]


def test_a_spike_that_leaves_the_figure_is_marked_at_its_edge() -> None:
    metrics = run(3000)
    metrics.loc[2000, ["spike", "loss"]] = (500.0, 80.0)
    ax = figures.plot_loss(metrics)
    low, high = ax.get_ylim()
    assert high < 20
    height = line(ax, "spike").get_ydata()[0]
    assert high - 0.1 * (high - low) < height < high
    assert not any(line(ax, "spike").get_window_extent().overlaps(t.get_window_extent()) for t in ax.texts)


def test_neighbouring_spikes_are_one_mark_at_the_highest_and_all_are_counted() -> None:
    metrics = run(100_000)
    metrics.loc[50_000:50_400, "spike"] = 7.0
    metrics.loc[50_000:50_400, "loss"] = 2.3
    metrics.loc[50_200, "loss"] = 2.6
    ax = figures.plot_loss(metrics)
    mark = line(ax, "spike: 6 robust σ or more (401 steps)")
    assert len(mark.get_xdata()) <= 2
    assert (50_201 * STEP_TOKENS, 2.6) in list(zip(mark.get_xdata(), mark.get_ydata(), strict=True))
    metrics["spike"] = 9.0
    many = line(figures.plot_loss(metrics), "spike: 6 robust σ or more (100,000 steps)")
    assert len(many.get_xdata()) <= MARKS


def test_one_step_of_300_000_stays_in_every_line() -> None:
    metrics = run(300_000, STAGES, chunks=3000)
    planted = {
        "loss": 3.75,
        "gradient_norm": 90.0,
        "learning_rate": 9e-4,
        "tokens_per_second": 9e5,
        "mfu": 0.99,
    }
    dips = {"loss": 1.25, "gradient_norm": 1e-3, "tokens_per_second": 50.0, "mfu": 0.001}
    metrics.loc[123_457, list(planted)] = list(planted.values())
    metrics.loc[223_459, list(dips)] = list(dips.values())
    start = time.process_time()
    axes = figures.plot_training(metrics)
    seconds = time.process_time() - start
    assert len(axes) == 5
    for ax, (name, high) in zip(axes, planted.items(), strict=True):
        x, y = ax.lines[0].get_data()
        scale = 100 if name == "mfu" else 1
        points = set(zip(x, y, strict=True))
        assert (123_458 * STEP_TOKENS, high * scale) in points, name
        assert name not in dips or (223_460 * STEP_TOKENS, dips[name] * scale) in points, name
        assert 3 * COLUMNS < len(x) <= 4 * (COLUMNS + 2) or name == "learning_rate"
        assert (x[0], x[-1]) == (STEP_TOKENS, 300_000 * STEP_TOKENS)
        assert (np.diff(x) > 0).all()
    assert seconds < 2


def test_300_000_steps_are_drawn_within_two_seconds() -> None:
    metrics = run(300_000, STAGES, chunks=3000)
    metrics.loc[::1000, "spike"] = 8.0
    events = abandoned(*((c, c * 10**9) for c in range(40)))
    figures.plot_loss(run(100)).figure.savefig(io.BytesIO())  # fonts
    start = time.process_time()
    figures.plot_loss(metrics, events=events).figure.savefig(io.BytesIO(), dpi=200)
    assert time.process_time() - start < 2


@given(st.data())
def test_extremes_are_those_of_every_group(data: st.DataObject) -> None:
    number = st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")))
    y = np.array(data.draw(st.lists(number, min_size=1, max_size=40)))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(y) - 1)), max_size=5))) if len(y) > 1 else []
    kept = extremes(y, np.array(cuts, np.int64))
    assert (np.diff(kept) > 0).all()
    for start, end in itertools.pairwise([0, *cuts, len(y)]):
        group = y[start:end]
        inside = kept[(kept >= start) & (kept < end)]
        assert {start, end - 1} <= set(inside)
        assert len(inside) <= 4
        if not np.isnan(group).all():
            assert np.nanmin(y[inside]) == np.nanmin(group)
            assert np.nanmax(y[inside]) == np.nanmax(group)


def test_a_hundred_steps_are_drawn_as_they_are() -> None:
    metrics = run(100)
    every = line(figures.plot_loss(metrics), "each step")
    np.testing.assert_array_equal(every.get_ydata(), metrics["loss"])
    np.testing.assert_array_equal(every.get_xdata(), metrics["tokens"])


@pytest.mark.parametrize(("steps", "back"), [(200, 20), (40_000, 4000), (40_000, 3)])
def test_the_line_breaks_where_weights_were_put_back(steps: int, back: int) -> None:
    metrics, half = run(steps), steps * 3 // 7
    metrics.loc[half:, "tokens"] -= back * STEP_TOKENS
    x, y = line(figures.plot_loss(metrics), "each step").get_data()
    (gap,) = np.flatnonzero(np.isnan(x))
    assert np.isnan(y[gap])
    assert x[gap - 1] == metrics["tokens"][half - 1]
    assert x[gap + 1] == metrics["tokens"][half] < x[gap - 1]


@pytest.mark.parametrize("steps", [300, 300_000])
def test_losses_that_are_not_finite_are_a_gap_and_counted(steps: int) -> None:
    metrics = run(steps)
    bad = slice(steps // 2, steps // 2 + steps // 10)
    metrics.loc[bad, "loss"] = np.nan
    metrics.loc[steps // 2, "loss"] = np.inf
    ax = figures.plot_loss(metrics)
    label = f"not finite ({steps // 10 + 1:,} steps)"
    assert label in legend(ax)
    tokens = metrics.loc[bad, "tokens"]
    x, y = line(ax, "each step").get_data()
    assert not np.isfinite(y[(x >= tokens.min()) & (x <= tokens.max())]).any()
    strokes = line(ax, label).get_xdata()
    assert (strokes.min(), strokes.max()) == pytest.approx((tokens.min(), tokens.max()), rel=1e-2)
    assert len(strokes) <= COLUMNS / 8


@pytest.mark.parametrize("loss", [[None, None, None], [2.0, None, 2.0], [2.0, 2.0, 2.0]])
def test_few_steps_null_losses_and_constants_are_drawn(loss: list[float | None]) -> None:
    metrics = run(3).assign(loss=pd.Series(loss, dtype=object), mfu=None, spike=None, gradient_norm=0.0)
    for ax in (figures.plot_loss(metrics), figures.plot_training(metrics)[0], figures.plot_loss(metrics[:1])):
        ax.figure.canvas.draw()


def test_the_note_counts_steps_tokens_chunks_and_checkpoints() -> None:
    metrics = run(1000, chunks=10)
    assert note(figures.plot_loss(metrics)) == "1,000 steps, 4B tokens, 10 chunks"
    # chunk 3 is given up at its place, and chunk 0 completes the schedule
    metrics["chunk"] = metrics["chunk"].replace(9, 0)
    events = abandoned((3, 10**9))
    expected = "1,000 steps, 4B tokens, 9 chunks (1 repeated), 9 checkpoints"
    assert note(figures.plot_loss(metrics, events=events, checkpoints=9)) == expected
    assert note(figures.plot_training(metrics, events, 9)[0]) == expected
    assert note(figures.plot_loss(run(1).drop(columns=["chunk", "position"]))) == "1 step, 4M tokens"


def test_training_draws_what_is_known_over_one_axis() -> None:
    axes = figures.plot_training(run(300, STAGES), abandoned((1, 10**8)))
    labels = [" ".join(ax.get_ylabel().split()) for ax in axes]
    assert labels[0] == "loss (nats per token)"
    assert labels[1:] == [
        "gradient norm",
        "learning rate ($10^{-4}$)",
        "tokens per second",
        "model FLOP utilisation (%)",
    ]
    assert axes[1].get_yscale() == "log"
    assert len({ax.get_xlim() for ax in axes}) == 1
    assert [ax.get_xlabel() for ax in axes] == ["", "", "", "", "tokens trained"]
    for ax in axes:
        assert verticals(ax, dashed=True) == [100 * STEP_TOKENS, 200 * STEP_TOKENS]
        assert verticals(ax, dashed=False) == [10**8]
    assert axes[4].lines[0].get_ydata()[0] == pytest.approx(40, abs=3)
    axes[0].figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_training_leaves_out_what_an_old_file_or_this_machine_does_not_know() -> None:
    old = run(300)[["step", "chunk", "tokens", "loss", "learning_rate", "gradient_norm"]]
    assert [ax.get_ylabel()[:8] for ax in figures.plot_training(old)] == ["loss\n(na", "gradient", "learning"]
    assert len(figures.plot_training(run(300).assign(mfu=None))) == 4
    assert len(figures.plot_training(run(300)[["tokens", "loss"]])) == 1


@pytest.mark.parametrize("plot", [figures.plot_loss, figures.plot_training])
def test_a_run_without_a_step_is_said(plot: Any) -> None:
    with pytest.raises(Analysis360Error, match="the table is empty; no step has been trained yet"):
        plot(run(1)[:0])


@pytest.mark.parametrize("plot", [figures.plot_loss, lambda m, events: figures.plot_training(m, events)[0]])
def test_the_legend_is_below_the_axes_and_fits_the_figure(plot: Any) -> None:
    metrics = run(60_000).assign(spike=7.0)
    metrics.loc[40_000:, "loss"] = np.nan
    events = abandoned(*((100 + c, c * 10**9) for c in [*range(4), *range(4)]))
    ax = plot(metrics, events=events)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert len(legend(ax)) == 5
    assert box.y1 < ax.bbox.y0
    assert ax.figure.bbox.x0 <= box.x0 < box.x1 <= ax.figure.bbox.x1
    assert not ax.xaxis.label.get_window_extent().overlaps(box) or not ax.get_xlabel()
