"""The code command, from a series on disk to a table: stored once, read without a model, refused where it cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from code_materials import CHARACTERS, character_tokenizer, write_problems
from small_series import MakeSeries, save_llama

from analysis360.cli import main
from analysis360.code_results import FRAME, SUMMARY, CodeResult, stored_summary
from analysis360.coding import code_evaluation
from analysis360.errors import MissingError, NotStoredError, SandboxError, SelectionError
from analysis360.store import Store
from analysis360.tasks.code import sandbox, walls
from analysis360.tasks.code.passing import passing
from analysis360.tasks.code.prompts import style

QUIET: dict[str, Any] = {"engine": "torch", "new_tokens": 12, "progress": False}


@pytest.fixture(scope="module")
def series(make_series: MakeSeries) -> Path:
    """Four random checkpoints that read and write characters."""
    folder = make_series("writers", rows=4)
    for i, checkpoint in enumerate(sorted((folder / "checkpoints").iterdir())):
        shutil.rmtree(checkpoint)
        save_llama(checkpoint, i, vocab_size=len(CHARACTERS) + 1, max_position_embeddings=256)
        character_tokenizer(checkpoint)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_problems(tmp_path_factory.mktemp("problems"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def result(series: Path, data: Path, out: Path) -> CodeResult:
    return code_evaluation(series, "0:4:3", data=data, out=out, **QUIET)


def test_a_row_a_checkpoint_and_benchmark(result: CodeResult) -> None:
    summary = result.summary()
    assert list(summary.columns) == list(SUMMARY)
    assert summary[["ckpt", "benchmark", "metric", "n"]].values.tolist() == [
        [ckpt, benchmark, "pass@1", n]
        for ckpt in ("ckpt_000", "ckpt_003")
        for benchmark, n in (("HumanEval", 3), ("MBPP", 4))
    ]
    frame = result.frame()
    assert list(frame.columns) == list(FRAME)
    for line in summary.itertuples():
        programs = frame[(frame["ckpt"] == line.ckpt) & (frame["benchmark"] == str(line.benchmark).lower())]
        assert line.value == programs["passed"].mean()
        found = passing(programs["passed"].astype(int).tolist(), 1, 1)
        assert (line.low, line.high) == (found.low, found.high)


def test_what_was_written_is_what_the_model_writes(result: CodeResult, series: Path) -> None:
    """Beside transformers' own greedy decoding, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = series / "checkpoints/ckpt_003"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = next(several for one, several in result.task.plan if one.name == "ckpt_003")
    stored = result.frame("ckpt_003")
    for one in asked:
        texts = stored[stored["benchmark"] == one.questions.problems.name]["text"]
        for prompt, text in zip(one.questions.prompts, texts, strict=True):
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                whole = model.generate(
                    ids, max_new_tokens=12, do_sample=False, eos_token_id=0, pad_token_id=0
                )
            written = tokenizer.decode(whole[0], skip_special_tokens=True)[len(tokenizer.decode(ids[0])) :]
            stops = [place for stop in one.questions.style.stops if (place := written.find(stop)) >= 0]
            assert text == written[: min(stops, default=None)]


def test_what_is_stored_is_not_computed_again(
    result: CodeResult, series: Path, data: Path, out: Path
) -> None:
    assert result.report.computed == 14
    again = code_evaluation(series, "0:4:3", data=data, out=out, **QUIET)
    assert (again.report.computed, again.report.stored) == (0, 14)
    read = code_evaluation(series, "0:4:3", data=data, out=out, compute=False, **QUIET)
    assert read.summary().equals(result.summary())
    assert read.frame().equals(result.frame())
    part = code_evaluation(
        series, "0", data=data, out=out, benchmarks="mbpp", limit=2, compute=False, **QUIET
    )
    assert part.summary()["n"].tolist() == [2]


def test_judging_again_needs_no_model_and_leaves_the_store(
    result: CodeResult, series: Path, data: Path, out: Path
) -> None:
    again = result.rescore()
    assert again.summary().equals(result.summary())
    assert again.notes[-1].startswith("14 programs were judged again; 0 pass")


def test_samples_are_drawn_apart_and_alike_in_every_run(series: Path, data: Path, tmp_path: Path) -> None:
    drawn = QUIET | {"samples": 4, "temperature": 1.0, "k": (1, 2), "data": data}
    whole = code_evaluation(series, "0", out=tmp_path / "whole", **drawn)
    texts = whole.frame()
    assert len(texts) == 7 * 4
    assert texts.groupby(["benchmark", "task_id"])["text"].nunique().min() > 1
    part = code_evaluation(series, "0", out=tmp_path / "part", benchmarks="mbpp", limit=2, **drawn)
    same = texts[texts["benchmark"] == "mbpp"].head(8)["text"].tolist()
    assert part.frame()["text"].tolist() == same
    assert whole.summary()["metric"].tolist() == ["pass@1", "pass@2"] * 2


def test_the_command_prints_the_table(
    result: CodeResult, series: Path, data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"code --series {series} --ckpts 0:4:3 --data {data} --engine torch --new-tokens 12 --out {out} --quiet"
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert "Prompts: humaneval/paper, mbpp/docstring" in printed
    assert printed.count("ckpt_00") == 2
    assert "14 problems were stored already" in printed
    assert main([*line.split(), "--rescore"]) == 0
    assert "14 programs were judged again; 0 pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 2}, SelectionError, r"pass@2: expected k from 1 to the number of samples, which is 1"),
        ({"benchmarks": "apps"}, SelectionError, r"benchmark 'apps'"),
        ({"data": "/nowhere"}, SelectionError, r"no such folder"),
        ({"limit": 0}, SelectionError, r"limit: expected at least 1"),
        ({"new_tokens": 250}, SelectionError, r"the model reads 256; give fewer --new-tokens"),
        ({"compute": False, "seed": 5}, NotStoredError, r"run `analysis360 code` first"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    options: dict[str, Any], error: type[Exception], message: str, series: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as found:
        code_evaluation(series, **{"data": data, "out": tmp_path, **QUIET, **options})
    assert "\n" not in str(found.value)


def test_missing_examples_are_said_before_anything_runs(series: Path, data: Path, tmp_path: Path) -> None:
    lines = (data / "mbpp.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "mbpp.jsonl").write_text("".join(lines[3:]))
    with pytest.raises(MissingError, match=r"prompt 'paper' of mbpp shows the problems 2, 3, 4"):
        code_evaluation(series, data=tmp_path, benchmarks="mbpp", mbpp_prompt="paper", **QUIET)
    assert style("mbpp").name == "docstring"


def test_without_a_sandbox_nothing_is_computed(
    series: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caches = (sandbox.check_sandbox, walls._walls, walls.sandbox_version)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        code_evaluation(series, "0", data=data, out=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()
    line = f"code --series {series} --data {data} --engine torch --out {tmp_path / 'out'} --new-tokens 12"
    assert main(line.split()) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("analysis360: programs are judged in a sandbox")
    assert "\n" not in said
    for cache in caches:
        cache.cache_clear()


def test_the_figure_of_passing_over_training(result: CodeResult) -> None:
    import matplotlib

    matplotlib.use("agg")
    axes = np.ravel(result.plot())
    titles = [text.get_text() for ax in axes for text in [ax.title, ax._left_title, *ax.texts]]
    for name in ("HumanEval", "MBPP"):
        assert any(name in title for title in titles)
    values = (100 * result.summary()["value"]).tolist()
    drawn = [float(y) for ax in axes for line in ax.lines for y in np.ravel(line.get_ydata())]
    assert all(any(np.isclose(value, y) for y in drawn) for value in values)


def test_what_is_stored_is_told_without_the_problems(
    result: CodeResult, out: Path, tmp_path: Path, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, how = Store(out, result.series.name), result.task.how
    found = stored_summary(result.series, result.checkpoints, store, how.engine, how.dtype)
    first = result.summary().query("metric == 'pass@1'").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, first)
    assert not len(stored_summary(result.series, result.checkpoints, store, "vllm", how.dtype))
    words = ["--series", str(series), "--engine", "torch", "--out", str(out), "--to", str(tmp_path)]
    assert main(["figures", *words]) == 0
    assert "figure4_benchmarks.png" in capsys.readouterr().out
    assert (tmp_path / "figure4_benchmarks.pdf").exists()
