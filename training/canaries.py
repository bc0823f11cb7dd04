"""Canaries: rows of random ids, planted a known number of times, so that what is remembered was memorised.

Nothing but having seen it predicts such a row. `even` canaries come back all through training, `chunk`
canaries have all their plantings in one chunk, and `never` canaries have none.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from training.recipes import Recipe
from training.rows import Ids, Stream, random
from training.tokenizer import EOS_ID

__all__ = ["SOURCE", "Canary", "canary_ids", "plan", "plant"]

SOURCE = "canary"


@dataclass(frozen=True)
class Canary:
    """One canary and where it lies."""

    row: int
    """Its row in the canaries' file."""
    repeats: int
    """How often it is planted."""
    spacing: str
    """`even`, `chunk` or `never`."""
    planted: tuple[tuple[int, int], ...]
    """(chunk, row of the chunk) of each planting, in the order of training."""

    def as_json(self) -> dict[str, Any]:
        """As the report and the manifest list it."""
        return asdict(self) | {"planted": [list(place) for place in self.planted]}


def canary_ids(recipe: Recipe, canaries: int) -> Ids:
    """Ids [canaries, row_tokens], uniform over all but the special one."""
    shape = (canaries, recipe.data.row_tokens)
    return random(recipe.seed, Stream.CANARY_IDS).integers(
        EOS_ID + 1, recipe.data.vocabulary, shape, dtype=np.int32
    )


def plan(recipe: Recipe) -> list[Canary]:
    """Every canary with its places; no two plantings share a row."""
    generator = random(recipe.seed, Stream.CANARY_PLACES)
    repeats = [repeats for repeats, canaries in recipe.canaries.levels for _ in range(canaries)]
    taken: set[int] = set()
    canaries: list[Canary] = []
    for spacing, place in (("chunk", _one_chunk), ("even", _evenly)):
        for index, times in enumerate(repeats):
            rows = place(recipe, index, times, taken, generator)
            taken.update(rows)
            places = tuple(divmod(row, recipe.data.rows) for row in sorted(rows))
            canaries.append(Canary(0, times, spacing, places))
    canaries.sort(key=lambda canary: canary.spacing != "even")
    canaries += [Canary(0, 0, "never", ())] * recipe.canaries.never
    return [replace(canary, row=row) for row, canary in enumerate(canaries)]


def _one_chunk(
    recipe: Recipe, index: int, repeats: int, taken: set[int], generator: np.random.Generator
) -> list[int]:
    """Random rows of a chunk of its own."""
    chunk = recipe.canaries.one_chunk[index]
    rows = generator.choice(recipe.data.rows, size=repeats, replace=False)
    return [chunk * recipe.data.rows + int(row) for row in rows]


def _evenly(
    recipe: Recipe, index: int, repeats: int, taken: set[int], generator: np.random.Generator
) -> list[int]:
    """Equal steps through all rows from a random start; from a row that is taken, on to the next free one."""
    total = recipe.data.total_rows
    start = generator.random()
    rows: list[int] = []
    for planting in range(repeats):
        row = int((planting + start) * total / repeats)
        while row in taken or row in rows:
            row = (row + 1) % total
        rows.append(row)
    return rows


def plant(ids: Ids, sources: list[str], canaries: list[Canary], rows: Ids, chunk_rows: int) -> None:
    """Put each canary in its places, in the place of the text that was there."""
    for canary in canaries:
        for chunk, row in canary.planted:
            ids[chunk * chunk_rows + row] = rows[canary.row]
            sources[chunk * chunk_rows + row] = SOURCE
