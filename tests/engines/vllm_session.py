"""Everything asked of the vLLM engine, in a process of its own: vllm_session.py JOB.npz CHECKPOINTS.json OUT.npz.

Writes what it was answered to OUT.npz and prints one JSON object: the errors raised ([type, message] or null),
swaps counted, threads and seconds. It judges nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analysis360.engines.vllm_engine import VllmEngine
from analysis360.engines.vllm_worker import SwapExtension
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

job = dict(np.load(sys.argv[1]))
checkpoints = {
    name: Checkpoint(name, 0, LocalFolder(Path(path)))
    for name, path in json.loads(Path(sys.argv[2]).read_text()).items()
}
N = int(job["continuation"])
arrays: dict[str, np.ndarray] = {}
errors: dict[str, list[str] | None] = {}
facts: dict[str, Any] = {"swaps": {}, "seconds": {}}
genuine_swap = SwapExtension.a360_swap
swaps = 0


def counted_swap(self: SwapExtension, path: str) -> None:
    global swaps
    swaps += 1
    genuine_swap(self, path)


def swap_without_the_head(self: SwapExtension, path: str) -> None:
    self.model_runner.reload_weights(weights_path=path)


def no_swap(self: SwapExtension, path: str) -> None:
    pass


def attempt(name: str, act: Callable[[], object]) -> object:
    began = time.monotonic()
    try:
        answer = act()
        errors[name] = None
    except Exception as error:
        answer, errors[name] = None, [type(error).__name__, str(error)]
    facts["seconds"][name] = round(time.monotonic() - began, 1)
    return answer


def generate(engine: VllmEngine, name: str, prompts: np.ndarray, **options: Any) -> None:
    answer = attempt(name, lambda: engine.generate(prompts, N, **options))
    if answer is not None:
        arrays[name] = answer


def forced(engine: VllmEngine, name: str, ids: np.ndarray, start: int) -> None:
    answer = attempt(name, lambda: engine.forced(ids, start))
    if answer is not None:
        arrays.update({f"{name}/{column}": values for column, values in vars(answer).items()})


def load(engine: VllmEngine, name: str, checkpoint: str) -> None:
    before = swaps
    attempt(name, lambda: engine.load(checkpoints[checkpoint]))
    facts["swaps"][name] = swaps - before


def turns(engine: VllmEngine, kind: str) -> None:
    """There, further, and back: each checkpoint in turn, then the first again."""
    for turn, index in enumerate((0, 1, 2, 0)):
        load(engine, f"{kind}/{turn}/load", f"{kind}/{index}")
        generate(engine, f"{kind}/{turn}/ids", job[f"{kind}/prompts"])
        forced(engine, f"{kind}/{turn}", job[f"{kind}/{index}/whole"], 1)


def spoilt_swap(engine: VllmEngine, kind: str, name: str, swap: Callable[..., None], *, mend: bool) -> None:
    """A swap that does not take, from checkpoint 0 to 1; where asked, the genuine one after it."""
    SwapExtension.a360_swap = swap
    load(engine, f"{kind}/{name}/load", f"{kind}/1")
    SwapExtension.a360_swap = counted_swap
    generate(engine, f"{kind}/{name}/refused", job[f"{kind}/prompts"])
    forced(engine, f"{kind}/{name}/refused forced", job[f"{kind}/prompts"], 1)
    if mend:
        load(engine, f"{kind}/{name}/mended", f"{kind}/1")
        generate(engine, f"{kind}/{name}/ids", job[f"{kind}/prompts"])


SwapExtension.a360_swap = counted_swap

engine = VllmEngine(dtype="float32", max_tokens=64)
generate(engine, "before any load", job["tied/prompts"])
turns(engine, "tied")
facts["threads"], facts["cores"] = engine.describe()["threads"], len(os.sched_getaffinity(0))
facts["describe"] = engine.describe()
for row in range(6):
    generate(engine, f"alone/{row}", job["tied/prompts"][row : row + 1])
    forced(engine, f"alone/{row}", job["tied/0/whole"][row : row + 1], 1)
generate(engine, "many", job["many"][:, : job["tied/prompts"].shape[1]])
forced(engine, "many", job["many"], 7)
generate(engine, "none", job["tied/prompts"][:0])
forced(engine, "none", job["tied/prompts"][:0], 7)
generate(engine, "stop", job["tied/prompts"], stop=frozenset(job["stop"].tolist()))
forced(engine, "last", job["tied/0/whole"], job["tied/0/whole"].shape[1] - 1)
for spoilt in ("missing", "nan"):
    load(engine, f"{spoilt}/load", spoilt)
    generate(engine, f"{spoilt}/refused", job["tied/prompts"])
    load(engine, f"{spoilt}/next", "tied/1")
    generate(engine, f"{spoilt}/ids", job["tied/prompts"])
load(engine, "back to 0", "tied/0")
spoilt_swap(engine, "tied", "head", swap_without_the_head, mend=True)
load(engine, "back to 0 again", "tied/0")
spoilt_swap(engine, "tied", "none", no_swap, mend=False)
engine.close()

engine = VllmEngine(dtype="float32", max_tokens=64)
turns(engine, "untied")
load(engine, "twins", "twins")
forced(engine, "twins", job["untied/0/whole"], 1)
generate(engine, "twins said", job["untied/prompts"])
said = np.concatenate([job["untied/prompts"], arrays["twins said"]], axis=1)
forced(engine, "twins said", said, job["untied/prompts"].shape[1])
load(engine, "untied from twins to 0", "untied/0")
spoilt_swap(engine, "untied", "none", no_swap, mend=False)
engine.close()

engine = VllmEngine(dtype="bfloat16", max_tokens=64)
for turn in (0, 1):
    load(engine, f"bfloat16/{turn}/load", f"untied/{turn}")
    forced(engine, f"bfloat16/{turn}", job[f"untied/{turn}/whole"], 1)
facts["dtype"] = engine.dtype
attempt("longer than the engine was opened for", lambda: engine.generate(job["untied/prompts"], 80))
engine.close()
attempt("longer than the model's window", lambda: VllmEngine(max_tokens=500).load(checkpoints["untied/0"]))

np.savez(sys.argv[3], **arrays)
print(json.dumps({"errors": errors, **facts}))
