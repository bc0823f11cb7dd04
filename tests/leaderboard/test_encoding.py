"""Text becomes the ids that lm-eval's own backend would ask about; what the series says of BOS and prefix is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little import WINDOW, save_tokenizer
from lm_eval.api.instance import Instance

from analysis360.errors import DataError, SeriesError
from analysis360.series.manifest import Model
from analysis360.tasks.leaderboard.adapter import counter_seed, cut_at_stops
from analysis360.tasks.leaderboard.encoding import Encoder
from analysis360.text import Text

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
CONTEXTS = st.tuples(WORDS, st.sampled_from(["", " ", "  ", "   "])).map("".join)


def pair(context: str, continuation: str) -> Instance:
    return Instance("loglikelihood", {}, (context, continuation), 0, ("task", 0, 1))


def encoder(folder: Path, **model: Any) -> Encoder:
    return Encoder(Text(folder, Model(eos_token_id=0, **model)), WINDOW)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "bos"])
def both(request: pytest.FixtureRequest, reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """lm-eval's own backend and our encoder, of one tokenizer."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, bos=request.param)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = HFLM(
        pretrained=str(reader / "checkpoints/ckpt_000"), tokenizer=tokenizer, device="cpu", dtype="float32"
    )
    return model, folder


@settings(max_examples=200, deadline=None)
@given(context=CONTEXTS.filter(str.strip), continuation=WORDS.filter(str.strip))
def test_pairs_as_lm_eval_cuts_them(both: Any, context: str, continuation: str) -> None:
    model, folder = both
    ours = encoder(folder)
    asked = pair(context, continuation)
    ours.prepare([asked])
    start, end = model._encode_pair(context, continuation)
    found = ours.pair(asked)
    assert [*found.context, *found.continuation] == (start + end)[-WINDOW - 1 :]
    assert found.continuation.tolist() == end


def test_without_context_the_prefix_stands_before(both: Any) -> None:
    model, folder = both
    ours = encoder(folder)
    asked = pair("", "abc")
    ours.prepare([asked])
    assert ours.pair(asked).context.tolist() == [model.prefix_token_id]
    assert ours.pair(asked).continuation.tolist() == model.tok_encode("abc", add_special_tokens=False)


def test_the_series_decides(both: Any) -> None:
    _, folder = both
    asked = pair("", "abc")
    for model, prefix in (({"prefix_token_id": 9}, 9), ({}, 0), ({"add_bos": False}, 0)):
        ours = encoder(folder, **model)
        ours.prepare([asked])
        assert ours.pair(asked).context.tolist() == [prefix]
    without = encoder(folder, add_bos=False)
    plain = pair("ab", "c")
    without.prepare([plain])
    assert without.pair(plain).context.tolist() == Text(folder, Model()).encode(["ab"], bare=True)[0].tolist()


def test_bos_that_there_is_not(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(SeriesError, match="has no BOS"):
        encoder(tmp_path, add_bos=True).prepare([pair("a", "b")])


@pytest.mark.parametrize(
    ("length", "kept", "cut"), [(WINDOW - 2, WINDOW - 2, 0), (WINDOW + 5, WINDOW - 2, 1)]
)
def test_what_does_not_fit_is_cut_from_the_left(tmp_path: Path, length: int, kept: int, cut: int) -> None:
    save_tokenizer(tmp_path)
    ours = encoder(tmp_path)
    asked = pair("x" * (length - 1) + "y", "abc")
    ours.prepare([asked])
    found = ours.pair(asked)
    assert (len(found.context), ours.cut) == (kept, cut)
    assert ours.text.decode(found.context.tolist()).endswith("xy")


def test_windows_of_a_text_ask_each_id_once(both: Any) -> None:
    model, folder = both
    ours = encoder(folder)
    text = "".join(chr(40 + i % 60) for i in range(3 * WINDOW + 17))
    asked = Instance("loglikelihood_rolling", {}, (text,), 0, ("task", 0, 1))
    ours.prepare([asked])
    windows = ours.windows(asked)
    ids = np.concatenate([one.continuation for one in windows])
    assert ids.tolist() == model.tok_encode(text)
    assert all(len(one.context) + len(one.continuation) <= WINDOW + 1 for one in windows)
    assert windows[0].context.tolist() == [ours.text.prefix]


def test_a_continuation_without_ids_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(DataError, match=r"task task, question 0, choice 0: .* found none"):
        encoder(tmp_path).prepare([pair("a", "")])


def test_each_text_is_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tokenizer(tmp_path)
    ours, texts = encoder(tmp_path), []
    encode = Text.encode
    monkeypatch.setattr(
        Text, "encode", lambda self, some, **how: texts.extend(some) or encode(self, some, **how)
    )
    asked = [pair("same context", f"choice {i}") for i in range(4)]
    ours.prepare(asked)
    ours.prepare(asked)
    assert texts.count("same context") == 1
    assert len(texts) == 5


def test_prompts_hold_what_the_task_asks(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    ours = encoder(tmp_path)
    how = {"until": ["\n", "Q:"], "max_gen_toks": 30, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    asked = Instance("generate_until", {}, ("z" * WINDOW, how), 0, ("task", 3, 1))
    ours.prepare([asked])
    prompt = ours.prompt(asked, 11)
    assert (len(prompt.ids), prompt.most, prompt.stop, prompt.stop_ids) == (
        WINDOW - 30,
        30,
        ("\n", "Q:"),
        (0,),
    )
    assert (prompt.sampling.temperature, prompt.sampling.top_p, prompt.sampling.seed) == (0.7, 0.9, 11)
    greedy = Instance("generate_until", {}, ("z", {"until": "x", "do_sample": False}), 0, ("task", 4, 1))
    with pytest.raises(DataError, match=f"asks for 256 new ids; the model reads {WINDOW}"):
        ours.prepare([greedy])


def test_seeds_depend_on_what_is_asked_alone() -> None:
    seeds = {counter_seed(0, "task", i, j) for i in range(50) for j in range(4)}
    assert len(seeds) == 200
    assert counter_seed(0, "task", 1, 2) == counter_seed(0, "task", 1, 2) != counter_seed(1, "task", 1, 2)


@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    found = cut_at_stops(text, stops)
    assert text.startswith(found)
    assert not any(stop in found for stop in stops)
    assert found == text or any(text[len(found) :].startswith(stop) for stop in stops)
