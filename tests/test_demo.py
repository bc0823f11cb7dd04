"""The whole job on a series trained here, through real vLLM, against the truth that was planted in it.

These are the commands of `make demo`, run once for all tests below (some minutes on two cores).
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

import analysis360 as a360
from analysis360 import summaries
from analysis360.results import MemorizationResult

ROOT = Path(__file__).resolve().parents[1]


def commands(demo: Path) -> list[list[str]]:
    """What `make demo` would run, in another folder."""
    dry = ["make", "--dry-run", "--always-make", "demo", f"DEMO={demo}"]
    lines = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [shlex.split(line) for line in lines if line.startswith(".venv/bin/")]
    return [[str(Path(sys.executable).with_name(Path(line[0]).name)), *line[1:]] for line in ours]


def run_demo(demo: Path) -> str:
    done = [
        subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False) for line in commands(demo)
    ]
    for process in done:
        assert process.returncode == 0, process.stderr[-2000:]
    return "".join(process.stdout for process in done)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a finished demo, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    yield folder, run_demo(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def result(demo: tuple[Path, str]) -> MemorizationResult:
    folder, _ = demo
    out = folder / "results"
    return a360.memorization(folder / "tiny", "3:36:4", sequences=32, engine="vllm", out=out, compute=False)


@pytest.fixture(scope="module")
def frame(result: MemorizationResult) -> pd.DataFrame:
    return result.frame()


def test_the_loss_is_the_golden_curve(demo: tuple[Path, str]) -> None:
    """Mean loss of each chunk. Bits agree on one kind of CPU alone; float sums that differ in the last digit grow
    apart, most where a canary is about to be learned: two runs that added in another order were 0.083 nats apart
    in one chunk at the most."""
    golden = json.loads((ROOT / "tests/golden/tiny_loss.json").read_text())
    out = demo[0] / "tiny"
    files = json.loads((out / "data/report.json").read_text())["files"]
    listed = "".join(
        f"{name} {sha}\n" for name, sha in sorted(files.items()) if name.startswith("data/train/")
    )
    if platform.python_version() != golden["made_on"]["python"]:
        pytest.skip("another Python brings another standard library, and so another text")
    assert hashlib.sha256(listed.encode()).hexdigest() == golden["data"]
    steps = pd.read_json(out / "metrics.jsonl", lines=True)
    losses = steps.groupby("chunk")["loss"].mean().to_numpy()
    assert losses[0] == pytest.approx(golden["losses"][0], abs=0.01)
    np.testing.assert_allclose(losses, golden["losses"], atol=0.15)
    assert np.abs(losses - golden["losses"]).mean() < 0.03


def test_the_demo_scores_what_it_promises(frame: pd.DataFrame) -> None:
    train = frame[frame["role"] == "train"]
    assert len(train) == 9 * 36 * 32
    assert train.groupby(["ckpt", "chunk"], observed=True).size().eq(32).all()
    assert set(frame["role"]) == {"train", "held-out", "canary"}
    assert len(set(train["source"])) >= 3
    assert "canary" not in set(train["source"])


def test_it_ends_with_the_table_and_the_figures(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    for words in ("trained text", "held-out text", "canaries", "extractible, % [95 %]", "ckpt_035"):
        assert words in printed
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"figure3_loss", "figure7_distribution", "figure8_chunks", "figure9_score", "canaries"} <= names
    for name in names:
        assert f"{name}.png" in printed


def test_run_again_it_recomputes_nothing(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    kept = [*(folder / "tiny").rglob("*"), *(folder / "results").rglob("*.parquet")]
    before = {path: path.stat().st_mtime_ns for path in kept if path.is_file() and path.suffix != ".lock"}
    printed = run_demo(folder)
    assert "nothing to compute" in printed
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path.name for path in before if before[path] != after[path]} <= {"lock", ".lock"}


def canary_scores(frame: pd.DataFrame, spacing: str, ckpt: str) -> pd.Series:
    chosen = frame[(frame["role"] == "canary") & (frame["spacing"] == spacing) & (frame["ckpt"] == ckpt)]
    return chosen.groupby("repeats")["score"].mean()


def test_score_rises_with_exposures(frame: pd.DataFrame) -> None:
    even = canary_scores(frame, "even", "ckpt_035")
    assert list(even.index) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert even.loc[[64, 128]].min() > 0.8
    assert even.loc[[1, 2, 4, 8]].max() < 0.1
    assert even.rank().corr(pd.Series(range(8), even.index, dtype=float)) > 0.6


def test_the_most_repeated_are_mostly_extractible_at_the_end(frame: pd.DataFrame) -> None:
    last = frame[(frame["role"] == "canary") & (frame["spacing"] == "even") & (frame["ckpt"] == "ckpt_035")]
    assert last[last["repeats"] >= 64]["extractible"].mean() > 0.5


def test_never_planted_controls_stay_at_chance(result: MemorizationResult) -> None:
    check = result.control_check()
    assert check is not None
    assert len(check) == 9
    assert (check["tokens_scored"] == 32 * 32).all()
    assert check["inside"].all()


def test_a_one_chunk_canary_jumps_at_its_chunk_and_decays(frame: pd.DataFrame) -> None:
    canaries = frame[(frame["role"] == "canary") & (frame["spacing"] == "chunk") & (frame["repeats"] == 128)]
    curve = canaries.set_index("ckpt")["score"]
    planted = int(canaries["planted_first"].iloc[0])
    names = [name for name in curve.index if int(name.removeprefix("ckpt_")) + 1 >= planted]
    assert curve[[name for name in curve.index if name not in names]].max() < 0.1
    assert curve[names[0]] > 0.5
    assert curve["ckpt_035"] < curve[names[0]] / 2


def test_canaries_were_planted_as_the_manifest_says(demo: tuple[Path, str], frame: pd.DataFrame) -> None:
    series = a360.open_series(demo[0] / "tiny")
    assert series.manifest.canaries is not None
    (file,) = series.canaries
    rows = [tuple(json.loads(line)["token_ids"]) for line in lines_of(file)]
    found: dict[tuple[int, ...], set[tuple[int, int]]] = {row: set() for row in rows}
    for chunk in series.chunks:
        for number, line in enumerate(lines_of(chunk)):
            record = json.loads(line)
            if record["source"] == "canary":
                found[tuple(record["token_ids"])].add((chunk.index, number))
    for canary in series.manifest.canaries.rows:
        assert found[rows[canary.row]] == set(canary.planted)
    total = sum(map(len, found.values()))
    assert 0 < total < 0.1 * 36 * len(lines_of(series.chunks[0]))


def lines_of(chunk: a360.Chunk) -> list[str]:
    return chunk.place.read(chunk.files[0]).decode().splitlines()


def test_vllm_and_torch_agree_on_the_trained_series(demo: tuple[Path, str], frame: pd.DataFrame) -> None:
    """The second engine, on the same panels: what differs must be near-ties, and few."""
    folder, _ = demo
    other = a360.memorization(
        folder / "tiny",
        "-1",
        chunks="0:36:6",
        sequences=32,
        engine="torch",
        out=folder / "results",
        progress=False,
    ).frame()
    keys = ["ckpt", "chunk", "position"]
    both = other.merge(frame, on=keys, suffixes=("", "_vllm")).astype({"ckpt": str})
    assert len(both) == len(other)
    same = (both["score"] == both["score_vllm"]).mean()
    print(f"scores equal between engines: {same:.2%} of {len(both)}")
    assert same > 0.97
    assert (both["extractible"] == both["extractible_vllm"]).mean() > 0.99


def test_the_summary_equals_a_plain_mean(result: MemorizationResult, frame: pd.DataFrame) -> None:
    summary = result.summary().set_index(["ckpt", "group"])
    for ckpt in ("ckpt_003", "ckpt_035"):
        at = frame[frame["ckpt"] == ckpt]
        seen = at[(at["role"] == "train") & (at["exposures"] >= 1)]["score"].to_numpy(np.float64)
        held = at[at["role"] == "held-out"]["score"].to_numpy(np.float64)
        assert summary.loc[(ckpt, "trained text"), "score_mean"] == pytest.approx(seen.mean())
        assert summary.loc[(ckpt, "held-out text"), "score_mean"] == pytest.approx(held.mean())
        assert summary.loc[(ckpt, "trained text"), "sequences"] == len(seen)


def test_text_is_learned(result: MemorizationResult) -> None:
    metrics = result.metrics()
    assert metrics is not None
    assert metrics["loss"].tail(200).median() < metrics["loss"].head(20).median() - 2


def test_exposure_profile_covers_all_seen_text(result: MemorizationResult, frame: pd.DataFrame) -> None:
    profile = summaries.exposure_profile(summaries.grid_of(frame, 32))
    assert len(profile) > 2


def test_the_notebook_runs_and_is_kept_executed(demo: tuple[Path, str], tmp_path: Path) -> None:
    path = ROOT / "studies" / "memorization" / "memorization.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "commit the notebook executed"
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    for folder in ("runs", "studies/memorization"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs" / "demo").symlink_to(demo[0])
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "studies/memorization")}}
    ).execute()
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 5


def test_what_the_documents_point_to_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "training/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pages += sorted((ROOT / "studies").glob("*/README.md"))
    assert len(pages) > 8
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]*)(#[^)]*)?\)", page.read_text()):
            path, place = target
            if path.startswith("http"):
                continue
            other = page.parent / path if path else page
            assert other.exists(), f"{page} points to {path}"
            if place:
                titles = re.findall(r"^#+ (.*)", other.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert place[1:] in slugs, f"{page} points to {path}{place}; {other.name} has {sorted(slugs)}"


def test_every_command_in_the_documents_can_be_given() -> None:
    from analysis360.cli import _parser
    from analysis360.series.manifest import shipped

    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [
        (page, command)
        for page in pages
        for command in re.findall(r"(?:^|`)(analysis360 [a-z][^`\n]*)", page.read_text(), re.MULTILINE)
    ]
    assert len(found) > 35
    for page, command in found:
        words = shlex.split(command, comments=True)[1:]
        if words[-1].isupper() or len(words) < 2:
            continue  # a name in prose
        try:
            parsed = _parser().parse_args(words)
        except SystemExit:
            raise AssertionError(f"{page.name}: {command}") from None
        series = str(getattr(parsed, "series", ""))
        assert "/" in series or not series or series in shipped() or series.isupper(), (
            f"{page.name}: {command}"
        )


def test_the_readme_names_every_command() -> None:
    from analysis360.cli import _parser

    text = (ROOT / "README.md").read_text()
    choices = next(action.choices for action in _parser()._actions if action.choices)
    for command in choices:
        assert f"analysis360 {command}" in text
    for target in re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE):
        if target not in ("setup", "lock", "clean"):
            assert f"make {target}" in text
