"""Panels of JSON lines as they are asked for: what they hold, what is refused, what is kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_chunks import EOS, WIDTH, chi_square, chunk_of, draw, raw_chunk, row_of, same, text_of

from analysis360.errors import DataError
from analysis360.panel import first_position
from analysis360.places import LocalFolder
from analysis360.series import Chunk, Layout
from analysis360.store import Store

quick = settings(deadline=None, database=None, max_examples=100)


def numbers(panel):
    """Which rows of `row_of` a panel holds."""
    return (panel.ids[:, 0] + 50 * panel.ids[:, 1]).tolist()


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    return chunk_of(tmp_path_factory.mktemp("hundred"), [row_of(i) for i in range(100)])


# --- what is drawn ---------------------------------------------------------------------------------


@quick
@given(st.data())
def test_a_small_panel_is_the_head_of_a_larger_one(hundred, data):
    m = data.draw(st.integers(0, 110))
    n = data.draw(st.integers(0, m))
    seed = data.draw(st.integers(0, 2**32))
    small, large = draw(hundred, n, seed), draw(hundred, m, seed)
    assert len(small) == min(n, 100)
    for part in (large, large.head(n)):
        assert part.rows[:n].tolist() == small.rows.tolist()
        assert part.ids[:n].tolist() == small.ids.tolist()
        assert part.first_eos[:n].tolist() == small.first_eos.tolist()
        assert part.sources[:n].tolist() == small.sources.tolist()
    assert len(large.head(n)) == len(small)


def test_a_panel_holds_the_rows_it_says(hundred):
    drawn = draw(hundred, 30)
    assert drawn.ids.dtype == np.int32
    assert drawn.ids.shape == (30, WIDTH)
    lines = [text_of(hundred)[row:].split(b"\n")[0] for row in drawn.rows.tolist()]
    assert drawn.ids.tolist() == [json.loads(line)["token_ids"] for line in lines]
    assert len(set(drawn.rows.tolist())) == 30


def test_only_the_start_of_a_longer_row_is_kept(tmp_path):
    chunk = chunk_of(tmp_path, [row_of(i, width=9) for i in range(5)])
    drawn = draw(chunk, width=3)
    assert drawn.ids.tolist() == [row_of(row)["token_ids"][:3] for row in numbers(drawn)]
    assert sorted(numbers(drawn)) == list(range(5))


def test_a_panel_is_equal_on_repeat(hundred, tmp_path):
    copy = replace(raw_chunk(tmp_path, text_of(hundred), name="another-name", role="held-out"), index=7)
    for chunk in (hundred, copy):
        assert draw(chunk, 20, 5).rows.tolist() == draw(hundred, 20, 5).rows.tolist()
        assert draw(chunk, 20, 5).ids.tolist() == draw(hundred, 20, 5).ids.tolist()


def test_other_seeds_draw_other_rows(hundred):
    drawn = {tuple(draw(hundred, 20, seed).rows.tolist()) for seed in range(50)}
    assert len(drawn) == 50


def test_other_chunks_draw_other_rows(tmp_path):
    chunks = [chunk_of(tmp_path, [row_of(i, 5 + c) for i in range(100)], name=f"c{c}") for c in range(5)]
    drawn = {tuple(draw(chunk, 20, 42).rows.tolist()) for chunk in chunks}
    assert len(drawn) == 5


@quick
@given(n=st.integers(0, 120), seed=st.integers(0, 1000))
def test_no_row_comes_twice(hundred, n, seed):
    rows = draw(hundred, n, seed).rows.tolist()
    assert len(set(rows)) == len(rows) == min(n, 100)


def test_fewer_rows_than_asked_gives_all(tmp_path):
    drawn = draw(chunk_of(tmp_path, [row_of(i) for i in range(3)]), n=1000)
    assert sorted(numbers(drawn)) == [0, 1, 2]


def test_canaries_are_all_taken_in_file_order(tmp_path):
    chunk = chunk_of(tmp_path, [row_of(i, source="canary") for i in range(30)], role="canary")
    for n in (0, 5, 1000):
        drawn = draw(chunk, n, seed=9)
        assert drawn.rows.tolist() == list(range(30))
        assert drawn.ids[:, 0].tolist() == list(range(30))


def test_an_excluded_source_is_left_out(tmp_path):
    rows = [row_of(i, source="canary" if i % 3 == 0 else "text") for i in range(60)]
    text = draw(chunk_of(tmp_path, rows, excluded_source="canary"), n=60)
    assert sorted(numbers(text)) == [i for i in range(60) if i % 3]
    assert set(text.sources.tolist()) == {"text"}
    assert same(draw(chunk_of(tmp_path, rows, excluded_source="canary"), n=10), text.head(10))


def test_every_row_has_its_source(tmp_path):
    rows = [row_of(i, source=f"source {i % 7}") for i in range(40)]
    del rows[0]["source"]
    drawn = draw(chunk_of(tmp_path, rows), n=40)
    named = dict(zip(numbers(drawn), drawn.sources.tolist(), strict=True))
    assert named == {i: f"source {i % 7}" if i else "unknown" for i in range(40)}


def test_several_fields_are_joined_in_their_order(tmp_path):
    rows = [{"continuation": [3, 4], "prompt": [i, 2]} for i in range(5)]
    drawn = draw(chunk_of(tmp_path, rows, fields=("prompt", "continuation")))
    assert sorted(drawn.ids.tolist()) == [[i, 2, 3, 4] for i in range(5)]
    drawn = draw(chunk_of(tmp_path, rows, fields=("continuation", "prompt")))
    assert sorted(drawn.ids.tolist()) == [[3, 4, i, 2] for i in range(5)]


def test_a_panel_follows_every_setting_it_is_asked_with(tmp_path):
    """Other k, l or seed never give the panel of before; the rows are the same for any width of known rows."""
    chunk = chunk_of(tmp_path, [row_of(i) for i in range(100)], row_tokens=WIDTH)
    asked = [draw(chunk, width=w, seed=s) for w in (2, 3, 4) for s in (0, 1)]
    assert [p.ids.shape[1] for p in asked] == [2, 2, 3, 3, 4, 4]
    assert asked[0].rows.tolist() == asked[2].rows.tolist() != asked[1].rows.tolist()


# --- lines ------------------------------------------------------------------------------------------


def test_sources_that_lie_one_after_another_are_all_drawn(tmp_path):
    """Ten sources in blocks of 100: the first 100 lines are one source; a panel of 100 has about 10 of each."""
    rows = [row_of(i, source=f"s{i // 100}") for i in range(1000)]
    chunk = chunk_of(tmp_path, rows)
    counts = Counter(draw(chunk, 100).sources.tolist())
    assert len(counts) == 10
    assert chi_square(counts.values(), 10) < 38.0  # 9 degrees of freedom, 2e-5
    assert len({row["source"] for row in rows[:100]}) == 1


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_last_line_counts_with_or_without_a_newline(tmp_path, end):
    drawn = draw(chunk_of(tmp_path, [row_of(i) for i in range(8)], end=end), n=100)
    assert sorted(drawn.ids[:, 0].tolist()) == list(range(8))


@pytest.mark.parametrize("role", ["train", "canary"])
def test_an_empty_file_gives_an_empty_panel(tmp_path, role):
    drawn = draw(chunk_of(tmp_path, [], role=role))
    assert len(drawn) == 0
    assert drawn.ids.shape == (0, WIDTH)
    assert drawn.first_eos.shape == (0,)


# --- the first EOS ---------------------------------------------------------------------------------


@quick
@given(
    st.integers(1, 6).flatmap(
        lambda w: st.lists(st.lists(st.integers(0, 4), min_size=w, max_size=w), min_size=1)
    )
)
def test_the_first_eos_is_where_a_search_finds_it(rows):
    width = len(rows[0])
    expected = [row.index(2) if 2 in row else width for row in rows]
    assert first_position(np.array(rows, dtype=np.int32), 2).tolist() == expected
    assert first_position(np.array(rows, dtype=np.int32), None).tolist() == [width] * len(rows)


def test_the_first_eos_is_sought_inside_the_width_only(tmp_path):
    rows = [[2, 5, 5, 5, 5], [5, 2, 2, 5, 5], [5, 5, 5, 2, 5], [5, 5, 5, 5, 2]]
    drawn = draw(chunk_of(tmp_path, [{"token_ids": ids} for ids in rows]), width=4)
    in_file_order = drawn.first_eos[np.argsort(drawn.rows)]
    assert in_file_order.tolist() == [0, 1, 3, 4]


# --- what is refused -------------------------------------------------------------------------------


GOOD = json.dumps(row_of(0))
BAD = {
    "malformed JSON": ('{"token_ids": [1, 2', "expected {"),
    "an empty line": ("", "expected {"),
    "no object": ("[1, 2, 3, 4]", "expected {"),
    "a number": ("7", "expected {"),
    "no such field": ('{"ids": [1, 2, 3, 4]}', '"token_ids"'),
    "null ids": ('{"token_ids": null}', '"token_ids"'),
    "one id": ('{"token_ids": 5}', '"token_ids"'),
    "text": ('{"token_ids": "1234"}', "'1' at position 0 is not an integer"),
    "a truth value": ('{"token_ids": [1, true, 3, 4]}', "True at position 1 is not an integer"),
    "a fraction": ('{"token_ids": [1, 2, 1.5, 4]}', "1.5 at position 2 is not an integer"),
    "a whole fraction": ('{"token_ids": [1, 2, 3.0, 4]}', "3.0 at position 2 is not an integer"),
    "a numeral": ('{"token_ids": [1, 2, 3, "3"]}', "'3' at position 3 is not an integer"),
    "no id": ('{"token_ids": [null, 2, 3, 4]}', "None at position 0 is not an integer"),
    "not a number": ('{"token_ids": [NaN, 2, 3, 4]}', "nan at position 0 is not an integer"),
    "a nested list": ('{"token_ids": [[1], 2, 3, 4]}', "[1] at position 0 is not an integer"),
    "a negative id": ('{"token_ids": [1, -1, 3, 4]}', "id -1 at position 1; the vocabulary has 50 ids"),
    "an id at the vocabulary": ('{"token_ids": [1, 2, 3, 50]}', "id 50 at position 3"),
    "an id past 32 bits": ('{"token_ids": [4294967297, 2, 3, 4]}', "id 4294967297 at position 0"),
    "too short": ('{"token_ids": [1, 2, 3]}', "at least 4 ids (prompt + continuation), found 3"),
    "no ids": ('{"token_ids": []}', "found 0"),
}


def refused(chunk, **how):
    """The message of the DataError, which must be one line that names the file."""
    with pytest.raises(DataError) as caught:
        draw(chunk, **how)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(chunk.where)
    return message


@pytest.mark.parametrize(("line", "expected"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize("role", ["train", "canary"])
def test_a_bad_row_is_refused_by_file_and_byte(tmp_path, line, expected, at, role):
    lines = [GOOD] * 6
    lines[at] = line
    message = refused(chunk_of(tmp_path, lines, end="\n", role=role))
    assert f"byte {at * (len(GOOD) + 1)}:" in message
    assert expected in message


def test_bytes_that_are_no_text_are_refused_by_file_and_byte(tmp_path):
    start = text_of(chunk_of(tmp_path, [GOOD, GOOD]))
    chunk = raw_chunk(tmp_path, start + b'{"token_ids": [1, 2, 3, 4], "source": "\xff"}\n')
    assert f"byte {len(start)}:" in refused(chunk)


def test_ids_after_the_width_do_not_matter(tmp_path):
    chunk = chunk_of(tmp_path, ['{"token_ids": [1, 2, 3, 4, 99999]}'])
    assert draw(chunk).ids.tolist() == [[1, 2, 3, 4]]


def test_the_bounds_of_the_vocabulary_are_inside(tmp_path):
    assert draw(chunk_of(tmp_path, ['{"token_ids": [0, 49, 0, 49]}'])).ids.tolist() == [[0, 49, 0, 49]]


def test_a_missing_field_among_several_is_refused(tmp_path):
    chunk = chunk_of(tmp_path, ['{"prompt": [1, 2]}'], fields=("prompt", "continuation"))
    assert '"continuation"' in refused(chunk)


def test_a_missing_file_is_refused(tmp_path):
    assert "cannot be read" in refused(Chunk("gone", 0, LocalFolder(tmp_path), ("gone.jsonl",), "train"))


def test_a_folder_is_no_chunk(tmp_path):
    assert "cannot be read" in refused(
        Chunk("folder", 0, LocalFolder(tmp_path.parent), (tmp_path.name,), "train")
    )


def test_an_unknown_format_is_refused(tmp_path):
    chunk = chunk_of(tmp_path, [row_of(0)])
    message = refused(replace(chunk, layout=Layout(format="csv")))
    assert "expected a format among jsonl, bin, parquet, hdf5; found 'csv'" in message


def test_json_nested_without_end_is_refused(tmp_path):
    assert "byte 0:" in refused(chunk_of(tmp_path, ["[" * 100_000]))


# --- what is kept ----------------------------------------------------------------------------------


def kept(tmp_path, chunk, n=5, **how):
    """A panel by way of the store, as `memorization` asks for it."""
    width, seed = how.get("width", WIDTH), how.get("seed", 0)
    return Store(tmp_path / "results", "s").panel(
        chunk, lambda n: draw(chunk, n, **how), n=n, width=width, seed=seed, eos=how.get("eos", EOS)
    )


def test_a_stored_panel_is_what_would_be_drawn(tmp_path):
    chunk = chunk_of(tmp_path, [row_of(i, 6) for i in range(30)])
    for how in ({}, {"seed": 1}, {"width": 5}, {"n": 12}, {"n": 3}, {}):
        stored, drawn = kept(tmp_path, chunk, **how), draw(chunk, **{"n": 5} | how)
        for field in ("ids", "rows", "sources", "first_eos"):
            assert getattr(stored, field).tolist() == getattr(drawn, field).tolist()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"fields": ("a", "b")}, {"fields": ("b", "a")}),
        ({"excluded_source": None}, {"excluded_source": "canary"}),
        ({"eos": None}, {"eos": 1}),
    ],
    ids=["fields", "excluded source", "eos"],
)
def test_a_stored_panel_is_not_reused_under_another_setting(tmp_path, before, after):
    rows = [{"a": [1, i], "b": [i, 3], "source": "canary" if i % 2 else "text"} for i in range(10)]
    for setting in (before, after):
        where = {"fields": ("a", "b")} | {k: v for k, v in setting.items() if k != "eos"}
        how = {k: v for k, v in setting.items() if k == "eos"}
        chunk = chunk_of(tmp_path, rows, **where)
        stored, drawn = kept(tmp_path, chunk, **how), draw(chunk, 5, **how)
        for field in ("ids", "rows", "first_eos"):
            assert getattr(stored, field).tolist() == getattr(drawn, field).tolist()
