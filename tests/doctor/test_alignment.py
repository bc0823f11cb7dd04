"""The numbers of checkpoints and chunks by loss: planted offsets are found, and nothing is made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_series import VOCABULARY, MakeSeries, save_llama
from transformers import LlamaForCausalLM

from analysis360.doctor import Diagnosis, doctor
from analysis360.doctor.alignment import Alignment, judge
from analysis360.doctor.losses import Pair
from analysis360.hub.options import HubOptions
from analysis360.loopback import Loopback

CHUNKS, ROWS, TOKENS, EPOCHS = 16, 8, 48, 12
OFFSETS = range(-4, 5)

MANIFEST = """
manifest = 1
name = "learnt"
[model]
eos_token_id = 0
[checkpoints]
path = "checkpoints/ckpt_{{index:03d}}"
first = {first}
count = {count}
[data]
path = "train/train_{{index:03d}}.jsonl"
count = {chunks}
row_tokens = {tokens}
[exposure]
order = "0..{last}"
done = {done}
"""


def manifest(folder: Path, first: int) -> None:
    """Checkpoints from `first` on, which the manifest says follow chunks 0, 1, 2, ..."""
    count = CHUNKS - first
    values = {"chunks": CHUNKS, "tokens": TOKENS, "last": CHUNKS - 1, "done": list(range(1, count + 1))}
    (folder / "series.toml").write_text(MANIFEST.format(first=first, count=count, **values))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama trained some epochs on each chunk of random ids in turn: it can only learn by heart."""
    root = tmp_path_factory.mktemp("learnt")
    save_llama(root / "start", 0, hidden_size=64, intermediate_size=128, initializer_range=0.02)
    model = LlamaForCausalLM.from_pretrained(root / "start")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng(1)
    for i in range(CHUNKS):
        ids = rng.integers(1, VOCABULARY, (ROWS, TOKENS))
        path = root / f"train/train_{i:03d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(json.dumps({"token_ids": row.tolist(), "source": "ids"}) + "\n" for row in ids)
        )
        tokens = torch.from_numpy(ids)
        for _ in range(EPOCHS):
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(root / f"checkpoints/ckpt_{i:03d}")
    return root


def by_loss(series: Any, **options: Any) -> Diagnosis:
    return doctor(series, loss=True, engine="torch", sequences=ROWS, progress=False, **options)


def alignment_of(diagnosis: Diagnosis) -> Alignment:
    assert diagnosis.alignment is not None
    return diagnosis.alignment


def test_a_true_series_is_aligned(learnt: Path) -> None:
    manifest(learnt, 0)
    diagnosis = by_loss(learnt)
    found = alignment_of(diagnosis)
    assert found.offset == 0, found
    assert not diagnosis.wrong
    assert found.votes[0] >= len(found.pairs) - 1
    assert found.excess[0].low > 0
    assert "offset +0" in diagnosis.table()


@pytest.mark.parametrize("way", ["disk", "hub"])
def test_a_shifted_first_checkpoint_is_an_offset(learnt: Path, tmp_path: Path, way: str) -> None:
    manifest(learnt, 1)
    if way == "disk":
        diagnosis = by_loss(learnt, ckpts=":")
    else:
        with Loopback(learnt) as hub:
            options = HubOptions(endpoint=hub.endpoint, cache=tmp_path)
            diagnosis = by_loss("local/learnt", ckpts=":", hub=options)
    assert alignment_of(diagnosis).offset == 1
    [error] = diagnosis.errors
    assert error.kind == "misaligned"
    assert "+1" in error.found
    assert json.loads(json.dumps(diagnosis.as_json(), allow_nan=False))["alignment"]["offset"] == 1


def test_models_that_learnt_nothing_are_undetermined(make_series: MakeSeries) -> None:
    series = make_series("random", checkpoints=8, chunks=8)
    diagnosis = by_loss(series, ckpts=":")
    found = alignment_of(diagnosis)
    assert found.offset is None
    assert "alignment-undetermined" in [finding.kind for finding in diagnosis.findings]
    assert "undetermined" in diagnosis.table()
    assert found.untrained
    assert "first-untrained" in [finding.kind for finding in diagnosis.errors]


def test_too_few_pairs_say_so(small_series: Path) -> None:
    found = alignment_of(by_loss(small_series))
    assert found.offset is None
    assert "at least 4" in found.reason


def test_weights_that_do_not_load_are_named(learnt: Path, tmp_path: Path) -> None:
    manifest(learnt, 0)
    folder = tmp_path / "broken"
    shutil.copytree(learnt, folder)
    file = folder / "checkpoints/ckpt_004/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    diagnosis = by_loss(folder, ckpts=":")
    assert {finding.kind for finding in diagnosis.errors} == {"shard-truncated", "unscored"}
    assert all("ckpt_004" in finding.where + finding.found for finding in diagnosis.errors)
    assert alignment_of(diagnosis).offset == 0


def simulated(pairs: int, planted: int | None, rng: np.random.Generator, noise: float = 1.0) -> Alignment:
    """What is said of losses of one row a chunk: noise, and a drop of 5 at the planted offset."""
    chunks = [SimpleNamespace(name=f"c{i}") for i in range(pairs + 40)]
    made: list[Any] = []
    losses = {}
    for i in range(1, pairs + 1):
        near = {d: chunks[i + 10 + d] for d in OFFSETS}
        far = tuple(chunks[i + 20 : i + 24])
        made.append(Pair(i, near, far))  # type: ignore[arg-type]
        for d, chunk in [*near.items(), *((None, chunk) for chunk in far)]:
            losses[i, f"{i}:{chunk.name}"] = losses[i, chunk.name] = np.zeros(1)
            drop = noise * rng.normal(size=1) + (5.0 if planted is not None and d == planted else 0.0)
            losses[i - 1, chunk.name] = losses[i, chunk.name] + drop
    series = SimpleNamespace(checkpoints=[SimpleNamespace(name=f"k{i}") for i in range(pairs + 1)])
    return judge(series, made, losses)  # type: ignore[arg-type]


@pytest.mark.parametrize("planted", [-4, -1, 0, 3])
def test_a_planted_offset_is_found_among_noise(planted: int) -> None:
    rng = np.random.default_rng(planted + 10)
    answers = [simulated(8, planted, rng, noise=0.5).offset for _ in range(20)]
    assert answers.count(planted) >= 19


@pytest.mark.parametrize("pairs", [4, 8, 24])
def test_noise_alone_is_undetermined_as_often_as_promised(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    named = sum(simulated(pairs, None, rng).offset is not None for _ in range(40))
    assert named <= 3
