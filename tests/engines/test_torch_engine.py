"""The torch engine against the slow reference, and against checkpoints that are not what they should be."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import TIE, open_model, score
from safetensors.torch import load_file, save_file
from small_models import (
    CONTINUATION,
    PROMPT,
    VOCABULARY,
    Known,
    copy_of,
    edit_config,
    llama,
    save,
    save_pickled,
    with_twins,
)

from analysis360.engines import STOPPED, open_engine, resolve_kind
from analysis360.engines.torch_engine import BATCH, TorchEngine
from analysis360.errors import CheckpointError, EngineError
from analysis360.series import Checkpoint

SERIES = ("tied", "untied", "pythia")
Break = Callable[[Path], None]


def loaded(checkpoint: Checkpoint, dtype: str = "float32") -> TorchEngine:
    engine = TorchEngine(dtype, device="cpu")
    engine.load(checkpoint)
    return engine


def refused(engine: TorchEngine, checkpoint: Checkpoint) -> str:
    """The one line that says why; and after it the engine answers nothing."""
    with pytest.raises(CheckpointError) as caught:
        engine.load(checkpoint)
    ids = np.ones((2, 4), np.int32)
    with pytest.raises(EngineError, match="no checkpoint is loaded"):
        engine.generate(ids, 2)
    with pytest.raises(EngineError, match="no checkpoint is loaded"):
        engine.forced(ids, 1)
    return str(caught.value)


@pytest.fixture(params=SERIES)
def known(request: pytest.FixtureRequest) -> Known:
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine(untied: Known) -> TorchEngine:
    return loaded(untied.checkpoints[0])


# --- generate
# The [pythia] cases fail: files of GPT-NeoX name the head embed_out.weight, as transformers itself saves it, and the
# engine looks for lm_head.weight; transformers renames it as it loads (conversion_mapping).


def test_continues_as_the_slow_reference_does(known: Known) -> None:
    engine = TorchEngine(device="cpu")
    for checkpoint, truth in zip(known.checkpoints, known.truths, strict=True):
        engine.load(checkpoint)
        found = engine.generate(known.prompts, CONTINUATION)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found[truth.clear], truth.ids[truth.clear])


def test_few_sequences_come_near_a_tie(known: Known) -> None:
    near = np.concatenate([~truth.clear for truth in known.truths])
    print(f"within a logit gap of {TIE:g}: {near.mean():.1%} of {near.size} sequences")
    assert near.mean() <= 0.05


def test_checkpoints_differ_in_what_they_say(known: Known) -> None:
    first, second, third = (truth.ids for truth in known.truths)
    for one, other in ((first, second), (second, third), (first, third)):
        assert (one == other).all(axis=1).mean() == 0
    assert len(np.unique(first)) > 40


def test_goes_on_past_eos_without_forbidding_it(known: Known) -> None:
    engine = TorchEngine(device="cpu")
    for checkpoint, truth in zip(known.checkpoints, known.truths, strict=True):
        passed = truth.clear & (truth.ids[:, :-1] == known.eos).any(axis=1)
        engine.load(checkpoint)
        np.testing.assert_array_equal(engine.generate(known.prompts, CONTINUATION)[passed], truth.ids[passed])
        if passed.any():
            return
    pytest.fail("no reference sequence holds EOS: the test shows nothing")


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter_outside_ties(untied: Known, engine: TorchEngine, size: int) -> None:
    prompts = np.random.default_rng(1).integers(0, VOCABULARY, (BATCH + 44, PROMPT), dtype=np.int32)
    together = engine.generate(prompts, CONTINUATION)
    rows = range(BATCH - 14, BATCH + 14)  # both sides of the edge between two batches
    split = np.concatenate([engine.generate(prompts[i : i + size], CONTINUATION) for i in rows[::size]])
    clear = engine.forced(np.concatenate([prompts, together], axis=1), PROMPT).gap.min(axis=1) > TIE
    where = np.arange(rows.start, rows.stop)[clear[rows.start : rows.stop]]
    assert len(where) > 20
    np.testing.assert_array_equal(split[where - rows.start], together[where])


def test_forced_scores_do_not_depend_on_batch_size(engine: TorchEngine) -> None:
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (BATCH + 3, 12), dtype=np.int32)
    together = engine.forced(ids, 4).logprob
    alone = np.concatenate([engine.forced(ids[i : i + 1], 4).logprob for i in range(BATCH - 3, BATCH + 3)])
    np.testing.assert_allclose(together[BATCH - 3 :], alone, atol=1e-4)


def test_after_a_stop_id_a_row_holds_stopped(untied: Known, engine: TorchEngine) -> None:
    truth = untied.truths[0]
    stop = [int(truth.ids[0, 3]), int(truth.ids[1, 0]), int(truth.ids[2, -1])]
    expected = truth.ids.copy()
    for row in expected:
        first = next((i for i, token in enumerate(row) if token in stop), len(row))
        row[first + 1 :] = STOPPED
    assert (expected == STOPPED).any()
    assert (expected != STOPPED).all(axis=1).any()
    found = engine.generate(untied.prompts, CONTINUATION, stop=frozenset(stop))
    np.testing.assert_array_equal(found[truth.clear], expected[truth.clear])


def test_no_sequences_are_no_error(engine: TorchEngine) -> None:
    assert engine.generate(np.empty((0, 5), np.int32), 3).shape == (0, 3)


def test_no_sequences_to_score_are_no_error(engine: TorchEngine) -> None:
    assert engine.forced(np.empty((0, 5), np.int32), 2).logprob.shape == (0, 3)


# --- forced


@pytest.mark.parametrize("start", [1, PROMPT, PROMPT + CONTINUATION - 1])
def test_forced_agrees_with_float64_by_hand(known: Known, start: int) -> None:
    engine = loaded(known.checkpoints[1])
    ids = known.whole(1)
    ids[1::2, PROMPT + 2 :] = ids[::-2, PROMPT + 2 :]  # half of them no longer what the model would say
    found, expected = engine.forced(ids, start), score(known.checkpoints[1].path, ids, start)
    assert found.logprob.shape == (len(ids), PROMPT + CONTINUATION - start)
    assert (found.logprob.dtype, found.hit.dtype, found.gap.dtype) == (np.float32, np.bool_, np.float32)
    np.testing.assert_allclose(found.logprob, expected.logprob, atol=1e-3)
    np.testing.assert_allclose(found.gap, expected.gap, atol=1e-3)
    clear = expected.gap > TIE
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found.hit[clear], expected.hit[clear])
    assert found.hit[clear].any()
    assert not found.hit[clear].all()


def test_all_hits_exactly_when_generation_reproduces_the_continuation(known: Known) -> None:
    engine = loaded(known.checkpoints[0])
    own = known.whole(0)
    corrupted = own.copy()
    where = PROMPT + np.arange(len(own)) % CONTINUATION  # every position, the first and the last among them
    rows = np.arange(len(own))
    corrupted[rows, where] = (corrupted[rows, where] + 1) % VOCABULARY
    ids = np.concatenate([own, corrupted])
    forced = engine.forced(ids, PROMPT)
    reproduced = (engine.generate(ids[:, :PROMPT], CONTINUATION) == ids[:, PROMPT:]).all(axis=1)
    clear = forced.gap.min(axis=1) > TIE
    np.testing.assert_array_equal(forced.hit.all(axis=1)[clear], reproduced[clear])
    np.testing.assert_array_equal(reproduced[clear], (np.arange(len(ids)) < len(own))[clear])


def test_a_changed_id_is_missed_at_its_own_position(untied: Known, engine: TorchEngine) -> None:
    own = untied.whole(0)
    changed = own.copy()
    changed[:, PROMPT + 5] = (changed[:, PROMPT + 5] + 1) % VOCABULARY
    before, after = engine.forced(own, PROMPT), engine.forced(changed, PROMPT)
    np.testing.assert_array_equal(before.logprob[:, :5], after.logprob[:, :5])
    assert not after.hit[untied.truths[0].clear, 5].any()
    assert (np.abs(before.logprob[:, 6:] - after.logprob[:, 6:]) > 1e-3).any(axis=1).all()


def test_two_ids_that_tie_exactly_are_seen_as_gap_zero(untied: Known, tmp_path: Path) -> None:
    twins, favourite = with_twins(untied, tmp_path / "twins")
    forced = loaded(twins).forced(untied.whole(0), PROMPT)
    tied = untied.truths[0].ids == favourite
    assert tied.any()
    np.testing.assert_allclose(forced.gap[tied], 0, atol=1e-5)
    assert (forced.gap[~tied] > TIE).mean() > 0.95


def test_what_generation_chooses_at_an_exact_tie_is_a_hit(untied: Known, tmp_path: Path) -> None:
    engine = loaded(with_twins(untied, tmp_path / "twins")[0])
    said = engine.generate(untied.prompts, CONTINUATION)
    forced = engine.forced(np.concatenate([untied.prompts, said], axis=1), PROMPT)
    assert (forced.gap == 0).any()
    assert forced.hit[(forced.gap == 0) | (forced.gap > TIE)].all()


# --- swapping


def test_swapping_there_and_back_equals_fresh_engines(known: Known) -> None:
    first, second, third = known.checkpoints
    swapped = loaded(first)
    for checkpoint in (second, first, third, second):
        swapped.load(checkpoint)
        fresh = loaded(checkpoint)
        ids = known.whole(0)
        np.testing.assert_array_equal(swapped.generate(ids, 6), fresh.generate(ids, 6))
        for one, other in zip(
            vars(swapped.forced(ids, 1)).values(), vars(fresh.forced(ids, 1)).values(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("is_tied", [True, False])
def test_every_file_format_gives_the_same_numbers(tmp_path: Path, is_tied: bool) -> None:
    model = llama(5, tied=is_tied)
    forms = [
        save(model, tmp_path / "single"),
        save(model, tmp_path / "sharded", max_shard_size="40KB"),
        save_pickled(model, tmp_path / "pickled"),
        save_pickled(model, tmp_path / "pickled-shards", shards=3),
    ]
    assert [len(form.weight_files) > 1 for form in forms] == [False, True, False, True]
    ids = np.random.default_rng(3).integers(0, VOCABULARY, (8, 20), dtype=np.int32)
    expected = score(forms[0].path, ids, 1).logprob
    for form in forms:
        np.testing.assert_allclose(loaded(form).forced(ids, 1).logprob, expected, atol=1e-3)


def test_pickles_of_the_old_format_load(tmp_path: Path) -> None:
    model = llama(5)
    checkpoint = save_pickled(model, tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old/pytorch_model.bin", _use_new_zipfile_serialization=False)
    ids = np.random.default_rng(3).integers(0, VOCABULARY, (4, 10), dtype=np.int32)
    expected = score(save(model, tmp_path / "new").path, ids, 1).logprob
    np.testing.assert_allclose(loaded(checkpoint).forced(ids, 1).logprob, expected, atol=1e-3)


def test_derived_buffers_that_released_pythia_files_hold_are_no_extra_tensors(
    pythia: Known, tmp_path: Path
) -> None:
    checkpoint = copy_of(pythia.checkpoints[0], tmp_path / "released")
    file = checkpoint.path / "model.safetensors"
    tensors = load_file(file)
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{prefix}.bias"] = torch.ones(128, 128, dtype=torch.bool).tril()[None, None]
        tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, file, {"format": "pt"})
    truth = pythia.truths[0]
    found = loaded(checkpoint).generate(pythia.prompts, CONTINUATION)
    np.testing.assert_array_equal(found[truth.clear], truth.ids[truth.clear])


# --- dtype


def test_bfloat16_files_computed_in_float32_equal_their_upcast(tmp_path: Path) -> None:
    model = llama(6).bfloat16()
    stored = save(model, tmp_path / "bfloat16")
    upcast = save(model.float(), tmp_path / "float32")
    assert next(iter(load_file(stored.path / "model.safetensors").values())).dtype == torch.bfloat16
    ids = np.random.default_rng(4).integers(0, VOCABULARY, (16, 24), dtype=np.int32)
    engine = loaded(stored)
    assert engine.dtype == "float32"
    one, other = engine.forced(ids, 1), loaded(upcast).forced(ids, 1)
    np.testing.assert_array_equal(one.logprob, other.logprob)
    np.testing.assert_array_equal(one.gap, other.gap)


def test_bfloat16_is_stated_and_used(tmp_path: Path) -> None:
    checkpoint = save(llama(6), tmp_path / "float32")
    ids = np.random.default_rng(4).integers(0, VOCABULARY, (16, 24), dtype=np.int32)
    engine = loaded(checkpoint, "bfloat16")
    assert engine.dtype == "bfloat16"
    with torch.no_grad():
        model = open_model(checkpoint.path, torch.bfloat16, attention="sdpa")
        logits = model(torch.from_numpy(ids[:, :-1].astype(np.int64))).logits
    assert logits.dtype == torch.bfloat16
    target = torch.from_numpy(ids[:, 1:].astype(np.int64))[..., None]
    expected = logits.double().log_softmax(-1).gather(-1, target)[..., 0]
    found = engine.forced(ids, 1).logprob
    in_float32 = loaded(checkpoint).forced(ids, 1).logprob
    assert np.abs(found - in_float32).mean() > 3 * np.abs(found - expected.numpy()).mean()


def test_weights_that_overflow_the_compute_dtype_are_refused(tmp_path: Path) -> None:
    model = llama(6)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = 1e6
    engine = TorchEngine("float16", device="cpu")
    assert "up_proj.weight" in refused(engine, save(model, tmp_path / "large"))


# --- checkpoints that are not what they should be


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


NORM = "model.layers.1.input_layernorm.weight"


def drop_a_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(NORM))


def add_a_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.layers.2.extra.weight": torch.ones(3)}))


def reshape_a_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({NORM: torch.ones(65)}))


def put_nan(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors[NORM][5:6].fill_(torch.nan))


def put_infinity(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors["lm_head.weight"][-1, -1:].fill_(-torch.inf))


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4096])


def empty_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def remove_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def as_shards(folder: Path) -> list[Path]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = [folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"]
    where = {}
    for i, shard in enumerate(shards):
        part = {name: tensors[name] for name in sorted(tensors)[i::2]}
        where |= dict.fromkeys(part, shard.name)
        save_file(part, shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return shards


def remove_a_shard(folder: Path) -> None:
    as_shards(folder)[1].unlink()


def truncate_a_shard(folder: Path) -> None:
    shard = as_shards(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def garble_the_index(folder: Path) -> None:
    as_shards(folder)
    (folder / "model.safetensors.index.json").write_text("{")


def leave_the_folder(folder: Path) -> None:
    as_shards(folder)[0].rename(folder.parent / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of-00002", "../outside"))


def another_vocabulary(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    save(llama(3, vocab_size=VOCABULARY + 20), folder)
    (folder / "config.json").write_text(config)
    edit_config(folder, vocab_size=VOCABULARY + 20)


def another_vocabulary_in_the_config_only(folder: Path) -> None:
    edit_config(folder, vocab_size=VOCABULARY + 20)


def another_rope_theta(folder: Path) -> None:
    edit_config(folder, rope_parameters={"rope_theta": 500.0, "rope_type": "default"})


def remove_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def garble_the_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def list_as_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def unknown_model_type(folder: Path) -> None:
    edit_config(folder, model_type="llamma")


BROKEN_FILES: list[tuple[Break, list[str]]] = [
    (drop_a_tensor, [NORM]),
    (add_a_tensor, ["model.layers.2.extra.weight"]),
    (reshape_a_tensor, [NORM, "65", "64"]),
    (put_nan, [NORM, "finite"]),
    (put_infinity, ["lm_head.weight", "finite"]),
    (truncate, ["model.safetensors"]),
    (empty_the_weights, ["model.safetensors"]),
    (remove_the_weights, ["model.safetensors"]),
    (remove_a_shard, ["model-00002-of-00002.safetensors"]),
    (truncate_a_shard, ["model-00002-of-00002.safetensors"]),
    (garble_the_index, ["model.safetensors.index.json"]),
    (leave_the_folder, ["outside"]),
    (remove_the_config, ["config.json"]),
    (garble_the_config, ["config.json"]),
    (list_as_config, ["config.json"]),
    (unknown_model_type, ["llamma"]),
]
NOT_THE_SERIES: list[tuple[Break, list[str]]] = [
    (another_vocabulary, ["vocab_size", "320", "300"]),
    (another_vocabulary_in_the_config_only, ["vocab_size", "320", "300"]),
    (another_rope_theta, ["rope_parameters", "rope_theta", "500"]),
]


def names(cases: list[tuple[Break, list[str]]]) -> list[str]:
    return [case[0].__name__ for case in cases]


@pytest.mark.parametrize(
    ("spoil", "words"), BROKEN_FILES + NOT_THE_SERIES, ids=names(BROKEN_FILES + NOT_THE_SERIES)
)
def test_a_bad_checkpoint_is_refused_and_the_next_good_one_loads(
    untied: Known, tmp_path: Path, spoil: Break, words: list[str]
) -> None:
    engine = loaded(untied.checkpoints[1])
    bad = copy_of(untied.checkpoints[0], tmp_path / "step77")
    spoil(bad.path)
    message = refused(engine, bad)
    assert "\n" not in message
    for word in ["step77", *words]:
        assert word in message
    engine.load(untied.checkpoints[0])
    truth = untied.truths[0]
    np.testing.assert_array_equal(engine.generate(untied.prompts, 4)[truth.clear], truth.ids[truth.clear, :4])


@pytest.mark.parametrize(("spoil", "words"), BROKEN_FILES, ids=names(BROKEN_FILES))
def test_a_bad_checkpoint_is_refused_as_the_first_one(
    untied: Known, tmp_path: Path, spoil: Break, words: list[str]
) -> None:
    bad = copy_of(untied.checkpoints[0], tmp_path / "step77")
    spoil(bad.path)
    message = refused(TorchEngine(device="cpu"), bad)
    assert "\n" not in message
    for word in ["step77", *words]:
        assert word in message


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"hidden_act": "gello"}, {"rope_parameters": 7}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_config_of_nonsense_values_is_refused(
    untied: Known, tmp_path: Path, changes: dict[str, object]
) -> None:
    bad = copy_of(untied.checkpoints[0], tmp_path / "step77")
    edit_config(bad.path, **changes)
    message = refused(TorchEngine(device="cpu"), bad)
    assert "\n" not in message
    assert "step77" in message


def test_a_bad_first_checkpoint_does_not_become_the_measure_of_the_series(
    untied: Known, tmp_path: Path
) -> None:
    bad = copy_of(untied.checkpoints[0], tmp_path / "bad")
    edit_config(bad.path, num_hidden_layers=3)
    engine = TorchEngine(device="cpu")
    refused(engine, bad)
    engine.load(untied.checkpoints[0])
    assert engine.generate(untied.prompts, 2).shape == (len(untied.prompts), 2)


@pytest.mark.parametrize(
    "content",
    [{"model": {"weight": torch.ones(2)}}, [1, 2], {"weight": "text"}],
    ids=["nested", "list", "text"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    bad = save_pickled(llama(0), tmp_path / "step77")
    torch.save(content, bad.path / "pytorch_model.bin")
    message = refused(TorchEngine(device="cpu"), bad)
    assert "\n" not in message
    assert "step77" in message
    assert "pytorch_model.bin" in message


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    bad = save_pickled(llama(0), tmp_path / "step77")
    file = bad.path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-2000])
    message = refused(TorchEngine(device="cpu"), bad)
    assert "\n" not in message
    assert "step77" in message
    assert "pytorch_model.bin" in message


# --- checkpoints that would run code


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    model = llama(0)
    bad = save_pickled(model, tmp_path / "step77")
    file = bad.path / "pytorch_model.bin"
    torch.save({**model.state_dict(), NORM: Bomb(f"touch {marker}")}, file)
    message = refused(TorchEngine(device="cpu"), bad)
    assert not marker.exists()
    assert "step77" in message
    assert "pytorch_model.bin" in message
    torch.load(file, weights_only=False)
    assert marker.exists(), "the pickle was harmless, so the test shows nothing"


def test_the_refusal_of_a_malicious_pickle_is_one_line(tmp_path: Path) -> None:
    bad = save_pickled(llama(0), tmp_path / "step77")
    torch.save({"weight": Bomb("true")}, bad.path / "pytorch_model.bin")
    assert "\n" not in refused(TorchEngine(device="cpu"), bad)


def plant_code(folder: Path, marker: Path, model_type: str) -> None:
    (folder / "remote.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Config: ...\nclass Model: ...\n"
    )
    remote = {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Model"}
    edit_config(folder, model_type=model_type, auto_map=remote)


def test_a_config_that_wants_its_own_code_is_refused_and_the_code_does_not_run(
    untied: Known, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    bad = copy_of(untied.checkpoints[0], tmp_path / "step77")
    plant_code(bad.path, marker, "remote")
    message = refused(TorchEngine(device="cpu"), bad)
    assert "\n" not in message
    assert "step77" in message
    assert not marker.exists()
    runpy.run_path(str(bad.path / "remote.py"))
    assert marker.exists(), "the code was harmless, so the test shows nothing"


def test_code_beside_a_known_model_is_refused_too(untied: Known, tmp_path: Path) -> None:
    """The stock class would run, but nobody knows whether it computes what the code does."""
    marker = tmp_path / "ran"
    checkpoint = copy_of(untied.checkpoints[0], tmp_path / "step77")
    plant_code(checkpoint.path, marker, "llama")
    with pytest.raises(CheckpointError, match=r"its model is code in .* give --trust-remote-code"):
        loaded(checkpoint)
    assert not marker.exists()


# --- the engine itself


def test_refuses_before_the_first_load_and_after_close(untied: Known, engine: TorchEngine) -> None:
    expected = engine.generate(untied.prompts, 3)
    engine.close()
    for empty in (engine, TorchEngine(device="cpu")):
        with pytest.raises(EngineError, match="no checkpoint is loaded"):
            empty.generate(untied.prompts, 3)
        empty.load(untied.checkpoints[0])
        np.testing.assert_array_equal(empty.generate(untied.prompts, 3), expected)


def test_ids_must_be_a_batch(engine: TorchEngine) -> None:
    with pytest.raises(EngineError, match="batch"):
        engine.generate(np.ones(4, np.int32), 2)


def test_an_engine_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(EngineError, match="vllm"):
        resolve_kind("vlm")


def test_the_automatic_engine_without_a_gpu_is_torch(untied: Known) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    engine = open_engine("auto", dtype="bfloat16", max_tokens=64)
    assert (engine.kind, engine.dtype) == ("torch", "bfloat16")


def test_choosing_an_engine_imports_none() -> None:
    code = "import sys, analysis360.engines; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
