"""JSON lines drawn by windows: exactly uniform, and one panel whichever way the file is read."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import (
    WIDTH,
    WatchedFolder,
    big,
    big_draw,
    by_lines,
    by_windows,
    chi_square,
    chunk_of,
    draw,
    lines_of,
    row_of,
    same,
    text_of,
)
from test_streams import slow_key, splitmix64

from analysis360.panel import lines as lines_module
from analysis360.panel.whole import draws, lines_hit
from analysis360.panel.windows import Windows
from analysis360.places import LocalFolder
from analysis360.series import Chunk, Layout

AMBER = Path(__file__).resolve().parents[3] / "shared/data/amber/train_143.jsonl"
quick = settings(deadline=None, database=None, max_examples=100)


@pytest.fixture(autouse=True)
def no_file_is_small(monkeypatch):
    """Files of tests are small; whether they are read whole is left to their cost."""
    monkeypatch.setattr(lines_module, "SMALL", 0)


def unequal(folder, **how):
    """30 rows; every third is about 100 times as long as the others, and has its own source."""
    rows = [row_of(i, 1600 if i % 3 == 0 else WIDTH, "long" if i % 3 == 0 else "s") for i in range(30)]
    return chunk_of(folder, rows, **how)


def starts_of(chunk):
    """Byte at which each line starts, by Python's own reading."""
    kept = text_of(chunk).splitlines(keepends=True)
    return [sum(map(len, kept[:i])) for i in range(len(kept))]


@st.composite
def files(draw_one, least=1):
    """Rows of lengths that differ up to a hundredfold, with or without a newline at the end."""
    lengths = draw_one(st.lists(st.sampled_from([4, 5, 7, 30, 400]), min_size=least, max_size=25))
    rows = [row_of(i, length, f"s{i % 3}") for i, length in enumerate(lengths)]
    separators = draw_one(st.sampled_from([(",", ":"), (", ", ": ")]))
    end = draw_one(st.sampled_from(["\n", "\r\n", ""]))
    return [json.dumps(row, separators=separators) for row in rows], end


# --- every line is equally likely ------------------------------------------------------------------


def hits_of_every_offset(chunk):
    """Start of the line that the window at each of the possible offsets draws."""
    lines, file = lines_of(chunk)
    text, length = text_of(chunk), lines.bound
    windows = Windows(lines, file)
    offsets = range(-length, len(text) - 1)
    drawn = (windows.hit(u, text[max(u, 0) : max(u + length, 0)]) for u in offsets)
    return lines, np.array(offsets), [hit.start for hit in drawn if hit is not None]


@quick
@given(files())
def test_every_line_is_drawn_by_exactly_as_many_offsets(tmp_path_factory, file):
    chunk = chunk_of(tmp_path_factory.mktemp("f"), file[0], end=file[1])
    lines, offsets, drawn = hits_of_every_offset(chunk)
    starts = starts_of(chunk)
    assert Counter(drawn) == dict.fromkeys(starts, lines.bound)
    in_memory = lines_hit(np.array(starts), offsets, lines.bound)
    assert [starts[i] for i in in_memory] == drawn


def test_every_line_is_drawn_by_exactly_as_many_offsets_of_very_unequal_lines(tmp_path):
    chunk = unequal(tmp_path)
    lengths = [len(line) for line in text_of(chunk).splitlines()]
    assert max(lengths) > 90 * min(lengths)
    lines, _, drawn = hits_of_every_offset(chunk)
    assert Counter(drawn) == dict.fromkeys(starts_of(chunk), lines.bound)


def test_lines_of_unequal_length_are_equally_likely(tmp_path):
    """First of 30 rows over 3,000 seeds: 29 degrees of freedom, 1e-5 point 71.8. The shortcut is far off."""
    chunk = unequal(tmp_path)
    starts = starts_of(chunk)
    listed = [next(draws(lines_of(chunk, 1, seed)[0], np.array(starts))) for seed in range(3000)]
    fetched = [starts.index(by_windows(chunk, 1, seed)[0][0]) for seed in range(3000)]
    assert listed == fetched
    assert chi_square(np.bincount(listed, minlength=30), 100) < 71.8
    shortcut = [line_after(text_of(chunk), random.Random(seed)) for seed in range(3000)]
    assert chi_square(np.bincount(shortcut, minlength=30), 100) > 2000


def line_after(text, generator):
    """The published shortcut: the line that follows a random byte."""
    return text.count(b"\n", 0, generator.randrange(len(text)) + 1) % text.count(b"\n")


def test_every_pair_of_lines_is_equally_likely(tmp_path):
    """The first two of 6 very unequal lines, 6,000 seeds: 30 ordered pairs, 1e-5 point 71.8."""
    chunk = chunk_of(tmp_path, [row_of(i, [4, 300, 4, 8, 60, 4][i]) for i in range(6)])
    pairs = Counter(tuple(row[0] for row in by_lines(chunk, 2, seed)) for seed in range(6000))
    assert len(pairs) == 30
    assert chi_square(pairs.values(), 200) < 71.8


# --- one panel, whichever way ------------------------------------------------------------------------


def slow_draws(chunk, n, seed):
    """The definition in plain Python: offsets of the stream, one window at a time, over the text."""
    lines, _ = lines_of(chunk, n, seed)
    text, key = b"\n" + text_of(chunk), slow_key("window/1", seed, chunk.digest)
    size, length = len(text) - 1, lines.bound
    drawn, t, rows = [], 0, text_of(chunk).count(b"\n") + (not text.endswith(b"\n"))
    while len(drawn) < min(n, rows):
        u = (splitmix64(key, t) * (size - 1 + length) >> 64) - length
        t += 1
        newline = text.find(
            b"\n", max(u + 1, 0), max(u + 1 + length, 0)
        )  # one byte further: the newline before
        if newline >= 0 and newline < size and newline not in drawn:
            drawn.append(newline)
    return drawn


@quick
@given(files(), st.integers(1, 30), st.integers(0, 2**32))
def test_windows_and_lines_draw_what_the_definition_says(tmp_path_factory, file, n, seed):
    chunk = chunk_of(tmp_path_factory.mktemp("f"), file[0], end=file[1])
    n = min(n, len(file[0]))
    one, other = by_windows(chunk, n, seed), by_lines(chunk, n, seed)
    assert one == other
    assert [row[0] for row in one] == slow_draws(chunk, n, seed)
    for start, ids, source in one:
        record = json.loads(text_of(chunk)[start:].split(b"\n")[0])
        assert (ids, source) == (record["token_ids"][:WIDTH], record["source"])


@quick
@given(files(), st.data())
def test_an_excluded_source_is_passed_over_both_ways(tmp_path_factory, file, data):
    chunk = chunk_of(tmp_path_factory.mktemp("f"), file[0], end=file[1], excluded_source="s1")
    everything = by_lines(chunk, 100)
    assert len(everything) == sum('"s1"' not in line for line in file[0])
    n = data.draw(st.integers(0, len(everything)))
    assert by_windows(chunk, n) == by_lines(chunk, n) == everything[:n]


@quick
@given(files(), st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_a_small_panel_is_the_head_of_a_larger_one_on_either_side_of_the_switch(
    tmp_path_factory, file, n, m, far
):
    folder = tmp_path_factory.mktemp("f")
    chunk = chunk_of(folder, file[0], end=file[1], place=WatchedFolder(folder, far=far))
    n, m = sorted((n, m))
    small, large = draw(chunk, n), draw(chunk, m)
    assert len(large) == min(m, len(file[0]))
    assert same(small, large.head(n))


def test_a_file_is_read_whole_when_windows_would_cost_as_much(tmp_path):
    chunk = big(tmp_path, 400, WatchedFolder(tmp_path))
    panels = {}
    for n in (5, 40, 150, 300, 400, 4000):
        chunk.place.calls.clear()
        chunk.place.traffic.bytes = 0
        panels[n] = big_draw(chunk, n)
        size = chunk.place.size("big.jsonl")
        read_whole = any(call[0][0] == 0 and call[-1][1] == size for call in chunk.place.calls)
        assert read_whole == (n >= 300) or n == 150, n
        assert chunk.place.traffic.bytes < 2.2 * chunk.place.size("big.jsonl")
    assert [len(panel) for panel in panels.values()] == [5, 40, 150, 300, 400, 400]
    for n, panel in panels.items():
        assert same(panel, panels[4000].head(n))


def test_a_source_that_is_nearly_all_excluded_ends(tmp_path):
    rows = [row_of(i, 100, "text" if i == 77 else "canary") for i in range(300)]
    folder = WatchedFolder(tmp_path)
    chunk = chunk_of(tmp_path, rows, excluded_source="canary", place=folder)
    for n in (1, 2, 5):
        folder.traffic.bytes = 0
        assert draw(chunk, n).sources.tolist() == ["text"]
        assert folder.traffic.bytes < 3 * folder.size("train_000.jsonl")


def test_the_row_is_the_byte_at_which_its_line_starts(tmp_path):
    chunk = unequal(tmp_path)
    for start, ids in zip((drawn := draw(chunk, 30)).rows.tolist(), drawn.ids.tolist(), strict=True):
        line = text_of(chunk)[start:].split(b"\n")[0]  # tail -c +$((start + 1)) | head -1
        assert json.loads(line)["token_ids"][:WIDTH] == ids


def test_a_line_in_one_piece_with_its_file(tmp_path):
    for end in ("", "\n"):
        chunk = chunk_of(tmp_path, [row_of(3)], end=end)
        assert draw(chunk, 5).rows.tolist() == [0]
        assert by_windows(chunk, 1) == by_lines(chunk, 9) == [(0, row_of(3)["token_ids"], "text")]


def test_the_released_sample_of_amber(tmp_path):
    """1000 lines of chunk 143, prompt and continuation apart: every row once, and the same by windows."""
    if not AMBER.exists():
        pytest.skip("the sample of Amber is not here")
    layout = Layout(fields=("prompt", "continuation"), row_tokens=64)
    chunk = Chunk("train_143", 143, LocalFolder(AMBER.parent), (AMBER.name,), "train", layout)
    panel = draw(chunk, 5000, width=64, vocabulary=32000)
    assert sorted(panel.rows.tolist()) == starts_of(chunk)
    assert by_windows(chunk, 300, width=64, vocabulary=32000) == [
        (row, ids, source)
        for row, ids, source in zip(
            panel.rows.tolist()[:300], panel.ids.tolist(), panel.sources.tolist(), strict=False
        )
    ]
    assert len(set(panel.sources.tolist())) > 3
