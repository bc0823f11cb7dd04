"""The vLLM engine against the slow reference and the torch engine. One process of vLLM, asked everything at once."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from reference import TIE, score
from safetensors.torch import load_file, save_file
from small_models import CONTINUATION, PROMPT, VOCABULARY, Known, copy_of, with_twins
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from analysis360.engines import STOPPED, VllmOptions, check_options, check_parts, open_engine
from analysis360.engines.torch_engine import TorchEngine
from analysis360.engines.vllm_engine import MAX_SEQUENCES, STEP_TOKENS, reason
from analysis360.errors import SelectionError
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")

TURNS = (0, 1, 2, 0)
MANY = (600, 40)
KINDS = ("tied", "untied")
cpu_build = pytest.mark.skipif(torch.cuda.is_available(), reason="only the CPU build packs the head")


@dataclass(frozen=True)
class Session:
    """What vLLM answered in its own process (see vllm_session.py), and what was asked."""

    known: dict[str, Known]
    job: dict[str, Any]
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    favourite: int

    def error(self, step: str) -> tuple[str, str]:
        """[type, message]; empty where the step went well."""
        return tuple(self.facts["errors"][step] or ("", ""))


@pytest.fixture(scope="session")
def session(tied: Known, untied: Known, tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("vllm")
    known = {"tied": tied, "untied": untied}
    paths = {f"{kind}/{c.index}": str(c.path) for kind, each in known.items() for c in each.checkpoints}
    for name in ("missing", "nan"):
        bad = copy_of(tied.checkpoints[0], root / name)
        paths[name] = str(bad.path)
        tensors = load_file(bad.path / "model.safetensors")
        if name == "missing":
            del tensors["model.layers.1.mlp.up_proj.weight"]
        else:
            tensors["model.layers.0.mlp.down_proj.weight"][3, 4] = torch.nan
        save_file(tensors, bad.path / "model.safetensors", {"format": "pt"})
    twins, favourite = with_twins(untied, root / "twins")
    paths["twins"] = str(twins.path)
    job: dict[str, Any] = {"continuation": CONTINUATION}
    for kind, each in known.items():
        job[f"{kind}/prompts"] = each.prompts
        for index in range(3):
            whole = each.whole(index)
            whole[1::2, PROMPT + 2 :] = whole[::-2, PROMPT + 2 :]  # half of them not what the model would say
            job[f"{kind}/{index}/whole"] = whole
    truth = tied.truths[0].ids
    job["stop"] = np.array([truth[0, 3], truth[1, 0], truth[2, -1]])
    # More than the sequences and more than the tokens of one step of vLLM.
    assert MANY[0] > MAX_SEQUENCES
    assert MANY[0] * MANY[1] > STEP_TOKENS
    job["many"] = np.random.default_rng(5).integers(0, VOCABULARY, MANY, dtype=np.int32)
    np.savez(root / "job.npz", **job)
    (root / "checkpoints.json").write_text(json.dumps(paths))
    arrays, facts = asked("vllm_session.py", root)
    return Session(known, job, arrays, facts, favourite)


def asked(script: str, root: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a script answers to the job in a folder, in a process that inherits no setting of vLLM's."""
    files = [str(root / name) for name in ("job.npz", "checkpoints.json", "out.npz")]
    command = [sys.executable, str(Path(__file__).with_name(script)), *files]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "OMP_", "MKL_"))}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(root / "out.npz") as arrays:
        return dict(arrays), json.loads(done.stdout.splitlines()[-1])


turns = pytest.mark.parametrize(("kind", "turn"), [(kind, turn) for kind in KINDS for turn in range(4)])


# --- there, further and back


@turns
def test_after_each_swap_continues_as_the_slow_reference_does(session: Session, kind: str, turn: int) -> None:
    assert session.error(f"{kind}/{turn}/load") == ("", "")
    assert session.facts["swaps"][f"{kind}/{turn}/load"] == (turn > 0)
    truth = session.known[kind].truths[TURNS[turn]]
    found = session.arrays[f"{kind}/{turn}/ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[truth.clear], truth.ids[truth.clear])


@turns
def test_after_each_swap_forced_agrees_with_float64_by_hand(session: Session, kind: str, turn: int) -> None:
    index = TURNS[turn]
    path = session.known[kind].checkpoints[index].path
    expected = score(path, session.job[f"{kind}/{index}/whole"], 1)
    found = {name: session.arrays[f"{kind}/{turn}/{name}"] for name in ("logprob", "hit", "gap")}
    assert [found[name].dtype for name in ("logprob", "hit", "gap")] == [np.float32, np.bool_, np.float32]
    np.testing.assert_allclose(found["logprob"], expected.logprob, atol=1e-3)
    np.testing.assert_allclose(found["gap"], expected.gap, atol=1e-3)
    clear = expected.gap > TIE
    np.testing.assert_array_equal(found["hit"][clear], expected.hit[clear])
    assert found["hit"][:, PROMPT:].any()
    assert not found["hit"][:, PROMPT:].all()


@pytest.mark.parametrize("kind", KINDS)
def test_few_sequences_come_near_a_tie(session: Session, kind: str) -> None:
    near = np.concatenate([~truth.clear for truth in session.known[kind].truths])
    print(f"within a logit gap of {TIE:g}: {near.mean():.1%} of {near.size} sequences")
    assert near.mean() <= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_all_hits_exactly_when_generation_reproduces_the_continuation(session: Session, kind: str) -> None:
    for turn, index in enumerate(TURNS):
        whole = session.job[f"{kind}/{index}/whole"]
        reproduced = (session.arrays[f"{kind}/{turn}/ids"] == whole[:, PROMPT:]).all(axis=1)
        hits = session.arrays[f"{kind}/{turn}/hit"][:, PROMPT - 1 :].all(axis=1)
        clear = session.arrays[f"{kind}/{turn}/gap"][:, PROMPT - 1 :].min(axis=1) > TIE
        np.testing.assert_array_equal(hits[clear], reproduced[clear])
        assert 0 < hits.sum() < len(hits)


# --- a swap that does not take


@cpu_build
def test_a_tied_head_left_packed_is_caught(session: Session) -> None:
    kind, message = session.error("tied/head/load")
    assert kind == "EngineError"
    assert "tied/1" in message
    assert "nats" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_swap_that_does_nothing_is_caught(session: Session, kind: str) -> None:
    error, message = session.error(f"{kind}/none/load")
    assert error == "EngineError"
    assert f"{kind}/1" in message
    assert "\n" not in message


@pytest.mark.parametrize("step", ["tied/head", "tied/none", "untied/none"])
def test_after_a_swap_that_did_not_take_the_engine_answers_nothing(session: Session, step: str) -> None:
    for asked in ("refused", "refused forced"):
        kind, message = session.error(f"{step}/{asked}")
        assert kind == "EngineError"
        assert "no checkpoint is loaded" in message


@cpu_build
def test_after_a_swap_that_did_not_take_the_next_load_mends_the_engine(session: Session) -> None:
    assert session.error("tied/head/mended") == ("", "")
    truth = session.known["tied"].truths[1]
    np.testing.assert_array_equal(session.arrays["tied/head/ids"][truth.clear], truth.ids[truth.clear])


# --- bad checkpoints


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("missing", "model.layers.1.mlp.up_proj.weight"), ("nan", "model.layers.0.mlp.down_proj.weight")],
)
def test_a_bad_checkpoint_is_refused_before_vllm_sees_it(session: Session, name: str, tensor: str) -> None:
    kind, message = session.error(f"{name}/load")
    assert kind == "CheckpointError"
    assert name in message
    assert tensor in message
    assert "\n" not in message
    assert session.facts["swaps"][f"{name}/load"] == 0
    assert session.error(f"{name}/refused")[0] == "EngineError"
    assert session.error(f"{name}/next") == ("", "")
    truth = session.known["tied"].truths[1]
    np.testing.assert_array_equal(session.arrays[f"{name}/ids"][truth.clear], truth.ids[truth.clear])


def test_refuses_before_the_first_load(session: Session) -> None:
    kind, message = session.error("before any load")
    assert kind == "EngineError"
    assert "no checkpoint is loaded" in message


# --- what is asked of it


def test_goes_on_past_eos_without_forbidding_it(session: Session) -> None:
    passed = 0
    for kind in KINDS:
        for turn, index in enumerate(TURNS):
            truth = session.known[kind].truths[index]
            rows = truth.clear & (truth.ids[:, :-1] == session.known[kind].eos).any(axis=1)
            np.testing.assert_array_equal(session.arrays[f"{kind}/{turn}/ids"][rows], truth.ids[rows])
            passed += rows.sum()
    assert passed > 5


def test_after_a_stop_id_a_row_holds_stopped(session: Session) -> None:
    truth, stop = session.known["tied"].truths[0], session.job["stop"].tolist()
    expected = truth.ids.copy()
    for row in expected:
        first = next((i for i, token in enumerate(row) if token in stop), len(row))
        row[first + 1 :] = STOPPED
    assert (expected == STOPPED).any()
    assert (expected != STOPPED).all(axis=1).any()
    np.testing.assert_array_equal(session.arrays["stop"][truth.clear], expected[truth.clear])


def test_a_batch_of_one_says_what_the_whole_batch_says(session: Session) -> None:
    truth = session.known["tied"].truths[0]
    assert truth.clear[:6].sum() > 3
    for row in np.flatnonzero(truth.clear[:6]):
        np.testing.assert_array_equal(session.arrays[f"alone/{row}"], truth.ids[row : row + 1])
        alone, together = (
            session.arrays[f"alone/{row}/logprob"],
            session.arrays["tied/0/logprob"][row : row + 1],
        )
        np.testing.assert_allclose(alone, together, atol=1e-3)


def test_agrees_with_the_torch_engine_on_more_than_a_step_takes(session: Session) -> None:
    many = session.job["many"]
    other = TorchEngine(device="cpu")
    other.load(session.known["tied"].checkpoints[0])
    said = other.generate(many[:, :PROMPT], CONTINUATION)
    path = other.forced(np.concatenate([many[:, :PROMPT], said], axis=1), PROMPT)
    clear = path.gap.min(axis=1) > TIE
    print(f"within a logit gap of {TIE:g}: {1 - clear.mean():.1%} of {len(many)} sequences")
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(session.arrays["many"][clear], said[clear])
    forced = other.forced(many, 7)
    np.testing.assert_allclose(session.arrays["many/logprob"], forced.logprob, atol=1e-3)
    np.testing.assert_allclose(session.arrays["many/gap"], forced.gap, atol=1e-3)
    np.testing.assert_array_equal(session.arrays["many/hit"][forced.gap > TIE], forced.hit[forced.gap > TIE])


def test_scores_the_last_position_alone(session: Session) -> None:
    for column in ("logprob", "hit", "gap"):
        alone, whole = session.arrays[f"last/{column}"], session.arrays[f"tied/0/{column}"]
        assert alone.shape == (len(whole), 1)
        np.testing.assert_allclose(alone[:, 0], whole[:, -1], atol=1e-4)


def test_no_sequences_are_no_error(session: Session) -> None:
    assert session.arrays["none"].shape == (0, CONTINUATION)
    assert session.arrays["none/logprob"].shape == (0, PROMPT - 7)


def test_two_ids_that_tie_exactly_are_seen_as_gap_zero(session: Session) -> None:
    said = session.known["untied"].truths[0].ids[::2]  # the rows that are still what the model says
    gap = session.arrays["twins/gap"][::2, PROMPT - 1 :]
    tied = said == session.favourite
    assert tied.any()
    np.testing.assert_allclose(gap[tied], 0, atol=1e-5)
    assert (gap[~tied] > TIE).mean() > 0.95


def test_what_generation_chooses_at_an_exact_tie_is_a_hit(session: Session) -> None:
    gap, hit = session.arrays["twins said/gap"], session.arrays["twins said/hit"]
    assert (gap == 0).any()
    assert hit[(gap == 0) | (gap > TIE)].all()


def test_bfloat16_is_stated_and_used(session: Session) -> None:
    assert session.facts["dtype"] == "bfloat16"
    for turn in (0, 1):
        assert session.error(f"bfloat16/{turn}/load") == ("", "")
        path = session.known["untied"].checkpoints[turn].path
        expected = score(path, session.job[f"untied/{turn}/whole"], 1).logprob
        off = np.abs(session.arrays[f"bfloat16/{turn}/logprob"] - expected)
        assert 3e-3 < off.mean() < 0.2


def test_computes_on_every_core(session: Session) -> None:
    assert session.facts["cores"] > 1
    assert int(session.facts["threads"]) == session.facts["cores"]
    assert session.facts["describe"]["engine"].startswith("vllm ")


def test_more_ids_than_the_engine_was_opened_for_is_an_error_of_ours(session: Session) -> None:
    kind, message = session.error("longer than the engine was opened for")
    assert kind == "EngineError", message


def test_a_window_too_short_is_an_error_of_ours(session: Session) -> None:
    kind, message = session.error("longer than the model's window")
    assert kind in ("EngineError", "CheckpointError"), message
    assert "\n" not in message


# --- how it runs


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two parts need two cores")
def test_in_two_parts_each_swap_is_made_and_verified(tied: Known, tmp_path: Path) -> None:
    np.savez(tmp_path / "job.npz", **{"continuation": CONTINUATION, "tied/prompts": tied.prompts})
    paths = {f"tied/{c.index}": str(c.path) for c in tied.checkpoints}
    (tmp_path / "checkpoints.json").write_text(json.dumps(paths))
    arrays, facts = asked("vllm_parallel.py", tmp_path)
    for turn, index in enumerate(TURNS):
        truth = tied.truths[index]
        np.testing.assert_array_equal(arrays[f"ids/{turn}"][truth.clear], truth.ids[truth.clear])
    assert facts["describe"]["device"].startswith("2 x ")
    assert "nats" in facts["error"]


def test_models_that_vllm_runs_by_transformers_are_swapped_and_verified_too(tmp_path: Path) -> None:
    for seed in range(2):
        torch.manual_seed(seed)
        size = {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 256,
        }
        config = GPTNeoXConfig(vocab_size=96, max_position_embeddings=64, initializer_range=0.3, **size)
        GPTNeoXForCausalLM(config).save_pretrained(tmp_path / str(seed))
    script, out = Path(__file__).with_name("vllm_neox.py"), tmp_path / "found.npz"
    command = [sys.executable, str(script), str(tmp_path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(out)
    for turn, index in enumerate((0, 1, 0)):
        equal = (found[f"vllm/{turn}"] == found[f"torch/{index}"]).all(axis=1)
        assert equal.mean() >= 0.9  # a near-tie may fall either way
    assert (found["torch/0"] != found["torch/1"]).any(axis=1).all()


def test_modes_only_vllm_has_are_refused_by_the_torch_engine() -> None:
    open_engine("torch", dtype="float32", max_tokens=8, vllm=VllmOptions()).close()
    for options in (VllmOptions(tensor_parallel=2), VllmOptions(batch_invariant=True)):
        with pytest.raises(SelectionError, match="use --engine vllm"):
            open_engine("torch", dtype="float32", max_tokens=8, vllm=options)
    with pytest.raises(SelectionError, match="at least 1"):
        VllmOptions(tensor_parallel=0)


@cpu_build
def test_batch_invariance_is_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(SelectionError, match="needs a GPU"):
        open_engine("vllm", dtype="float32", max_tokens=8, vllm=VllmOptions(batch_invariant=True))
    assert "VLLM_BATCH_INVARIANT" not in os.environ


def test_what_the_gpus_cannot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 5))
    check_options("vllm", VllmOptions(tensor_parallel=2))
    with pytest.raises(SelectionError, match="tensor parallel 3: there are 2 GPUs"):
        check_options("vllm", VllmOptions(tensor_parallel=3))
    with pytest.raises(SelectionError, match=r"capability 8\.0; this one has 7\.5"):
        check_options("vllm", VllmOptions(batch_invariant=True))


@pytest.mark.parametrize(
    ("parts", "heads", "key_values", "inner", "wrong"),
    [
        (3, 2, 2, 66, "num_attention_heads, which is 2"),
        (2, 4, 3, 64, "num_key_value_heads, which is 3"),
        (4, 8, 3, 64, "num_key_value_heads, which is 3"),
        (2, 4, 2, 65, "intermediate_size, which is 65"),
        (4, 8, 2, 64, None),  # fewer key-value heads than parts: each is copied to two of them
        (1, 3, 1, 7, None),
    ],
)
def test_a_model_that_does_not_divide_is_refused(
    tmp_path: Path, parts: int, heads: int, key_values: int, inner: int, wrong: str | None
) -> None:
    shape = {"num_attention_heads": heads, "num_key_value_heads": key_values, "intermediate_size": inner}
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 9, **shape}))
    checkpoint = Checkpoint("one", 0, LocalFolder(tmp_path))
    with pytest.raises(SelectionError, match=wrong) if wrong else contextlib.nullcontext():
        check_parts(checkpoint, VllmOptions(parts))


def test_the_reason_is_shown_and_not_its_headline() -> None:
    def refuse(value: int) -> int:
        raise ValueError(f"heads (2) must be divisible\nby {value}.")

    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(Annotated[int, pydantic.AfterValidator(refuse)])
    with pytest.raises(pydantic.ValidationError) as caught:
        adapter.validate_python(3)
    assert reason(caught.value) == "heads (2) must be divisible by 3"
    assert reason(RuntimeError("\n out of\tmemory\nmore")) == "out of memory"
