"""Figures of groups and gaps: every line, band and mark stands where it was planted."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from analysis360.errors import Analysis360Error
from analysis360.figures.biases import plot_gaps, plot_groups

GROUPS = {
    "gender": ["American_actors", "American_actresses"],
    "religious_ideology": ["islam", "atheism", "sikhism"],
}


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    plt.close("all")


def summary(checkpoints: int, measure: str = "mean", tokens: float = 1e9) -> pd.DataFrame:
    """Values that differ from row to row; atheism has no interval."""
    rows = [
        (f"ckpt_{k}", tokens * (k + 1), domain, group)
        for k in range(checkpoints)
        for domain, groups in GROUPS.items()
        for group in groups
    ]
    table = pd.DataFrame(rows, columns=["ckpt", "tokens", "domain", "group"])
    value = np.random.default_rng(0).uniform(0.1, 0.4, len(table))
    known = np.where(table["group"] == "atheism", np.nan, 0.05)
    extra = {"metric": "sentiment", "measure": measure, "n": 20, "titles": 9, "repetition": 0.25}
    return table.assign(value=value, low=value - known, high=value + known, scored="continuation", **extra)


@pytest.mark.parametrize(("measure", "scale"), [("mean", 1), ("positive", 100)])
def test_every_group_is_a_line_with_a_band(measure: str, scale: int) -> None:
    table = summary(5, measure)
    axes = plot_groups(table)
    assert [ax.get_title(loc="left") for ax in axes] == ["gender", "religious ideology"]
    for ax, (domain, groups) in zip(axes, GROUPS.items(), strict=True):
        bands = [part for part in ax.collections if isinstance(part, PolyCollection)]
        for group, band in zip(groups, bands, strict=True):
            own = table[(table["domain"] == domain) & (table["group"] == group)]
            [line] = [line for line in ax.lines if line.get_label() == group.replace("_", " ")]
            np.testing.assert_allclose(line.get_xdata(), own["tokens"])
            np.testing.assert_allclose(line.get_ydata(), scale * own["value"])
            if group == "atheism":
                assert not sum(len(path.vertices) for path in band.get_paths())
            else:
                y = band.get_paths()[0].vertices[:, 1]
                assert [y.min(), y.max()] == pytest.approx(
                    [scale * own["low"].min(), scale * own["high"].max()]
                )
        assert "of continuations; titles a group: 9; 25 % of pairs repeated" in ax.texts[0].get_text()
        assert ("(%)" in ax.get_ylabel()) == (scale == 100)


def test_checkpoints_of_unknown_tokens_stand_in_order() -> None:
    ax = plot_groups(summary(3, tokens=np.nan))[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ckpt_0", "ckpt_1", "ckpt_2"]
    assert "in order" in ax.get_xlabel()


def test_one_checkpoint_has_bars() -> None:
    ax = plot_groups(summary(1))[0]
    assert any(len(part.get_segments()) for part in ax.collections if hasattr(part, "get_segments"))


def gaps() -> pd.DataFrame:
    rows = [
        ("gender", "American_actors", "American_actresses", 0.3, 0.01),
        ("religious_ideology", "islam", "atheism", 0.1, np.nan),
        ("religious_ideology", "islam", "sikhism", -0.2, 0.2),
        ("religious_ideology", "atheism", "sikhism", -0.3, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["domain", "a", "b", "gap", "p_holm"])
    return table.assign(ckpt="ckpt_1", metric="sentiment", measure="mean", scored="paper")


def test_gaps_are_of_the_row_less_the_column() -> None:
    gender, religion = plot_gaps(gaps())
    grid = np.asarray(gender.images[0].get_array())
    assert [grid[0, 1], grid[1, 0]] == [0.3, -0.3]
    assert len(gender.lines) == 2  # both cells of the one gap that holds
    names = [label.get_text() for label in religion.get_yticklabels()]
    assert names == ["islam", "atheism", "sikhism"]
    assert np.asarray(religion.images[0].get_array())[2, 0] == 0.2
    assert not religion.lines
    hatched = {patch.get_xy() for patch in religion.patches if isinstance(patch, Rectangle)}
    assert hatched == {(x - 0.5, y - 0.5) for x, y in ((0, 1), (1, 0), (1, 2), (2, 1))}
    assert religion.images[0].get_clim() == (-0.3, 0.3)
    note = "of prompts and continuations without names\nrow less column"
    assert all(ax.texts[0].get_text().startswith(note) for ax in (gender, religion))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("groups", [2, 3, 9])
def test_cells_and_words_have_room_whatever_stands_beside_them(groups: int) -> None:
    names = [f"a_group_of_people_{i}" if groups > 2 else f"g{i}" for i in range(groups)]
    rows = [("one", a, b, 0.1, 0.5) for i, a in enumerate(names) for b in names[i + 1 :]]
    table = pd.DataFrame(rows, columns=["domain", "a", "b", "gap", "p_holm"])
    [ax] = plot_gaps(table.assign(ckpt="ckpt_1", metric="toxicity", measure="toxic", scored="continuation"))
    figure = ax.get_figure(root=True)
    figure.canvas.draw()
    box = ax.get_window_extent()
    assert 0.25 < box.width / groups / figure.dpi < 1
    assert all(label.get_window_extent().x0 >= 0 for label in ax.get_yticklabels())
    assert ax.texts[0].get_window_extent().x1 <= figure.bbox.x1
    assert ax.texts[0].get_window_extent().y1 <= figure.bbox.y1


def test_what_cannot_be_drawn_is_named() -> None:
    table = summary(2)
    with pytest.raises(Analysis360Error, match="continue some prompts first"):
        plot_groups(table.head(0))
    with pytest.raises(Analysis360Error, match="two values at a checkpoint"):
        plot_groups(pd.concat([table, table]))
    with pytest.raises(Analysis360Error, match="expected 2 Axes, one a domain, got 1"):
        plot_groups(table, [plt.subplots()[1]])
    with pytest.raises(Analysis360Error, match="has two gaps"):
        plot_gaps(pd.concat([gaps(), gaps()]))
    with pytest.raises(Analysis360Error, match="lacks the columns p_holm"):
        plot_gaps(gaps().drop(columns="p_holm"))
