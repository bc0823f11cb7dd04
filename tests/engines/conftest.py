"""Small series of random models, three checkpoints each, with peaked logits; and prompts for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from analysis360.series import Checkpoint

VOCABULARY = 300  # no multiple of 64: vLLM pads the vocabulary
PROMPT = 16


def make_llama(seed: int, *, tied: bool, **changes: object) -> LlamaForCausalLM:
    """A random Llama; seed decides the weights."""
    torch.manual_seed(seed)
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "tie_word_embeddings": tied,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**options | changes))


def make_neox(seed: int) -> GPTNeoXForCausalLM:
    """A random GPT-NeoX, the architecture of Pythia."""
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.2,
        )
    )


def save(model: torch.nn.Module, folder: Path, index: int = 0, **options: object) -> Checkpoint:
    """Save as published checkpoints are."""
    model.save_pretrained(folder, **options)
    return Checkpoint(folder.name, index, folder)


def save_pickled(model: torch.nn.Module, folder: Path, index: int = 0, **options: object) -> Checkpoint:
    """Save with the weights as pytorch_model.bin."""
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin", **options)
    return Checkpoint(folder.name, index, folder)
