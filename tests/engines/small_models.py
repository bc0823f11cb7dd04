"""Small series of random models, three checkpoints each in three formats, with what the slow reference says of each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reference import Continuation, continue_greedily, open_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

VOCABULARY = 300  # no multiple of 64: vLLM pads the vocabulary
SEQUENCES, PROMPT, CONTINUATION = 24, 16, 12
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
NEOX = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}


@dataclass(frozen=True)
class Known:
    """A series, prompts, and the continuation of each prompt under each checkpoint by the slow reference."""

    checkpoints: list[Checkpoint]
    prompts: np.ndarray
    truths: list[Continuation]
    eos: int

    def whole(self, index: int) -> np.ndarray:
        """[n, k + l] prompts with the continuations that checkpoint `index` gives them."""
        return np.concatenate([self.prompts, self.truths[index].ids], axis=1)


def llama(seed: int, *, tied: bool = False, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**LLAMA | {"tie_word_embeddings": tied} | changes))


def neox(seed: int) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX))


def save(model: PreTrainedModel, folder: Path, index: int = 0, **options: object) -> Checkpoint:
    """As safetensors; max_shard_size="40KB" makes several shards."""
    model.save_pretrained(folder, **options)
    return Checkpoint(folder.name, index, LocalFolder(folder))


def save_pickled(model: PreTrainedModel, folder: Path, index: int = 0, shards: int = 1) -> Checkpoint:
    """As pytorch_model.bin, or as pickled shards with their index."""
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    # Files of GPT-NeoX call the head embed_out; transformers renames it as it loads.
    neox = model.config.model_type == "gpt_neox"
    state = {
        ("embed_out.weight" if neox and k == "lm_head.weight" else k): v
        for k, v in model.state_dict().items()
    }
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return Checkpoint(folder.name, index, LocalFolder(folder))
    parts = {f"pytorch_model-{i:05d}-of-{shards:05d}.bin": list(state)[i::shards] for i in range(shards)}
    for file, names in parts.items():
        torch.save({name: state[name].clone() for name in names}, folder / file)
    where = {name: file for file, names in parts.items() for name in names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return Checkpoint(folder.name, index, LocalFolder(folder))


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def copy_of(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """A copy to be broken; the original stays as it is."""
    shutil.copytree(checkpoint.path, folder)
    return Checkpoint(folder.name, 9, LocalFolder(folder))


def with_twins(known: Known, folder: Path) -> tuple[Checkpoint, int]:
    """Checkpoint 0 of an untied series with two equal rows in the head, so that two ids tie exactly.

    The other id is one that the model never says; the one returned is what it says most.
    """
    model = open_model(known.checkpoints[0].path)
    said = known.truths[0].ids
    favourite = int(np.bincount(said.ravel()).argmax())
    twin = next(token for token in range(VOCABULARY) if token not in said)
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[favourite]
    checkpoint = save(model, folder)
    shutil.copy(known.checkpoints[0].path / "config.json", folder)
    return checkpoint, favourite


def make_known(make: Callable[[int], PreTrainedModel], root: Path) -> Known:
    """Three checkpoints: one file, several shards, a pickle."""
    checkpoints = [
        save(make(0), root / "step0", 0),
        save(make(1), root / "step1", 1, max_shard_size="40KB"),
        save_pickled(make(2), root / "step2", 2),
    ]
    prompts = np.random.default_rng(7).integers(0, VOCABULARY, (SEQUENCES, PROMPT), dtype=np.int32)
    truths = [continue_greedily(checkpoint.path, prompts, CONTINUATION) for checkpoint in checkpoints]
    # EOS is an id that the models do choose; a penalty and sampling are what an engine must not pick up.
    eos = int(np.bincount(np.concatenate([truth.ids[:, :-2].ravel() for truth in truths])).argmax())
    for checkpoint in checkpoints:
        edit_config(checkpoint.path, eos_token_id=eos)
        sampling = {"eos_token_id": eos, "do_sample": True, "temperature": 2.0, "repetition_penalty": 3.0}
        (checkpoint.path / "generation_config.json").write_text(json.dumps(sampling))
    return Known([Checkpoint(c.name, c.index, c.place) for c in checkpoints], prompts, truths, eos)
