"""Where the time of a continuation goes: each engine's operators, sorted by what they do.

    python tests/benchmarks/where.py [--quick]

Time is an operator's own, as torch's profiler tells it for one warm call, as a share of the call's wall time;
what is left is Python, scheduling included. The profiler itself costs a little of every operator.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from continuation import engine
from harness import machine, once, versions
from materials import seven_million

KINDS = {
    "matrix products": ("linear", "onednn_mm", "addmm", "aten::mm"),
    "attention": ("bmm", "attention", "attn", "softmax"),
    "keys and values": ("copy_", "reshape_and_cache", "concat", "aten::cat"),
    "norms, rotations, gates": ("norm", "mul", "rotary", "silu", "complex"),
    "choice": ("argmax", "embedding", "index_select", "index"),
}


def profiled(kind: str, folder: str, ids: str) -> dict[str, Any]:
    """Seconds of each operator and of the call."""
    import time

    from torch.profiler import ProfilerActivity, profile

    generate = engine(kind, folder, ids, 32)
    generate()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        generate()
        seconds = time.perf_counter() - began
    own = {row.key: row.self_cpu_time_total / 1e6 for row in seen.key_averages()}
    return {"wall": seconds, "own": own}


def shares(facts: dict[str, Any]) -> dict[str, float]:
    """Share of the wall time by kind of operator."""
    found = dict.fromkeys([*KINDS, "other operators"], 0.0)
    for name, seconds in facts["own"].items():
        kind = next(
            (kind for kind, parts in KINDS.items() if any(x in name for x in parts)), "other operators"
        )
        found[kind] += seconds / facts["wall"]
    return found | {"Python": 1 - sum(found.values())}


def main() -> None:
    """A line for each engine and model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    quick = parser.parse_args().quick
    import numpy as np
    from pretrained import smollm2, text
    from wheels import UnavailableError

    print(f"{machine()}; {versions()}")
    with tempfile.TemporaryDirectory() as scratch:
        random = np.random.default_rng(0).integers(1, 4096, (16 if quick else 1000, 32)).astype(np.int32)
        models = {"6.9 M, random": (seven_million(Path(scratch) / "seven"), random)}
        if not quick:
            try:
                models["135 M, pretrained"] = (smollm2(), text(smollm2(), 128, 32))
            except UnavailableError as error:
                print(f"135 M, pretrained: {error}")
        for name, (folder, ids) in models.items():
            np.save(Path(scratch) / "ids.npy", ids)
            for kind in ("torch", "vllm"):
                run = once(profiled, kind=kind, folder=str(folder), ids=f"{scratch}/ids.npy")()
                told = ", ".join(f"{what} {share:.0%}" for what, share in shares(run.facts).items())
                print(f"{name}, {kind}, {len(ids)} sequences in {run.facts['wall']:.1f} s: {told}")


if __name__ == "__main__":
    main()
