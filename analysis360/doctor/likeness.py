"""Likeness: weights served twice, shards of two checkpoints, and checkpoints that are not where they belong.

Equal content is known by SHA-256 alone. Whether a state of the model is at its place follows from a
few numbers of its weights: training moves them little by little, so neighbours are near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis360.doctor.findings import Finding, common, runs
from analysis360.doctor.inspection import Inspected

CLEAR = 1.5
"""How many times longer the way through a checkpoint's own place must be than through another."""
FEWEST = 4
"""Checkpoints without which there is no order to speak of."""
ROUNDING = 1e-6
"""Share of the longest distance below which differences are those of rounding."""
FROZEN_SHARE = 0.5
"""A shard that more of the checkpoints share was not trained."""
COPIES = "upload the right weights; until then count them once"
Matrix = NDArray[np.float64]


def check_likeness(found: Sequence[Inspected]) -> list[Finding]:
    """Duplicates, shared shards, and checkpoints out of place."""
    order = [item.name for item in found]
    alike = _alike(found)
    findings = [_duplicate(group, found, order) for group in alike]
    findings += _shared(found, alike, order)
    doubtful = {name for finding in findings if finding.severity == "error" for name in finding.names}
    placed = [item for item in found if item.whole and item.name not in doubtful]
    return findings + _out_of_place(placed)


def _alike(found: Sequence[Inspected]) -> list[list[Inspected]]:
    """Groups of checkpoints whose shards all have the same content."""
    groups: dict[tuple[str, ...], list[Inspected]] = {}
    for item in found:
        if item.whole:
            groups.setdefault(item.contents, []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def _duplicate(group: Sequence[Inspected], found: Sequence[Inspected], order: Sequence[str]) -> Finding:
    names = [item.name for item in group]
    files = f"{len(group[0].shards)} files" if len(group[0].shards) > 1 else group[0].shards[0].name
    found_ = f"the same {files} (SHA-256 {group[0].contents[0][:12]})"
    if group[-1] is found[-1]:
        early = names[:-1]
        expected = f"other weights than those of {names[-1]}, the last checkpoint"
        where = runs(early, order)
        return Finding("error", "late-weights", where, expected, found_, COPIES, tuple(early))
    where, expected = runs(names, order), "weights of their own"
    found_ += _which(group, found)
    return Finding("error", "duplicate-weights", where, expected, found_, COPIES, tuple(names))


def _shared(
    found: Sequence[Inspected], alike: Sequence[Sequence[Inspected]], order: Sequence[str]
) -> list[Finding]:
    """Single shards that checkpoints share whose other shards differ."""
    copies = {item.name for group in alike for item in group[:-1]}
    several = [item for item in found if len(item.shards) > 1 and item.name not in copies]
    holders: dict[str, list[Inspected]] = {}
    for item in several:
        for content in dict.fromkeys(item.contents):
            holders.setdefault(content, []).append(item)
    findings = []
    for content, group in holders.items():
        if len(group) > 1:
            frozen = len(group) > max(2, FROZEN_SHARE * len(several))
            findings.append(_shared_shard(content, group, found, order, frozen))
    return findings


def _shared_shard(
    content: str, group: Sequence[Inspected], found: Sequence[Inspected], order: Sequence[str], frozen: bool
) -> Finding:
    shard = next(shard.name for shard in group[0].shards if shard.content == content)
    names, found_ = [item.name for item in group], f"the same content (SHA-256 {content[:12]})"
    expected = "a shard of each checkpoint's own"
    if frozen:
        where, advice = f"{runs(names, order)}: {shard}", "it seems to hold what was not trained"
        return Finding("note", "shard-frozen", where, expected, found_, advice, tuple(names))
    if group[-1] is found[-1]:
        found_ += f" as in {names[-1]}, the last checkpoint"
        names = names[:-1]
    elif content == group[0].shards[0].content:
        found_ += _which(group, found)
    where = f"{runs(names, order)}: {shard}"
    advice = "upload the checkpoint's own shard; it mixes two states of the model"
    return Finding("error", "shard-shared", where, expected, found_, advice, tuple(names))


def _which(group: Sequence[Inspected], found: Sequence[Inspected]) -> str:
    """Which of several equal ones is at its place, if its neighbours tell."""
    unclear = "; which of them is right, its neighbours do not tell"
    names = {item.name for item in group}
    comparable = _comparable([item for item in found if item.whole])
    if not all(item in comparable for item in group):
        return unclear
    others = [item for item in comparable if item.name not in names]
    if len(others) < FEWEST - 1:
        return unclear
    detours = []
    for item in group:
        line = sorted([*others, item], key=_index)
        detours.append(_own(_distances(line))[line.index(item)])
    best = int(np.argmin(detours))
    if min(np.delete(detours, best)) <= CLEAR * detours[best]:
        return unclear
    return f"; it fits {group[best].name} by its neighbours"


def _index(item: Inspected) -> int:
    return item.checkpoint.index


def _out_of_place(placed: Sequence[Inspected]) -> list[Finding]:
    """Checkpoints through whose own place the way is much longer than through another."""
    placed = _comparable(placed)
    if len(placed) < FEWEST:
        return []
    distances = _distances(placed)
    most = max(2, len(placed) // 4)
    moved = _moved(distances, most)
    if len(moved) > most:
        return []  # steps of training that leap about show no order
    line = [i for i in range(len(placed)) if i not in moved]
    order = [item.name for item in placed]
    return [_misplaced(i, _best(distances, i, line)[1], line, order) for i in sorted(moved)]


def _moved(distances: Matrix, most: int) -> set[int]:
    """Points to take out, the one that is most in the way first, until all others are at their places.

    No more than one above `most`.
    """
    line, moved = list(range(len(distances))), set[int]()
    least = ROUNDING * float(distances.max())
    while len(line) >= FEWEST and len(moved) <= most:
        own = _own(distances[np.ix_(line, line)])
        best = np.array([_best(distances, i, line)[0] for i in line])
        gain = np.where(own > CLEAR * best + least, own - best, 0.0)
        if not gain.any():
            break
        moved.add(line.pop(int(np.argmax(gain))))
    return moved


def _misplaced(i: int, at: int, line: Sequence[int], order: Sequence[str]) -> Finding:
    names = [order[i]]
    if at in (0, len(line)):
        belongs = f"before {order[line[0]]}" if at == 0 else f"after {order[line[-1]]}"
    else:
        belongs = f"between {order[line[at - 1]]} and {order[line[at]]}"
    # one move past a neighbour is an exchange of the two
    names += [order[j] for j in line[max(at - 1, 0) : at] if j == i + 1]
    names += [order[j] for j in line[at : at + 1] if j == i - 1]
    expected = "weights near those of its neighbours"
    found = f"{order[i]} holds weights that belong {belongs}, by a few numbers of each"
    advice = "see whether branches were swapped; --loss tells more"
    where = " and ".join(sorted(names, key=order.index))
    return Finding("error", "out-of-place", where, expected, found, advice, tuple(names))


def _comparable(items: Sequence[Inspected]) -> list[Inspected]:
    """Those of whose weights the same numbers were read as of most."""
    shapes = [tuple((name, len(vector)) for name, vector in item.sample.items()) for item in items]
    finite = [all(np.isfinite(vector).all() for vector in item.sample.values()) for item in items]
    usual = common(shapes) if shapes else ()
    return [
        item for item, shape, f in zip(items, shapes, finite, strict=True) if usual and shape == usual and f
    ]


def _distances(items: Sequence[Inspected]) -> Matrix:
    """Distance of every two checkpoints by their samples."""
    points = np.array([np.concatenate(list(item.sample.values())) for item in items])
    points -= points.mean(axis=0)
    squares = np.einsum("ij,ij->i", points, points)
    distances: Matrix = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0))
    return distances


def _own(distances: Matrix) -> Matrix:
    """How much longer the way is for going through each point at its own place."""
    steps = np.diagonal(distances, 1)
    past = np.diagonal(distances, 2)
    return np.concatenate([steps[:1], steps[:-1] + steps[1:] - past, steps[-1:]])


def _best(distances: Matrix, i: int, line: Sequence[int]) -> tuple[float, int]:
    """How much longer the way along a line is for going through point i at the best place but its own.

    With that place, counted in the line without the point.
    """
    rest = [j for j in line if j != i]
    to, steps = distances[i, rest], distances[rest[:-1], rest[1:]]
    detours = np.concatenate([to[:1], to[:-1] + to[1:] - steps, to[-1:]])
    if i in line:
        detours[line.index(i)] = np.inf
    at = int(np.argmin(detours))
    return float(detours[at]), at
