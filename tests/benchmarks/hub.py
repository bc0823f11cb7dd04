"""A sweep from a slow Hub: its wall time beside downloading alone and scoring alone.

    python tests/benchmarks/hub.py [--quick]

The Hub runs in a process of its own with a latency a request and a bandwidth at which a checkpoint's download
and its scoring take about as long. The limit of a sweep that does both at a time is the longer of the two. The peer is
what people do, with our engine and none of our planning: fetch a checkpoint, score it, fetch the next.
Clocks start when imports are done.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Figure, Line, Rounds, Run, alone, figure, median, once, ratio, take_turns
from materials import random_llama, write_chunk, write_manifest

SHAPE = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
VOCABULARY, ROW_TOKENS, CHUNKS = 2048, 129, 4
LATENCY = 0.02
K = L = 32


def make(folder: Path, checkpoints: int, sequences: int) -> None:
    """A series of random Llamas of 5 M parameters and chunks of random rows."""
    for i in range(checkpoints):
        place = str(folder / f"checkpoints/{i:03d}")
        once(random_llama, folder=place, seed=i, num_hidden_layers=4, vocab_size=VOCABULARY, **SHAPE)()
    for i in range(CHUNKS):
        write_chunk(folder / f"train/{i:03d}.jsonl", i, sequences, ROW_TOKENS, VOCABULARY)
    write_manifest(folder, "bench", checkpoints, CHUNKS, ROW_TOKENS)


def serve(folder: str, latency: float, bandwidth: float | None) -> None:
    """The Hub, until its input is closed."""
    from analysis360.loopback import Faults, Loopback

    with Loopback(Path(folder), faults=Faults(latency=latency, bandwidth=bandwidth)) as server:
        print(server.endpoint, flush=True)
        sys.stdin.read()


@contextmanager
def served(folder: Path, latency: float, bandwidth: float | None) -> Iterator[tuple[str, int]]:
    """The address and the process of a Hub."""
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}; import hub; "
    code += f"hub.serve({str(folder)!r}, {latency!r}, {bandwidth!r})"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.communicate()  # closes its input


def download(series: Any, out: Path, sequences: int) -> None:
    """Every checkpoint fetched, nothing scored."""
    for checkpoint in series.checkpoints:
        checkpoint.fetch()
        checkpoint.release()


def sweep(series: Any, out: Path, sequences: int) -> dict[str, Any]:
    """Ours."""
    import analysis360 as a360

    report = a360.memorization(
        series, engine="torch", sequences=sequences, out=out, progress=False, dtype="float32"
    ).report
    seconds = report.seconds
    return {"idle": seconds["idle"] / report.working, "work": seconds["load"] + seconds["generate"]}


def loop(series: Any, out: Path, sequences: int) -> None:
    """Panels once; then fetch, load, score, one checkpoint after another."""
    from analysis360.engines import open_engine
    from analysis360.panel import draw_panel

    how = {"n": sequences, "width": K + L, "seed": 0, "vocabulary": VOCABULARY, "eos": None}
    panels = [draw_panel(chunk, **how).ids for chunk in series.chunks]
    engine = open_engine("torch", dtype="float32", max_tokens=K + L)
    for checkpoint in series.checkpoints:
        checkpoint.fetch()
        engine.load(checkpoint)
        scores = [(engine.generate(ids[:, :K], L) == ids[:, K:]).mean(axis=1) for ids in panels]
        (out / f"{checkpoint.name}.txt").write_text(str(scores))
        checkpoint.release()


WORK = {"download": download, "score": sweep, "sweep": sweep, "loop": loop}


def contestant(name: str, folder: str, endpoint: str, sequences: int) -> dict[str, Any]:
    """One of WORK with an empty cache and an empty store; scoring alone reads the folder on disk."""
    import analysis360 as a360
    from analysis360.engines import torch_engine  # noqa: F401 (imported before the clock starts)

    with tempfile.TemporaryDirectory() as scratch:
        hub = a360.HubOptions(cache=Path(scratch) / "cache", endpoint=endpoint or None)
        began = time.perf_counter()
        series = a360.open_series(folder if name == "score" else "local/bench", hub=hub)
        facts = WORK[name](series, Path(scratch), sequences)
        return {"seconds": time.perf_counter() - began, **(facts or {})}


def equal(given: dict[str, Any], folder: Path, bandwidth: float, seconds: float) -> float:
    """The bandwidth at which a download takes `seconds`: one at `bandwidth` shows what requests add to the bytes."""
    with served(folder, LATENCY, bandwidth) as (endpoint, pid):
        found = once(contestant, name="download", endpoint=endpoint, beside=[pid], **given)().seconds
    size = bandwidth * seconds
    return size / (seconds - (found - seconds)) if found < 2 * seconds else bandwidth


def lines(quick: bool) -> list[Line]:
    """The sweep beside its limit and beside the loop, and how long the engine waited."""
    checkpoints, sequences, repeats = (2, 4, 1) if quick else (24, 64, 2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bench"
        make(folder, checkpoints, sequences)
        given = {"folder": str(folder), "sequences": sequences}
        score = once(contestant, name="score", endpoint="", **given)
        size = sum(file.stat().st_size for file in folder.rglob("model.safetensors"))
        bandwidth = equal(given, folder, size / (seconds := score().seconds), seconds)
        with served(folder, LATENCY, bandwidth) as (endpoint, pid):
            on_hub = {
                name: once(contestant, name=name, endpoint=endpoint, beside=[pid], **given)
                for name in ("download", "sweep", "loop")
            }
            rounds = take_turns({"score": score, **on_hub}, repeats)
    what = f"{checkpoints} checkpoints of {size / checkpoints / 1e6:.0f} MB from a Hub at {bandwidth / 1e6:.1f} MB/s"
    return report(what, rounds)


def report(what: str, rounds: Rounds) -> list[Line]:
    """The lines of a series of rounds."""
    alone_ = f"download {median(rounds, 'download'):.1f} s, score {median(rounds, 'score'):.1f} s"

    def of_limit(one: dict[str, Run]) -> float:
        return one["sweep"].seconds / max(one["download"].seconds, one["score"].seconds)

    found = figure(rounds, of_limit, "sweep", "download", "score")
    both = f"{median(rounds, 'sweep'):.1f} s; {alone_}"
    beside = f"{median(rounds, 'sweep'):.1f} s and {median(rounds, 'loop'):.1f} s"
    found_lines = [
        Line(f"{what}: sweep, times the longer of download and score", found, at_most=1.15, detail=both),
        Line(f"{what}: sweep beside a loop", ratio(rounds, "loop", "sweep"), detail=beside),
    ]
    idle = [one["sweep"].facts["idle"] for one in rounds]
    waited = Figure(statistics.median(idle), min(idle), max(idle), found.others, len(idle))
    return [*found_lines, Line(f"{what}: engine idle from its first work on", waited, "%", at_most=0.1)]


if __name__ == "__main__":
    alone(lines, __doc__)
