"""Likelihoods and completions by vLLM, with and without shared prefixes. One process of vLLM, asked everything."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import TIE, continue_greedily
from small_models import llama, save
from small_tokenizer import save_tokenizer

from analysis360.engines import Prompt, Sampling
from analysis360.engines.stopping import ends_within_character, open_tokenizer
from analysis360.engines.torch_engine import TorchEngine
from analysis360.series import Checkpoint

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")

WINDOW, BLOCK, LENGTH, DRAWN = 512, 128, 12, 1500
"""Ids of a block of the prefix cache on a CPU; on a GPU it is shorter, and more is shared."""
KINDS = ("plain", "shared")
Asked = tuple[tuple[int, ...], tuple[int, ...]]


def requests() -> list[Asked]:
    """Examples that questions share, questions that choices share, at and around the ends of blocks."""
    rng = np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, 300, n).tolist())

    found = [(ids(3), ids(4)), (ids(1), ids(1)), (ids(WINDOW - 7), ids(7)), (ids(WINDOW), ids(1))]
    shots = ids(2 * BLOCK + 20)
    for n in (5, BLOCK - 21, BLOCK - 20, BLOCK - 19, BLOCK + 30):
        question = shots + ids(n)
        found += [(question, ids(n)) for n in (1, 1, 1, 6, 6, 9, 2)]
    alike = ids(BLOCK - 4)
    found += [(alike, ids(2) + ids(n)) for n in (1, 5)]
    start = ids(8)  # passes the end of a block before the continuations part
    found += [(alike, start + ids(n)) for n in (4, 5, 6)]
    found += [(found[-1][0] + found[-1][1][:6], ids(5)), found[7], found[-1]]
    found += [(shots[:BLOCK], (token,)) for token in range(140)]
    order = rng.permutation(len(found))
    return [found[i] for i in order]


class Judge:
    """One checkpoint, asked in float64, a sequence at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from reference import open_model

        self._model = open_model(checkpoint.path, torch.float64)

    @torch.no_grad()
    def logprobs(self, ids: tuple[int, ...]) -> np.ndarray:
        """[length, vocabulary]"""
        return self._model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(dim=-1).numpy()

    def likelihood(self, asked: Asked) -> tuple[float, bool, bool]:
        """Log-probability, greedy, and whether greedy is clear of ties."""
        context, continuation = asked
        rows = self.logprobs((context + continuation)[:-1])[len(context) - 1 :]
        best = np.sort(rows)[:, -2:]
        given = rows[np.arange(len(rows)), continuation]
        hits = rows.argmax(axis=1) == np.array(continuation)
        return float(given.sum()), bool(hits.all()), bool((best[:, 1] - best[:, 0]).min() > TIE)


class Session:
    """What was asked, and what vLLM answered in its own process."""

    def __init__(self, root: Path) -> None:
        self.checkpoints = [
            save(llama(20 + i, max_position_embeddings=WINDOW), root / str(i), i) for i in range(2)
        ]
        save_tokenizer(root / "tokenizer")
        self.tokenizer = open_tokenizer(root / "tokenizer").backend_tokenizer
        self.judges = [Judge(one) for one in self.checkpoints]
        self.requests = requests()
        greedy = np.random.default_rng(1)
        self.prompts = [tuple(greedy.integers(0, 300, n).tolist()) for n in (6, 1, 130, 300, 17, 6, 130)]
        self.truths = [
            continue_greedily(self.checkpoints[0].path, np.array([ids]), LENGTH) for ids in self.prompts
        ]
        self.requests += [
            (ids, tuple(one.ids[0, :5].tolist())) for ids, one in zip(self.prompts, self.truths, strict=True)
        ]
        self.job: dict[str, Any] = {
            "checkpoints": [str(one.path) for one in self.checkpoints],
            "tokenizer": str(root / "tokenizer"),
            "window": WINDOW,
            "requests": self.requests,
            "too long": [((1,) * (WINDOW + 1), (2,))],
            "greedy": self.prompts_with(most=lambda i: LENGTH - i, stop=lambda i: (5, 100_000)),
            "stopped": [asked for asked, _ in self.stops()],
            "sampled": [
                (ids, LENGTH, (), (), {"temperature": t, "top_p": p, "top_k": k, "seed": seed})
                for ids in self.prompts
                for t, p, k, seed in (
                    (1.0, 1.0, None, 1),
                    (1.0, 1.0, None, 2),
                    (2.0, 1.0, 2, 3),
                    (1.0, 0.5, None, 4),
                )
            ],
            "drawn": [
                (self.prompts[0], 1, (), (), {"temperature": 0.7, "seed": seed}) for seed in range(DRAWN)
            ],
            "too hot": [(self.prompts[0], 1, (), (), {"temperature": 3.0})],
        }
        (root / "job.json").write_text(json.dumps(self.job))
        script = Path(__file__).with_name("vllm_evaluations.py")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OMP_", "MKL_"))}
        command = [sys.executable, str(script), str(root / "job.json"), str(root / "out.json")]
        done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        self.found: dict[str, dict[str, Any]] = json.loads((root / "out.json").read_text())

    def prompts_with(self, most: Any, stop: Any) -> list[Any]:
        return [(ids, most(i), stop(i), (), {}) for i, ids in enumerate(self.prompts)]

    def stops(self) -> list[tuple[Any, int]]:
        """Prompts that stop at a text across two ids of what greedy decoding makes, and the ids it takes."""
        found = []
        for ids, truth in zip(self.prompts, self.truths, strict=True):
            made = truth.ids[0].tolist()
            pieces = [self.tokenizer.decode([token]) for token in made]
            for n in range(1, LENGTH):
                stop = pieces[n - 1][-1:] + pieces[n][:1]
                if truth.clear[0] and stop.isascii() and len(stop) == 2:
                    first = next(i for i in range(LENGTH) if stop in "".join(pieces[: i + 1]))
                    found.append(((ids, LENGTH, (), ("never said", stop), {}), first + 1))
        return found

    def answer(self, step: str) -> Any:
        assert self.found[step].get("error") is None, self.found[step]
        return self.found[step]["answer"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("evaluations"))


# --- likelihoods


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", [0, 1, 2, "again"])
def test_likelihoods_agree_with_each_request_alone(session: Session, kind: str, turn: int | str) -> None:
    """There and back: after a swap, prefixes of the checkpoint before must not answer."""
    judge = session.judges[1 if turn == 1 else 0]
    answers = session.answer(f"{kind}/{turn}")
    assert len(answers) == len(session.requests)
    held = []
    for asked, (logprob, greedy) in zip(session.requests, answers, strict=True):
        expected, choice, clear = judge.likelihood(asked)
        assert logprob == pytest.approx(expected, abs=1e-3)
        if clear:
            assert greedy == choice
        held.append(choice)
    if turn != 1:
        assert 7 <= sum(held) < len(held) / 2


def test_a_prefix_of_the_checkpoint_before_would_be_noticed(session: Session) -> None:
    """With the engine's reset taken away, answers are wrong: the test above can fail."""
    right, stale = session.answer("shared/0"), session.answer("stale/after")
    assert max(abs(one[0] - other[0]) for one, other in zip(right, stale, strict=True)) > 0.1


def test_what_requests_share_is_read_once(session: Session) -> None:
    plain, shared = (session.found[f"{kind}/0"] for kind in KINDS)
    whole = sum(len(context) + len(continuation) - 1 for context, continuation in set(session.requests))
    distinct = len({context + continuation[:-1] for context, continuation in session.requests})
    print(f"ids: {whole} asked, {plain['read']} read plainly, {shared['read']} with shared prefixes")
    assert plain["asked"] == distinct + 1  # 140 next ids of one context are two requests
    assert plain["read"] < 0.4 * whole
    assert shared["read"] < 0.5 * plain["read"]


def test_scored_positions_that_the_cache_held_are_asked_again(session: Session) -> None:
    first, again = session.found["shared/2"], session.found["shared/again"]
    assert first["asked"] > session.found["plain/0"]["asked"] + 5  # contexts read first, and some asked again
    assert again["asked"] > first["asked"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_an_error_of_ours(session: Session, kind: str) -> None:
    name, message = session.found[f"{kind}/longer than the window"]["error"]
    assert name == "EngineError"
    assert str(WINDOW + 1) in message
    name, message = session.found[f"{kind}/before any load"]["error"]
    assert (name, "no checkpoint is loaded" in message) == ("EngineError", True)


# --- completions


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_completions_are_those_of_transformers(session: Session, kind: str) -> None:
    cut = 0
    for i, (made, truth) in enumerate(zip(session.answer(f"{kind}/greedy"), session.truths, strict=True)):
        ids = truth.ids[0].tolist()[: LENGTH - i]
        expected = ids[: ids.index(5) + 1] if 5 in ids else ids
        if truth.clear[0]:
            assert made == expected
        cut += len(expected) < len(ids)
    assert sum(bool(truth.clear[0]) for truth in session.truths) >= 5


def test_a_text_across_ids_stops_a_completion(session: Session) -> None:
    expected = session.stops()
    assert len(expected) > 5
    generated = session.found["shared/stopped"]["made"]
    assert generated < 0.8 * LENGTH * len(expected)  # vLLM itself stops, and is not only cut
    within = [ids for (ids, *_), _ in expected if ends_within_character(session.tokenizer, ids)]
    assert 0 < len(within) < len(expected)
    for made, ((ids, *_), n) in zip(session.answer("shared/stopped"), expected, strict=True):
        assert made == session.truths[session.prompts.index(ids)].ids[0, :n].tolist()
    name, message = session.found["plain/stopped"]["error"]
    assert name == "EngineError"
    assert "no tokenizer" in message


def test_both_engines_stop_alike(session: Session) -> None:
    engine = TorchEngine(tokenizer=Path(session.job["tokenizer"]))
    engine.load(session.checkpoints[0])
    prompts = [Prompt(*one[:4], Sampling()) for one in session.job["stopped"]]
    assert [list(made) for made in engine.complete(prompts)] == session.answer("shared/stopped")


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_depends_on_its_seed_and_not_on_the_order(session: Session, kind: str) -> None:
    made = session.answer(f"{kind}/sampled")
    assert made == session.answer(f"{kind}/reversed")
    assert all(first != second for first, second in zip(made[::4], made[1::4], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_top_k_and_top_p_are_kept_to(session: Session, kind: str) -> None:
    seconds = 0
    for (ids, _, _, _, how), made in zip(
        session.job["sampled"], session.answer(f"{kind}/sampled"), strict=True
    ):
        rows = session.judges[0].logprobs((*ids, *made))[len(ids) - 1 : -1]
        for row, token in zip(rows, made, strict=True):
            above = np.exp(row[row > row[token] + TIE])
            if how["top_k"] is not None:
                assert len(above) < how["top_k"]
                seconds += len(above)
            assert above.sum() <= how["top_p"]
    assert seconds > 10


def test_first_ids_are_drawn_as_often_as_the_model_says(session: Session) -> None:
    ids = session.prompts[0]
    counts = np.bincount([made[0] for made in session.answer("plain/drawn")], minlength=300)
    p = np.exp(session.judges[0].logprobs(ids)[-1] / 0.7)
    p /= p.sum()
    assert counts.sum() == DRAWN
    assert (np.abs(counts - DRAWN * p) <= 4.5 * np.sqrt(DRAWN * p) + 1).all()


def test_what_vllm_does_not_sample_is_an_error_of_ours(session: Session) -> None:
    name, message = session.found["plain/too hot"]["error"]
    assert name == "EngineError"
    assert "temperature" in message
    assert "\n" not in message
