"""What evaluations ask of the vLLM engine, in a process of its own: vllm_evaluations.py JOB.json OUT.json.

It judges nothing: it writes the answers, and for every step what vLLM was asked, and the ids it read and made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis360.engines import Prompt, Request, Sampling
from analysis360.engines.vllm_engine import VllmEngine
from analysis360.errors import Analysis360Error
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint

job = json.loads(Path(sys.argv[1]).read_text())
checkpoints = [
    Checkpoint(Path(path).name, i, LocalFolder(Path(path))) for i, path in enumerate(job["checkpoints"])
]
found: dict[str, Any] = {}


class Counted(VllmEngine):
    """Counts what vLLM is asked."""

    read = asked = made = 0

    def _submit(self, ids: Sequence[Sequence[int]], params: Any) -> list[Any]:
        outputs = super()._submit(ids, params)
        self.asked += len(outputs)
        self.made += sum(len(output.outputs[0].token_ids) for output in outputs)
        self.read += sum(
            len(row) - (output.num_cached_tokens or 0) for row, output in zip(ids, outputs, strict=True)
        )
        return outputs


def tupled(value: Any) -> Any:
    return tuple(map(tupled, value)) if isinstance(value, list) else value


def prompts(name: str) -> list[Prompt]:
    return [Prompt(*map(tupled, one[:4]), Sampling(**one[4])) for one in job[name]]


def step(name: str, engine: Counted, act: Any) -> None:
    engine.read = engine.asked = engine.made = 0
    try:
        answer, error = act(), None
    except Analysis360Error as raised:
        answer, error = None, [type(raised).__name__, str(raised)]
    found[name] = {"answer": answer, "error": error, "read": engine.read, "asked": engine.asked}
    found[name]["made"] = engine.made


def score(name: str, engine: Counted, requests: str = "requests") -> None:
    asked = [Request(*tupled(one)) for one in job[requests]]
    step(name, engine, lambda: engine.score(asked))


def complete(name: str, engine: Counted) -> None:
    step(name, engine, lambda: engine.complete(prompts(name.split("/")[-1])))


for shares in (False, True):
    engine = Counted("float32", job["window"], None, None, Path(job["tokenizer"]) if shares else None, shares)
    kind = "shared" if shares else "plain"
    score(f"{kind}/before any load", engine)
    for turn, index in enumerate((0, 1, 0)):
        engine.load(checkpoints[index])
        score(f"{kind}/{turn}", engine)
    score(f"{kind}/again", engine)
    score(f"{kind}/longer than the window", engine, "too long")
    complete(f"{kind}/greedy", engine)
    complete(f"{kind}/stopped", engine)
    complete(f"{kind}/sampled", engine)
    found[f"{kind}/reversed"] = {"answer": engine.complete(prompts("sampled")[::-1])[::-1]}
    complete(f"{kind}/drawn", engine)
    complete(f"{kind}/too hot", engine)
    if shares:
        engine.load(checkpoints[1])
        score("stale/before", engine)
        engine._llm.reset_prefix_cache = lambda: True  # the blocks of checkpoint 1 stay
        engine.load(checkpoints[0])
        score("stale/after", engine)
    engine.close()

Path(sys.argv[2]).write_text(json.dumps(found))
