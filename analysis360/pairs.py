"""Correlation between the rows of a matrix of small integers that has gaps, over the columns two rows share.

The columns are grouped by which rows have them, a block without gaps each.  A block adds one matrix product,
of the rows it has: exact in single precision, for its sums stay below 2^24.  Everything else that a correlation
needs (how many columns, sums, squares) is the same for all rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Small = NDArray[np.unsignedinteger]
EXACT = 2**24
"""Integers up to here are exact in single precision."""


class Shared(NamedTuple):
    """Sums over the columns that rows i and j share, each table [rows, rows]; exact."""

    n: Ints
    """Columns."""
    sums: Ints
    """[i, j]: of the values of row i."""
    squares: Ints
    """[i, j]: of the squares of the values of row i."""
    products: Ints


class Phi(NamedTuple):
    """Association of 0/1 rows, each table [rows, rows]; see `phi`."""

    phi: Floats
    phi_max: Floats
    conditional: Floats


class Pairs:
    """Collects the blocks of a matrix [rows, columns] of integers from 0 to `most`."""

    def __init__(self, rows: int, most: int) -> None:
        self._width = max(1, (EXACT - 1) // max(most * most, 1))
        self._present: list[Bools] = []
        self._n: list[int] = []
        self._sums: list[Floats] = []
        self._squares: list[Floats] = []
        self._products = np.zeros((rows, rows))

    def add(self, present: Bools, block: NDArray[np.integer | np.bool_]) -> None:
        """Add columns that the `present` rows, [rows], have all of: `block` is [present rows, columns]."""
        place = stretch(present)
        sums, squares = np.zeros((2, len(present)))
        for start in range(0, block.shape[1], self._width):
            x = block[:, start : start + self._width].astype(np.float32)
            products = x @ x.T
            sums[place] += x.sum(axis=1)
            squares[place] += products.diagonal()
            if isinstance(place, slice):
                self._products[place, place] += products
            else:
                self._products[np.ix_(place, place)] += products
        self._present.append(present)
        self._n.append(block.shape[1])
        self._sums.append(sums)
        self._squares.append(squares)

    def shared(self) -> Shared:
        """Of all blocks so far.  Exact for rows of up to 2^31 / `most` columns."""
        shape = len(self._n), len(self._products)
        present = np.array(self._present, np.float64).reshape(shape)
        columns = np.array(self._n, np.float64)[:, None]
        sums, squares = (np.array(x).reshape(shape) for x in (self._sums, self._squares))
        tables = (present.T @ (present * columns), sums.T @ present, squares.T @ present, self._products)
        return Shared(*(np.rint(table).astype(np.int64) for table in tables))


def pearson(shared: Shared) -> Floats:
    """Pearson's r of every two rows, [rows, rows].

    NaN where fewer than two columns are shared, or a row does not vary over them.
    """
    n, sums, squares, products = shared
    spread = (n * squares - sums * sums).astype(np.float64)
    spread[spread == 0] = np.nan
    together = (n * products - sums * sums.T).astype(np.float64)
    r: Floats = np.clip(together / (np.sqrt(spread) * np.sqrt(spread.T)), -1.0, 1.0)
    return r


def phi(shared: Shared) -> Phi:
    """Association of 0/1 rows: `phi`, Pearson's r of them, and what bounds it.

    `phi_max` is the largest phi two rows with these rates can have: below 1 unless the rates agree, so phi
    alone understates an agreement between a rare and a less rare event.  `conditional` [i, j] = P(j | i), the
    share in [0, 1] of the columns with row i true that have row j true (NaN if row i is never true).
    """
    n, ones, _, both = shared
    spread = (n * ones - ones * ones).astype(np.float64)
    spread[spread == 0] = np.nan
    scale = np.sqrt(spread) * np.sqrt(spread.T)
    # at most min(ones, ones.T) columns can be true in both
    most = (n * np.minimum(ones, ones.T) - ones * ones.T) / scale
    with np.errstate(invalid="ignore", divide="ignore"):
        conditional = np.where(ones > 0, both / ones, np.nan)
    return Phi(pearson(shared), np.clip(most, 0.0, 1.0), conditional)


def whole_blocks(x: Small, gap: int) -> Iterator[tuple[Bools, NDArray[np.unsignedinteger]]]:
    """The columns of x [rows, columns] grouped by which rows have them: (present [rows], [present, columns]).

    `gap`, the largest value of the type, marks what is not there.
    """
    if not x.size:
        return
    whole, some = x.max(axis=1) != gap, x.min(axis=1) != gap
    if (whole == some).all():
        if whole.any():
            yield whole, x[stretch(whole)]
        return
    there = x != gap
    packed = np.ascontiguousarray(np.packbits(there, axis=0).T)
    kinds, kind = np.unique(packed.view(np.dtype((np.void, packed.shape[1])))[:, 0], return_inverse=True)
    for i in range(len(kinds)):
        columns = np.flatnonzero(kind == i)
        present = there[:, columns[0]]
        if present.any():
            yield present, x[np.ix_(present, columns)]


def stretch(rows: Bools) -> slice | Ints:
    """Index of the True rows: a slice, which copies nothing, where they follow one another."""
    where = np.flatnonzero(rows)
    if len(where) and where[-1] - where[0] + 1 == len(where):
        return slice(int(where[0]), int(where[-1]) + 1)
    return where
