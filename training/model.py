"""The model: a Llama of transformers, its weights whole in one process or shared out by FSDP2."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils.logging import disable_progress_bar

from training.config import Loop, Model, Recipe
from training.distributed import Processes
from training.series import PARENT

__all__ = ["compiles", "llama_config", "load_weights", "new_model", "start_weights"]

Weights = dict[str, torch.Tensor]


def llama_config(shape: Model, eos_token_id: int) -> LlamaConfig:
    """What transformers calls the shape: fp32, no BOS, the head apart from the embeddings."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        dtype="float32",
        architectures=["LlamaForCausalLM"],
    )


def _config(out: Path, recipe: Recipe, report: dict[str, Any]) -> LlamaConfig:
    """The recipe's, or the parent's own, which may say more than a recipe can."""
    if recipe.parent is None:
        return llama_config(recipe.model, report["eos_token_id"])
    config: LlamaConfig = LlamaConfig.from_pretrained(out / PARENT)
    config.dtype = torch.float32
    return config


def new_model(out: Path, recipe: Recipe, report: dict[str, Any], here: Processes) -> LlamaForCausalLM:
    """The model before it has its weights."""
    config = _config(out, recipe, report)
    model = _sharded(config, recipe.loop, here) if here.sharded else LlamaForCausalLM(config).to(here.device)
    if recipe.loop.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def compiles(loop: Loop) -> bool:
    """Whether operators are fused: where that is asked for and a C++ compiler is there (a GPU brings its own)."""
    found = torch.cuda.is_available() or any(shutil.which(name) for name in ("g++", "c++", "clang++"))
    return loop.compiled and bool(found)


def _sharded(config: LlamaConfig, loop: Loop, here: Processes) -> LlamaForCausalLM:
    """Weights are shared out block by block, in fp32; activations and gradients take the compute dtype.

    Only parameters are cast. Rotary frequencies are a buffer and stay fp32, as they must: angles at far
    positions are wrong in 16 bits (LLM360, section 3).
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    dtype = getattr(torch, loop.compute_dtype) if loop.compute_dtype != "float32" else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in model.model.layers:
        if compiles(loop):
            block.compile(dynamic=False)
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    model.to_empty(device=here.device)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(here.device)  # no state holds a buffer
    return model


def start_weights(out: Path, recipe: Recipe, report: dict[str, Any], here: Processes) -> Weights:
    """The weights a run begins with: the parent's, or random ones of the seed. Whole, in the first process alone."""
    if not here.first:
        return {}
    if recipe.parent:
        disable_progress_bar()  # of reading tensors, in a thousandth of the time that training takes
        begun = LlamaForCausalLM.from_pretrained(out / PARENT, dtype=torch.float32)
    else:
        torch.manual_seed(recipe.model.seed)
        begun = LlamaForCausalLM(_config(out, recipe, report))
    weights: Weights = begun.state_dict()
    return weights


def load_weights(model: LlamaForCausalLM, weights: Weights, here: Processes) -> None:
    """Give a model its weights; where they are shared out, the first process gives them to all."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=here.sharded, strict=True)
    set_model_state_dict(model, dict(weights), options=options)
