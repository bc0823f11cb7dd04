"""JSON lines drawn by windows: how short a line may be, bytes, round trips, memory, and what comes damaged."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import (
    Damage,
    WatchedFolder,
    big,
    big_draw,
    by_lines,
    by_windows,
    chunk_of,
    draw,
    raw_chunk,
    row_of,
    same,
    text_of,
)

from analysis360.errors import DataError
from analysis360.panel import lines as lines_module
from analysis360.panel.line_stream import Lines, least_length
from analysis360.places import LocalFolder
from analysis360.series import Chunk, Layout

quick = settings(deadline=None, database=None, max_examples=100)


@pytest.fixture(autouse=True)
def no_file_is_small(monkeypatch):
    """Files of tests are small; whether they are read whole is left to their cost."""
    monkeypatch.setattr(lines_module, "SMALL", 0)


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
