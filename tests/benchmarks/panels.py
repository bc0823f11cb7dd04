"""1000 sequences of a chunk on a Hub 50 ms away: by ranges, and the published way, the whole chunk downloaded.

    python tests/benchmarks/panels.py [--sequences 1000] [--rows 40000] [--latency 0.05] [--bandwidth 100]

The chunk is like one of Amber's: JSON lines of 2049 ids, about 12 KB each. It is served by a loopback Hub in
a process of its own, and every contestant starts with an empty cache. `rows` is the ratio of the bytes received
to those of the lines kept, `bound` to what the method may cost at most (2 x the lines kept; 4 x over plain HTTP,
where all is read twice; the released chunks come by TLS). What ranges cost does not depend on the size of the
chunk: Amber's are 17 GB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["HF_HUB_DISABLE_XET"] = "1"

TOKENS, VOCABULARY, WIDTH = 2049, 32000, 64
NAME = "train/train_000.jsonl"
DATA = "local/panels-data"
MANIFEST = """
manifest = 1
name = "panels"
[checkpoints]
path = "checkpoints/ckpt_{index:03d}"
count = 1
[data]
path = "train/train_{index:03d}.jsonl"
count = 1
row_tokens = 2049
"""


@dataclass(frozen=True)
class Cost:
    """What one contestant took."""

    seconds: float
    received: int
    requests: int
    resolves: int
    panel: Any = None


def make_series(folder: Path, rows: int) -> None:
    """A series of one chunk; ids are drawn as text has them, small ones more often."""
    import numpy as np

    generator = np.random.default_rng(0)
    for path in (folder / NAME, folder / "checkpoints/ckpt_000/config.json"):
        path.parent.mkdir(parents=True)
    (folder / "checkpoints/ckpt_000/config.json").write_text("{}")
    (folder / "series.toml").write_text(MANIFEST)
    with (folder / NAME).open("w") as file:
        for first in range(0, rows, 1000):
            ids = (VOCABULARY ** generator.random((min(1000, rows - first), TOKENS))).astype(int)
            for row in ids.tolist():
                file.write(json.dumps({"token_ids": row, "source": f"source {first // 1000 % 7}"}) + "\n")


def serve(folder: Path, latency: float, bandwidth: float | None, pipe: Connection) -> None:
    """A loopback Hub until the pipe says otherwise."""
    from analysis360.loopback import Faults, Loopback

    with Loopback(folder, faults=Faults(latency=latency, bandwidth=bandwidth)) as hub:
        pipe.send(hub.endpoint)
        pipe.recv()


@contextmanager
def served(folder: Path, latency: float, bandwidth: float | None) -> Iterator[str]:
    """The address of a Hub in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    arguments = (folder, latency, bandwidth, theirs)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


class AsByTls:
    """A place whose connections count as guarded: what the real Hub's are."""

    def __init__(self, place: Any) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    def open(self, name: str) -> Any:
        """The file, said to be guarded."""
        return Guarded(self._place.open(name))


class Guarded:
    """A file that need not be read twice."""

    guarded = True

    def __init__(self, file: Any) -> None:
        self.where, self.size = file.where, file.size
        self.read, self.close = file.read, file.close


def drawn(place: Any, sequences: int) -> Cost:
    """A panel from any place, and what its traffic counted."""
    from analysis360.panel import draw_panel
    from analysis360.series import Chunk, Layout

    chunk = Chunk("train_000", 0, place, (NAME,), "train", Layout(row_tokens=TOKENS))
    before = (place.traffic.bytes, place.traffic.requests, place.traffic.resolves)
    began = time.perf_counter()
    panel = draw_panel(chunk, n=sequences, width=WIDTH, seed=0, vocabulary=VOCABULARY, eos=2)
    seconds = time.perf_counter() - began
    after = (place.traffic.bytes, place.traffic.requests, place.traffic.resolves)
    received, requests, resolves = (b - a for a, b in zip(before, after, strict=True))
    return Cost(seconds, received, requests, resolves, panel)


def on_hub(endpoint: str, cache: Path) -> Any:
    """The chunk's folder on the Hub, pinned; nothing fetched yet."""
    from analysis360.hub.client import Hub
    from analysis360.hub.folder import HubFolder
    from analysis360.hub.options import HubOptions

    hub = Hub(HubOptions(cache=cache, endpoint=endpoint))
    return HubFolder(hub, DATA, "dataset", hub.branches(DATA, "dataset")["main"], "main")


def downloaded(endpoint: str, cache: Path, sequences: int) -> Cost:
    """The published way: huggingface_hub brings the chunk, lines are sampled on disk."""
    from huggingface_hub import hf_hub_download

    from analysis360.places import LocalFolder

    began = time.perf_counter()
    path = Path(hf_hub_download(DATA, NAME, repo_type="dataset", cache_dir=cache, endpoint=endpoint))
    cost = drawn(LocalFolder(path.parents[1]), sequences)
    return Cost(time.perf_counter() - began, path.stat().st_size, 2, 1, cost.panel)


def line_bytes(file: Path, starts: Sequence[int]) -> int:
    """Bytes of the lines that start there."""
    with file.open("rb") as lines:
        return sum(len(lines.readline()) for start in starts if lines.seek(start) >= 0)


def report(costs: dict[str, Cost], kept: int) -> None:
    """One table; the last contestant is the published way."""
    base = list(costs.values())[-1]
    print(f"{'':28} seconds      MB requests resolves    rows   bound  bytes saved  faster")
    for name, cost in costs.items():
        times = {"ranges": 2, "ranges, plain HTTP": 4}.get(name)
        bound = f"{cost.received / kept / times:7.2f}" if times else "      -"
        print(
            f"{name:28} {cost.seconds:7.2f} {cost.received / 1e6:7.1f} {cost.requests:8} {cost.resolves:8} "
            f"{cost.received / kept:7.2f} {bound} {base.received / cost.received:11.1f}x "
            f"{base.seconds / cost.seconds:6.1f}x"
        )


def main() -> None:
    """Make the chunk, serve it, let the contestants take turns, and check that they drew the same."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=40_000, help="lines of the chunk, 12 KB each")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds added to each request")
    parser.add_argument("--bandwidth", type=float, default=100.0, help="MB a second for all; 0: no limit")
    parsed = parser.parse_args()
    bandwidth = parsed.bandwidth * 1e6 or None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "digests")
        make_series(folder / "series", parsed.rows)
        size = (folder / "series" / NAME).stat().st_size
        print(f"chunk of {size / 1e6:.0f} MB, {parsed.latency * 1e3:.0f} ms, {parsed.bandwidth:.0f} MB/s")
        with served(folder / "series", parsed.latency, bandwidth) as endpoint:
            contestants: dict[str, Callable[[], Cost]] = {
                "ranges": lambda: drawn(AsByTls(on_hub(endpoint, folder / "one")), parsed.sequences),
                "ranges, plain HTTP": lambda: drawn(on_hub(endpoint, folder / "two"), parsed.sequences),
                "downloaded whole": lambda: downloaded(endpoint, folder / "three", parsed.sequences),
            }
            costs = {name: contestant() for name, contestant in contestants.items()}
        rows = [cost.panel.rows.tolist() for cost in costs.values()]
        assert all(other == rows[0] for other in rows), "the panel depends on how it was read"
        report(costs, line_bytes(folder / "series" / NAME, rows[0]))
        from analysis360.hub.options import HubOptions

        at_a_time, requests = HubOptions().connections, costs["ranges"].requests
        floor = requests * parsed.latency / at_a_time
        print(f"limit of ranges: {requests} requests, {at_a_time} at a time: {floor:.2f} s of latency alone")
        if bandwidth:
            print(
                f"limit of downloading 17 GB, a chunk of Amber, at this bandwidth: {17e9 / bandwidth:.0f} s"
            )


if __name__ == "__main__":
    main()
