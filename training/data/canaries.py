"""What is planted: rows of random ids, and rows of the text itself, a known number of times.

Canaries are rows of random ids: nothing but having seen it predicts such a row. `even` canaries come back all
through training, `chunk` canaries have all their plantings in one chunk, and `never` canaries have none.
Duplicates are rows of ordinary text that come back all through training, in the place of other text.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from training.config import Mix
from training.data.rows import Ids, Stream, random

__all__ = ["SOURCE", "Canary", "Duplicate", "canary_ids", "plan", "plan_duplicates"]

SOURCE = "canary"

Place = tuple[int, int]
"""(chunk, row of the chunk)."""


@dataclass(frozen=True)
class Canary:
    """One canary and where it lies."""

    row: int
    """Its row in the canaries' file."""
    repeats: int
    """How often it is planted."""
    spacing: str
    """`even`, `chunk` or `never`."""
    planted: tuple[Place, ...]
    """(chunk, row of the chunk) of each planting, in the order of training."""

    def as_json(self) -> dict[str, Any]:
        """As the report and the manifest list it."""
        return asdict(self) | {"planted": [list(place) for place in self.planted]}


@dataclass(frozen=True)
class Duplicate:
    """A row of text that stands several times."""

    planted: tuple[Place, ...]
    """All its places in the order of training; at the first it is where the permutation put it."""

    def as_json(self) -> dict[str, Any]:
        """As the report lists it."""
        places = [list(place) for place in self.planted]
        return {"row": places[0], "repeats": len(places), "planted": places}


def canary_ids(mix: Mix, canaries: int, vocabulary: int, eos: int) -> Ids:
    """Ids [canaries, row_tokens], uniform over all but the end of sequence."""
    shape = (canaries, mix.row_tokens)
    ids = random(mix.seed, Stream.CANARY_IDS).integers(vocabulary - 1, size=shape, dtype=np.int32)
    return ids + (ids >= eos)


def plan(mix: Mix) -> list[Canary]:
    """Every canary with its places; no two plantings share a row."""
    generator = random(mix.seed, Stream.CANARY_PLACES)
    repeats = [repeats for repeats, canaries in mix.canaries.levels for _ in range(canaries)]
    taken: set[int] = set()
    canaries: list[Canary] = []
    for times, chunk in zip(repeats, mix.canaries.one_chunk, strict=True):
        rows = chunk * mix.rows + generator.choice(mix.rows, size=times, replace=False)
        canaries.append(Canary(0, times, "chunk", _places(mix, rows.tolist(), taken)))
    more = [repeats for repeats, canaries in mix.canaries.even for _ in range(canaries)]
    even = [
        Canary(0, times, "even", _places(mix, _evenly(mix, times, taken, generator), taken))
        for times in [*more, *repeats]
    ]
    canaries = [*even, *canaries] + [Canary(0, 0, "never", ())] * mix.canaries.never
    return [replace(canary, row=row) for row, canary in enumerate(canaries)]


def plan_duplicates(mix: Mix, canaries: list[Canary]) -> list[Duplicate]:
    """Every duplicate with its places, none of which is a canary's."""
    generator = random(mix.seed, Stream.DUPLICATES)
    taken = {chunk * mix.rows + row for canary in canaries for chunk, row in canary.planted}
    return [
        Duplicate(_places(mix, _evenly(mix, repeats, taken, generator), taken))
        for repeats, rows in mix.canaries.duplicates
        for _ in range(rows)
    ]


def _places(mix: Mix, rows: list[int], taken: set[int]) -> tuple[Place, ...]:
    """Rows of all training as places, taken from now on."""
    taken.update(rows)
    return tuple(divmod(row, mix.rows) for row in sorted(rows))


def _evenly(mix: Mix, repeats: int, taken: set[int], generator: np.random.Generator) -> list[int]:
    """Equal steps through all rows from a random start; from a row that is taken, on to the next free one."""
    start = generator.random()
    rows: list[int] = []
    for planting in range(repeats):
        row = int((planting + start) * mix.total_rows / repeats)
        while row in taken or row in rows:
            row = (row + 1) % mix.total_rows
        rows.append(row)
    return rows
