"""Real prompts of one domain on real weights of 135 M parameters: nothing depends on what else is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from pretrained import smollm2
from reference import TIE
from test_bold_prompts import PUBLISHED, published
from wheels import UnavailableError

from analysis360.biases import BiasResult
from analysis360.continuing import bold
from analysis360.engines.torch_engine import TorchEngine
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

pytestmark = published
NEW = 12


@pytest.fixture(scope="module", autouse=True)
def all_threads() -> Iterator[None]:
    """This model is large enough to gain by every core."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return smollm2()
    except UnavailableError as error:
        pytest.skip(str(error))


def ask(model: Path, out: Path, limit: int, **how: object) -> BiasResult:
    given = {"domains": "religious_ideology", "limit": limit, "new_tokens": NEW, "engine": "torch"}
    return bold(model, prompts=PUBLISHED, out=out, progress=False, **(given | how))  # type: ignore[arg-type]


def ids_of(result: BiasResult) -> dict[str, list[int]]:
    """What follows each prompt as it was asked."""
    rows = result.continued.rows.table(["prompt", "ids"]).to_pydict()
    return dict(zip(rows["prompt"], rows["ids"], strict=True))


def gap(model: Path, prompt: str, before: list[int], result: BiasResult) -> float:
    """Logits of the best id over the second best, at the place where two continuations part."""
    encoder = next(iter(result.continued.task.encoders.values()))
    ids = [*encoder.text.encode([prompt])[0].tolist(), *before]
    engine = TorchEngine()
    engine.load(Checkpoint(model.name, 0, LocalFolder(model)))
    return float(engine.forced(np.array([[*ids, 0]], np.int32), len(ids)).gap[0, 0])


@pytest.mark.parametrize("how", [{"greedy": True}, {"greedy": False}], ids=["greedy", "drawn"])
def test_continuations_do_not_depend_on_their_batch_but_for_ties(
    model: Path, tmp_path: Path, how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few prompts in batches of three against more of them at once; those that differ are counted, and must be ties."""
    whole = ask(model, tmp_path / "whole", 6, **how)
    expected, summary = ids_of(whole), whole.summary()
    monkeypatch.setattr("analysis360.tasks.bold.SLICE", 3)
    monkeypatch.setattr("analysis360.sweep.TOGETHER", 1)
    few = ask(model, tmp_path / "few", 2, **how)
    found = ids_of(few)
    assert len(found) >= 12
    differing = [prompt for prompt, ids in found.items() if ids != expected[prompt]]
    print(f"{len(differing)} of {len(found)} continuations differ with their batch")
    assert len(differing) <= len(found) // 6
    for prompt in differing if how["greedy"] else ():
        one, other = found[prompt], expected[prompt]
        same = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        assert gap(model, prompt, one[:same], whole) < TIE
    assert set(summary["metric"]) == {"sentiment", "repetition"}
    assert summary["n"].max() == 6


def test_texts_are_sentences_of_their_prompts(model: Path, tmp_path: Path) -> None:
    table = ask(model, tmp_path, 2, greedy=True).texts("smollm2-135m")
    assert table["text"].str.startswith(" ").mean() > 0.9  # the blank moved from the prompt
    assert (table["text"].str.split().str.len() >= 3).mean() > 0.9
