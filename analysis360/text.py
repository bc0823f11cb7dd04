"""Text and ids: the tokenizer that a checkpoint brings, and what its series says of BOS and of empty contexts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis360.digests import digest_of, file_sha256
from analysis360.errors import CheckpointError, SeriesError
from analysis360.places import LocalFolder, Place, content_of
from analysis360.series import Checkpoint, Series
from analysis360.series.manifest import Model

Ids = NDArray[np.int32]
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
"""One of them makes a tokenizer."""
CUTTING = (*VOCABULARIES, "merges.txt", "added_tokens.json")
"""Those that decide how text is cut."""
TOKENIZER = (
    *VOCABULARIES,
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""How SentencePiece writes a byte that is in no token."""
PROBE = "  two  Blanks\n\tTab 1234 5,678.90 it's naïve — 日本 </s><s><|endoftext|>[INST] x"
"""Text whose ids tell what a tokenizer's settings change that its vocabulary does not show."""
AT_A_TIME = 4096
"""Texts that are cut into ids together, by several threads."""


@dataclass(frozen=True)
class Text:
    """The way from text to ids and back."""

    folder: Path
    """Where the files of the tokenizer are."""
    model: Model
    """What the series says of special ids."""
    trusted: bool = False

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=self.trusted
            )
        except Exception as error:  # transformers lets many kinds through; each means the same to the reader
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise CheckpointError(f"{self.folder}: its tokenizer cannot be read: {reason}") from None

    @cached_property
    def bos(self) -> int | None:
        """The tokenizer's BOS."""
        found: int | None = self._tokenizer.bos_token_id
        return found

    @cached_property
    def eos(self) -> int | None:
        """The id that ends a document: the manifest's, otherwise the tokenizer's."""
        found = self.model.eos_token_id
        return self._tokenizer.eos_token_id if found is None else found

    @cached_property
    def add_bos(self) -> bool:
        """Whether text begins with BOS. Raises SeriesError where it should and there is none."""
        if self.model.add_bos is None:
            return self.bos is not None and self._tokenizer("a")["input_ids"][:1] == [self.bos]
        if self.model.add_bos and self.bos is None:
            raise SeriesError(f"[model] add_bos is true; the tokenizer in {self.folder} has no BOS")
        return self.model.add_bos

    @cached_property
    def prefix(self) -> int:
        """What stands before text without context. Raises SeriesError where nothing says what that is."""
        found = self.model.prefix_token_id
        if found is None:
            found = self.bos if self.add_bos else self.eos
        if found is None:
            raise SeriesError(
                f"text without context needs an id before it: the tokenizer in {self.folder} has neither BOS "
                "nor EOS; give [model] prefix_token_id in the manifest"
            )
        return found

    @property
    def told_prefix(self) -> str:
        """`prefix` for provenance: `none` where there is none."""
        try:
            return str(self.prefix)
        except SeriesError:
            return "none"

    def encode(self, texts: Sequence[str], *, bare: bool = False) -> list[Ids]:
        """Ids of each text; `bare` ones never begin with BOS."""
        first = [self.bos] if self.add_bos and not bare else []
        found: list[Ids] = []
        for start in range(0, len(texts), AT_A_TIME):
            some = list(texts[start : start + AT_A_TIME])
            rows = self._tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]
            found += [np.array(first + row, np.int32) for row in rows]
        return found

    def spans(self, texts: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
        """Of each text its ids, without BOS, and the character at which each begins. Raises CheckpointError.

        Characters that several ids stand for are where the first of them begins.
        """
        if not self._tokenizer.is_fast:
            raise CheckpointError(f"{self.folder}: its tokenizer does not tell where in a text an id begins")
        for start in range(0, len(texts), AT_A_TIME):
            some = list(texts[start : start + AT_A_TIME])
            cut = self._tokenizer(some, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for ids, places in zip(cut["input_ids"], cut["offset_mapping"], strict=True):
                starts = np.array([place for place, _ in places], np.int32)
                yield np.array(ids, np.int32), np.maximum.accumulate(starts)

    def count_bytes(self, ids: Ids) -> NDArray[np.int64]:
        """[n] bytes of the text that the ids of each row, [n, width], stand for; special ids stand for none."""
        sizes = self._sizes
        known = np.where(ids < len(sizes), ids, 0)
        found: NDArray[np.int64] = np.where(ids < len(sizes), sizes[known], 0).sum(axis=1, dtype=np.int64)
        return found

    @cached_property
    def _sizes(self) -> Ids:
        """[ids] bytes that each stands for, as the tokenizer writes them."""
        tokenizer = self._tokenizer
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        by_byte = b"ByteLevel" in tokenizer.backend_tokenizer.decoder.__getstate__()
        sizes = [len(token) if by_byte else _written_size(token) for token in tokens]
        for id, added in tokenizer.added_tokens_decoder.items():
            sizes[id] = 0 if added.special else len(added.content.encode())
        for id in tokenizer.all_special_ids:
            sizes[id] = 0
        return np.array(sizes, np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special ones left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    @cached_property
    def digest(self) -> str:
        """What decides which ids a text becomes."""
        files = [self.folder / name for name in CUTTING if (self.folder / name).exists()]
        content = [[file.name, file_sha256(file)] for file in files]
        cut = [self.encode([PROBE])[0].tolist(), self.encode([PROBE], bare=True)[0].tolist()]
        return digest_of([content, cut, self.add_bos, self.told_prefix, self.eos])


def _written_size(token: str) -> int:
    """Bytes of a token of SentencePiece: a bar stands for a blank, and `<0x0A>` for a byte."""
    return 1 if BYTE.fullmatch(token) else len(token.replace("\u2581", " ").encode())


def open_texts(
    series: Series, checkpoints: Sequence[Checkpoint]
) -> tuple[dict[str, Text], list[CheckpointError]]:
    """The tokenizer of each checkpoint by its name, opened once a content; and what is wrong with the others.

    All wrong raises the first.
    """
    opened: dict[str, Text] = {}
    found, failures = {}, []
    for checkpoint in checkpoints:
        try:
            place, names = _tokenizer_of(series, checkpoint)
            content = digest_of([[Path(name).name, content_of(place, name)] for name in names])
            if content not in opened:
                place.fetch(names)
                folder = (place.path / names[0]).parent
                opened[content] = Text(folder, series.manifest.model, checkpoint.trusted)
                _ = opened[content].digest  # whether it can be read
        except CheckpointError as error:
            failures.append(error)
            continue
        found[checkpoint.name] = opened[content]
    if not found and failures:
        raise failures[0]
    return found, failures


def _tokenizer_of(series: Series, checkpoint: Checkpoint) -> tuple[Place, list[str]]:
    """Where a tokenizer's files are: the checkpoint's own, otherwise those that the manifest names."""
    names = [name for name in checkpoint.place.names() if name in TOKENIZER]
    if any(name in VOCABULARIES for name in names):
        return checkpoint.place, names
    if series.manifest.tokenizer is not None and isinstance(series.place, LocalFolder):
        place = LocalFolder(series.place.path / series.manifest.tokenizer)
        names = [name for name in place.names() if name in TOKENIZER]
        if any(name in VOCABULARIES for name in names):
            return place, names
    raise CheckpointError(
        f"checkpoint {checkpoint.name}: no tokenizer in {checkpoint.place.where}: expected one of "
        f"{', '.join(VOCABULARIES)}; text cannot be asked of it"
    )
