"""Series as they are released: published to a store on this machine with the real client."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import HfApi
from numpy.typing import NDArray
from small_series import VOCABULARY, save_llama
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaForCausalLM

from analysis360.loopback import Loopback, published

STEPS = (0, 1, 2, 4, 8, 1000)
ROW_TOKENS = 40
ROWS_PER_STEP = 8


def release(server: Loopback, folder: Path, model: str = "lab/small") -> None:
    """Publish a series on disk: a branch a checkpoint, a repository of data, the manifest on main."""
    api = HfApi(endpoint=server.endpoint)
    what, data = published(folder), f"{model}-data"
    api.create_repo(model)
    api.create_repo(data, repo_type="dataset")
    for name, path in what.checkpoints.items():
        api.create_branch(model, branch=name)
        api.upload_folder(repo_id=model, folder_path=path, revision=name)
    for name, path in what.data.items():
        api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=data, repo_type="dataset")
    api.upload_file(path_or_fileobj=what.manifest(model, data), path_in_repo="series.toml", repo_id=model)


PYTHIA_LIKE = """
manifest = 1
name = "{name}"
[model]
eos_token_id = 0
[checkpoints]
{checkpoints}
[data]
{repository}
format = "bin"
path = "data/document-{{index:05d}}-of-00002.bin"
count = 3
row_tokens = 40
token_dtype = "uint16"
window_rows = 20
[exposure]
label = "step"
rows_per_step = 8
"""


def pythia_like(server: Loopback, folder: Path) -> tuple[Path, NDArray[np.uint16]]:
    """GPT-NeoX checkpoints at irregular steps, rows of uint16 in files that cut rows in two.

    Returns (manifest for the Hub, the 50 rows); the folder holds the same series on disk.
    """
    api = HfApi(endpoint=server.endpoint)
    api.create_repo("lab/pythia")
    api.create_repo("lab/pile", repo_type="dataset")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    for i, step in enumerate(STEPS):
        torch.manual_seed(step)
        config = GPTNeoXConfig(
            vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.3, **size
        )
        path = folder / f"checkpoints/{i}"
        GPTNeoXForCausalLM(config).save_pretrained(path)
        api.create_branch("lab/pythia", branch=f"step{step}")
        api.upload_folder(repo_id="lab/pythia", folder_path=path, revision=f"step{step}")
    ids = np.random.default_rng(5).integers(0, VOCABULARY, (50, ROW_TOKENS)).astype("<u2")
    content = ids.tobytes()
    cuts = [0, 1111, 2500, len(content)]  # 80 bytes a row: neither cut is the edge of one
    (folder / "data").mkdir()
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"data/document-{i:05d}-of-00002.bin"
        (folder / name).write_bytes(content[start:stop])
        api.upload_file(
            path_or_fileobj=folder / name, path_in_repo=name, repo_id="lab/pile", repo_type="dataset"
        )
    on_hub = 'repository = "lab/pythia"\nrevision = "step(?P<step>\\\\d+)"\norder = ["step"]'
    on_hub += '\nexpected = ["step{0,1,2,4,8,16,1000}"]'
    manifest = folder / "hub.toml"
    manifest.write_text(
        PYTHIA_LIKE.format(name="pythia-like", checkpoints=on_hub, repository='repository = "lab/pile"')
    )
    here = f'path = "checkpoints/{{index}}"\ncount = {len(STEPS)}'
    local = PYTHIA_LIKE.format(name="pythia-like", checkpoints=here, repository="")
    (folder / "series.toml").write_text(local[: local.index("[exposure]")])  # folders have no steps
    return manifest, ids


def pickled(server: Loopback, folder: Path) -> Path:
    """Two Llamas as pickles, one of them beside safetensors, with optimiser states nobody needs.

    Returns the folder of the first.
    """
    api = HfApi(endpoint=server.endpoint)
    api.create_repo("lab/pickled")
    for i in range(2):
        path = folder / f"{i}"
        save_llama(path, 40 + i)
        state = LlamaForCausalLM.from_pretrained(path).state_dict()
        torch.save(state, path / "pytorch_model.bin")
        torch.save({"step": torch.zeros(100_000)}, path / "optimizer.pt")
        if i == 0:
            (path / "model.safetensors").unlink()
        api.create_branch("lab/pickled", branch=f"ckpt_{i}")
        api.upload_folder(repo_id="lab/pickled", folder_path=path, revision=f"ckpt_{i}")
    return folder / "0"
