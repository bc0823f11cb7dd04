"""The vLLM engine in two parts, in processes of their own: vllm_parallel.py JOB.npz CHECKPOINTS.json OUT.npz.

There, further, and back; then a swap to a checkpoint it cannot take. Prints one JSON object; it judges nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from analysis360.engines import VllmOptions, open_engine
from analysis360.errors import EngineError
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint


def main() -> None:
    job = dict(np.load(sys.argv[1]))
    paths = json.loads(Path(sys.argv[2]).read_text())
    checkpoints = {name: Checkpoint(name, 0, LocalFolder(Path(path))) for name, path in paths.items()}
    engine = open_engine("vllm", dtype="float32", max_tokens=64, vllm=VllmOptions(tensor_parallel=2))
    arrays = {}
    for turn, index in enumerate((0, 1, 2, 0)):
        engine.load(checkpoints[f"tied/{index}"])
        arrays[f"ids/{turn}"] = engine.generate(job["tied/prompts"], int(job["continuation"]))
    facts = {"describe": engine.describe(), "error": ""}
    engine._oracle.load(checkpoints["tied/1"])  # what a swap that did not take looks like
    try:
        engine._verify(checkpoints["tied/1"], continuing=True)
    except EngineError as error:
        facts["error"] = str(error)
    engine.close()
    np.savez(sys.argv[3], **arrays)
    print(json.dumps(facts))


if __name__ == "__main__":  # vLLM starts each part anew from this file
    main()
