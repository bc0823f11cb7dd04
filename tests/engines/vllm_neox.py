"""The vLLM engine on GPT-NeoX, whose class in transformers vLLM runs itself: vllm_neox.py FOLDER OUT.npz.

There and back between FOLDER/0 and FOLDER/1, then the torch engine on both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from analysis360.engines import open_engine
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

folder, out = Path(sys.argv[1]), sys.argv[2]
checkpoints = [Checkpoint(str(i), i, LocalFolder(folder / str(i))) for i in range(2)]
prompts = np.random.default_rng(0).integers(0, 96, (12, 16), dtype=np.int32)
found = {}
for kind, turns in (("torch", (0, 1)), ("vllm", (0, 1, 0))):
    engine = open_engine(kind, dtype="float32", max_tokens=48)
    for turn, index in enumerate(turns):
        engine.load(checkpoints[index])
        found[f"{kind}/{turn}"] = engine.generate(prompts, 24)
    engine.close()
np.savez(out, **found)
