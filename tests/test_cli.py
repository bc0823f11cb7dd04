"""The command line: quick help, exit codes, one clear line for bad input and nothing half-written."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_series import MakeSeries

from analysis360.cli import _parser

SHORT = ["--engine", "torch", "--prompt-tokens", "8", "--continuation-tokens", "12", "--quiet"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "analysis360.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def score(series: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run("memorization", "--series", series, "--out", out, *SHORT, *more)


def commands() -> list[str]:
    action = next(
        a for a in _parser()._actions if a.dest == "command" or (hasattr(a, "choices") and a.choices)
    )
    return list(action.choices or [])


@pytest.mark.parametrize("command", [[], *[[name] for name in ("memorization", "figures", "series")]])
def test_help_works_without_heavy_imports(command: list[str]) -> None:
    code = (
        "import sys; from analysis360.cli import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'vllm', 'transformers', 'pandas', 'pyarrow', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: analysis360" in done.stdout


def test_every_command_is_known() -> None:
    assert set(commands()) == {
        "memorization",
        "perplexity",
        "leaderboard",
        "code",
        "bold",
        "toxicity",
        "figures",
        "series",
        "doctor",
        "hub",
    }


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, analysis360\n"
        "heavy = {'torch', 'vllm', 'transformers', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memorization_prints_the_table_and_figures_are_drawn(small_series: Path, tmp_path: Path) -> None:
    scored = score(small_series, tmp_path / "results")
    assert scored.returncode == 0, scored.stderr
    for words in (
        "ckpt_003",
        "trained text",
        "held-out text",
        "never planted",
        "mean score [95 %]",
        "300 sequences",
    ):
        assert words in scored.stdout
    drawn = run(
        "figures",
        "--series",
        small_series,
        "--out",
        tmp_path / "results",
        *SHORT[:-1],
        "--to",
        tmp_path / "f",
    )
    assert drawn.returncode == 0, drawn.stderr
    names = {path.name for path in (tmp_path / "f").iterdir()}
    stems = [
        "summary",
        "figure7_distribution",
        "figure8_chunks",
        "figure9_score",
        "canaries",
    ]
    assert "figure9_extractible: not drawn: undefined between every two" in drawn.stdout
    assert {f"{stem}.{suffix}" for stem in [*stems, "exposure"] for suffix in ("png", "pdf")} == names


def test_extractibility_alone_is_printed_and_drawn(small_series: Path, tmp_path: Path) -> None:
    only = ("--metric", "extractible")
    scored = score(small_series, tmp_path / "results", *only)
    assert scored.returncode == 0, scored.stderr
    for words in ("torch float32, extractible only", "extractible, % [95 %]", "300 sequences scored"):
        assert words in scored.stdout
    assert "mean score" not in scored.stdout
    assert "note: scores are not known: only extractibility was asked" in scored.stdout
    results = ("figures", "--series", small_series, "--out", tmp_path / "results", *SHORT[:-1])
    drawn = run(*results, *only, "--to", tmp_path / "f")
    assert drawn.returncode == 0, drawn.stderr
    assert len([line for line in drawn.stdout.split("\n") if line.startswith("not drawn: figure7")]) == 1
    stems = ["summary", "canaries"]
    for name in ("figure8_chunks", "figure9_extractible"):
        assert f"{name}: not drawn: " in drawn.stdout  # nothing of random weights is extractible
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")
    }
    other = run(*results, "--to", tmp_path / "g")
    assert other.returncode == 1
    assert "run `analysis360 memorization` first" in other.stderr


def test_figures_without_results_say_what_to_run(small_series: Path, tmp_path: Path) -> None:
    done = run("figures", "--series", small_series, "--out", tmp_path, "--engine", "torch")
    assert done.returncode == 1
    assert "run `analysis360 memorization` first" in done.stderr


def test_what_is_stored_under_other_settings_is_named_the_nearest_first(
    small_series: Path, tmp_path: Path
) -> None:
    for more in ([], ["--seed", "3", "--continuation-tokens", "9"]):
        assert score(small_series, tmp_path, "--ckpts", "0", *more).returncode == 0
    asked = ("figures", "--series", small_series, "--out", tmp_path, *SHORT[:-1], "--ckpts", "0")
    done = run(*asked, "--engine", "vllm", "--seed", "3", "--to", tmp_path / "f")
    near, far = "--continuation-tokens 9 --engine torch", "--seed 0 --engine torch"
    assert done.returncode == 1
    assert f"in {tmp_path / 'small'}, which holds the same with " in done.stderr
    assert f"with {near} (not --continuation-tokens 12 --engine vllm)" in done.stderr
    assert f"with {far} (not --seed 3 --engine vllm); give those options, or run" in done.stderr
    one = run(*asked, "--compat", "analysis360", "--to", tmp_path / "f")
    assert "which holds the same with no --compat" in one.stderr
    assert one.stderr.index("no --compat") < one.stderr.index("--seed 3")
    assert run(*asked, "--to", tmp_path / "f").returncode == 0


def test_figures_that_are_removed_are_named(small_series: Path, tmp_path: Path) -> None:
    figures, only = tmp_path / "f", ("--metric", "extractible")
    assert score(small_series, tmp_path, *only).returncode == 0
    figures.mkdir()
    old = [figures / f"exposure{suffix}" for suffix in (".png", ".pdf")]
    for file in old:
        file.write_text("of an earlier run")
    drawn = ("figures", "--series", small_series, "--out", tmp_path, *SHORT[:-1], *only, "--to", figures)
    line = next(line for line in run(*drawn).stdout.splitlines() if line.startswith("not drawn: figure7"))
    assert line.endswith(f"; removed from an earlier run: {old[0]}  {old[1]}")
    assert not any(file.exists() for file in old)
    assert "earlier run" not in run(*drawn).stdout


def with_metrics(series: Path, folder: Path, text: str) -> Path:
    """A series that holds a manifest, links to all else, and this metrics file."""
    folder.mkdir()
    for path in series.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "series.toml").unlink()
    manifest = (series / "series.toml").read_text()
    (folder / "series.toml").write_text(manifest.replace("manifest = 1", 'manifest = 1\nmetrics = "m.jsonl"'))
    (folder / "m.jsonl").write_text(text)
    return folder


def test_training_is_drawn_before_anything_is_scored(small_series: Path, tmp_path: Path) -> None:
    steps = [{"step": i, "tokens": 10 * i + 10, "loss": 2.0, "chunk": i // 5} for i in range(20)]
    event = {"event": "abandoned", "chunk": 3, "position": 3, "step": 17, "tokens": 175, "loss": None}
    text = "".join(json.dumps(line) + "\n" for line in [*steps, event]) + '{"step": 20, "tok'
    series = with_metrics(small_series, tmp_path / "series", text)
    drawn = ("--out", tmp_path / "results", "--engine", "torch", "--to", tmp_path / "f")
    stale = tmp_path / "f/figure8_chunks.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of another result")
    done = run("figures", "--series", series, *drawn)
    assert done.returncode == 0, done.stderr
    *names, why = done.stdout.splitlines()
    bases = [tmp_path / "f" / name for name in ("figure3_loss", "figure3_training")]
    assert names == [f"{base}.png  {base}.pdf" for base in bases]
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        f"{base.name}.{suffix}" for base in bases for suffix in ("png", "pdf")
    }
    assert why.startswith("not drawn: what is memorized: no results of these settings in ")
    assert why.endswith(f"run `analysis360 memorization` first; removed from an earlier run: {stale}")
    wrong = run("figures", "--series", series, "--ckpts", "9:12", *drawn)
    assert wrong.returncode == 2


def test_metrics_that_cannot_be_drawn_are_a_failure(small_series: Path, tmp_path: Path) -> None:
    series = with_metrics(small_series, tmp_path / "series", "")
    drawn = ("--out", tmp_path / "results", "--engine", "torch", "--to", tmp_path / "f")
    done = run("figures", "--series", series, *drawn)
    assert done.returncode == 1
    assert "run `analysis360 memorization` first (nor can training be drawn: nothing to draw" in done.stderr
    assert not (tmp_path / "f").exists()


def test_series_shows_what_a_series_holds(small_series: Path) -> None:
    done = run("series", small_series)
    assert done.returncode == 0
    assert "ckpt_000 to ckpt_003" in done.stdout


def edit_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")


def malformed(root: Path) -> None:
    edit_line(root / "train/train_001.jsonl", 5, '{"token_ids": [1, 2')


def fraction(root: Path) -> None:
    edit_line(root / "train/train_001.jsonl", 5, json.dumps({"token_ids": [1.5] * 72, "source": "text"}))


def beyond(root: Path) -> None:
    edit_line(root / "train/train_001.jsonl", 5, json.dumps({"token_ids": [96] * 72, "source": "text"}))


def no_chunk(root: Path) -> None:
    (root / "train/train_001.jsonl").unlink()


def no_weights(root: Path) -> None:
    (root / "checkpoints/ckpt_001/model.safetensors").unlink()


def no_config(root: Path) -> None:
    (root / "checkpoints/ckpt_001/config.json").unlink()


def bad_manifest(root: Path) -> None:
    with (root / "series.toml").open("a") as file:
        file.write("\n[surprise]\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (malformed, "train_001.jsonl byte 1248: expected"),
        (fraction, "train_001.jsonl byte 1248: id 1.5 at position 0 is not an integer"),
        (beyond, "train_001.jsonl byte 1248: id 96 at position 0; the vocabulary has 96 ids"),
        (no_chunk, "chunk train_001"),
        (no_weights, "checkpoint ckpt_001: no model.safetensors"),
        (no_config, "checkpoint ckpt_001"),
        (bad_manifest, "unknown key 'surprise'"),
    ],
)
def test_a_damaged_series_gives_one_line(
    make_series: MakeSeries, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    root = make_series(checkpoints=2, chunks=2)
    damage(root)
    done = score(root, tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.startswith("analysis360: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("**/.*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ckpts", "9"], "checkpoint 9 is out of range: the series has 4"),
        (["--ckpts", "ckpt_9"], "unknown checkpoint 'ckpt_9'"),
        (["--ckpts", "3:1"], "empty or reversed"),
        (["--ckpts", "2:2"], "empty or reversed"),
        (["--chunks", "7"], "chunk 7 is out of range"),
        (["--sequences", "0"], "sequences: expected at least 1"),
        (["--prompt-tokens", "0"], "prompt tokens: expected at least 1"),
        (["--continuation-tokens", "300"], "continuation tokens: expected 1 to 256"),
        (["--shard", "4/4"], "shard '4/4'"),
        (["--chunks", "seeen"], "unknown chunk 'seeen': the series has 4, train_000 to train_003 (all, seen"),
        (["--engine", "jax"], "invalid choice: 'jax'"),
        (["--sequence", "9"], "unrecognized arguments: --sequence"),
        (["--metric", "loss"], "invalid choice: 'loss'"),
    ],
)
def test_wrong_arguments_exit_with_2(
    small_series: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = score(small_series, tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["--batch-invariant"],
            "batch-invariant mode needs a GPU",
            marks=pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU"),
        ),
        (["--tensor-parallel", "0"], "tensor parallel 0: expected at least 1"),
        (["--tensor-parallel", "3"], "tensor parallel 3: "),
    ],
)
def test_modes_of_vllm_that_cannot_be_are_wrong_arguments(
    small_series: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = score(small_series, tmp_path, "--engine", "vllm", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_rows_shorter_than_asked_are_named(small_series: Path, tmp_path: Path) -> None:
    done = score(small_series, tmp_path, "--prompt-tokens", "60", "--continuation-tokens", "60")
    assert done.returncode == 1
    assert "expected at least 120 ids (prompt + continuation), found 72" in done.stderr


def test_an_unknown_series_is_named(tmp_path: Path) -> None:
    done = run("memorization", "--series", "nosuch", "--out", tmp_path)
    assert done.returncode == 2
    assert "unknown series 'nosuch'" in done.stderr


def test_the_series_below_a_folder_is_named(tmp_path: Path) -> None:
    done = run("series", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"analysis360: folder {tmp_path} has no series.toml, so it is no series\n"
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "series.toml").write_text("")
    assert run("series", tmp_path).stderr.endswith(f"no series; {tmp_path / 'tiny'} has one\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "series.toml").write_text("")
    assert f"; {tmp_path}/more and {tmp_path}/tiny have one" in run("series", tmp_path).stderr


def test_a_folder_that_cannot_be_written_is_named(small_series: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = score(small_series, tmp_path / "taken")
    assert done.returncode == 1
    assert "not writable" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_named(small_series: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = score(small_series, tmp_path / "results")
    assert done.returncode == 1
    assert "not writable" in done.stderr


def test_output_to_a_closed_pipe_is_no_error(small_series: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    command = f"{sys.executable} -m analysis360.cli series {small_series} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
