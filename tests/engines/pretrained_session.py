"""vLLM asked about the pretrained model, in a process of its own: pretrained_session.py FOLDER JOB.npz OUT.npz."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from analysis360.engines.vllm_engine import VllmEngine
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

job = np.load(sys.argv[2])
engine = VllmEngine(dtype="float32", max_tokens=64)
engine.load(Checkpoint("pretrained", 0, LocalFolder(Path(sys.argv[1]))))
ids = engine.generate(job["prompts"], int(job["continuation"]))
np.savez(sys.argv[3], ids=ids, **vars(engine.forced(job["whole"], 1)))
