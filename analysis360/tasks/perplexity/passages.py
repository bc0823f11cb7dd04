"""Passages: a chunk's panel or a corpus as the windows that are asked about, in an order that does not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from analysis360.corpora import Corpus
from analysis360.digests import digest_of
from analysis360.errors import DataError
from analysis360.panel import Panel
from analysis360.series import Chunk
from analysis360.tasks.perplexity.windows import Ids, Window, windows
from analysis360.text import Text


@dataclass(frozen=True)
class Passages:
    """Windows of one piece of data."""

    name: str
    digest: str
    """Of the content, and of how text was cut into ids."""
    windows: Sequence[Window]
    documents: Sequence[int]
    """[windows] number of the document that each is of; of a panel, of its row."""
    sources: Sequence[str]
    """[windows] named source of each."""
    bytes: Sequence[int] | None = None
    """[windows] bytes of the text that their targets stand for; None where ids were given, not text."""
    tokenizer: str = ""
    """Digest of what cut text into ids."""

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def longest(self) -> int:
        """Ids of the longest window, its last target among them."""
        return max((len(window.ids) for window in self.windows), default=0)


def panel_passages(chunk: Chunk, panel: Panel) -> Passages:
    """A window a row: the targets are all ids of a row but its first, which nothing precedes."""
    found = [Window(row, 1) for row in panel.ids]
    return Passages(chunk.name, chunk.digest, found, range(len(panel)), panel.sources.tolist())


def corpus_passages(corpus: Corpus, text: Text, *, width: int, stride: int, prefix: bool) -> Passages:
    """The windows of every document, one document after another; none reaches into a second one.

    With `prefix` the first token of a document is a target, after the series' prefix id. Without, it is read and
    not asked about, unless the series begins text with BOS, which stands before it then. Raises DataError for a
    corpus without any target.
    """
    lead = [text.prefix] if prefix else [text.bos] if text.add_bos else []
    found: list[Window] = []
    documents: list[int] = []
    sources: list[str] = []
    sizes: list[int] = []
    texts = [document.text for document in corpus.documents]
    for number, (ids, starts) in enumerate(text.spans(texts)):
        whole = np.concatenate([np.array(lead, np.int32), ids])
        some = windows(whole, width, stride)
        found += some
        documents += [number] * len(some)
        sources += [corpus.documents[number].source] * len(some)
        sizes += _bytes(texts[number], starts, len(lead), some)
    if not found:
        raise DataError(f"{corpus.where}: expected text, found no token to ask about")
    digest = digest_of([corpus.digest, text.digest])
    return Passages(corpus.name, digest, found, documents, sources, sizes, text.digest)


def _bytes(text: str, starts: Ids, lead: int, some: Sequence[Window]) -> list[int]:
    """[windows] bytes from each window's first target to the next one's; together the text that is asked about."""
    if not some:
        return []
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    ends = np.cumsum(1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF))
    before = np.concatenate([[0], ends])
    asked = [len(window.ids) - window.first for window in some]
    tokens = np.cumsum([1 - lead, *asked[:-1]])  # place in the text of each window's first target
    cuts = [int(before[starts[token]]) if token else 0 for token in tokens.tolist()]
    return [end - start for start, end in pairwise([*cuts, int(before[-1])])]
