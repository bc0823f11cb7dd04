"""Memorization scores against loops, engines of known truth, a published sample, and a real model."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_series import TIE, least_gap, opened, recited
from small_series import VOCABULARY as SMALL_VOCABULARY
from small_series import save_llama

from analysis360.digests import digest_of
from analysis360.engines import STOPPED
from analysis360.errors import SelectionError
from analysis360.panel import SAMPLER, Panel, draw_panel, first_position
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint, Chunk, Layout
from analysis360.tables import columns
from analysis360.tasks import Unit
from analysis360.tasks.memorization import (
    Memorization,
    Settings,
    exact_prefix,
    match_table,
    pack,
    score_in_document,
    unpack,
)

AMBER = Path(__file__).resolve().parents[2] / "shared/data/amber/train_143.jsonl"
K, L, EOS, VOCABULARY = 32, 32, 2, 32000
quick = settings(deadline=None, database=None, max_examples=100)


# --- references ------------------------------------------------------------------------------------


def slow_score(sequence, generated, k):
    """(1/l) sum of 1[S_(k+i) = G_(k+i)], one token after another."""
    right = 0
    for i in range(len(generated)):
        if sequence[k + i] == generated[i]:
            right += 1
    return right / len(generated)


def slow_prefix(sequence, generated, k):
    """Tokens before the first miss."""
    for i in range(len(generated)):
        if sequence[k + i] != generated[i]:
            return i
    return len(generated)


def slow_in_document(sequence, generated, k, eos):
    """The score over what lies before the end of the first document, its EOS counted."""
    if eos in sequence[:k]:
        return math.nan
    right = scored = 0
    for i in range(len(generated)):
        scored += 1
        right += sequence[k + i] == generated[i]
        if sequence[k + i] == eos:
            break
    return right / scored


class Known:
    """An engine that knows each sequence by its prompt, and says `answer(continuation)` of it."""

    kind, dtype = "known", "float32"

    def __init__(self, ids, k, answer):
        self.continuations = {tuple(row[:k]): answer(row[k:]) for row in ids.tolist()}
        self.asked = []

    def load(self, checkpoint):
        self.loaded = checkpoint

    def generate(self, ids, n, *, stop=()):
        self.asked.append((ids.copy(), n, tuple(stop)))
        rows = []
        for prompt in ids.tolist():
            row, stopped = [], False
            for token in self.continuations[tuple(prompt)][:n]:
                row.append(STOPPED if stopped else token)
                stopped = stopped or token in stop
            rows.append(row)
        return np.array(rows, dtype=np.int32).reshape(len(ids), n)


def copied(row):
    return row


def panel_of(ids, eos=EOS):
    ids = np.array(ids, dtype=np.int32)
    return Panel(ids, np.arange(len(ids)), np.full(len(ids), "text"), first_position(ids, eos))


def task_of(panel, *, eos=EOS, pad=None, **how):
    """The task over one panel, and its only unit."""
    checkpoint = Checkpoint("ckpt", 0, LocalFolder(Path("ckpt")))
    chunk = Chunk("chunk", 0, LocalFolder(Path()), ("chunk",), "train")
    task = Memorization([(checkpoint, [chunk])], {"chunk": panel}, Settings(**how), eos, pad)
    (unit,) = task.units()
    return task, unit


def scored(panel, engine, *, eos=EOS, pad=None, **how):
    """(match [n, l], table) of the task over one panel."""
    task, unit = task_of(panel, eos=eos, pad=pad, **how)
    (table,) = task.run(engine, [unit])
    return unpack(table["match"], task.how.continuation_tokens), table


def random_panel(n, k, l, vocabulary=6, seed=0):  # noqa: E741 (the paper's symbol)
    """Sequences of few different ids, EOS among them, with prompts that differ."""
    ids = np.random.default_rng(seed).integers(0, vocabulary, (n, k + l))
    ids[:, 0] = vocabulary + np.arange(n)
    return panel_of(ids)


# --- match bits ------------------------------------------------------------------------------------


@st.composite
def matches(draw):
    n, l = draw(st.integers(0, 6)), draw(st.integers(1, 256))  # noqa: E741
    seed, share = draw(st.integers(0, 2**32)), draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    return np.random.default_rng(seed).random((n, l)) < share


@quick
@given(matches())
def test_bit_i_of_byte_j_is_token_8j_plus_i(match):
    n, l = match.shape  # noqa: E741
    values = pack(match).to_pylist()
    assert [len(value) for value in values] == [math.ceil(l / 8)] * n
    for row, value in zip(match, values, strict=True):
        bits = [bool(value[j] >> i & 1) for j in range(len(value)) for i in range(8)]
        assert bits[:l] == row.tolist()
        assert not any(bits[l:])


@quick
@given(matches())
def test_unpacked_bits_are_those_packed(match):
    l = match.shape[1]  # noqa: E741
    for view in (match, np.asfortranarray(match), match[::-1][::-1]):
        found = unpack(pack(view), l)
        assert found.dtype == bool
        assert found.shape == match.shape
        assert (found == match).all()


@quick
@given(matches(), st.data())
def test_bits_survive_slices_and_chunks(match, data):
    n, l = match.shape  # noqa: E741
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    packed = pack(match)
    part = packed.slice(start, stop - start)
    assert (unpack(part, l) == match[start:stop]).all()
    joined = pa.chunked_array([part, packed, part.slice(len(part) // 2)], type=packed.type)
    half = start + (stop - start) // 2
    assert (unpack(joined, l) == np.concatenate([match[start:stop], match, match[half:stop]])).all()
    assert (unpack(joined.slice(start, n), l) == unpack(joined, l)[start : start + n]).all()
    assert unpack(pa.chunked_array([part]), l).shape == (stop - start, l)
    assert unpack(pa.chunked_array([], type=packed.type), l).shape == (0, l)


@quick
@given(matches())
def test_the_exact_prefix_ends_at_the_first_miss(match):
    rows = match.tolist()
    assert exact_prefix(match).tolist() == [[*row, False].index(False) for row in rows]


@quick
@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 1000))
def test_a_match_table_agrees_with_loops(n, l, seed, start):  # noqa: E741
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, (n, l)).astype(np.int32)
    generated = np.where(generator.random((n, l)) < 0.6, truth, generator.integers(-1, 3, (n, l))).astype(
        np.int32
    )
    table = match_table(truth, generated, start)
    pairs = list(zip(truth.tolist(), generated.tolist(), strict=True))
    assert table["position"].to_pylist() == list(range(start, start + n))
    assert [c / l for c in table["correct"].to_pylist()] == [slow_score(t, g, 0) for t, g in pairs]
    assert table["exact_prefix"].to_pylist() == [slow_prefix(t, g, 0) for t, g in pairs]
    assert unpack(table["match"], l).tolist() == [
        [a == b for a, b in zip(t, g, strict=True)] for t, g in pairs
    ]


def test_the_columns_of_a_match_table_are_small_integers_and_bytes():
    table = match_table(np.zeros((2, 256), np.int32), np.zeros((2, 256), np.int32))
    types = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert types == {
        "position": "int32",
        "correct": "int16",
        "exact_prefix": "int16",
        "match": "binary",
    }
    assert table["correct"].to_pylist() == table["exact_prefix"].to_pylist() == [256, 256]


# --- within the document ---------------------------------------------------------------------------


@quick
@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32), st.integers(1, 6))
def test_scores_within_the_document_agree_with_loops(k, l, seed, n):  # noqa: E741
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 8, (n, k + l)).astype(np.int32)
    generated = np.where(generator.random((n, l)) < 0.5, ids[:, k:], 7).astype(np.int32)
    found = score_in_document(ids[:, k:] == generated, first_position(ids, EOS), k)
    pairs = zip(ids.tolist(), generated.tolist(), strict=True)
    expected = [slow_in_document(sequence, answer, k, EOS) for sequence, answer in pairs]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


MATCH = [True, False, True, True, False, True]


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ([5, 5, 6, 6, 6, 6, 6, 6], 4 / 6),
        ([5, 5, 2, 6, 6, 6, 6, 6], 1 / 1),
        ([5, 5, 6, 2, 6, 6, 6, 6], 1 / 2),
        ([5, 5, 6, 6, 6, 2, 2, 6], 3 / 4),
        ([5, 5, 6, 6, 6, 6, 6, 2], 4 / 6),
        ([5, 2, 6, 6, 6, 6, 6, 6], math.nan),
        ([2, 5, 6, 2, 6, 6, 6, 6], math.nan),
    ],
    ids=["none", "first", "second", "twice", "last", "end of prompt", "start of prompt"],
)
def test_tokens_up_to_and_including_the_first_eos_count(sequence, expected):
    ids = np.array([sequence], dtype=np.int32)
    found = score_in_document(np.array([MATCH]), first_position(ids, EOS), 2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([expected], dtype=np.float32))


def test_without_eos_both_scores_are_the_same():
    match = np.random.default_rng(0).random((50, 32)) < 0.5
    none = first_position(np.full((50, 64), 2, np.int32), None)
    np.testing.assert_array_equal(score_in_document(match, none, 32), match.mean(axis=1, dtype=np.float32))


# --- the task --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "l"), [(1, 1), (4, 8), (3, 13), (8, 1)])
@pytest.mark.parametrize(
    "answer",
    [copied, lambda row: [(t + 1) % 6 for t in row], lambda row: [*row[1:], 99], lambda row: [99, *row[:-1]]],
    ids=["copies", "never", "one token early", "one token late"],
)
def test_the_task_agrees_with_loops(k, l, answer):  # noqa: E741
    """Among the answers: the truth shifted by one, which scores only what repeats."""
    panel = random_panel(40, k, l)
    match, table = scored(panel, Known(panel.ids, k, answer), prompt_tokens=k, continuation_tokens=l)
    rows = panel.ids.tolist()
    expected = [slow_score(row, answer(row[k:]), k) for row in rows]
    assert (match.sum(axis=1) / l).tolist() == expected
    assert [c / l for c in table["correct"].to_pylist()] == expected
    assert table["exact_prefix"].to_pylist() == [slow_prefix(row, answer(row[k:]), k) for row in rows]


def test_a_shifted_answer_is_not_memorized():
    ids = np.arange(10 * 16, dtype=np.int32).reshape(10, 16)
    for answer in (lambda row: [*row[1:], -5], lambda row: [-5, *row[:-1]]):
        match, _ = scored(panel_of(ids), Known(ids, 8, answer), prompt_tokens=8, continuation_tokens=8)
        assert not match.any()


def test_the_engine_gets_the_raw_prompt_and_nothing_before_it():
    panel = random_panel(12, 5, 7)
    engine = Known(panel.ids, 5, copied)
    scored(panel, engine, prompt_tokens=5, continuation_tokens=7)
    ((asked, n, stop),) = engine.asked
    assert asked.tolist() == panel.ids[:, :5].tolist()
    assert (n, stop) == (7, ())


def test_parts_of_a_unit_make_the_whole():
    panel = random_panel(23, 4, 9)
    task, unit = task_of(panel, prompt_tokens=4, continuation_tokens=9)
    engine = Known(panel.ids, 4, lambda row: [t if t % 2 else 99 for t in row])
    (whole,) = task.run(engine, [unit])
    cut = [Unit(unit.checkpoint, unit.chunk, a, b) for a, b in ((0, 10), (10, 20), (20, 23))]
    parts = task.run(engine, cut)
    assert len(engine.asked) == 2, "units of a call are submitted together"
    assert pa.concat_tables(parts).equals(whole)
    assert len(unit) == len(whole) == 23


def test_there_is_one_unit_for_each_checkpoint_and_chunk():
    checkpoints = [Checkpoint(f"ckpt_{i}", i, LocalFolder(Path(f"{i}"))) for i in range(3)]
    chunks = [Chunk(f"chunk_{i}", i, LocalFolder(Path()), (f"{i}",), "train") for i in range(3)]
    panels = {chunk.name: random_panel(5 + chunk.index, 2, 2) for chunk in chunks}
    plan = [(checkpoints[0], chunks[:1]), (checkpoints[1], chunks), (checkpoints[2], [])]
    units = Memorization(plan, panels, Settings(2, 2)).units()
    assert [(u.checkpoint.index, u.chunk.index, u.start, u.stop) for u in units] == [
        (0, 0, 0, 5),
        (1, 0, 0, 5),
        (1, 1, 0, 6),
        (1, 2, 0, 7),
    ]


def test_as_published_generation_stops_at_eos_and_is_padded():
    sequence = [9, 9, 5, 2, 5, 2, 7, 2]
    for pad, expected in ((None, [1, 1, 0, 1, 0, 1]), (7, [1, 1, 0, 0, 1, 0]), (5, [1, 1, 1, 0, 0, 0])):
        panel = panel_of([sequence])
        engine = Known(panel.ids, 2, copied)
        match, _ = scored(
            panel, engine, pad=pad, prompt_tokens=2, continuation_tokens=6, compat="analysis360"
        )
        assert match[0].tolist() == [bool(bit) for bit in expected]
        assert engine.asked[0][2] == (EOS,)


def test_without_eos_nothing_stops_as_published():
    panel = panel_of([[9, 9, 5, 2, 5, 2]])
    how = {"prompt_tokens": 2, "continuation_tokens": 4, "compat": "analysis360"}
    assert scored(panel, Known(panel.ids, 2, copied), eos=None, **how)[0].all()


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"prompt_tokens": 0}, "prompt tokens: expected at least 1, found 0"),
        ({"prompt_tokens": -1}, "found -1"),
        ({"continuation_tokens": 0}, "continuation tokens: expected 1 to 256, found 0"),
        ({"continuation_tokens": -8}, "found -8"),
        ({"continuation_tokens": 257}, "found 257"),
        ({"compat": "pythia"}, "compat 'pythia': expected analysis360"),
        ({"compat": ""}, "compat ''"),
        ({"metric": "loss"}, "metric 'loss': expected score or extractible"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how, named):
    with pytest.raises(SelectionError) as caught:
        Settings(**how)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_bounds_of_the_settings_are_inside():
    assert (Settings(1, 1).width, Settings(1, 256).width, Settings().width) == (2, 257, 64)


def test_every_setting_changes_the_digest_of_the_settings():
    """A result found under a digest was computed as asked."""
    others = {
        "prompt_tokens": 31,
        "continuation_tokens": 31,
        "seed": 1,
        "dtype": "bfloat16",
        "engine": "vllm",
        "compat": "analysis360",
        "sampler": SAMPLER + "x",
        "task_version": 99,
    }
    base = Settings()
    asked = [base, *(replace(base, **{key: value}) for key, value in others.items())]
    stored = [Memorization([], {}, how).settings() for how in asked]
    assert others.keys() == stored[0].keys()
    stored.append(Memorization([], {}, replace(base, metric="extractible")).settings())
    assert len({digest_of(values) for values in stored}) == len(asked) + 1


def test_scores_are_found_where_they_were_before_there_was_a_choice():
    assert "metric" not in Memorization([], {}, Settings()).settings()
    assert Memorization([], {}, Settings(metric="extractible")).settings()["metric"] == "extractible"


@pytest.mark.parametrize("change", [{"eos": 5}, {"pad": 7}])
def test_what_published_scores_depend_on_is_among_the_settings(change):
    panel = panel_of([[9, 9, 5, 2, 5, 2, 7, 2]])
    how = {"prompt_tokens": 2, "continuation_tokens": 6, "compat": "analysis360"}
    one, other = task_of(panel, **how)[0], task_of(panel, **change, **how)[0]
    engine = Known(panel.ids, 2, copied)
    unit = one.units()[0]
    assert not one.run(engine, [unit])[0].equals(other.run(engine, [unit])[0]), (
        "the example should tell them apart"
    )
    assert digest_of(one.settings()) != digest_of(other.settings())


# --- the published sample --------------------------------------------------------------------------


def amber_chunk():
    return Chunk(
        "train_143",
        143,
        LocalFolder(AMBER.parent),
        (AMBER.name,),
        "train",
        Layout(fields=("prompt", "continuation")),
    )


@pytest.fixture(scope="module")
def amber():
    """All 1,000 sequences of the published sample of Amber's chunk 143."""
    if not AMBER.exists():
        pytest.skip(f"the published Amber sample is not at {AMBER}")
    return draw_panel(amber_chunk(), n=1000, width=K + L, seed=0, vocabulary=VOCABULARY, eos=EOS)


def amber_lines():
    """The parsed lines, by the byte each starts at."""
    lines = AMBER.read_bytes().splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines[:-1])]).tolist()
    return {start: json.loads(line) for start, line in zip(starts, lines, strict=True)}


def test_the_sample_is_drawn_whole(amber):
    lines = amber_lines()
    assert len(amber) == 1000
    assert sorted(amber.rows.tolist()) == list(lines)
    for ids, row, source in zip(amber.ids.tolist(), amber.rows, amber.sources, strict=True):
        assert ids == lines[row]["prompt"] + lines[row]["continuation"]
        assert source == lines[row]["source"]


def test_the_eos_of_the_sample_are_where_a_search_finds_them(amber):
    lines = amber_lines().values()
    held = [line for line in lines if EOS in line["continuation"]]
    last = [line for line in held if line["continuation"].index(EOS) == L - 1]
    assert (len(held), len(last)) == (47, 4)
    places = amber.first_eos
    assert ((places >= K) & (places < K + L)).sum() == 47
    assert (places == K + L - 1).sum() == 4
    assert (places < K).sum() == sum(EOS in line["prompt"] for line in lines) == 45


def test_the_sample_has_no_bos(amber):
    assert not (amber.ids == 1).any()


def test_a_hundred_of_the_sample_hold_its_sources_as_it_does(amber):
    whole, part = Counter(amber.sources.tolist()), Counter(amber.sources[:100].tolist())
    expected = {source: count / 10 for source, count in whole.items() if count >= 50}
    assert len(expected) >= 3
    assert sum((part[s] - e) ** 2 / e for s, e in expected.items()) < 25


def test_an_engine_that_copies_has_memorized_everything(amber):
    match, table = scored(amber, Known(amber.ids, K, copied))
    assert [c / L for c in table["correct"].to_pylist()] == [1.0] * 1000
    assert table["exact_prefix"].to_pylist() == [L] * 1000
    within = score_in_document(match, amber.first_eos, K)
    assert np.isnan(within).sum() == 45
    assert (within[~np.isnan(within)] == 1).all()


def test_an_engine_that_is_always_wrong_has_memorized_nothing(amber):
    match, table = scored(amber, Known(amber.ids, K, lambda row: [(t + 1) % VOCABULARY for t in row]))
    assert not match.any()
    assert set(table["correct"].to_pylist()) == set(table["exact_prefix"].to_pylist()) == {0}
    within = score_in_document(match, amber.first_eos, K)
    assert set(within[~np.isnan(within)].tolist()) == {0.0}


@pytest.mark.parametrize("by", [-1, 1])
def test_an_engine_shifted_by_one_token_scores_what_repeats(amber, by):
    def answer(row):
        return row[1:] + row[:1] if by > 0 else row[-1:] + row[:-1]

    match, table = scored(amber, Known(amber.ids, K, answer))
    rows = amber.ids.tolist()
    expected = [slow_score(row, answer(row[K:]), K) for row in rows]
    assert [c / L for c in table["correct"].to_pylist()] == expected
    assert 0 < sum(expected) / 1000 < 0.2
    found = score_in_document(match, amber.first_eos, K)
    loops = [slow_in_document(row, answer(row[K:]), K, EOS) for row in rows]
    np.testing.assert_array_equal(found, np.array(loops, dtype=np.float32))


def test_as_published_an_inner_eos_is_never_memorized(amber):
    engine = Known(amber.ids, K, copied)
    match, table = scored(amber, engine, compat="analysis360")
    inner = (amber.first_eos >= K) & (amber.first_eos < K + L - 1)
    in_prompt = amber.first_eos < K
    assert inner.sum() == 43
    complete = np.array(table["correct"].to_pylist()) == L
    assert not complete[inner].any()
    assert complete[~inner & ~in_prompt].all()
    for i in np.flatnonzero(inner):
        place = int(amber.first_eos[i]) - K
        assert table["exact_prefix"][int(i)].as_py() == place + 1
        tail = amber.ids[i, K + place + 1 :]
        assert match[i, place + 1 :].tolist() == (tail == EOS).tolist()
    assert (score_in_document(match, amber.first_eos, K)[inner] == 1).all()


# --- a real model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """(checkpoint, model): a small random Llama with Amber's vocabulary, its outputs far from ties."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.5, **size
    )
    model = transformers.LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("llama") / "ckpt_000"
    model.save_pretrained(folder)
    yield Checkpoint("ckpt_000", 0, LocalFolder(folder)), model
    torch.set_num_threads(threads)


def alone(model, prompt, n):
    """The continuation of one prompt by transformers, and the least gap between its two best logits."""
    import torch

    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=n,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    best = torch.cat(out.logits).topk(2, dim=-1).values
    return out.sequences[0, len(prompt) :].tolist(), float((best[:, 0] - best[:, 1]).min())


def test_the_torch_engine_continues_as_transformers_does_one_by_one(amber, llama, monkeypatch):
    """A batch of 7 leaves a last batch of 6; the EOS of the saved model is an id that it does say."""
    from analysis360.engines import torch_engine

    checkpoint, model = llama
    panel = Panel(amber.ids[20:40], amber.rows[20:40], amber.sources[20:40], amber.first_eos[20:40])
    model.generation_config.eos_token_id = None
    answers = [alone(model, row[:K], L) for row in panel.ids.tolist()]
    assert min(gap for _, gap in answers) > 1e-4, "a tie would make the comparison void"
    generated = [ids for ids, _ in answers]
    assert [len(ids) for ids in generated] == [L] * 20

    said = generated[0][3]
    for name in ("config.json", "generation_config.json"):
        values = json.loads((checkpoint.path / name).read_text())
        (checkpoint.path / name).write_text(json.dumps(values | {"eos_token_id": said}))
    monkeypatch.setattr(torch_engine, "BATCH", 7)
    engine = torch_engine.TorchEngine("float32", "cpu")
    engine.load(checkpoint)
    assert engine.generate(panel.ids[:, :K], L).tolist() == generated
    stopped = engine.generate(panel.ids[:, :K], L, stop=(said,)).tolist()
    for ids, cut in zip(generated, stopped, strict=True):
        end = ids.index(said) + 1 if said in ids else L
        assert cut == ids[:end] + [STOPPED] * (L - end)
    assert any(STOPPED in cut for cut in stopped)

    planted = panel.ids.copy()
    for i, ids in enumerate(generated):
        planted[i, K : K + 2 * i] = ids[: 2 * i]
    for eos in (EOS, said):
        rows = planted.tolist()
        match, table = scored(panel_of(planted, eos), engine, eos=eos)
        loops = [slow_score(row, ids, K) for row, ids in zip(rows, generated, strict=True)]
        assert [c / L for c in table["correct"].to_pylist()] == loops
        assert table["exact_prefix"].to_pylist() == [
            slow_prefix(row, ids, K) for row, ids in zip(rows, generated, strict=True)
        ]
        assert table["exact_prefix"].to_pylist()[16:] == [L] * 4
        found = score_in_document(match, first_position(planted, eos), K)
        within = [slow_in_document(row, ids, K, eos) for row, ids in zip(rows, generated, strict=True)]
        np.testing.assert_array_equal(found, np.array(within, dtype=np.float32))
    engine.close()


# --- extractibility alone --------------------------------------------------------------------------

GIVEN, ASKED = 8, 32
LENGTHS = [1, 3, 4, 5, 16, 17, 32]
"""Within the first stage, at the ends of stages, and just beyond them."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A torch engine with a small Llama that notes the [rows, tokens] of all it is asked to compute."""
    pytest.importorskip("torch")
    from analysis360.engines.torch_engine import TorchEngine

    class Counted(TorchEngine):
        computed: list = []  # noqa: RUF012

        def generate(self, ids, n, *, stop=()):
            self.computed.append((len(ids), ids.shape[1] + n))
            return super().generate(ids, n, stop=stop)

        def forced(self, ids, start):
            self.computed.append(ids.shape)
            return super().forced(ids, start)

    folder = tmp_path_factory.mktemp("small") / "ckpt_000"
    save_llama(folder, seed=5, initializer_range=0.6)
    return opened(folder, Counted)


def prompts_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, SMALL_VOCABULARY, (n, GIVEN), dtype=np.int32)


def recited_panel(engine, right):
    """A panel of which the engine gets the first `right` tokens of each row right, then errs once."""
    right = np.array(right)
    ids = recited(engine, prompts_of(len(right)), right)
    assert least_gap(engine, ids, GIVEN) > TIE, "a tie would make the comparison void"
    engine.computed.clear()
    return panel_of(ids)


def two_ways(panel, engine, l, **how):  # noqa: E741
    """exact_prefix of all rows by continuing them, and by asking for extractibility alone."""
    how |= {"prompt_tokens": GIVEN, "continuation_tokens": l}
    cut = replace(panel, ids=panel.ids[:, : GIVEN + l])
    found = []
    for metric in ("score", "extractible"):
        task, unit = task_of(cut, metric=metric, **how)
        (table,) = task.run(engine, [unit])
        assert table["position"].to_pylist() == list(range(len(panel)))
        assert table["match"].null_count == table["correct"].null_count == len(panel) * (metric != "score")
        found.append(table["exact_prefix"].to_pylist())
    assert table.schema == match_table(cut.ids, cut.ids).schema
    return found


@pytest.mark.parametrize("l", LENGTHS)
def test_every_first_miss_is_found_without_continuing(counted, l):  # noqa: E741
    right = [*range(ASKED + 1), *[ASKED] * 7]
    generated, forced = two_ways(recited_panel(counted, right), counted, l)
    assert forced == generated == np.minimum(right, l).tolist()


@pytest.mark.parametrize("pad", [None, 7])
@pytest.mark.parametrize("l", LENGTHS)
def test_as_published_a_stop_and_its_padding_are_asked_for(counted, l, pad):  # noqa: E741
    """After an EOS that the model says come padding, padding and then another token, or text."""
    panel = recited_panel(counted, [ASKED] * 60)
    said = panel.ids[:, GIVEN:]
    eos = int(np.bincount(said[:, 1:24].ravel()).argmax())
    fill, ends = (eos if pad is None else pad), first_position(said, eos)
    for i, end in enumerate(ends):
        if i % 3 < 2:
            said[i, end + 1 :] = fill
        if i % 3 == 1:
            said[i, end + 4 :] = fill + 1
    generated, forced = two_ways(panel, counted, l, eos=eos, pad=pad, compat="analysis360")
    assert forced == generated
    inside, whole = ends < l - 1, np.array(forced) == l
    assert (inside & whole).any() == (l > 1)
    assert (inside & ~whole).any() == (l > 1)
    plain = two_ways(panel, counted, l, eos=eos, pad=pad)
    assert plain[0] == plain[1]
    assert (plain[0] != forced) == (l > 1)
    assert (panel.ids[:, :GIVEN] == eos).any(), "an EOS in the prompt stops nothing"


def test_rows_are_dropped_at_the_end_of_the_stage_in_which_they_miss(counted):
    right = [0] * 40 + [3] * 20 + [4, 5, 15, 15] + [16, 31, 32, 32, 32]
    forced = two_ways(recited_panel(counted, right), counted, ASKED)[1]
    assert forced == right
    score, *stages = counted.computed
    assert score == (69, GIVEN + ASKED)
    assert stages == [(69, GIVEN + 4), (9, GIVEN + 16), (5, GIVEN + ASKED)]
    assert sum(rows * tokens for rows, tokens in stages) < 0.5 * 69 * (GIVEN + ASKED)


def test_nothing_more_is_asked_once_every_row_has_missed(counted):
    assert two_ways(recited_panel(counted, [0, 1, 3]), counted, ASKED)[1] == [0, 1, 3]
    assert counted.computed[1:] == [(3, GIVEN + 4)]


def test_parts_of_a_unit_make_the_whole_of_extractibility_too(counted):
    right = [*range(ASKED + 1), 32]
    panel = recited_panel(counted, right)
    task, unit = task_of(panel, prompt_tokens=GIVEN, continuation_tokens=ASKED, metric="extractible")
    parts = task.run(counted, [replace(unit, start=a, stop=b) for a, b in ((0, 3), (3, 20), (20, 34))])
    assert [len(part) for part in parts] == [3, 17, 14]
    assert pa.concat_tables(parts).equals(task.run(counted, [unit])[0])


# --- the table of answers --------------------------------------------------------------------------


def test_columns_are_as_wide_as_their_widest_cell_and_ruled():
    text = columns(["name", "n"], [["a", "1,000"], ["longer", "20"], ["b", "3.5"]])
    assert text.split("\n") == [
        "name        n",
        "------  -----",
        "a       1,000",
        "longer     20",
        "b         3.5",
    ]


def test_a_column_of_words_and_numbers_is_aligned_left():
    assert columns(["x", "y"], [["1", "2"], ["-", "30"]]).split("\n")[2:] == ["1   2", "-  30"]


def test_lines_carry_no_spaces_at_their_end():
    text = columns(["a", "wide header"], [["1", "x"], ["2", ""]])
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_a_table_without_rows_is_its_header():
    assert columns(["one", "two"], []).split("\n") == ["one  two", "---  ---"]


def test_negative_numbers_are_aligned_right():
    assert columns(["x"], [["-1.5"], ["10.25"]]).split("\n")[2:] == [" -1.5", "10.25"]
