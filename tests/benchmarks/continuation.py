"""Continuation of 32 ids from 32, fp32: both engines, transformers, a vLLM script, and the limit, taking turns.

    python tests/benchmarks/continuation.py [--quick]

The limit is the time of `torch.nn.functional.linear` over the model's weight shapes alone, all sequences
in one batch: every position of the prompt once, then one position a step, and logits only where a token
is chosen. The last layer's products at prompt positions that nobody reads are counted in it, so an engine
that leaves them out may pass it. The peers are transformers `generate` at its best batch size and a vLLM
script with defaults, compiled and warm.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peers
from harness import Figure, Line, Loaded, Rounds, alone, median, missing, ratio, take_turns
from materials import seven_million

K = L = 32


def engine(kind: str, folder: str, ids: str, n: int) -> Callable[[], dict[str, Any]]:
    """Ours: one loaded engine."""
    import numpy as np

    from analysis360.engines import open_engine
    from analysis360.places import LocalFolder
    from analysis360.series import Checkpoint

    opened = open_engine(kind, dtype="float32", max_tokens=K + n)
    opened.load(Checkpoint("benchmark", 0, LocalFolder(Path(folder))))
    prompts = np.load(ids)
    return lambda: {"ids": opened.generate(prompts, n)}


def limit(folder: str, rows: int, n: int) -> Callable[[], None]:
    """The matrix products that cannot be left out: prompt once, then one token at a time."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(Path(folder) / "model.safetensors")
    outer = ("embed", "lm_head")
    inner = [w for name, w in weights.items() if w.ndim == 2 and not any(x in name for x in outer)]
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])

    def passes(weight: Any, rows: int, times: int) -> None:
        x = torch.zeros(rows, weight.shape[1])
        for _ in range(times):
            torch.nn.functional.linear(x, weight)

    @torch.inference_mode()
    def run() -> None:
        for weight in inner:
            passes(weight, rows * K, 1)
            passes(weight, rows, n - 1)
        passes(head, rows, n)

    return run


def measure(folder: Path, ids: Path, rows: int, repeats: int) -> Rounds:
    """All contestants on one model."""
    given = {"folder": str(folder), "ids": str(ids), "n": L}
    contestants = {
        "limit": Loaded(limit, folder=str(folder), rows=rows, n=L),
        "torch": Loaded(engine, kind="torch", **given),
        "vllm": Loaded(engine, kind="vllm", **given),
        "generate": Loaded(peers.generate_at_best, **given),
        "vLLM script": Loaded(peers.naive_vllm, **given),
    }
    with ExitStack() as stack:
        ready = {name: stack.enter_context(contestant) for name, contestant in contestants.items()}
        return take_turns(ready, repeats)


def report(name: str, rounds: Rounds, rows: int, goals: dict[tuple[str, str], float]) -> list[Line]:
    """Each engine beside the limit and beside its peer."""
    batch = rounds[0]["generate"].facts["batch"]
    peer_names = {"limit": "the limit", "generate": f"transformers generate, batch {batch}"}
    lines = []
    for ours, other in (
        ("torch", "limit"),
        ("torch", "generate"),
        ("vllm", "limit"),
        ("vllm", "vLLM script"),
    ):
        rates = f"{rows / median(rounds, ours):.1f} and {rows / median(rounds, other):.1f} sequences/s"
        what = f"{name}, {rows} sequences: {ours} beside {peer_names.get(other, 'a vLLM script')}"
        goal, unit = goals.get((ours, other)), "%" if other == "limit" else "x"
        lines.append(Line(what, ratio(rounds, other, ours), unit, at_least=goal, detail=rates))
    return [*lines, equal(name, rounds)]


def equal(name: str, rounds: Rounds) -> Line:
    """How many sequences two contestants say alike, of the pair that agrees least."""
    said = {who: run.facts["ids"] for who, run in rounds[-1].items() if "ids" in run.facts}
    shares = {}
    for one, other in itertools.combinations(said, 2):
        alike = [a == b for a, b in zip(said[one], said[other], strict=True)]
        shares[f"{one} and {other}"] = sum(alike) / len(alike)
    detail = ", ".join(f"{pair} {share:.1%}" for pair, share in shares.items() if share < 1)
    least = min(shares.values())
    figure = Figure(least, least, max(shares.values()))
    return Line(f"{name}: whole sequences equal, least of all pairs", figure, "%", detail=detail)


def lines(quick: bool) -> list[Line]:
    """A pretrained model of 135 M parameters with real text, and a random one of 6.9 M."""
    import numpy as np
    from pretrained import smollm2, text
    from wheels import UnavailableError

    rows, repeats = (16, 1) if quick else (1000, 5)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        ids = Path(scratch) / "ids.npy"
        if not quick:
            try:
                np.save(ids, text(smollm2(), 128, K))
                rounds = measure(smollm2(), ids, 128, 3)
                goals = {
                    ("torch", "limit"): 0.9,
                    ("vllm", "limit"): 0.85,
                    ("vllm", "vLLM script"): 1.2,
                }
                found += report("135 M, pretrained", rounds, 128, goals)
            except UnavailableError as error:
                found.append(missing("135 M, pretrained", str(error)))
        folder = seven_million(Path(scratch) / "seven")
        np.save(ids, np.random.default_rng(0).integers(1, 4096, (rows, K)).astype(np.int32))
        rounds = measure(folder, ids, rows, repeats)
        goals = {("torch", "limit"): 0.6, ("torch", "generate"): 1.5, ("vllm", "vLLM script"): 1.2}
        return found + report("6.9 M, random", rounds, rows, goals)


if __name__ == "__main__":
    alone(lines, __doc__)
