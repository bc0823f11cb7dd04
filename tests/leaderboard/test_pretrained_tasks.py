"""Real tasks, real weights of 135 M parameters: every choice as lm-eval's own backend has it (`oracle`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracle import GOLDEN
from pretrained import smollm2
from real_tasks import tasks
from wheels import UnavailableError

from analysis360.evaluating import leaderboard

CLOSE = 1e-3
SINGLE = "arc_challenge,hellaswag,truthfulqa_mc1,truthfulqa_mc2"


@pytest.fixture(scope="module")
def golden() -> pd.DataFrame:
    found = json.loads(GOLDEN.read_text())
    return pd.DataFrame(found["requests"], columns=found["columns"]).set_index(["task", "document", "choice"])


@pytest.fixture(scope="module")
def parts() -> tuple[Path, Path]:
    """The model and the tasks."""
    try:
        return smollm2(), tasks()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def all_threads() -> Iterator[None]:
    """This model is large enough to gain by every core."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


def asked(golden: pd.DataFrame) -> list[tuple[str, int | None, int]]:
    """(tasks, shots, documents) of each run: the subjects of MMLU share out its documents."""
    documents = golden.reset_index().groupby("task")["document"].max() + 1
    subjects = [name for name in documents.index if name.startswith("mmlu_")]
    return [
        (SINGLE, None, int(documents["arc_challenge"])),
        (",".join(subjects), 5, int(documents[subjects].min())),
    ]


def compare(found: pd.DataFrame, task: str, golden: pd.DataFrame) -> list[str]:
    """All choices within CLOSE; the questions whose best two are, where another choice may win."""
    ties = []
    for row in found.itertuples():
        truth = golden.loc[(task, row.position)]
        assert np.asarray(row.logprob) == pytest.approx(truth["logprob"].to_numpy(), abs=CLOSE)
        best = np.sort(truth["logprob"].to_numpy())[::-1]
        if len(best) > 1 and best[0] - best[1] < CLOSE:
            ties.append(f"{task} {row.position}")
        else:
            assert np.argmax(row.logprob) == truth["logprob"].to_numpy().argmax()
        assert list(row.greedy) == truth["greedy"].tolist()
    return ties


def test_every_choice_as_lm_eval_has_it(
    golden: pd.DataFrame, parts: tuple[Path, Path], tmp_path: Path
) -> None:
    ties, seen = [], 0
    for names, shots, documents in asked(golden):
        how: dict[str, Any] = {"shots": shots, "limit": documents, "include": parts[1]}
        result = leaderboard(parts[0], tasks=names, engine="torch", out=tmp_path, progress=False, **how)
        for task in result.frame()["task"].unique():
            found = result.questions(result.checkpoints[0].name, task)
            ties += compare(found, task, golden)
            seen += sum(map(len, found["logprob"]))
    assert seen == len(golden)
    assert len(ties) <= 2, f"questions whose best two choices tie: {ties}"


def test_vllm_says_the_same(golden: pd.DataFrame, parts: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--series", parts[0], "--tasks", "arc,truthfulqa,mmlu_sociology", "--limit", 2, "--shots", 5]
    words += ["--include", parts[1], "--quiet"]
    for engine in ("vllm", "torch"):
        command = [sys.executable, "-m", "analysis360.cli", "leaderboard", "--engine", engine]
        done = subprocess.run(
            [*command, "--out", str(tmp_path), *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    how: dict[str, Any] = {"shots": 5, "limit": 2, "compute": False, "out": tmp_path, "progress": False}
    names = "arc,truthfulqa,mmlu_sociology"
    one, other = (leaderboard(parts[0], tasks=names, engine=kind, **how) for kind in ("vllm", "torch"))
    for task in one.frame()["task"].unique():
        both = [x.questions(x.checkpoints[0].name, task) for x in (one, other)]
        ours, theirs = (np.concatenate(x["logprob"]) for x in both)
        assert ours == pytest.approx(theirs, abs=2e-3)
        assert both[0]["greedy"].map(list).tolist() == both[1]["greedy"].map(list).tolist()
