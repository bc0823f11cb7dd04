"""Selectors against Python's own slicing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.errors import SelectionError
from analysis360.series import select

AMBER = [f"ckpt_{i:03d}" for i in range(360)]
PYTHIA = [f"step{i}" for i in range(0, 10_000, 1000)]
FIVE = ["a_0", "a_1", "a_2", "a_3", "a_4"]
end = st.none() | st.integers(-40, 40)
quick = settings(deadline=None, database=None, max_examples=200)


def refused(selector, names, **how):
    """The message of the SelectionError, which must be one line."""
    with pytest.raises(SelectionError) as caught:
        select(selector, names, **how)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("0:360:36", list(range(0, 360, 36))),
        ("35:360:36", [35, 71, 107, 143, 179, 215, 251, 287, 323, 359]),
        ("0,35,71", [0, 35, 71]),
        ("-1", [359]),
        ("-3:", [357, 358, 359]),
        (":", list(range(360))),
        ("::120", [0, 120, 240]),
        ("350:999", list(range(350, 360))),
        ("ckpt_100", [100]),
        ("ckpt_358:", [358, 359]),
        ("ckpt_100:ckpt_103", [100, 101, 102]),
        ("ckpt_100:104:2", [100, 102]),
        (" 1 , 5 : 7 ", [1, 5, 6]),
        (7, [7]),
        (-1, [359]),
        (slice(35, 360, 36), list(range(35, 360, 36))),
        (slice(None, None, 120), [0, 120, 240]),
        ([3, "ckpt_001", "-1"], [1, 3, 359]),
        (["0:2", slice(4, 6)], [0, 1, 4, 5]),
        (range(3), [0, 1, 2]),
        ((i for i in (2, 1)), [1, 2]),
    ],
)
def test_a_selector_picks_what_it_says(selector, expected):
    assert select(selector, AMBER) == expected


def test_a_range_of_names_leaves_its_stop_out():
    assert [PYTHIA[i] for i in select("step1000:step5000", PYTHIA)] == [
        "step1000",
        "step2000",
        "step3000",
        "step4000",
    ]


def test_overlaps_come_once_and_in_the_order_of_the_series():
    assert select("71,0,35,0,34:36,-289", AMBER) == [0, 34, 35, 71]


def test_a_name_that_looks_like_a_number_is_a_name_first():
    assert select("2", ["2", "1", "0"]) == [0]


@quick
@given(start=end, stop=end, step=st.none() | st.integers(1, 50), count=st.integers(1, 30))
def test_slices_agree_with_python(start, stop, step, count):
    names = [f"x{i}" for i in range(count)]
    expected = list(range(count))[start:stop:step]
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    for selector in (slice(start, stop, step), text):
        if expected:
            assert select(selector, names) == expected
        else:
            assert "empty or reversed" in refused(selector, names)


@quick
@given(picks=st.lists(st.integers(-5, 4), min_size=1))
def test_lists_of_positions_agree_with_python_indexing(picks):
    expected = sorted({range(5)[i] for i in picks})
    assert select(picks, FIVE) == expected
    assert select(",".join(map(str, picks)), FIVE) == expected


@pytest.mark.parametrize(
    "selector", ["3:3", "4:1", "-1:0", "5:", "99:200", "a_3:a_1", slice(4, 1), [slice(0, 0)]]
)
def test_an_empty_or_reversed_slice_is_refused(selector):
    message = refused(selector, FIVE)
    assert "empty or reversed" in message
    assert "5 checkpoints, a_0 to a_4" in message


@pytest.mark.parametrize("step", [0, -1, -36])
def test_a_step_must_be_positive(step):
    for selector in (f"::{step}", slice(None, None, step)):
        assert f"the step must be positive, found {step}" in refused(selector, FIVE)


@pytest.mark.parametrize("selector", ["5", "-6", 5, -6, [0, 5], "0,5", "99"])
def test_a_position_out_of_range_is_refused(selector):
    assert "out of range: the series has 5, 0 to 4" in refused(selector, FIVE)


@pytest.mark.parametrize("selector", ["ckpt_10", "ckpt_10:ckpt_200", ":ckpt_10", ["ckpt_10"], "0,ckpt_10"])
def test_an_unknown_name_is_refused_with_a_suggestion(selector):
    message = refused(selector, AMBER)
    assert "'ckpt_10'" in message
    assert "did you mean ckpt_" in message
    assert "the series has 360, ckpt_000 to ckpt_359" in message


def test_no_suggestion_is_made_where_nothing_is_close():
    assert "did you mean" not in refused("zebra", AMBER)


@pytest.mark.parametrize(
    "selector", ["", " ", "0,", ",0", "1.5", "0:1:2:3", "0:4:x", "one", "a_0;a_1", "a\nb", True]
)
def test_malformed_text_is_refused(selector):
    assert refused(selector, FIVE)


@pytest.mark.parametrize("selector", [[], (), set()])
def test_selecting_nothing_is_refused(selector):
    assert "is empty" in refused(selector, FIVE)


def test_an_empty_series_has_nothing_to_select():
    assert "lists none" in refused(":", [])


def test_the_message_says_what_was_looked_for():
    assert "chunk 9 is out of range" in refused(9, FIVE, what="chunk")
    assert "unknown chunk 'nine'" in refused("nine", FIVE, what="chunk")


def test_a_wrong_selector_is_a_wrong_argument():
    assert SelectionError.exit_code == 2


def test_a_python_slice_may_end_at_names():
    assert select(slice("a_1", "a_3"), FIVE) == [1, 2]


def test_a_numpy_integer_is_a_position():
    numpy = pytest.importorskip("numpy")
    assert select(numpy.int64(3), FIVE) == [3]
