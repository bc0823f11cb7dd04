"""Completions by the torch engine: what transformers' own `generate` says of each prompt alone, cut where it must."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import continue_greedily
from small_models import llama, neox
from small_tokenizer import save_tokenizer
from tokenizers import Tokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from analysis360.engines import Prompt, Sampling, open_engine
from analysis360.engines.completing import ROWS, TOKENS, batches
from analysis360.engines.stopping import Ending, open_tokenizer
from analysis360.engines.torch_engine import TorchEngine
from analysis360.errors import EngineError
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

LENGTH = 20
SIZES = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}


def windowed() -> MistralForCausalLM:
    torch.manual_seed(3)
    return MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=6))


def bloom() -> BloomForCausalLM:
    """Its positions come from the mask."""
    torch.manual_seed(4)
    return BloomForCausalLM(
        BloomConfig(vocab_size=300, hidden_size=64, n_layer=2, n_head=2, initializer_range=0.3)
    )


def gpt2() -> GPT2LMHeadModel:
    """Its positions are absolute."""
    torch.manual_seed(5)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
    )


MODELS = {
    "llama": lambda: llama(0),
    "neox": lambda: neox(2),
    "window": windowed,
    "bloom": bloom,
    "gpt2": gpt2,
}


class Told:
    """A model's folder, prompts, and what `generate` says of each alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(5)
        lengths = [7, 1, 19, 3, 7, 12, 2, 30, 1, 5]
        self.prompts = [tuple(rng.integers(1, 300, n).tolist()) for n in lengths]
        found = [continue_greedily(folder, np.array([ids]), LENGTH) for ids in self.prompts]
        self.ids = [tuple(one.ids[0].tolist()) for one in found]
        self.clear = [bool(one.clear[0]) for one in found]

    def engine(self, tokenizer: Path | None = None) -> TorchEngine:
        engine = TorchEngine(tokenizer=tokenizer)
        engine.load(Checkpoint("model", 0, LocalFolder(self.folder)))
        return engine


@pytest.fixture(scope="module", params=MODELS)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("models") / request.param
    MODELS[request.param]().save_pretrained(folder)
    return Told(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("one")
    llama(0).save_pretrained(folder)
    return Told(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return open_tokenizer(folder).backend_tokenizer


# --- greedy


def test_unequal_prompts_are_continued_as_each_alone(told: Told) -> None:
    found = told.engine().complete([Prompt(ids, LENGTH) for ids in told.prompts])
    assert sum(told.clear) >= 9
    for made, truth, clear in zip(found, told.ids, told.clear, strict=True):
        assert len(made) == LENGTH
        if clear:
            assert made == truth


def test_rows_that_end_leave_the_others_as_they_are(told: Told) -> None:
    """Lengths of 1 to 20 ids, so that rows are dropped several times."""
    prompts = [Prompt(ids, 1 + 2 * i) for i, ids in enumerate(told.prompts)]
    for prompt, made, truth, clear in zip(
        prompts, told.engine().complete(prompts), told.ids, told.clear, strict=True
    ):
        assert len(made) == prompt.most
        if clear:
            assert made == truth[: prompt.most]


def test_a_stop_id_is_the_last(one: Told) -> None:
    stops = tuple({ids[i] for i, ids in enumerate(one.ids)})
    found = one.engine().complete([Prompt(ids, LENGTH, stops) for ids in one.prompts])
    for i, (made, truth) in enumerate(zip(found, one.ids, strict=True)):
        end = next(n for n, token in enumerate(truth) if token in stops)
        assert end <= i
        if one.clear[i]:
            assert made == truth[: end + 1]


# --- sampled


def sampled(ids: Sequence[tuple[int, ...]]) -> list[Prompt]:
    ways = [Sampling(0.8, seed=1), Sampling(1.0, 0.9, seed=2), Sampling(0.6, 1.0, 40, seed=3), Sampling()]
    return [Prompt(prompt, LENGTH, (7,), (), way) for prompt in ids for way in ways]


def test_a_draw_does_not_depend_on_batch_or_order(one: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompts = one.engine(), sampled(one.prompts)
    together = engine.complete(prompts)
    assert len(set(together)) > 0.9 * len(together)
    assert engine.complete(prompts[::-1])[::-1] == together
    monkeypatch.setattr("analysis360.engines.completing.ROWS", 3)
    assert engine.complete(prompts) == together
    assert [engine.complete([prompt])[0] for prompt in prompts[:9]] == together[:9]


def test_equal_prompts_are_continued_alike_and_other_seeds_otherwise(one: Told) -> None:
    prompts = [Prompt(one.prompts[0], LENGTH, (), (), Sampling(1.0, seed=seed)) for seed in (1, 2, 1, 3)]
    first, second, third, fourth = one.engine().complete(prompts)
    assert first == third
    assert len({first, second, fourth}) == 3


def test_with_top_k_of_one_a_draw_is_greedy(one: Told) -> None:
    prompts = [
        Prompt(ids, LENGTH, (), (), Sampling(5.0, top_k=1, seed=i)) for i, ids in enumerate(one.prompts)
    ]
    for made, truth, clear in zip(one.engine().complete(prompts), one.ids, one.clear, strict=True):
        assert made == truth or not clear


def test_first_ids_are_drawn_as_often_as_the_model_says(one: Told) -> None:
    n, ids = 3000, one.prompts[0]
    engine = one.engine()
    made = engine.complete([Prompt(ids, 1, (), (), Sampling(0.7, seed=seed)) for seed in range(n)])
    counts = np.bincount([first for (first,) in made], minlength=300)
    # log-probability of each id after the prompt, by the engine's other way
    logprob = engine.forced(np.array([[*ids, token] for token in range(300)], np.int32), len(ids)).logprob[
        :, 0
    ]
    p = np.exp(logprob.astype(np.float64) / 0.7)
    p /= p.sum()
    assert (np.abs(counts - n * p) <= 4.5 * np.sqrt(n * p) + 1).all()
    assert (counts > 0).sum() > 20


# --- stops at texts


def end_by_hand(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], stop: str) -> int:
    """The number of ids that first hold a text, by decoding everything at every step."""
    if tokenizer.decode(list(prompt), skip_special_tokens=False).endswith("�"):
        prompt = ()  # its last character is none
    before = len(tokenizer.decode(list(prompt), skip_special_tokens=False))
    for n in range(1, len(ids) + 1):
        text = tokenizer.decode([*prompt, *ids[:n]], skip_special_tokens=False)
        if stop in text[before:] and not text.endswith("�"):
            return n
    return len(ids)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_ends_at_the_id_that_completes_a_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    prompt = tokenizer.encode(data.draw(st.sampled_from(["def", "x", "\n ", "class N"]))).ids
    prompt += data.draw(st.lists(st.integers(128, 255), max_size=1))
    text = data.draw(st.text("adefm(:\n né€", min_size=3, max_size=30))
    ids = tokenizer.encode(text).ids + data.draw(st.lists(st.integers(0, 299), max_size=4))
    if data.draw(st.booleans()):
        ids = data.draw(st.permutations(ids))
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : start + data.draw(st.integers(1, 5))]
    ending = Ending(Prompt(tuple(prompt), len(ids), (), (stop,)), tokenizer)
    found = next(n for n, token in enumerate(ids, 1) if ending.after(token))
    assert found == end_by_hand(tokenizer, prompt, ids, stop)


def test_a_text_across_ids_stops_a_completion(one: Told, folder: Path, tokenizer: Tokenizer) -> None:
    asked, expected, crossed = [], [], 0
    for ids, truth, clear in zip(one.prompts, one.ids, one.clear, strict=True):
        pieces = [tokenizer.decode([token]) for token in truth]
        for n in range(1, LENGTH):
            stop = pieces[n - 1][-1:] + pieces[n][:1]
            if clear and stop.isascii() and len(stop) == 2:
                asked.append(Prompt(ids, LENGTH, (), ("never said", stop)))
                expected.append(truth[: end_by_hand(tokenizer, ids, truth, stop)])
                crossed += len(expected[-1]) == n + 1
    assert one.engine(folder).complete(asked) == expected
    assert crossed > 10


def test_a_special_id_is_text_too(folder: Path, tokenizer: Tokenizer) -> None:
    ending = Ending(Prompt((5,), 9, (), ("a<end>",)), tokenizer)
    ids = [tokenizer.token_to_id(token) for token in ("a", "b", "<end>", "a", "<end>")]
    assert [ending.after(token) for token in ids] == [False, False, False, False, True]


# --- what is refused


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt((), 3), "one id or more"),
        (Prompt((1,), 0), "one asked for or more"),
        (Prompt((1,), 3, (), ("x",)), "no tokenizer"),
        (Prompt((1,), 3, (), ("",)), "empty text"),
    ],
)
def test_what_cannot_be_completed_is_refused(one: Told, prompt: Prompt, message: str) -> None:
    with pytest.raises(EngineError, match=f"^prompt 1.*{message}"):
        one.engine().complete([Prompt((1,), 3), prompt])


def test_refuses_before_the_first_load() -> None:
    with pytest.raises(EngineError, match="no checkpoint is loaded"):
        TorchEngine().complete([Prompt((1,), 3)])


def test_a_folder_without_a_tokenizer_is_an_error_of_ours(one: Told, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no tokenizer can be read") as caught:
        one.engine(tmp_path).complete([Prompt((1,), 3, (), ("x",))])
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_needed_is_not_opened(one: Told, tmp_path: Path) -> None:
    engine = open_engine("torch", dtype="float32", max_tokens=64, tokenizer=tmp_path / "nowhere")
    engine.load(Checkpoint("model", 0, LocalFolder(one.folder)))
    assert len(engine.complete([Prompt((1,), 3)])[0]) == 3


def test_nothing_asked_is_nothing_answered(one: Told) -> None:
    assert one.engine().complete([]) == []


# --- batches


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 2000)), max_size=40))
def test_batches_hold_every_prompt_once_within_bounds(sizes: list[tuple[int, int]]) -> None:
    prompts = [Prompt((i,) * length, most) for i, (length, most) in enumerate(sizes)]
    found = list(batches(prompts))
    assert sorted(prompt.ids[0] for batch in found for prompt in batch) == list(range(len(prompts)))
    for batch in found:
        room = max(len(prompt.ids) for prompt in batch) + max(prompt.most for prompt in batch)
        assert len(batch) == 1 or (len(batch) <= ROWS and len(batch) * room <= TOKENS)
