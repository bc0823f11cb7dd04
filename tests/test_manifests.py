"""Manifests of released series and of repositories: what ships, the grammar for the Hub, what is refused."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from analysis360.errors import SeriesError
from analysis360.series.discovery import expected_names
from analysis360.series.manifest import (
    Canaries,
    Facts,
    Files,
    Model,
    Phase,
    Revisions,
    Schedule,
    manifest_for,
    read_manifest,
    read_manifest_text,
    read_shipped,
    shipped,
)
from analysis360.series.records import fits

ROOT = Path(__file__).resolve().parents[1]
SIZES = ["70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"]
HUB = """
manifest = 1
name = "far"
[checkpoints]
repository = "org/model"
revision = 'ckpt_(?P<index>\\d+)'
[data]
repository = "org/data"
path = "train/train_{index:03d}.jsonl"
count = 4
"""
BIN = """
repository = "org/data"
format = "bin"
path = "part-{index:05d}.bin"
row_tokens = 8
token_dtype = "uint16"
window_rows = 10
"""


# --- what ships ------------------------------------------------------------------------------------


def test_every_released_series_ships():
    expected = {"amber", "amberchat", "ambersafe", "crystalcoder", "k2"}
    expected |= {f"olmo2-{size}" for size in ("1b", "7b", "13b", "32b")}
    expected |= {f"pythia-{size}" for size in ["14m", "31m", *SIZES]}
    expected |= {f"pythia-{size}-deduped" for size in SIZES}
    assert set(shipped()) == expected
    assert len(shipped()) == len(expected)
    assert read_shipped("no-such-series") is None
    assert read_shipped("pythia-{size}") is None


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_manifest_is_whole(name):
    manifest = read_shipped(name)
    assert manifest.name == name
    assert isinstance(manifest.checkpoints, Revisions)
    assert "{" not in manifest.checkpoints.repository
    assert manifest.facts.first_hand
    assert manifest.facts.assumed
    assert all(fact.endswith((".", "B.")) and "\n" not in fact for fact in manifest.facts.first_hand)
    assert all("{size}" not in fact for fact in (*manifest.facts.first_hand, *manifest.facts.assumed))
    assert manifest.model.eos_token_id is not None
    assert manifest == read_shipped(name)


def test_the_package_takes_its_manifests_along():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [path.relative_to(ROOT / "analysis360") for path in (ROOT / "analysis360").rglob("*.toml")]
    assert files
    for file in files:
        assert any(fnmatch(str(file), pattern) for pattern in patterns["analysis360"]), file


def test_a_family_differs_in_its_sizes_alone():
    assert {size: read_shipped(f"pythia-{size}").model.compute_dtype for size in ("410m", "1b", "1.4b")} == {
        "410m": "float16",
        "1b": "bfloat16",
        "1.4b": "float16",
    }
    assert read_shipped("pythia-1b-deduped").model == Model("bfloat16", 0, add_bos=False)
    assert read_shipped("pythia-2.8b").checkpoints.repository == "EleutherAI/pythia-2.8b"
    assert "86 of the 154" in read_shipped("pythia-2.8b").facts.assumed[-1]
    assert not any("86 of the 154" in fact for fact in read_shipped("pythia-1b").facts.assumed)
    assert read_shipped("olmo2-1b").checkpoints.repository == "allenai/OLMo-2-0425-1B"


def test_amber_is_what_the_paper_says():
    manifest = read_shipped("amber")
    assert manifest.data.rows * manifest.data.row_tokens == manifest.exposure.tokens_per_chunk
    assert manifest.exposure.tokens_per_chunk * 360 == pytest.approx(1259.13e9, rel=5e-6)
    assert manifest.data.paths()[143] == ("train_143", "train/train_143.jsonl")
    assert len(expected_names(manifest.checkpoints)) == 360
    assert (manifest.checkpoints.aliases, manifest.checkpoints.main) == (("IFM/Amber",), {"index": 359})
    assert read_shipped("ambersafe").base == "amber/ckpt_355"


def test_pythia_rows_lie_in_windows_over_all_files():
    data = read_shipped("pythia-70m").data
    assert data.row_bytes == 4098
    listed = [f"document-{i:05d}-of-00020.bin" for i in range(21)]
    assert [path for _, path in data.paths([*reversed(listed), "document.idx"])] == listed
    windows = data.windows(600_078_336_000)
    assert len(windows) == 143
    assert windows[0] == ("rows_000000000", 0, 1_024_000)
    assert windows[-1] == ("rows_145408000", 145_408_000, 146_432_000)


# --- the grammar -----------------------------------------------------------------------------------


def test_a_manifest_for_the_hub_is_read_whole():
    text = """
        manifest = 1
        name = "far"
        base = "amber/ckpt_355"
        [model]
        compute_dtype = "bfloat16"
        [checkpoints]
        repository = "org/model"
        aliases = ["other/model"]
        revision = 'p(?P<phase>\\d+)-s(?P<step>\\d+)'
        order = ["phase", "step"]
        expected = ["p1-s{0..10..5}", "p2-s3"]
        main = { phase = 2, step = 3 }
        subfolder = "hf"
        [data]
        repository = "org/data"
        aliases = ["other/data"]
        revision = "v2"
        format = "hdf5"
        files = "**/*.h5"
        dataset = "ids"
        select = 0
        [held_out]
        repository = "org/data"
        path = "held/{index}.parquet"
        format = "parquet"
        count = 2
        [canaries]
        repository = "org/data"
        path = "canaries.jsonl"
        [exposure]
        label = "step"
        phase = "phase"
        [[exposure.phases]]
        number = 1
        steps = 10
        chunks = ["p1/**"]
        epochs = 2
        [facts]
        first_hand = ["This."]
        assumed = ["That."]
    """
    manifest = read_manifest_text(text, "org/model")
    rule = manifest.checkpoints
    assert rule == Revisions(
        "org/model",
        ("other/model",),
        r"p(?P<phase>\d+)-s(?P<step>\d+)",
        ("phase", "step"),
        ("p1-s{0..10..5}", "p2-s3"),
        {"phase": 2, "step": 3},
        "hf",
    )
    assert expected_names(rule) == ["p1-s0", "p1-s5", "p1-s10", "p2-s3"]
    hdf5 = {"dataset": "ids", "select": 0, "revision": "v2", "aliases": ("other/data",)}
    assert manifest.data == Files(files="**/*.h5", format="hdf5", repository="org/data", **hdf5)
    assert manifest.held_out == Files("held/{index}.parquet", 2, format="parquet", repository="org/data")
    assert manifest.canaries == Canaries("canaries.jsonl", repository="org/data")
    phases = (Phase(1, 10, ("p1/**",), 2),)
    assert manifest.exposure == Schedule(label="step", phase="phase", phases=phases)
    assert manifest.facts == Facts(("This.",), ("That.",))
    assert (manifest.base, manifest.model.compute_dtype) == ("amber/ckpt_355", "bfloat16")


def test_orders_are_written_out():
    text = HUB + '[exposure]\nlabel = "index"\noffset = 1\norder = ["0..1", "unknown", 3, "2"]\n'
    assert read_manifest_text(text, "x").exposure.order == (0, 1, None, 3, 2)
    whole = HUB + '[exposure]\nlabel = "index"\norder = "0..3"\nskipped = 1\nrepeats = "0"\n'
    assert read_manifest_text(whole, "x").exposure == Schedule(
        (0, 1, 2, 3), label="index", skipped=1, repeats=(0,)
    )


def test_a_series_on_the_hub_needs_no_data():
    manifest = read_manifest_text(HUB.split("[data]")[0], "x")
    assert manifest.data is None


CHECKPOINTS = "revision = 'ckpt_(?P<index>\\d+)'"
DATA = 'path = "train/train_{index:03d}.jsonl"\ncount = 4'


def with_rule(line):
    return HUB.replace(CHECKPOINTS, line)


def with_data(lines):
    return HUB.split('repository = "org/data"')[0] + lines


BAD = {
    "an unknown key": (with_rule(CHECKPOINTS + "\npattern = 1"), "'pattern'"),
    "folders and branches": (with_rule(CHECKPOINTS + '\npath = "c{index}"'), "'path'"),
    "no regular expression": (with_rule("revision = '('"), "'revision'"),
    "no groups": (with_rule("revision = 'main'"), "named group"),
    "a slow rule": (with_rule("revision = '(?P<n>(a+)+)'"), "'revision'"),
    "an unknown group in order": (with_rule(CHECKPOINTS + "\norder = ['step']"), "'step'"),
    "an unknown group of main": (with_rule(CHECKPOINTS + "\nmain = { step = 1 }"), "'step'"),
    "a group in words": (with_rule(CHECKPOINTS + "\nmain = { index = 'last' }"), "main"),
    "an order of nothing": (with_rule("order = ['index']"), "'revision'"),
    "names that do not fit": (with_rule(CHECKPOINTS + "\nexpected = ['step{0..3}']"), "'step0'"),
    "a bad range": (with_rule(CHECKPOINTS + "\nexpected = ['ckpt_{3..0}']"), "expected"),
    "too many names": (with_rule(CHECKPOINTS + "\nexpected = ['ckpt_{0..9999999}']"), "expected"),
    "none expected": (with_rule(CHECKPOINTS + "\nexpected = 0"), "expected"),
    "a single point in order": (with_rule(CHECKPOINTS + "\nsingle = true\norder = ['index']"), "single"),
    "no repository": (HUB.replace("org/model", "model"), "'model'"),
    "a repository that climbs": (HUB.replace("org/data", "../data"), "'../data'"),
    "a bad alias": (with_rule(CHECKPOINTS + "\naliases = ['a b/c']"), "'a b/c'"),
    "a subfolder that climbs": (with_rule(CHECKPOINTS + "\nsubfolder = '../x'"), "'../x'"),
    "aliases of nothing": (with_data('aliases = ["a/b"]\n' + DATA), "aliases"),
    "no count beside the manifest": (with_data('path = "t_{index}.jsonl"\n'), "'count'"),
    "a glob and a path": (HUB + 'files = "*.jsonl"\n', "`files`"),
    "a glob that climbs": (with_data('files = "../*.jsonl"\n'), "'../*.jsonl'"),
    "a glob of stars": (with_data('files = "' + "*a" * 9 + '"\n'), "wildcards"),
    "neither path nor glob": (with_data('repository = "org/data"\n'), "'path'"),
    "bin without a dtype": (with_data(BIN.replace('token_dtype = "uint16"\n', "")), "token_dtype"),
    "bin of another dtype": (with_data(BIN.replace("uint16", "int8")), "'int8'"),
    "bin without a size": (with_data(BIN.replace("row_tokens = 8\n", "")), "row_tokens"),
    "windows of lines": (HUB + "window_rows = 10\n", "window_rows"),
    "an empty window": (with_data(BIN.replace("window_rows = 10", "window_rows = 0")), "window_rows"),
    "select below 0": (HUB + "select = -1\n", "select"),
    "an unknown label": (HUB + "[exposure]\nlabel = 'step'\norder = [0]\n", "'step'"),
    "an offset of nothing": (HUB + "[exposure]\noffset = 1\norder = [0]\n", "offset"),
    "rows without windows": (HUB + "[exposure]\nlabel = 'index'\nrows_per_step = 4\n", "window_rows"),
    "rows and an order": (
        with_data(BIN) + "[exposure]\nlabel = 'index'\nrows_per_step = 4\norder = [0]\n",
        "order and rows_per_step",
    ),
    "phases without their group": (
        HUB + "[exposure]\nlabel = 'index'\n[[exposure.phases]]\nnumber = 1\nsteps = 2\n",
        "`phase`",
    ),
    "an unknown key of a phase": (
        HUB + "[exposure]\n[[exposure.phases]]\nnumber = 1\nstpes = 2\n",
        "'stpes'",
    ),
    "a phase of no steps": (
        HUB + "[exposure]\nlabel = 'index'\nphase = 'index'\n[[exposure.phases]]\nnumber = 1\nsteps = 0\n",
        "phase 1",
    ),
    "more left out than there are": (
        HUB + "[exposure]\nlabel='index'\norder='0..3'\nskipped = 5\n",
        "skipped",
    ),
    "left out of an unknown order": (HUB + "[exposure]\norder=[0, 'unknown']\nskipped = 1\n", "skipped"),
    "a repeat past the end": (HUB + "[exposure]\norder='0..3'\nskipped=1\nrepeats=[4]\n", "`repeats`"),
    "an order past the end": (HUB + "[exposure]\norder='0..4'\n", "`order`"),
    "facts in words": (HUB + "[facts]\nassumed = 'much'\n", "assumed"),
    "a family": (HUB.replace('name = "far"', 'name = "far"\nsizes = ["1b"]'), "'sizes'"),
}


@pytest.mark.parametrize(("text", "named"), BAD.values(), ids=BAD)
def test_a_bad_manifest_for_the_hub_is_refused_by_place_and_key(text, named):
    with pytest.raises(SeriesError) as caught:
        read_manifest_text(text, "hub:org/model")
    message = str(caught.value)
    assert message.startswith("hub:org/model")
    assert named in message.removeprefix("hub:org/model")
    assert "\n" not in message


def test_a_text_and_a_file_read_alike(tmp_path):
    path = tmp_path / "series.toml"
    path.write_text(HUB)
    assert read_manifest(path) == read_manifest_text(HUB, "x")


# --- files -----------------------------------------------------------------------------------------


def test_globs_take_the_files_there_are_in_order():
    files = Files(files="phase*/**/*.h5", format="hdf5")
    listed = [
        "phase2/b/1.h5",
        "README.md",
        "phase1/a/b/0.h5",
        "phase1/0.h5",
        "x/phase1/0.h5",
        "phase1/0.h5.bak",
    ]
    assert files.paths(listed) == [
        ("phase1-0", "phase1/0.h5"),
        ("phase1-a-b-0", "phase1/a/b/0.h5"),
        ("phase2-b-1", "phase2/b/1.h5"),
    ]
    for nothing in (None, [], ["README.md"]):
        with pytest.raises(SeriesError):
            files.paths(nothing)
    assert fits("a/b/c", "**")
    assert not fits("a/b", "*")


def test_an_open_count_takes_the_numbered_files_there_are():
    lines = Files("t/{index:02d}.jsonl", first=1, repository="o/d")
    assert lines.paths(["t/03.jsonl", "t/01.jsonl", "t/00.jsonl", "t/3.jsonl", "t/x.jsonl"]) == [
        ("01", "t/01.jsonl"),
        ("03", "t/03.jsonl"),
    ]
    with pytest.raises(SeriesError, match="not listed"):
        lines.paths()
    assert Files("t/{index}.jsonl", 2).paths([]) == [("0", "t/0.jsonl"), ("1", "t/1.jsonl")]
    assert Files("all.bin").paths([]) == [("all", "all.bin")]


def test_windows_need_every_file_and_whole_rows():
    data = read_manifest_text(with_data(BIN), "x").data
    assert data.windows(16 * 25) == [("rows_00", 0, 10), ("rows_10", 10, 20), ("rows_20", 20, 25)]
    with pytest.raises(SeriesError, match="rest of 3"):
        data.windows(16 * 25 + 3)
    with pytest.raises(SeriesError, match="missing"):
        data.paths(["part-00000.bin", "part-00002.bin"])
    with pytest.raises(SeriesError, match="missing"):
        data.paths(["part-00001.bin"])


# --- any repository --------------------------------------------------------------------------------


def test_any_repository_is_a_series():
    assert manifest_for("org/name").checkpoints == Revisions("org/name")
    assert manifest_for("org/name").name == "org--name"
    assert manifest_for("org/name").data is None
    rule = r"step(?P<step>\d+)"
    assert manifest_for("org/name", rule).checkpoints == Revisions("org/name", revision=rule)
    assert manifest_for("org/name", "v1.0+x").checkpoints == Revisions(
        "org/name", revision="v1.0+x", single=True
    )


@pytest.mark.parametrize(
    ("repository", "revision"),
    [
        ("name", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/..", None),
        ("a/b", "(?P<n>"),
        ("a/b", "(?P<n>(a+)+)"),
    ],
)
def test_a_bad_repository_or_rule_is_refused(repository, revision):
    with pytest.raises(SeriesError) as caught:
        manifest_for(repository, revision)
    assert "\n" not in str(caught.value)
