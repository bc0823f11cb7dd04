"""Likelihoods with shared contexts agree with each request alone, for every kind of model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import score
from small_models import llama, neox
from transformers import MistralConfig, MistralForCausalLM

from analysis360.engines import Request, open_engine, shared
from analysis360.engines.shared import knows_branches
from analysis360.engines.torch_engine import TorchEngine
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

CLOSE = 1e-4


def windowed(window: int) -> MistralForCausalLM:
    torch.manual_seed(3)
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
    return MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=window))


MODELS = {"llama": lambda: llama(0), "tied": lambda: llama(1, tied=True), "neox": lambda: neox(2)}
MODELS |= {"window": lambda: windowed(4)}


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder.name, 0, LocalFolder(folder))


def asked(seed: int = 0) -> list[Request]:
    """Subjects with examples, questions with choices, choices that begin alike, one that stands alone."""
    rng = np.random.default_rng(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 300, n).tolist())

    found = [Request(ids(3), ids(30)), Request(ids(1), ids(1))]
    for shots in (ids(40), ids(25)):
        for question in (shots + ids(n) for n in (3, 9, 1)):
            start = ids(2)
            found += [Request(question, start + ids(n)) for n in (1, 1, 4, 7)]
            found += [Request(question, ids(1)) for _ in range(3)]
    found.append(found[5])
    return found


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    MODELS[request.param]().save_pretrained(folder)
    return folder


def alone(folder: Path, request: Request) -> tuple[float, bool]:
    whole = np.array([request.context + request.continuation])
    found = score(folder, whole, len(request.context))
    return float(found.logprob.sum()), bool(found.hit.all())


def test_scores_agree_with_each_request_alone(saved: Path) -> None:
    engine = open_engine("torch", dtype="float32", max_tokens=128)
    engine.load(checkpoint(saved))
    requests = asked()
    for request, found in zip(requests, engine.score(requests), strict=True):
        logprob, greedy = alone(saved, request)
        assert found.logprob == pytest.approx(logprob, abs=CLOSE)
        assert found.greedy == greedy


def test_greedy_is_true_of_what_greedy_decoding_makes(saved: Path) -> None:
    engine = open_engine("torch", dtype="float32", max_tokens=128)
    engine.load(checkpoint(saved))
    prompts = np.random.default_rng(1).integers(0, 300, (6, 10), dtype=np.int32)
    made = engine.generate(prompts, 5)
    requests = [Request(tuple(p), tuple(c)) for p, c in zip(prompts.tolist(), made.tolist(), strict=True)]
    wrong = [
        Request(one.context, (*one.continuation[:-1], (one.continuation[-1] + 1) % 300)) for one in requests
    ]
    found = engine.score(requests + wrong)
    assert [one.greedy for one in found] == [True] * 6 + [False] * 6


@torch.inference_mode()
def test_a_window_is_noticed() -> None:
    for window, shares in ((4, False), (None, True)):
        model = windowed(window).eval()
        assert knows_branches(model, torch.device("cpu"), "float32") is shares


def test_provenance_tells_of_contexts_that_are_not_shared_before_the_first_score(saved: Path) -> None:
    engine = open_engine("torch", dtype="float32", max_tokens=128, share_prefixes=True)
    engine.load(checkpoint(saved))
    assert engine.describe()["engine"].endswith(", contexts not shared") is (saved.name == "window")


def test_budget_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama(0).save_pretrained(tmp_path / "model")
    engine = TorchEngine()
    engine.load(checkpoint(tmp_path / "model"))
    whole = engine.score(asked())
    for budget in (1, 7, 64):
        monkeypatch.setitem(shared.BUDGET, "cpu", budget)
        for one, other in zip(whole, engine.score(asked()), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=CLOSE)
            assert one.greedy == other.greedy


def test_nothing_asked_is_nothing_answered(saved: Path) -> None:
    engine = TorchEngine()
    engine.load(checkpoint(saved))
    assert engine.score([]) == []
