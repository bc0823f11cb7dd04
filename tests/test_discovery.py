"""Discovery on branch lists as they are: gaps, odd branches, any order, `main`; and what a rule refuses."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.errors import SeriesError
from analysis360.series.discovery import compiled, discover, expected_names, labels_of, pattern_of
from analysis360.series.manifest import Revisions, read_shipped
from analysis360.series.ranges import names, numbers

quick = settings(deadline=None, database=None, max_examples=100)
STEPS = [0, *(2**i for i in range(10)), *range(1000, 143_001, 1000)]
CRYSTAL = [
    f"CrystalCoder_phase{phase}_checkpoint_{step:06d}"
    for phase, every, last in [(1, 1500, 79721), (2, 1500, 214387), (3, 1000, 27728)]
    for step in [*range(every, last, every), last]
]


def branches(listed, seed=0):
    """Names to commit SHAs, in no order."""
    shuffled = list(listed)
    random.Random(seed).shuffle(shuffled)
    return {name: f"{i:040x}" for i, name in enumerate(shuffled)}


def rule(name):
    found = read_shipped(name).checkpoints
    assert isinstance(found, Revisions)
    return found


def found(listing):
    return [item.name for item in listing.found]


RELEASES = {
    "amber": [f"ckpt_{i:03d}" for i in range(360)],
    "crystalcoder": CRYSTAL,
    "k2": [f"ckpt_{i:03d}" for i in range(1, 361)] + [f"ministage2_ckpt_{i}" for i in range(361, 381)],
    "pythia-160m": [f"step{step}" for step in STEPS],
    "pythia-12b-deduped": [f"step{step}" for step in STEPS],
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_whole_release_is_found_in_order_and_leaves_nothing_to_say(name):
    listed = branches([*RELEASES[name], "main"])
    listing = discover(listed, rule(name))
    assert found(listing) == RELEASES[name] == expected_names(rule(name))
    assert [item.revision for item in listing.found] == [listed[branch] for branch in RELEASES[name]]
    assert listing.notes() == []
    assert listing.other == ("main",)


@pytest.mark.parametrize("name", RELEASES)
@quick
@given(data=st.data())
def test_what_is_missing_is_named_and_nothing_else_moves(name, data):
    whole = RELEASES[name]
    gone = data.draw(st.sets(st.sampled_from(whole), max_size=20))
    listing = discover(branches(name for name in whole if name not in gone), rule(name))
    assert found(listing) == [name for name in whole if name not in gone]
    assert listing.missing == tuple(name for name in whole if name in gone)
    assert (listing.surplus, listing.other, listing.duplicates) == ((), (), ())
    assert len(listing.notes()) == bool(gone)


def test_pythia_has_154_checkpoints():
    assert len(STEPS) == 154 == len(expected_names(rule("pythia-1b")))


def test_main_stands_in_for_the_last_checkpoint_of_amber_alone():
    listed = branches([*RELEASES["amber"][:-1], "main"])
    listing = discover(listed, rule("amber"))
    last = listing.found[-1]
    assert (last.name, last.branch, last.revision) == ("ckpt_359", "main", listed["main"])
    assert last.labels == {"index": 359}
    assert (listing.missing, listing.other) == ((), ())
    assert listing.notes() == ["ckpt_359 is read from main"]
    both = discover(branches([*RELEASES["amber"], "main"]), rule("amber"))
    assert both.found[-1].branch == "ckpt_359"


def test_gaps_are_told_as_runs():
    gone = {*range(1, 5), 10, *range(100, 200, 2)}
    listing = discover(branches(f"ckpt_{i:03d}" for i in range(360) if i not in gone), rule("amber"))
    (note,) = listing.notes()
    assert note.startswith("55 of 360 expected checkpoints are not listed: ckpt_001 to ckpt_004, ckpt_010, ")
    assert note.endswith("ckpt_106, and 46 more")


def test_surplus_and_odd_branches_are_named_and_surplus_is_kept():
    extra = ["ckpt_360", "refs-convert", "ckpt_007-fixed", "ckpt_", "Ckpt_001", "ckpt_٣"]
    listing = discover(branches([*RELEASES["amber"], *extra, "main"]), rule("amber"))
    assert found(listing)[-1] == "ckpt_360"
    assert listing.surplus == ("ckpt_360",)
    assert set(listing.other) == {*extra[1:], "main"}
    surplus, other = listing.notes()
    assert surplus == "1 checkpoints are listed that were not expected: ckpt_360"
    assert "ckpt_007-fixed" in other
    assert "main" not in other


def test_two_branches_of_one_number_are_told_and_the_expected_name_is_used():
    listing = discover(branches([*RELEASES["amber"], "ckpt_7", "ckpt_0007"]), rule("amber"))
    assert found(listing) == RELEASES["amber"]
    assert listing.duplicates == (("ckpt_007", "ckpt_0007", "ckpt_7"),)
    assert "ckpt_007 is used" in listing.notes()[0]


def test_olmo_takes_the_first_stage_and_names_the_others():
    stage1 = [f"stage1-step{s}-tokens{max(1, s * 4194304 // 10**9)}B" for s in (150, 600, 1000, 2000, 928646)]
    stage2 = [f"stage2-ingredient{i}-step11931-tokens50B" for i in (1, 2, 3)]
    listing = discover(branches([*stage1, *stage2, "main"]), rule("olmo2-7b"))
    assert found(listing) == stage1
    assert listing.found[-1].labels == {"step": 928646, "tokens": 3895}
    assert listing.other == ("main", *stage2)
    assert "stage2-ingredient2-step11931-tokens50B" in listing.notes()[0]


def test_a_single_point_is_its_branch():
    listing = discover(branches(["main", "pr-1"]), rule("amberchat"))
    assert [(item.name, item.branch, item.labels) for item in listing.found] == [("main", "main", {})]
    assert discover({"other": "0"}, rule("amberchat")).missing == ("main",)


def test_an_expected_number_is_compared():
    by_number = Revisions("a/b", revision=r"s(?P<n>\d+)", expected=4)
    assert discover(branches(["s1", "s2"]), by_number).notes() == [
        "2 checkpoints are listed; 4 were expected"
    ]
    assert discover(branches(["s1", "s2", "s3", "s4"]), by_number).notes() == []


def test_an_optional_group_that_is_absent_comes_first():
    ordered = Revisions("a/b", revision=r"(?:late(?P<late>\d+)-)?s(?P<n>\d+)", order=("late", "n"))
    assert found(discover(branches(["late0-s1", "s9", "late1-s0", "s10"]), ordered)) == [
        "s9",
        "s10",
        "late0-s1",
        "late1-s0",
    ]


FORMS = {
    "steps": (["step0", "step10", "step2", "main", "v1.0"], ["step0", "step2", "step10"]),
    "padded": (["main", "ckpt_010", "ckpt_009"], ["ckpt_009", "ckpt_010"]),
    "two numbers": (
        ["stage1-step5-tokens1B", "stage1-step10-tokens2B", "stage2-ingredient1-step1-tokens1B", "main"],
        ["stage1-step5-tokens1B", "stage1-step10-tokens2B"],
    ),
    "one": (["main", "global_step143000"], ["global_step143000"]),
    "no numbers": (["main", "dev"], ["main"]),
    "none": ([], []),
}


@pytest.mark.parametrize(("listed", "expected"), FORMS.values(), ids=FORMS)
def test_without_a_rule_the_most_common_form_counts(listed, expected):
    assert found(discover(branches(listed), Revisions("a/b"))) == expected


@quick
@given(
    st.sets(st.integers(0, 10**9), min_size=1, max_size=30),
    st.sampled_from(["step{}", "a.b-{}", "iter_{:09d}", "k2-{}-x", "[{}]"]),
    st.randoms(),
)
def test_a_form_is_found_whatever_the_order(indices, form, chance):
    listed = [form.format(index) for index in indices]
    chance.shuffle(listed)
    listing = discover(dict.fromkeys([*listed, "main"], "0"), Revisions("a/b"))
    assert found(listing) == [form.format(index) for index in sorted(indices)]
    assert labels_of(listed[0], compiled(pattern_of(listed))) is not None


@quick
@given(st.lists(st.text(max_size=30), max_size=20, unique=True), st.sampled_from([*RELEASES, "olmo2-1b"]))
def test_any_list_of_names_is_sorted_into_found_and_other(listed, name):
    mixed = [*listed, *RELEASES.get(name, [])[::7]]
    listing = discover(dict.fromkeys(mixed, "0"), rule(name))
    used = {item.branch for item in listing.found} | {b for same in listing.duplicates for b in same}
    assert used | set(listing.other) == set(mixed)
    assert not used & set(listing.other)
    assert all("\n" not in note or any("\n" in name for name in listed) for note in listing.notes())


SLOW_OR_BROKEN = [
    *("(", r"(?P<a>\d+)+$", "(a+)+", "(?:aa|a)*", "(?:a*)*", r"\d*\d*\d*\d*\d*x", r"(a)\1", "(?=a)a"),
    *("(?<=a)b", "a?a?a?a?a?", "(?:ab|cd)" * 5, "(?P<n>a)(?P<n>b)", "a{3,70}" * 5, "(?>a)", "(?P<a-b>a)"),
]


@pytest.mark.parametrize("pattern", SLOW_OR_BROKEN)
def test_a_rule_that_may_take_forever_or_means_nothing_is_refused(pattern):
    with pytest.raises(SeriesError) as caught:
        compiled(pattern)
    assert repr(pattern) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_slowest_rule_that_is_allowed_is_quick():
    pattern = compiled(r"\d*\d*\d*(?P<n>\d*)x")
    start = time.perf_counter()
    assert labels_of("1" * 100, pattern) is None
    assert labels_of("1" * 5000, pattern) is None
    assert time.perf_counter() - start < 10


def test_numbers_and_names_are_written_out_as_a_shell_does():
    assert numbers("0,1,4..7, 10..20..5") == [0, 1, 4, 5, 6, 7, 10, 15, 20]
    assert names("ckpt_{008..010}") == ["ckpt_008", "ckpt_009", "ckpt_010"]
    assert names("a{0,1}-b{2,3}") == ["a0-b2", "a0-b3", "a1-b2", "a1-b3"]
    assert names("main") == ["main"]


@pytest.mark.parametrize("text", ["", "a", "1..", "3..1", "1..9..0", "1..9999999999", "1,,2", "-1"])
def test_a_bad_range_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        numbers(text)
    with pytest.raises(ValueError, match=r".+"):
        names("x{" + text + "}")


@pytest.mark.parametrize("pattern", ["a{1", "a1}", "{0..999}" * 3, "{{1}}"])
def test_a_bad_pattern_of_names_is_refused(pattern):
    with pytest.raises(ValueError, match=r".+"):
        names(pattern)
