"""Documents to rows: some set aside, the others packed, permuted and cut into chunks."""

import hashlib
import json
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from training.errors import TrainingError
from training.tokenizer import EOS_ID

__all__ = ["Ids", "Stream", "is_held_out", "pack", "permute", "random", "row_lines", "shuffled"]

Ids = npt.NDArray[np.int32]


class Stream(IntEnum):
    """What a stream of random numbers is for: each has its own, so that none shifts another."""

    DOCUMENTS = 0
    TRAIN_ROWS = 1
    HELD_OUT_ROWS = 2
    CANARY_IDS = 3
    CANARY_PLACES = 4


def random(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """The generator of one stream of the seed."""
    return np.random.default_rng([seed, int(stream), *more])


def is_held_out(document: str, fraction: float) -> bool:
    """Whether a document is never trained on: its text alone decides, so copies fall on the same side."""
    digest = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def shuffled(documents: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The documents in an order of the generator's."""
    return [documents[index] for index in generator.permutation(len(documents))]


def pack(
    documents: Sequence[str], tokenizer: Tokenizer, rows: int, row_tokens: int, where: str
) -> tuple[Ids, int]:
    """Join documents, each followed by EOS, and cut `rows` rows: ids [rows, row_tokens], documents used.

    The last document is cut where the rows end. Text that reads like the special token stays text.
    """
    tokenizer.encode_special_tokens = True
    stream: list[int] = []
    used = 0
    for document in documents:
        if len(stream) >= rows * row_tokens:
            break
        stream += [*tokenizer.encode(document, add_special_tokens=False).ids, EOS_ID]
        used += 1
    if len(stream) < rows * row_tokens:
        fix = "ask for less of this source in the recipe, or hold out another share"
        found = f"{len(stream)} in {used} documents"
        raise TrainingError(where, expected=f"{rows * row_tokens} tokens", found=found, fix=fix)
    return np.array(stream[: rows * row_tokens], dtype=np.int32).reshape(rows, row_tokens), used


def permute(packed: dict[str, Ids], generator: np.random.Generator) -> tuple[Ids, list[str]]:
    """All rows of all sources in one order of the generator's: ids [rows, row_tokens], source of each."""
    ids = np.concatenate(list(packed.values()))
    sources = [name for name, rows in packed.items() for _ in rows]
    order = generator.permutation(len(ids))
    return ids[order], [sources[index] for index in order]


def row_lines(ids: Ids, sources: Sequence[str]) -> bytes:
    """Rows as JSON lines, in the shape Amber's data has."""
    rows = zip(ids.tolist(), sources, strict=True)
    return "".join(json.dumps({"token_ids": row, "source": source}) + "\n" for row, source in rows).encode()
