"""1000 sequences of a chunk on a Hub 50 ms away: by ranges, and the published way, the whole chunk downloaded.

    python tests/benchmarks/panels.py [--quick]

The chunk is like one of Amber's: JSON lines of 2049 ids, about 12 KB each. It is served by a loopback Hub in
a process of its own, and every contestant starts with an empty cache. Ranges may cost at most twice the bytes
of the lines kept; four times over plain HTTP, where all is read twice (the released chunks come by TLS). What
ranges cost does not depend on the size of the chunk: Amber's are 17 GB.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Figure, Line, alone, figure, median, once, ratio, take_turns
from hub import served

os.environ["HF_HUB_DISABLE_XET"] = "1"

TOKENS, VOCABULARY, WIDTH = 2049, 32000, 64
LATENCY, BANDWIDTH = 0.05, 100e6
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


def make_series(folder: str, rows: int) -> None:
    """A series of one chunk; ids are drawn as text has them, small ones more often."""
    import numpy as np

    generator, root = np.random.default_rng(0), Path(folder)
    for path in (root / NAME, root / "checkpoints/ckpt_000/config.json"):
        path.parent.mkdir(parents=True)
    (root / "checkpoints/ckpt_000/config.json").write_text("{}")
    (root / "series.toml").write_text(MANIFEST)
    with (root / NAME).open("w") as file:
        for first in range(0, rows, 1000):
            ids = (VOCABULARY ** generator.random((min(1000, rows - first), TOKENS))).astype(int)
            for row in ids.tolist():
                file.write(json.dumps({"token_ids": row, "source": f"source {first // 1000 % 7}"}) + "\n")


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


def drawn(place: Any, sequences: int) -> list[int]:
    """The rows of a panel from any place."""
    from analysis360.panel import draw_panel
    from analysis360.series import Chunk, Layout

    chunk = Chunk("train_000", 0, place, (NAME,), "train", Layout(row_tokens=TOKENS))
    rows: list[int] = draw_panel(
        chunk, n=sequences, width=WIDTH, seed=0, vocabulary=VOCABULARY, eos=2
    ).rows.tolist()
    return rows


def on_hub(endpoint: str, cache: Path) -> Any:
    """The chunk's folder on the Hub, pinned; nothing fetched yet."""
    from analysis360.hub.client import Hub
    from analysis360.hub.folder import HubFolder
    from analysis360.hub.options import HubOptions

    hub = Hub(HubOptions(cache=cache, endpoint=endpoint))
    return HubFolder(hub, DATA, "dataset", hub.branches(DATA, "dataset")["main"], "main")


def ranges(endpoint: str, sequences: int, tls: bool) -> dict[str, Any]:
    """Ours."""
    import analysis360.panel  # noqa: F401 (imported before the clock starts)

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        place = on_hub(endpoint, Path(scratch) / "hub")
        before, began = (place.traffic.bytes, place.traffic.requests), time.perf_counter()
        rows = drawn(AsByTls(place) if tls else place, sequences)
        seconds = time.perf_counter() - began
        received, requests = place.traffic.bytes - before[0], place.traffic.requests - before[1]
    return {"seconds": seconds, "received": received, "requests": requests, "rows": rows}


def downloaded(endpoint: str, sequences: int) -> dict[str, Any]:
    """The published way: huggingface_hub brings the chunk, lines are sampled on disk."""
    from huggingface_hub import hf_hub_download

    from analysis360.places import LocalFolder

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        began, cache = time.perf_counter(), f"{scratch}/hub"
        path = Path(hf_hub_download(DATA, NAME, repo_type="dataset", cache_dir=cache, endpoint=endpoint))
        rows = drawn(LocalFolder(path.parents[1]), sequences)
        return {"seconds": time.perf_counter() - began, "received": path.stat().st_size, "rows": rows}


def line_bytes(file: Path, starts: Sequence[int]) -> int:
    """Bytes of the lines that start there."""
    with file.open("rb") as lines:
        return sum(len(lines.readline()) for start in starts if lines.seek(start) >= 0)


def lines(quick: bool) -> list[Line]:
    """Bytes against the bound, bytes and time against the download; all draw the same rows."""
    sequences, rows, repeats = (50, 2000, 1) if quick else (1000, 40_000, 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "series"
        once(make_series, folder=str(folder), rows=rows)()
        size = (folder / NAME).stat().st_size
        with served(folder, LATENCY, BANDWIDTH) as (endpoint, pid):
            given: dict[str, Any] = {"beside": [pid], "endpoint": endpoint, "sequences": sequences}
            contestants = {
                "ranges": once(ranges, tls=True, **given),
                "plain": once(ranges, tls=False, **given),
                "whole": once(downloaded, **given),
            }
            rounds = take_turns(contestants, repeats)
        found = [run.facts["rows"] for one in rounds for run in one.values()]
        assert all(other == found[0] for other in found), "the panel depends on how it was read"
        kept = line_bytes(folder / NAME, found[0])
    middle = {name: statistics.median(one[name].facts["received"] for one in rounds) for name in contestants}

    def received(over: str, under: str) -> Figure:
        return figure(rounds, lambda one: one[over].facts["received"] / one[under].facts["received"])

    def bound(name: str) -> Figure:
        return figure(rounds, lambda one: one[name].facts["received"] / kept)

    what = f"{sequences} sequences of a chunk of {size / 1e6:.0f} MB at {LATENCY * 1e3:.0f} ms"
    bytes_ = f"{middle['ranges'] / 1e6:.1f} MB and {middle['whole'] / 1e6:.0f} MB"
    asked = f"{statistics.median(one['ranges'].facts['requests'] for one in rounds):.0f} requests"
    seconds = (
        f"{median(rounds, 'ranges'):.2f} s and {median(rounds, 'whole'):.2f} s at {BANDWIDTH / 1e6:.0f} MB/s"
    )
    return [
        Line(f"{what}: bytes received, times those kept", bound("ranges"), at_most=2, detail=asked),
        Line(f"{what}: the same by plain HTTP, read twice", bound("plain"), at_most=4),
        Line(f"{what}: bytes of a download beside ranges", received("whole", "ranges"), detail=bytes_),
        Line(f"{what}: ranges beside a download", ratio(rounds, "whole", "ranges"), detail=seconds),
    ]


if __name__ == "__main__":
    alone(lines, __doc__)
