"""Rows of equal size in binary files, against a memory map of numpy's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import Damage, WatchedFolder, draw, same

from analysis360.errors import DataError
from analysis360.panel.streams import ranked
from analysis360.series import Chunk, Layout

quick = settings(deadline=None, database=None, max_examples=60)
TOKENS = 9


def binary(folder, ids, cuts=(), *, dtype="uint16", window=None, role="train", layout=None, **how):
    """A chunk of the rows of ids, its bytes cut into files."""
    data = np.asarray(ids).astype(dtype).tobytes()
    edges = [0, *sorted(cuts), len(data)]
    names = []
    for i, (start, stop) in enumerate(pairwise(edges)):
        names.append(f"document-{i:05d}.bin")
        (folder / names[-1]).write_bytes(data[start:stop])
    layout = layout or Layout(format="bin", row_tokens=TOKENS, token_dtype=dtype)
    return Chunk("rows", 0, WatchedFolder(folder, **how), tuple(names), role, layout, window=window)


def rows_of(count, vocabulary=50):
    return np.random.default_rng(count).integers(0, vocabulary, (count, TOKENS))


@quick
@given(
    st.integers(0, 60),
    st.sampled_from(["uint16", "uint32", "int32"]),
    st.lists(st.floats(0, 1), max_size=4),
    st.integers(0, 70),
    st.integers(1, TOKENS),
    st.data(),
)
def test_rows_are_those_of_a_memory_map_whatever_the_files(
    tmp_path_factory, count, dtype, cuts, n, width, data
):
    ids = rows_of(count)
    size = ids.size * np.dtype(dtype).itemsize
    first = data.draw(st.integers(0, count))
    window = data.draw(st.sampled_from([None, (first, data.draw(st.integers(first, count)))]))
    chunk = binary(
        tmp_path_factory.mktemp("f"), ids, [round(cut * size) for cut in cuts], dtype=dtype, window=window
    )
    start, stop = window or (0, count)
    drawn = draw(chunk, n, width=width)
    assert drawn.rows.tolist() == (start + ranked(stop - start, 0, chunk.digest))[:n].tolist()
    assert drawn.ids.tolist() == ids[drawn.rows, :width].tolist()
    assert set(drawn.sources.tolist()) <= {"unknown"}
    small = draw(chunk, n // 2, width=width)
    assert same(small, drawn.head(n // 2))


def test_only_the_ids_asked_for_are_read_each_file_once(tmp_path):
    chunk = binary(tmp_path, rows_of(1000), [7000])
    (mapped := np.memmap(tmp_path / "joined", dtype="uint16", mode="w+", shape=(1000, TOKENS)))[:] = rows_of(
        1000
    )
    drawn = draw(chunk, 200)
    assert drawn.ids.tolist() == mapped[drawn.rows, :4].tolist()
    assert chunk.place.traffic.bytes == 200 * 4 * 2
    assert len(chunk.place.calls) == 2
    assert all(file.closed for file in chunk.place.files)


def test_an_unguarded_connection_is_read_twice(tmp_path):
    right = draw(binary(tmp_path, rows_of(300)), 200)
    chunk = binary(tmp_path, rows_of(300), guarded=False, damage=Damage(0.2))
    assert same(draw(chunk, 200), right)
    assert sum(chunk.place.damage.times.values()) > 20


def test_canaries_are_all_taken_in_file_order(tmp_path):
    chunk = binary(tmp_path, rows_of(30), role="canary")
    assert draw(chunk, 1).rows.tolist() == list(range(30))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"layout": Layout(format="bin", token_dtype="uint16")}, "need row_tokens and token_dtype"),
        ({"layout": Layout(format="bin", row_tokens=9, token_dtype="float32")}, "found 9 and 'float32'"),
        ({"layout": Layout(format="bin", row_tokens=3, token_dtype="uint16")}, "at least 4 ids a row"),
        (
            {"layout": Layout(format="bin", row_tokens=8, token_dtype="uint16")},
            "no whole number of rows of 16",
        ),
        ({"window": (2, 11)}, r"expected rows \[2, 11\); the files hold 10 whole rows"),
        ({"window": (5, 4)}, "expected rows"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, how, expected):
    with pytest.raises(DataError, match=expected):
        draw(binary(tmp_path, rows_of(10)[:, :9], **how))


@pytest.mark.parametrize(("dtype", "token"), [("uint16", 50), ("int32", -1), ("uint32", 2**32 - 1)])
def test_ids_outside_the_vocabulary_are_refused_by_row(tmp_path, dtype, token):
    ids = rows_of(10)
    ids[7, 3] = token
    with pytest.raises(DataError, match=f"row 7: id {token} at position 3; the vocabulary has 50 ids"):
        draw(binary(tmp_path, ids, dtype=dtype))
    ids[7] = 1
    ids[6, 4] = token
    assert len(draw(binary(tmp_path, ids, dtype=dtype))) == 10, "after the width it does not matter"
