"""A sweep from a slow Hub: its wall time beside downloading alone and scoring alone, in one run.

    python tests/benchmarks/hub.py [--checkpoints 10] [--latency 0.02] [--repeats 3]

The Hub runs in a process of its own with a latency a request and a bandwidth at which download and
scoring take about as long. The limit of a sweep that does both at a time is the longer of the two;
the peer is what people do: fetch a checkpoint, score it, fetch the next. `others` is the share of
the machine's CPU that other processes took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
VOCABULARY = 2048
SEQUENCES, CHUNKS, ROW_TOKENS = 64, 4, 129


def make(folder: Path, checkpoints: int) -> None:
    """A series of random Llamas of 5 M parameters and chunks of random rows."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for i in range(checkpoints):
        torch.manual_seed(i)
        config = LlamaConfig(
            vocab_size=VOCABULARY, intermediate_size=1024, max_position_embeddings=256, **SHAPE
        )
        LlamaForCausalLM(config).save_pretrained(folder / f"checkpoints/ckpt_{i:03d}")
    (folder / "train").mkdir()
    for i in range(CHUNKS):
        ids = np.random.default_rng(i).integers(0, VOCABULARY, (SEQUENCES, ROW_TOKENS)).tolist()
        lines = "".join(json.dumps({"token_ids": row, "source": "random"}) + "\n" for row in ids)
        (folder / f"train/train_{i:03d}.jsonl").write_text(lines)
    (folder / "series.toml").write_text(
        'manifest = 1\nname = "bench"\n'
        f'[checkpoints]\npath = "checkpoints/ckpt_{{index:03d}}"\ncount = {checkpoints}\n'
        f'[data]\npath = "train/train_{{index:03d}}.jsonl"\ncount = {CHUNKS}\nrow_tokens = {ROW_TOKENS}\n'
    )


def serve(folder: Path, latency: float, bandwidth: float) -> None:
    """The Hub, until its input is closed."""
    from analysis360.loopback import Faults, Loopback

    with Loopback(folder, faults=Faults(latency=latency, bandwidth=bandwidth or None)) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


def task(name: str, folder: Path, endpoint: str) -> None:
    """One contestant in this process: prints its seconds, engine and imports being ready, as JSON."""
    import analysis360 as a360
    from analysis360.engines import torch_engine  # noqa: F401 (imported before the clock starts)

    how = {"engine": "torch", "sequences": SEQUENCES, "progress": False}
    with tempfile.TemporaryDirectory() as scratch:
        hub = a360.HubOptions(cache=Path(scratch) / "cache", endpoint=endpoint or None)
        series = a360.open_series(folder if name == "score" else "local/bench", hub=hub)
        began = time.monotonic()
        if name == "download":
            for checkpoint in series.checkpoints:
                checkpoint.fetch()
                checkpoint.release()
        elif name == "one after another":
            for checkpoint in series.checkpoints:
                a360.memorization(series, checkpoint.index, out=Path(scratch) / "out", **how)
        else:
            result = a360.memorization(series, out=Path(scratch) / "out", **how)
            print(result.report.line(), *result.report.traffic, sep="\n", file=sys.stderr)
        seconds = time.monotonic() - began
    print(json.dumps({"seconds": seconds}))


def timed(name: str, folder: Path, endpoint: str) -> dict[str, float]:
    """Run a contestant in a process of its own; `others` is the share of the CPU that was not its own."""
    before, began = _busy(), time.monotonic()
    mine = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, __file__, "--task", name, "--folder", str(folder), "--endpoint", endpoint],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = own.ru_utime + own.ru_stime - mine.ru_utime - mine.ru_stime
    cores = (time.monotonic() - began) * (os.cpu_count() or 1)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result | {"others": max(_busy() - before - spent, 0.0) / cores}


def _busy() -> float:
    """Seconds of CPU that the whole machine has spent working."""
    fields = [float(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds a request")
    parser.add_argument("--repeats", type=int, default=3)
    for hidden in ("--task", "--folder", "--endpoint", "--serve"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.task:
        task(parsed.task, Path(parsed.folder), parsed.endpoint)
    elif parsed.serve:
        serve(Path(parsed.folder), parsed.latency, float(parsed.serve))
    else:
        measure(parsed.checkpoints, parsed.latency, parsed.repeats)


def measure(checkpoints: int, latency: float, repeats: int) -> None:
    """All contestants, taking turns."""
    from continuation import machine

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bench"
        make(folder, checkpoints)
        size = sum(file.stat().st_size for file in folder.rglob("model.safetensors"))
        score = timed("score", folder, "")["seconds"]  # to choose the bandwidth; measured again below
        bandwidth = size / score
        arguments = [sys.executable, __file__, "--serve", str(bandwidth), "--folder", str(folder)]
        arguments += ["--latency", str(latency)]
        taken: dict[str, list[dict[str, float]]] = {}
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            endpoint = server.stdout.readline().strip()
            for _ in range(repeats):
                for name in ("score", "download", "sweep", "one after another"):
                    taken.setdefault(name, []).append(timed(name, folder, endpoint))
            server.communicate()
    print(
        f"{checkpoints} checkpoints of {size / checkpoints / 1e6:.1f} MB, {bandwidth / 1e6:.2f} MB/s, "
        f"{latency * 1e3:.0f} ms a request, {SEQUENCES * CHUNKS} sequences each; median of {repeats}; {machine()}"
    )
    print(table(taken))


def table(taken: dict[str, list[dict[str, float]]]) -> str:
    """Seconds, ratio to the limit, spread, and what others took of the CPU (the Hub's own process included)."""
    seconds = {name: [run["seconds"] for run in runs] for name, runs in taken.items()}
    limits = [max(pair) for pair in zip(seconds["score"], seconds["download"], strict=True)]
    limit = statistics.median(limits)
    lines = [f"{'':26}{'seconds':>9}{'of limit':>10}{'spread':>9}{'others':>8}"]
    for name, values in {**seconds, "limit: longer of the two": limits}.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle
        others = max((run["others"] for run in taken.get(name, [])), default=0.0)
        flag = "  disturbed" if others > 0.15 else ""
        lines.append(f"{name:26}{middle:9.1f}{middle / limit:9.2f}x{spread:9.0%}{others:8.0%}{flag}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
