"""Chunks made on the spot, places that count and places that go wrong, and the two ways to draw lines."""

from __future__ import annotations

import json
import random
from collections import Counter
from unittest import mock

import numpy as np

from analysis360.panel import draw_panel
from analysis360.panel.line_stream import Lines
from analysis360.panel.rows import Wanted
from analysis360.panel.whole import draw_whole
from analysis360.panel.windows import Windows
from analysis360.places import LocalFolder
from analysis360.series import Chunk, Layout

WIDTH, VOCABULARY, EOS = 4, 50, 2
IDENTITY = "0123456789abcdef"


def row_of(i, width=WIDTH, source="text"):
    """Row i of a chunk: its ids tell which row it is."""
    return {"token_ids": [i % 50, (i // 50) % 50] + [7] * (width - 2), "source": source}


def chunk_of(folder, rows, *, name="train_000", role="train", end="\n", place=None, fields=None, **how):
    """A chunk of the given rows; a row may be a record or the text of a line."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    content = ("\n".join(lines) + end).encode() if lines else b""
    layout = Layout(fields=fields or ("token_ids",), row_tokens=how.pop("row_tokens", None))
    return raw_chunk(folder, content, name=name, role=role, place=place, layout=layout, **how)


def raw_chunk(folder, content, *, name="train_000", role="train", place=None, **how):
    """A chunk of one file of the given bytes."""
    (folder / f"{name}.jsonl").write_bytes(content)
    return Chunk(name, 0, place or LocalFolder(folder), (f"{name}.jsonl",), role, **how)


def text_of(chunk):
    """The bytes of a chunk of one file."""
    return chunk.place.read(chunk.files[0])


def draw(chunk, n=10, seed=0, width=WIDTH, vocabulary=VOCABULARY, eos=EOS):
    return draw_panel(chunk, n=n, width=width, seed=seed, vocabulary=vocabulary, eos=eos)


def same(one, other):
    """Whether two panels hold the same."""
    return all(
        getattr(one, name).tolist() == getattr(other, name).tolist()
        for name in ("ids", "rows", "sources", "first_eos")
    )


def lines_of(chunk, n=10, seed=0, width=WIDTH, vocabulary=VOCABULARY):
    [file] = chunk.open()
    return Lines(chunk, Wanted(n, width, seed, vocabulary), file.size), file


def by_windows(chunk, n=10, seed=0, **how):
    """[(start, ids, source)] as windows draw them, even from a file that is better read whole."""
    lines, file = lines_of(chunk, n, seed, **how)
    with mock.patch.object(Windows, "_dearer_than_whole", return_value=False):
        return [(row.number, row.ids.tolist(), row.source) for row in Windows(lines, file).draw()]


def by_lines(chunk, n=10, seed=0, **how):
    """The same out of the list of the file's lines."""
    lines, file = lines_of(chunk, n, seed, **how)
    return [(row.number, row.ids.tolist(), row.source) for row in draw_whole(lines, file)]


def big(folder, rows, place=None, tokens=500):
    """Rows of 500 ids, about 2 KB, whose length differs by some percent."""
    ids = np.random.default_rng(0).integers(0, 32000, (rows, tokens))
    with (folder / "big.jsonl").open("w") as file:
        file.writelines(json.dumps({"token_ids": row.tolist(), "source": "text"}) + "\n" for row in ids)
    return Chunk("big", 0, place or LocalFolder(folder), ("big.jsonl",), "train", Layout(row_tokens=tokens))


def big_draw(chunk, n, seed=0):
    return draw(chunk, n, seed, width=64, vocabulary=32000)


def chi_square(counts, expected):
    return sum((count - expected) ** 2 / expected for count in counts)


class Watched:
    """A file that counts what is read of it, and may answer wrongly."""

    def __init__(self, file, place):
        self.where, self.size, self.guarded = file.where, file.size, place.guarded
        self._file, self._place, self.closed = file, place, False

    def read(self, spans):
        assert not self.closed
        assert all(0 <= start < stop <= self.size for start, stop in spans)
        self._place.calls.append(list(spans))
        self._place.traffic.add(requests=len(spans), received=sum(stop - start for start, stop in spans))
        return [
            self._place.damage(data, span) for data, span in zip(self._file.read(spans), spans, strict=True)
        ]

    def close(self):
        self.closed = True
        self._file.close()


class WatchedFolder(LocalFolder):
    """A folder whose reads are counted; `damage` changes what was read."""

    def __init__(self, path, *, far=True, guarded=True, damage=lambda data, span: data):
        super().__init__(path)
        self.far, self.guarded, self.damage = far, guarded, damage
        self.calls, self.files = [], []

    def open(self, name):
        self.files.append(Watched(super().open(name), self))
        return self.files[-1]


class Damage:
    """Flips a byte of some answers, by seeded chance."""

    def __init__(self, probability, seed=0):
        self._probability, self._random = probability, random.Random(seed)
        self.times = Counter()

    def __call__(self, data, span):
        if not data or self._random.random() >= self._probability:
            return data
        self.times[span] += 1
        at = self._random.randrange(len(data))
        wrong = self._random.choice(b"\n3,x")
        return data[:at] + bytes([wrong if wrong != data[at] else wrong ^ 1]) + data[at + 1 :]
