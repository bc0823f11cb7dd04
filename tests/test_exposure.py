"""Exposure against a walk through the schedule, one position after another."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.joined import Joined
from analysis360.series import Exposure
from analysis360.series.exposure import exposure_of
from analysis360.series.manifest import Files, Manifest, Phase, Revisions, Schedule, read_shipped

quick = settings(deadline=None, database=None, max_examples=200)
NAN = math.nan


@st.composite
def schedules(draw, unknown):
    """(chunks, order, done): repeats are likely; some chunks never come; `done` may pass the known order."""
    chunks = draw(st.integers(1, 6))
    chunk = st.integers(0, chunks - 1)
    order = draw(st.lists(st.none() | chunk if unknown else chunk, max_size=12))
    longest = len(order) + (2 if unknown else 0)
    done = sorted(draw(st.lists(st.integers(0, longest), min_size=1, max_size=5)))
    return chunks, tuple(order), tuple(done)


def walk(chunks, order, done):
    """(times, last) of every chunk after `done` positions; NaN where a walk cannot tell."""
    times, last = [0.0] * chunks, [NAN] * chunks
    blind = False
    for position in range(done):
        chunk = order[position] if position < len(order) else None
        if chunk is None:
            blind = True
            continue
        times[chunk] += 1
        last[chunk] = position + 1
    return [NAN if blind and n == 0 else n for n in times], last


def same(found, expected):
    np.testing.assert_array_equal(found, np.array(expected, dtype=float))


@quick
@given(schedules(unknown=False))
def test_a_known_schedule_agrees_with_a_walk(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done, tokens_per_chunk=1000)
    for checkpoint, finished in enumerate(done):
        times, last = walk(chunks, order, finished)
        same(exposure.times(checkpoint), times)
        same(exposure.last(checkpoint), last)
        assert sum(exposure.times(checkpoint)) == finished == exposure.positions(checkpoint)
        assert exposure.tokens(checkpoint) == 1000 * finished


@quick
@given(schedules(unknown=True))
def test_unknown_positions_leave_chunks_neither_seen_nor_unseen(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done)
    for checkpoint, finished in enumerate(done):
        times, last = walk(chunks, order, finished)
        same(exposure.times(checkpoint), times)
        same(exposure.last(checkpoint), last)


@quick
@given(schedules(unknown=True))
def test_first_is_the_first_position_that_names_the_chunk(schedule):
    chunks, order, done = schedule
    expected = [order.index(chunk) + 1 if chunk in order else NAN for chunk in range(chunks)]
    same(Exposure(chunks, order, done).first(), expected)


@quick
@given(schedules(unknown=False))
def test_a_chunk_is_seen_from_its_first_position_on(schedule):
    chunks, order, done = schedule
    exposure = Exposure(chunks, order, done)
    for checkpoint, finished in enumerate(done):
        same(exposure.times(checkpoint) > 0, exposure.first() <= finished)


def test_a_repeated_chunk_counts_each_time_and_keeps_its_latest():
    exposure = Exposure(4, (2, 0, 2, 1, 2), (1, 3, 5), tokens_per_chunk=10)
    same(exposure.times(0), [0, 0, 1, 0])
    same(exposure.times(1), [1, 0, 2, 0])
    same(exposure.times(2), [1, 1, 3, 0])
    same(exposure.last(1), [2, NAN, 3, NAN])
    same(exposure.last(2), [2, 4, 5, NAN])
    same(exposure.first(), [2, 4, 1, NAN])
    assert exposure.tokens(1) == 30


def test_one_unknown_position_hides_every_chunk_not_seen_for_certain():
    exposure = Exposure(3, (0, None, 1), (1, 2, 3))
    same(exposure.times(0), [1, 0, 0])
    same(exposure.times(1), [1, NAN, NAN])
    same(exposure.times(2), [1, 1, NAN])


def test_positions_past_the_known_schedule_are_unknown():
    same(Exposure(3, (0, 1), (2, 4)).times(0), [1, 1, 0])
    same(Exposure(3, (0, 1), (2, 4)).times(1), [1, 1, NAN])


@pytest.mark.parametrize("exposure", [Exposure(3), Exposure(3, tokens_per_chunk=5)])
def test_no_schedule_means_nothing_is_known(exposure):
    for checkpoint in (0, 7, -1):
        for found in (exposure.times(checkpoint), exposure.last(checkpoint), exposure.first()):
            same(found, [NAN, NAN, NAN])
        assert math.isnan(exposure.positions(checkpoint))
        assert math.isnan(exposure.tokens(checkpoint))


def test_tokens_are_unknown_where_their_number_a_position_is():
    exposure = Exposure(1, (0,), (1,))
    assert exposure.positions(0) == 1
    assert math.isnan(exposure.tokens(0))


def test_tokens_beyond_a_known_order_are_unknown():
    exposure = Exposure(2, (0, 1), (2, 3), tokens_per_chunk=10)
    assert exposure.tokens(0) == 20
    assert math.isnan(exposure.tokens(1))


def test_rows_of_a_chunk_share_what_the_chunk_has():
    exposure = Exposure(2, (1, 1), (1, 2))
    same(exposure.row_times(1, 1, [0, 5]), [2, 2])
    same(exposure.row_last(1, 1, [0, 5]), [2, 2])
    same(exposure.row_times(1, 0, [3]), [0])
    assert not exposure.by_rows


def test_a_checkpoint_saved_before_training_has_seen_nothing():
    exposure = Exposure(2, (0, 1), (0, 2), tokens_per_chunk=5)
    same(exposure.times(0), [0, 0])
    same(exposure.last(0), [NAN, NAN])
    assert exposure.tokens(0) == 0


# --- schedules of manifests ------------------------------------------------------------------------


def on_the_hub(schedule, revision=r"c(?P<index>\d+)", **data):
    return Manifest("x", Revisions("a/b", revision=revision), Files("d{index}", **data), exposure=schedule)


def test_a_local_manifest_gives_its_schedule():
    manifest = Manifest("x", Files("c{index}", 2), Files("d{index}", 3), exposure=Schedule((0, 2), (1, 2), 5))
    assert exposure_of(manifest, [{}, {}]) == Exposure(3, (0, 2), (1, 2), 5)


@quick
@given(schedules(unknown=True), st.integers(-2, 2), st.data())
def test_a_label_counts_the_positions_finished(schedule, offset, data):
    chunks, order, _ = schedule
    labels = data.draw(st.lists(st.integers(0, len(order)), max_size=5))
    manifest = on_the_hub(Schedule(order, label="index", offset=offset), count=chunks)
    exposure = exposure_of(manifest, [{"index": label} for label in labels])
    for checkpoint, label in enumerate(labels):
        same(exposure.times(checkpoint), walk(chunks, order, max(0, label + offset))[0])


def test_a_listed_schedule_is_read_by_label_or_by_place_and_never_shifted_over_a_gap():
    by_place = on_the_hub(Schedule((0, 1, 2), (1, 2, 3)), count=3)
    by_label = replace(by_place, exposure=replace(by_place.exposure, label="index", offset=-5))
    labels = [{"index": 5}, {"index": 7}, {"index": 9}]
    assert exposure_of(by_label, labels).done == (1, 3, None)
    assert exposure_of(by_place, labels).done == (1, 2, 3)
    gap = exposure_of(by_place, labels[:2])
    assert gap.done is None
    assert gap.remarks == (
        "`done` speaks of 3 checkpoints and 2 are there: what each had been trained on is unknown",
    )


def test_a_checkpoint_without_the_label_is_unknown():
    exposure = exposure_of(
        on_the_hub(Schedule((0, 1), label="index", tokens_per_chunk=2), count=2), [{}, {"index": 1}]
    )
    same(exposure.times(0), [NAN, NAN])
    assert math.isnan(exposure.positions(0))
    assert math.isnan(exposure.tokens(0))
    same(exposure.times(1), [1, 0])


# --- chunks left out -------------------------------------------------------------------------------


def left_out(chunks, skipped, repeats, done):
    """Times of each chunk over every way the release may have come about; NaN where they differ.

    Either any `skipped` chunks were left out in file order, or files were renumbered so that those
    left out are the last. A chunk is not asked about in the histories that left it out itself,
    unless it is one of the last: those may be it.
    """
    histories = [
        [chunk for chunk in range(chunks) if chunk not in gone]
        for gone in itertools.combinations(range(chunks), skipped)
    ]
    renumbered = list(range(chunks - skipped))
    times = []
    for chunk in range(chunks):
        trained = [history for history in histories if chunk in history] + [renumbered]
        counts = {([*history, *repeats][:done]).count(chunk) for history in trained}
        times.append(counts.pop() if len(counts) == 1 else NAN)
    return times


@quick
@given(st.integers(1, 7), st.integers(0, 3), st.data())
def test_left_out_chunks_agree_with_every_history(chunks, skipped, data):
    skipped = min(skipped, chunks - 1)
    sure = chunks - skipped
    repeats = tuple(range(data.draw(st.integers(0, min(2, sure)))))
    schedule = Schedule(tuple(range(chunks)), label="index", skipped=skipped, repeats=repeats)
    labels = [{"index": done} for done in range(sure + len(repeats) + 1)]
    exposure = exposure_of(on_the_hub(schedule, count=chunks), labels)
    for done in range(len(labels)):
        same(exposure.times(done), left_out(chunks, skipped, repeats, done))
        seen = exposure.times(done) > 0
        assert (exposure.last(done)[seen] <= done).all()
        assert (exposure.first()[seen] <= exposure.last(done)[seen]).all()
        assert np.isnan(exposure.last(done)[~seen]).all()


def test_amber_by_hand():
    exposure = exposure_of(read_shipped("amber"), [{"index": i} for i in range(360)])
    at = exposure.times
    same(at(0)[:7], [1, NAN, NAN, NAN, NAN, 0, 0])
    same(at(100)[99:107], [1, 1, NAN, NAN, NAN, NAN, 0, 0])
    assert np.isnan(at(100)).sum() == 4
    same(at(351)[354:], [NAN, NAN, 0, 0, 0, 0])
    same(at(352)[350:], [1, 1, 1, NAN, NAN, NAN, NAN, 0, 0, 0])
    same(at(355)[352:], [1, 1, 1, 1, NAN, NAN, NAN, NAN])
    for i, second in [(355, 0), (356, 1), (357, 2), (358, 3), (359, 4)]:
        same(at(i)[:5], [2] * second + [1] * (5 - second))
        assert np.isnan(at(i)[356:]).all()
    same(exposure.last(359)[:5], [357, 358, 359, 360, 5])
    assert exposure.tokens(359) == pytest.approx(1259.13e9, rel=1e-5)
    assert exposure.positions(0) == 1
    (remark,) = exposure.remarks
    assert "4 of 360 chunks were left out" in remark


def test_the_models_made_from_amber_have_its_exposure():
    series = exposure_of(read_shipped("amber"), [{"index": i} for i in range(360)])
    for name, checkpoint in [("ambersafe", 355), ("amberchat", 359)]:
        exposure = exposure_of(read_shipped(name), [{}])
        same(exposure.times(0), series.times(checkpoint))
        same(exposure.last(0), series.last(checkpoint))


# --- rows ------------------------------------------------------------------------------------------


def read_rows(total, rows_per_step, steps):
    """(times, last) of every row after so many steps, read one after another; last in rows."""
    times, last = np.zeros(total), np.full(total, NAN)
    for step in range(steps):
        for read in range(step * rows_per_step, (step + 1) * rows_per_step):
            times[read % total] += 1
            last[read % total] = (step + 1) * rows_per_step
    return times, last


def by_rows(total, window, rows_per_step, steps):
    schedule = Schedule(label="step", rows_per_step=rows_per_step, tokens_per_chunk=window * 7)
    manifest = on_the_hub(
        schedule, r"step(?P<step>\d+)", format="bin", row_tokens=8, token_dtype="uint16", window_rows=window
    )
    sizes = [min(window, total - start) for start in range(0, total, window)]
    return sizes, exposure_of(manifest, [{"step": step} for step in steps], sizes)


@quick
@given(
    st.integers(1, 40),
    st.integers(1, 15),
    st.integers(1, 6),
    st.lists(st.integers(0, 25), min_size=1, max_size=4),
)
def test_rows_agree_with_reading_them_one_after_another(total, window, rows_per_step, steps):
    sizes, exposure = by_rows(total, window, rows_per_step, steps)
    assert exposure.by_rows
    for checkpoint, step in enumerate(steps):
        times, last = read_rows(total, rows_per_step, step)
        assert exposure.positions(checkpoint) == step * rows_per_step / window
        for chunk, size in enumerate(sizes):
            rows = np.arange(size)
            here = slice(chunk * window, chunk * window + size)
            same(exposure.row_times(checkpoint, chunk, rows), times[here])
            np.testing.assert_allclose(exposure.row_last(checkpoint, chunk, rows), last[here] / window)
            least, most = times[here].min(), times[here].max()
            same(exposure.times(checkpoint)[chunk], NAN if least == 0 < most else least)
            whole = least == most > 0
            np.testing.assert_allclose(
                exposure.last(checkpoint)[chunk], last[here].max() / window if whole else NAN
            )


def test_pythia_by_hand():
    labels = [{"step": step} for step in (0, 1, 512, 1000, 1001, 143_000)]
    exposure = exposure_of(read_shipped("pythia-1b"), labels, [1_024_000] * 143)
    same(exposure.times(0)[:2], [0, 0])
    same(exposure.times(1)[:2], [NAN, 0])
    same(exposure.row_times(1, 0, [0, 1023, 1024]), [1, 1, 0])
    same(exposure.row_last(1, 0, [0, 1024]), [0.001, NAN])
    same(exposure.times(3)[:2], [1, 0])
    same(exposure.times(4)[:3], [1, NAN, 0])
    same(exposure.times(5), [1] * 143)
    same(exposure.first()[:3], [1, 2, 3])
    assert exposure.tokens(5) == 299_892_736_000


def test_pythia_reads_short_files_again():
    rows = 98_000 * 1024
    windows = [min(1_024_000, rows - start) for start in range(0, rows, 1_024_000)]
    exposure = exposure_of(read_shipped("pythia-70m-deduped"), [{"step": 98_000}, {"step": 98_001}], windows)
    same(exposure.times(0), [1] * 98)
    same(exposure.row_times(1, 0, [1023, 1024]), [2, 1])
    same(exposure.times(1), [1] * 98)


def test_rows_of_unknown_size_are_unknown():
    manifest = read_shipped("pythia-1b")
    for rows in ([None, 5], [5, None]):
        exposure = exposure_of(manifest, [{"step": 1}], rows)
        same(exposure.times(0), [NAN, NAN])
        same(exposure.row_times(0, 0, [1]), [NAN])
    assert exposure_of(manifest, [{"step": 1}]).chunks == 0


# --- phases ----------------------------------------------------------------------------------------


@quick
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([1, 2, None]), st.sets(st.integers(0, 3))), max_size=3
    )
)
def test_phases_agree_with_their_bounds(phases):
    """What must and what may have been trained on, step by step."""
    paths = [f"p{i}.h5" for i in range(4)]
    listed = tuple(
        Phase(number, steps, tuple(paths[i] for i in sorted(members)), epochs)
        for number, (steps, epochs, members) in enumerate(phases, 1)
    )
    schedule = Schedule(label="step", phase="phase", phases=listed)
    manifest = on_the_hub(schedule, r"(?P<phase>\d+)-(?P<step>\d+)", files="*.h5", format="hdf5")
    labels = [{"phase": phase.number, "step": step} for phase in listed for step in range(phase.steps + 1)]
    exposure = exposure_of(manifest, labels, chunk_paths=paths)
    for checkpoint, label in enumerate(labels):
        expected = []
        for path in paths:
            surely, maybe = 0, False
            for phase in listed:
                over = (phase.number, phase.steps) <= (label["phase"], label["step"])
                begun = (phase.number, 0) < (label["phase"], label["step"])
                if path in phase.chunks:
                    surely += phase.epochs if over and phase.epochs else 0
                    maybe |= begun and not (over and phase.epochs)
            placed = any(path in phase.chunks for phase in listed)
            expected.append(NAN if not placed or (not surely and maybe) else surely)
        same(exposure.times(checkpoint), expected)
        before = sum(phase.steps for phase in listed if phase.number < label["phase"])
        assert exposure.positions(checkpoint) == before + label["step"]


def test_crystalcoder_by_hand():
    paths = ["phase1/SlimPajama/A/data-00000.h5", "phase2/StarCoder/data-0.h5", "phase3/python/data-0.h5"]
    steps = [(1, 1500), (1, 79721), (2, 1500), (2, 214387), (3, 1000), (3, 27728)]
    labels = [{"phase": phase, "step": step} for phase, step in steps]
    exposure = exposure_of(read_shipped("crystalcoder"), labels, chunk_paths=paths)
    table = [[NAN, 0, 0], [1, 0, 0], [1, NAN, 0], [1, 1, 0], [1, 1, NAN], [1, 1, NAN]]
    for checkpoint, expected in enumerate(table):
        same(exposure.times(checkpoint), expected)
        same(exposure.last(checkpoint), [NAN] * 3)
    same(exposure.first(), [79721, 79721 + 214387, NAN])
    assert exposure.tokens(1) == pytest.approx(345e9, rel=1e-3)
    assert exposure.tokens(3) == pytest.approx(345e9 + 927e9, rel=1e-3)


# --- released orders -------------------------------------------------------------------------------


def test_the_order_of_k2_is_that_of_its_training():
    order = [*range(16), *range(32, 38), *range(44, 52)]
    order += [chunk for chunk in range(360) if chunk not in order]
    order.append(order.pop(160))
    order.append(order.pop(185))
    manifest = read_shipped("k2")
    assert list(manifest.exposure.order) == order
    assert sorted(order) == list(range(360))
    labels = [{"index": i} for i in range(1, 361)] + [{"stage": 2, "index": 361}]
    exposure = exposure_of(manifest, labels)
    for checkpoint in (0, 15, 16, 159, 160, 359):
        same(exposure.times(checkpoint), walk(360, order, checkpoint + 1)[0])
    same(exposure.times(16)[[16, 32, 33]], [0, 1, 0])
    same(exposure.times(360), [1] * 360)


def test_olmo_knows_tokens_and_nothing_of_data():
    exposure = exposure_of(read_shipped("olmo2-7b"), [{"step": 928646, "tokens": 3896}, {}])
    assert exposure.tokens(0) == pytest.approx(3896e9, rel=1e-3)
    assert math.isnan(exposure.tokens(1))
    assert exposure.times(0).size == 0
    same(exposure_of(read_shipped("olmo2-7b"), [{"step": 5}], [10, 10]).times(0), [NAN, NAN])


# --- joined with results ---------------------------------------------------------------------------


def joined(exposure, saved, panels, planted):
    """The columns of exposure for every checkpoint, chunk and row of the panels; the last chunk holds canaries."""
    roles = ["train"] * (len(panels) - 1) + ["canary"]
    chunks = [
        SimpleNamespace(name=f"c{i}", index=i if role == "train" else 0, role=role, window=None)
        for i, role in enumerate(roles)
    ]
    checkpoints = [SimpleNamespace(name=f"k{i}", index=i) for i in range(saved)]
    canaries = SimpleNamespace(rows=[SimpleNamespace(row=i, planted=p) for i, p in enumerate(planted)])
    series = SimpleNamespace(exposure=exposure, manifest=SimpleNamespace(canaries=canaries))
    held = {f"c{i}": Rows(rows) for i, rows in enumerate(panels)}
    known = Joined(series, checkpoints, chunks, held)
    where = [
        (k, i, p) for k in range(len(checkpoints)) for i, rows in enumerate(panels) for p in range(len(rows))
    ]
    return where, known.exposure(known.rows(*np.array(where).T))


class Rows:
    """A panel, as far as its rows go."""

    def __init__(self, rows):
        self.rows = np.array(rows)

    def __len__(self):
        return len(self.rows)


def test_results_have_the_exposure_of_each_row_where_it_is_known():
    panels, planted = [[3, 0, 9], [1, 4], [0, 1, 2]], [((0, 3), (1, 4)), (), ((0, 0),)]
    steps = [0, 1, 2, 5, 9]
    exposure = by_rows(15, 10, 4, steps)[1]
    where, columns = joined(exposure, len(steps), panels, planted)
    for n, (k, chunk, position) in enumerate(where):
        times, last = read_rows(15, 4, steps[k])
        rows = (
            [10 * chunk + panels[chunk][position]]
            if chunk < 2
            else [10 * a + b for a, b in planted[position]]
        )
        assert columns["exposures"][n] == sum(times[row] for row in rows)
        known = [last[row] for row in rows if times[row]]
        since = (steps[k] * 4 - max(known)) / 10 * exposure.tokens_per_chunk if known else NAN
        np.testing.assert_allclose(columns["tokens_since"][n], since)


def test_results_have_the_exposure_of_the_chunk_where_rows_are_not_known():
    exposure = Exposure(2, (0, 1, 0), (0, 1, 3), 10)
    where, columns = joined(exposure, 3, [[5], [6, 7], [0]], [((0, 2), (1, 2))])
    counts = {
        (0, 0): 0,
        (0, 1): 0,
        (0, 2): 0,
        (1, 0): 1,
        (1, 1): 0,
        (1, 2): 1,
        (2, 0): 2,
        (2, 1): 1,
        (2, 2): 3,
    }
    same(columns["exposures"], [counts[k, chunk] for k, chunk, _ in where])
    since = {(1, 0): 0, (1, 2): 0, (2, 0): 0, (2, 1): 10, (2, 2): 0}
    same(columns["tokens_since"], [since.get((k, chunk), NAN) for k, chunk, _ in where])
