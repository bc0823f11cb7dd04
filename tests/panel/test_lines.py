"""JSON lines drawn by windows: exact uniformity, one panel whichever way it is read, bytes, memory, damage."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import (
    WIDTH,
    Damage,
    WatchedFolder,
    by_lines,
    by_windows,
    chi_square,
    chunk_of,
    draw,
    lines_of,
    raw_chunk,
    row_of,
    same,
    text_of,
)
from test_streams import slow_key, splitmix64

from analysis360.errors import DataError
from analysis360.panel import lines as lines_module
from analysis360.panel.line_stream import Lines, least_length
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


# --- how short a line may be -------------------------------------------------------------------------


@quick
@given(
    st.lists(st.text("abxyé", min_size=1, max_size=5), min_size=1, max_size=3, unique=True),
    st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=3, max_size=3),
)
def test_the_bound_is_the_shortest_text_of_so_many_ids(fields, ids):
    record = dict(zip(fields, ids, strict=False))
    line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    count = sum(map(len, record.values()))
    bound = least_length(Layout(fields=tuple(fields), row_tokens=count), width=1)
    assert bound <= len(line)
    if all(record.values()):
        assert bound == len(line)


def test_the_bound_follows_the_width_where_rows_are_not_said_to_be_longer():
    assert least_length(Layout(), 4) == len('{"token_ids":[1,2,3,4]}\n')
    assert least_length(Layout(row_tokens=5), 4) == len('{"token_ids":[1,2,3,4,5]}\n')
    assert least_length(Layout(row_tokens=10**9), 4) == 1 << 18


@pytest.mark.parametrize("way", [by_windows, by_lines])
def test_rows_shorter_than_said_are_refused(tmp_path, way):
    chunk = chunk_of(tmp_path, [row_of(i, 6, "") for i in range(20)], row_tokens=40)
    with pytest.raises(
        DataError, match=r"byte \d+: expected lines of at least 40 ids, 96 bytes; found 6 ids"
    ):
        way(chunk, 20)


@pytest.mark.parametrize("at", [0, 7, 19])
@pytest.mark.parametrize("line", ["", "{}", '{"token_ids": [1]}', "\r"])
def test_a_line_that_is_too_short_is_never_passed_over_unseen(tmp_path, line, at):
    """Whatever window meets both of its ends, or draws it, refuses it."""
    rows = [json.dumps(row_of(i, 30)) for i in range(20)]
    rows[at] = line
    chunk = chunk_of(tmp_path, rows)
    start = sum(len(row) + 1 for row in rows[:at])
    for way in (by_windows, by_lines):
        with pytest.raises(DataError, match=f"byte {start}: expected"):
            way(chunk, 20)


def test_a_file_without_lines_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    for module in ("whole", "windows", "line_stream"):
        monkeypatch.setattr(f"analysis360.panel.{module}.LONGEST", 1 << 20)
    chunk = raw_chunk(tmp_path, b'{"token_ids": [' + b"1, " * (1 << 20))
    monkeypatch.setattr(Lines, "offsets", lambda lines, first, count: np.full(count, -1))
    for way in (by_windows, by_lines):
        with pytest.raises(DataError, match="byte 0: no newline in 1048576 bytes; expected JSON lines"):
            way(chunk, 1)


# --- bytes, requests, memory -----------------------------------------------------------------------


def big(folder, rows, place=None, tokens=500):
    """Rows of 500 ids, about 2 KB, whose length differs by some percent."""
    ids = np.random.default_rng(0).integers(0, 32000, (rows, tokens))
    with (folder / "big.jsonl").open("w") as file:
        file.writelines(json.dumps({"token_ids": row.tolist(), "source": "text"}) + "\n" for row in ids)
    return Chunk("big", 0, place or LocalFolder(folder), ("big.jsonl",), "train", Layout(row_tokens=tokens))


def big_draw(chunk, n, seed=0):
    return draw(chunk, n, seed, width=64, vocabulary=32000)


def kept_bytes(chunk, panel):
    text = text_of(chunk)
    return sum(text.index(b"\n", row) + 1 - row for row in panel.rows.tolist())


@pytest.mark.parametrize(("guarded", "times"), [(True, 2), (False, 4)])
def test_bytes_stay_near_the_bound(tmp_path, guarded, times):
    """Twice the bytes of the rows kept; four times where everything is read twice."""
    folder = WatchedFolder(tmp_path, guarded=guarded)
    chunk = big(tmp_path, 20_000, folder)
    panel = big_draw(chunk, 300)
    ratio = folder.traffic.bytes / kept_bytes(chunk, panel)
    assert ratio < times * 1.15
    assert len(folder.files) == 1
    assert folder.files[0].closed
    assert len(folder.calls) < 25, "round trips"
    assert same(panel, big_draw(big(tmp_path, 20_000), 300))


def test_bytes_stay_near_the_bound_when_lines_are_very_unequal(tmp_path):
    rows = [row_of(i, 4000 if i % 7 == 0 else 40) for i in range(20_000)]
    folder = WatchedFolder(tmp_path)
    chunk = chunk_of(tmp_path, rows, place=folder, row_tokens=40)
    panel = draw(chunk, 300)
    mean = folder.size("train_000.jsonl") / len(rows)
    assert folder.traffic.bytes < 1.5 * 2 * 300 * mean
    assert 20 < sum(row % 7 == 0 for row in panel.ids[:, 0].tolist()) < 100


def test_memory_is_flat(tmp_path):
    """1000 of 100,000 lines of a 205 MB file that is all lines of spaces and ids: under 20 MB."""
    line = json.dumps({"token_ids": [1] * 16, "pad": " " * 1980}).encode() + b"\n"
    with (tmp_path / "flat.jsonl").open("wb") as file:
        for _ in range(100):
            file.write(line * 1000)
    assert file.closed
    chunk = Chunk("flat", 0, LocalFolder(tmp_path), ("flat.jsonl",), "train", Layout(row_tokens=16))
    assert chunk.place.size("flat.jsonl") > 200e6
    assert chunk.digest
    tracemalloc.start()
    assert len(draw(chunk, 1000)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# --- what comes damaged ------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.02, 0.2])
def test_damage_on_an_unguarded_connection_does_not_change_the_panel(tmp_path, probability):
    chunk = big(tmp_path, 2000)
    right = big_draw(chunk, 100)
    damage = Damage(probability)
    folder = WatchedFolder(tmp_path, guarded=False, damage=damage)
    assert same(big_draw(Chunk("big", 0, folder, chunk.files, "train", chunk.layout), 100), right)
    assert sum(damage.times.values()) > 10


def test_a_connection_that_damages_everything_is_refused(tmp_path):
    chunk = big(tmp_path, 2000)
    folder = WatchedFolder(tmp_path, guarded=False, damage=Damage(1.0))
    with pytest.raises(DataError, match="never twice alike"):
        big_draw(Chunk("big", 0, folder, chunk.files, "train", chunk.layout), 100)


class Once:
    """Damages the first answer only."""

    def __init__(self, times):
        self.left = times

    def __call__(self, data, span):
        self.left -= 1
        return data.replace(b"7", b"8", 1) if self.left >= 0 else data


def test_a_whole_file_from_afar_is_held_against_its_sha256(tmp_path):
    rows = [row_of(i) for i in range(30)]
    right = draw(chunk_of(tmp_path, rows), 30)
    folder = WatchedFolder(tmp_path, guarded=False, damage=Once(1))
    assert same(draw(chunk_of(tmp_path, rows, place=folder), 30), right)
    assert len(folder.calls) == 2
    folder = WatchedFolder(tmp_path, damage=Once(9))
    with pytest.raises(DataError, match=r"expected SHA-256 [0-9a-f]{64}; twice read"):
        draw(chunk_of(tmp_path, rows, place=folder), 30)


def test_a_malformed_file_from_afar_is_not_taken_for_a_damaged_one(tmp_path):
    rows = [row_of(i) for i in range(30)] + ['{"token_ids": [1, 2, "x", 4]}']
    folder = WatchedFolder(tmp_path)
    with pytest.raises(DataError, match="id 'x' at position 2 is not an integer"):
        draw(chunk_of(tmp_path, rows, place=folder), 30)
    assert len(folder.calls) == 1
    damaged = WatchedFolder(tmp_path, damage=lambda data, span: data.replace(b"[", b"{", 1))
    with pytest.raises(DataError, match="expected SHA-256"):
        draw(chunk_of(tmp_path, rows[:-1], place=damaged), 30)
