"""A made-up series and results in the real store's format: whatever size, match bits and gaps are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis360.panel import Panel, first_position
from analysis360.series import Checkpoint, Chunk, open_series
from analysis360.store import Store
from analysis360.tasks import Unit
from analysis360.tasks.memorization import Memorization, Settings, match_table

K, EOS, VOCABULARY = 32, 2, 32000
HELD_OUT = 4
TOKENS_PER_CHUNK = 3_500_000_000
MANIFEST = """
manifest = 1
name = "synthetic"
[model]
eos_token_id = {eos}
[checkpoints]
path = "checkpoints/ckpt_{{index:03d}}"
count = {checkpoints}
[data]
path = "train/train_{{index:03d}}.jsonl"
count = {chunks}
[held_out]
path = "held-out/held-out_{{index:03d}}.jsonl"
count = {held_out}
[exposure]
order = {order}
done = {done}
tokens_per_chunk = {tokens}
"""
Bools = NDArray[np.bool_]


class Synthetic:
    """`root`/series and `root`/results: panels are there, scores are added checkpoint by checkpoint.

    Of C checkpoints and N chunks, checkpoint i has seen the first (i + 1) N / C.
    """

    def __init__(self, root: Path, checkpoints: int, chunks: int, sequences: int, length: int = 32) -> None:
        self.folder, self.out, self.length = root / "series", root / "results", length
        write_series(self.folder, checkpoints, chunks)
        self.series = open_series(self.folder)
        self.pieces = [*self.series.chunks, *self.series.held_out]
        self._store = Store(self.out, self.series.name)
        self._task = Memorization([], {}, Settings(K, length), EOS)
        rng = np.random.default_rng(0)
        for chunk in self.pieces:
            self._store.panel(
                chunk, lambda n: random_panel(n, length, rng), n=sequences, width=K + length, seed=0, eos=EOS
            )

    def add(self, checkpoint: Checkpoint, scored: Iterable[tuple[Chunk, int, Bools]]) -> None:
        """One part: of each chunk the match bits [n, l] of its sequences from a position on."""
        provenance = {"checkpoint": checkpoint.name}
        with closing(self._store.writer(self._task, checkpoint.name, provenance)) as writer:
            for chunk, start, match in scored:
                table = match_table(np.zeros(match.shape, np.int32), (~match).astype(np.int32), start)
                writer.add(Unit(checkpoint, chunk, start, start + len(match)), table, 0.01)


def write_series(folder: Path, checkpoints: int, chunks: int) -> None:
    """A series whose files only have to be there: their content gives it its identity."""
    done = np.round(np.linspace(chunks / checkpoints, chunks, checkpoints)).astype(int).tolist()
    schedule = {"order": list(range(chunks)), "done": done, "tokens": TOKENS_PER_CHUNK}
    sizes = {"checkpoints": checkpoints, "chunks": chunks, "held_out": HELD_OUT}
    files = {"series.toml": MANIFEST.format(eos=EOS, **sizes, **schedule)}
    for i in range(checkpoints):
        files[f"checkpoints/ckpt_{i:03d}/config.json"] = json.dumps({"vocab_size": VOCABULARY})
        files[f"checkpoints/ckpt_{i:03d}/model.safetensors"] = f"weights {i}"
    files |= {f"train/train_{i:03d}.jsonl": f"chunk {i}" for i in range(chunks)}
    files |= {f"held-out/held-out_{i:03d}.jsonl": f"held out {i}" for i in range(HELD_OUT)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def random_panel(n: int, length: int, rng: np.random.Generator) -> Panel:
    """Ids as text has them: an end of document in one row of fifteen."""
    ids = rng.integers(3, VOCABULARY, (n, K + length), np.int32)
    ends = np.flatnonzero(rng.random(n) < 1 / 15)
    ids[ends, rng.integers(0, K + length, len(ends))] = EOS
    return Panel(ids, 3 * np.arange(n), np.full(n, "web"), first_position(ids, EOS))


def fill(made: Synthetic, sequences: int) -> None:
    """Every checkpoint on every chunk; what one gets right, others mostly do."""
    rng = np.random.default_rng(1)
    shape = len(made.pieces), sequences, made.length // 8
    base = rng.integers(0, 256, shape, np.uint8)
    for checkpoint in made.series.checkpoints:
        flips = rng.integers(0, 256, (3, *shape), np.uint8)
        bits = base ^ (flips[0] & flips[1] & flips[2])
        rows = (np.unpackbits(of_chunk, axis=1).astype(bool) for of_chunk in bits)
        made.add(checkpoint, ((chunk, 0, match) for chunk, match in zip(made.pieces, rows, strict=True)))
