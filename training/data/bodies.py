"""A mix's sources opened: which documents are trained on, in which order, and what draws on them."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.config import Mix, Recipe
from training.data.packs import Draw
from training.data.rows import Numbers, Stream, held_out, random
from training.data.sources import Documents, open_source
from training.data.tokenizer import Coder, learned, read_tokenizer
from training.series import PARENT

__all__ = ["SAMPLE", "Body", "coder_for", "held_out_draws", "open_bodies", "stage_draws"]

SAMPLE = 1 << 26
"""Bytes of text that a tokenizer is learned from, at most."""
_BYTES_A_TOKEN = 6
"""Text enough for any budget: a token of a vocabulary of some thousands is about three bytes."""


@dataclass(frozen=True)
class Body:
    """A source, opened."""

    documents: Documents
    """All of it."""
    training: Numbers
    """Numbers of the documents trained on, in seeded order."""
    held_out: Numbers
    """Those of the documents set aside, in seeded order."""


def open_bodies(mix: Mix, scratch: Path) -> dict[str, Body]:
    """Every source that a stage draws on, by name."""
    used = _rows(mix)
    bodies: dict[str, Body] = {}
    for index, source in enumerate(mix.sources):
        if used[source.name]:
            documents = open_source(source, mix.longest, scratch)
            order = random(mix.seed, Stream.DOCUMENTS, index).permutation(len(documents))
            aside = held_out(documents.digests, mix.held_out_fraction)[order]
            bodies[source.name] = Body(documents, order[~aside], order[aside])
    return bodies


def coder_for(recipe: Recipe, out: Path, bodies: dict[str, Body]) -> Coder:
    """The parent's tokenizer, the one the mix names, or one learned from a sample of what is trained on."""
    mix = recipe.mix
    if recipe.parent is not None:
        return read_tokenizer(out / PARENT)
    if mix.tokenizer:
        return read_tokenizer(Path(mix.tokenizer))
    return learned(_sample(mix, bodies), mix.vocabulary, recipe.model.positions)


def _sample(mix: Mix, bodies: dict[str, Body]) -> Iterator[str]:
    """The first training documents of each source, in proportion to its rows, SAMPLE bytes in all."""
    for name, rows in _rows(mix).items():
        size, body = rows * mix.row_tokens * _BYTES_A_TOKEN, bodies[name]
        size = min(size, SAMPLE * rows // mix.total_rows)
        for document in body.training:
            if size <= 0:
                break
            text = body.documents.text(int(document))
            size -= len(text.encode())
            yield text


def stage_draws(mix: Mix, bodies: dict[str, Body], index: int) -> list[Draw]:
    """A draw for each take of a stage that has rows."""
    stage, draws = mix.stages[index], []
    for number, (take, rows) in enumerate(zip(stage.takes, mix.rows_of(stage), strict=True)):
        order = bodies[take.source].training if rows else None
        if order is not None:
            first, end = (math.floor(edge * len(order)) for edge in take.part)
            key = (mix.seed, index, number)
            draws.append(Draw(take.source, stage.name, order[first:end], rows, take.epochs, key))
    return draws


def held_out_draws(mix: Mix, bodies: dict[str, Body]) -> list[Draw]:
    """Each source has the share it has in all stages together, rounded up to a row."""
    rows = {name: -(-rows * mix.held_out_chunks // mix.chunks) for name, rows in _rows(mix).items()}
    return [Draw(name, None, bodies[name].held_out, wanted) for name, wanted in rows.items() if wanted]


def _rows(mix: Mix) -> Counter[str]:
    """Training rows of each source that has any, in the mix's order."""
    rows = Counter({source.name: 0 for source in mix.sources})
    for stage in mix.stages:
        for take, wanted in zip(stage.takes, mix.rows_of(stage), strict=True):
            rows[take.source] += wanted
    return +rows
