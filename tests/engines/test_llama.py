"""The lean Llama against the slow reference, for every shape it takes; and that it leaves the others alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import continue_greedily
from small_models import CONTINUATION, PROMPT, SEQUENCES, VOCABULARY, llama, save
from transformers import LlamaForCausalLM

from analysis360.engines import llama as lean
from analysis360.engines.torch_engine import TorchEngine

LONG = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **LONG}
TAKEN = {
    "tied": {"tied": True},
    "a head for each": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "shared heads": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "wide heads": {"head_dim": 48},
    "linear rope": {"rope_parameters": {"rope_type": "linear", **LONG}},
    "llama3 rope": {"rope_parameters": LLAMA3},
    "another epsilon": {"rms_norm_eps": 0.1},
    "one layer": {"num_hidden_layers": 1},
}
LEFT = {
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "gelu": {"hidden_act": "gelu"},
    "looking ahead": {"is_causal": False},
    "dynamic rope": {"rope_parameters": {"rope_type": "dynamic", **LONG, "factor": 8.0}},
}
packs = pytest.mark.skipif(not lean.PACKS, reason="this torch packs no weights")


def lively(seed: int, **changes: object) -> LlamaForCausalLM:
    """Gains that are not 1 and biases that are not 0, as training leaves them."""
    model = llama(seed, **changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.uniform_(0.5, 1.5)
    return model


def prompts(rows: int, k: int = PROMPT, seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (rows, k), dtype=np.int32)
    ids[0, 0], ids[-1, -1] = 0, VOCABULARY - 1
    return ids


def check(engine: TorchEngine, folder: Path, ids: np.ndarray, n: int = CONTINUATION) -> None:
    truth = continue_greedily(folder, ids, n)
    assert truth.clear.mean() > 0.7
    np.testing.assert_array_equal(engine.generate(ids, n)[truth.clear], truth.ids[truth.clear])


@packs
@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN)
def test_says_what_the_slow_reference_says(tmp_path: Path, changes: dict[str, object]) -> None:
    engine = TorchEngine(device="cpu")
    engine.load(save(lively(1, **changes), tmp_path))
    check(engine, tmp_path, prompts(SEQUENCES))
    assert isinstance(engine._fast, lean.Llama)


@pytest.mark.parametrize("changes", LEFT.values(), ids=LEFT)
def test_what_it_does_not_compute_is_left_to_transformers(tmp_path: Path, changes: dict[str, object]) -> None:
    engine = TorchEngine(device="cpu")
    engine.load(save(lively(1, **changes), tmp_path))
    check(engine, tmp_path, prompts(SEQUENCES))
    assert engine._fast is None


@pytest.mark.parametrize(("dtype", "device"), [("bfloat16", "cpu"), ("float32", "cuda")])
def test_it_is_for_float32_on_a_cpu_alone(dtype: str, device: str) -> None:
    assert not lean.fits(llama(1), dtype, torch.device(device))
    assert lean.fits(llama(1), "float32", torch.device("cpu")) == lean.PACKS


def test_code_that_calls_itself_llama_is_not_taken_for_it() -> None:
    class Other(LlamaForCausalLM):
        pass

    assert not lean.fits(Other(llama(1).config), "float32", torch.device("cpu"))


@packs
@packs
def test_a_weight_in_a_part_that_does_more_than_multiply_is_not_taken() -> None:
    class Rounded(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.round())

    model = llama(0)
    assert lean.fits(model, "float32", torch.device("cpu"))
    old = model.model.layers[0].mlp.down_proj
    model.model.layers[0].mlp.down_proj = Rounded(old.in_features, old.out_features, bias=False)
    assert not lean.fits(model, "float32", torch.device("cpu"))


def test_ids_outside_the_vocabulary_are_refused() -> None:
    for wrong in (-1, VOCABULARY):
        ids = prompts(3)
        ids[1, 2] = wrong
        with torch.inference_mode(), pytest.raises(IndexError):
            lean.Llama(llama(1).eval()).generate(torch.from_numpy(ids.astype(np.int64)), 1)


@packs
@pytest.mark.parametrize("rows", [1, 2, 5, 7, 11])
def test_many_batches_say_what_one_says(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "MOST", 5)
    monkeypatch.setattr(lean, "PROMPT_TOKENS", 2 * PROMPT)
    engine = TorchEngine(device="cpu")
    engine.load(save(lively(2), tmp_path))
    check(engine, tmp_path, prompts(rows, seed=rows))


@packs
def test_a_cache_too_small_for_all_holds_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "CACHE_BYTES", 0)
    keys, _ = lean.Cache().room(layers=2, heads=1, width=4, length=3, rows=100)
    assert keys.shape == (2, lean.FEWEST, 1, 3, 4)


@packs
def test_one_call_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Longer, shorter, one, none; then another checkpoint in the same memory."""
    engine = TorchEngine(device="cpu")
    folders = [tmp_path / "0", tmp_path / "1"]
    checkpoints = [save(lively(3 + i), folder, i) for i, folder in enumerate(folders)]
    for checkpoint, folder in zip([*checkpoints, checkpoints[0]], [*folders, folders[0]], strict=True):
        engine.load(checkpoint)
        for rows, k, n in ((20, 10, 12), (24, 16, 3), (3, 1, 1), (24, 20, 12)):
            check(engine, folder, prompts(rows, k), n)
        assert engine.generate(prompts(4), 0).shape == (4, 0)


@packs
def test_models_of_different_shapes_share_a_cache() -> None:
    cache = lean.Cache()
    models = [lively(5).eval(), lively(6, num_hidden_layers=3, num_key_value_heads=2).eval()]
    ids = torch.from_numpy(prompts(9).astype(np.int64))
    with torch.inference_mode():
        alone = [lean.Llama(model).generate(ids, 8) for model in models]
        sharing = [lean.Llama(model, cache) for model in models]
        for i in (0, 1, 0):
            assert torch.equal(sharing[i].generate(ids, 8), alone[i])
