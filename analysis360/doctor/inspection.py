"""What is read of every checkpoint: lists of files, small files once a content, headers of a few shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from analysis360.doctor.findings import common
from analysis360.doctor.headers import Header, Vector, read_header, read_sample
from analysis360.errors import CheckpointError, DataError, MissingError
from analysis360.hub.threads import in_threads
from analysis360.places import Place, content_of
from analysis360.series import Checkpoint
from analysis360.series.checkpoint import CONFIG, WEIGHTS

AT_A_TIME = 8
"""Checkpoints or files read at a time."""
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.(?P<suffix>safetensors|bin)")
SHARD = re.compile(r"[\w-][\w.-]*")
INDICES = tuple(f"{stem}.{suffix}.index.json" for stem, suffix in WEIGHTS)
ABSENT = (OSError, EOFError, MissingError, CheckpointError)
"""What reading raises where one file or branch is not there; a Hub out of reach is another matter."""
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Shard:
    """A file of weights that is there."""

    name: str
    size: int
    """Bytes."""
    content: str
    """What names its content: SHA-256, or git's name of a file that is kept in git."""


@dataclass(frozen=True, eq=False)
class Inspected:
    """What the files of a checkpoint show without its weights."""

    checkpoint: Checkpoint
    names: frozenset[str]
    """Its files."""
    problem: str | None = None
    """Why its files could not be listed."""
    config: dict[str, Any] | str = ""
    """config.json, or why it cannot be read."""
    index: str | None = None
    """Name of the index of its shards, where it has one."""
    index_problem: str | None = None
    promised: int | None = None
    """Bytes of all tensors together, as the index says."""
    named: tuple[str, ...] = ()
    """Shards that should be there: by the index, or by their numbering."""
    shards: tuple[Shard, ...] = ()
    """Those of them that are there."""
    headers: Mapping[str, Header | str] = field(default_factory=dict)
    """Header of each shard whose header was read, or what is wrong with it."""
    sample: Mapping[str, Vector] = field(default_factory=dict)
    """A few numbers of the first shard."""

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.checkpoint.name

    @property
    def whole(self) -> bool:
        """Whether all its weights are there."""
        return bool(self.shards) and len(self.shards) == len(self.named)

    @property
    def size(self) -> int:
        """Bytes of the weights that are there."""
        return sum(shard.size for shard in self.shards)

    @property
    def contents(self) -> tuple[str, ...]:
        """What names the content of its shards, in order."""
        return tuple(shard.content for shard in self.shards)


def inspect(checkpoints: Sequence[Checkpoint]) -> list[Inspected]:
    """Everything that is known of each checkpoint without its weights. Raises HubError when the Hub fails."""
    listed = in_threads(_listed, checkpoints, AT_A_TIME)
    small = _small_files(item for item in listed if item.problem is None)
    described = in_threads(lambda item: _described(item, small), listed, AT_A_TIME)
    return _with_headers(described)


def attempt(ask: Callable[[Item], Answer], item: Item) -> Answer | str:
    """The answer, or in one line why there is none."""
    try:
        return ask(item)
    except ABSENT as error:
        return getattr(error, "strerror", None) or str(error)


def _listed(checkpoint: Checkpoint) -> Inspected:
    names = attempt(lambda place: place.names(), checkpoint.place)
    if isinstance(names, str):
        return Inspected(checkpoint, frozenset(), problem=names)
    return Inspected(checkpoint, frozenset(names))


def _small_files(listed: Iterable[Inspected]) -> dict[str, bytes | str]:
    """The configs and indices by content: what many branches share is read once."""
    places: dict[str, tuple[Place, str]] = {}
    for item in listed:
        for name in item.names & {CONFIG, *INDICES}:
            file = (item.checkpoint.place, name)
            places.setdefault(attempt(_named_content, file), file)
    read = in_threads(lambda file: attempt(_read, file), places.values(), AT_A_TIME)
    return dict(zip(places, read, strict=True))


def _named_content(file: tuple[Place, str]) -> str:
    return content_of(*file)


def _read(file: tuple[Place, str]) -> bytes:
    return file[0].read(file[1])


def _shard(file: tuple[Place, str]) -> Shard:
    place, name = file
    return Shard(name, place.size(name), content_of(place, name))


def _described(item: Inspected, small: Mapping[str, bytes | str]) -> Inspected:
    config = _object(_content(item, CONFIG, small))
    index = next((name for name in _candidates(item.names) if name in item.names), None)
    table = _object(_content(item, index, small)) if index else {}
    named, problem, promised = _indexed(table) if index else ((), None, None)
    named = named or _unindexed(item.names)
    found = [attempt(_shard, (item.checkpoint.place, name)) for name in named if name in item.names]
    shards = [shard for shard in found if isinstance(shard, Shard)]
    return Inspected(
        item.checkpoint,
        item.names,
        item.problem,
        config,
        index,
        problem,
        promised,
        named,
        tuple(shards),
    )


def _candidates(names: frozenset[str]) -> list[str]:
    """The index an engine would read: safetensors before pickles, a single file before an index."""
    found = []
    for stem, suffix in WEIGHTS:
        if f"{stem}.{suffix}" in names:
            break
        found.append(f"{stem}.{suffix}.index.json")
    return found


def _content(item: Inspected, name: str, small: Mapping[str, bytes | str]) -> bytes | str:
    if name not in item.names:
        return "missing"
    return small[attempt(_named_content, (item.checkpoint.place, name))]


def _object(body: bytes | str) -> dict[str, Any] | str:
    if isinstance(body, str):
        return body
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return loaded if isinstance(loaded, dict) else "no JSON object"


def _indexed(table: Mapping[str, Any] | str) -> tuple[tuple[str, ...], str | None, int | None]:
    """(the shards an index names, what is wrong with it, bytes of all tensors)."""
    if isinstance(table, str):
        return (), table, None
    weights, about = table.get("weight_map"), table.get("metadata")
    total = about.get("total_size") if isinstance(about, dict) else None
    if not isinstance(weights, dict) or not weights:
        return (), "no table weight_map of tensors and shards", None
    odd = [name for name in weights.values() if not isinstance(name, str) or not SHARD.fullmatch(name)]
    if odd:
        return (), f"it names {odd[0]!r}, which is no file of its folder", None
    return tuple(sorted(set(weights.values()))), None, total if isinstance(total, int) else None


def _unindexed(names: frozenset[str]) -> tuple[str, ...]:
    """Single weight files, and numbered ones that stand without an index, all numbers of them."""
    for stem, suffix in WEIGHTS:
        if f"{stem}.{suffix}" in names:
            return (f"{stem}.{suffix}",)
        found = [match for name in names if (match := NUMBERED.fullmatch(name))]
        found = [match for match in found if match["stem"] == stem and match["suffix"] == suffix]
        if found:
            of = common(sorted(match["of"] for match in found))
            return tuple(f"{stem}-{n:05d}-of-{of}.{suffix}" for n in range(1, int(of) + 1))
    return ()


def _with_headers(described: list[Inspected]) -> list[Inspected]:
    """Headers of every first shard, and of every shard that may be cut: read once a content."""
    wanted: dict[str, tuple[Place, Shard]] = {}
    for item, shards in zip(described, _doubtful(described), strict=True):
        for shard in shards:
            wanted.setdefault(shard.content, (item.checkpoint.place, shard))
    read = dict(zip(wanted, in_threads(_header, wanted.values(), AT_A_TIME), strict=True))
    return [_joined(item, read) for item in described]


def _doubtful(described: Sequence[Inspected]) -> list[list[Shard]]:
    sizes: dict[str, list[int]] = {}
    for item in described:
        for shard in item.shards:
            sizes.setdefault(shard.name, []).append(shard.size)
    usual = {name: common(found) for name, found in sizes.items()}
    return [
        [
            shard
            for i, shard in enumerate(item.shards)
            if shard.name.endswith(".safetensors")
            and (i == 0 or shard.size != usual[shard.name] or item.size < (item.promised or 0))
        ]
        for item in described
    ]


def _header(file: tuple[Place, Shard]) -> tuple[Header | str, dict[str, Vector]]:
    place, shard = file
    try:
        opened = place.open(shard.name)
        try:
            header = read_header(opened)
            return header, read_sample(opened, header)
        finally:
            opened.close()
    except DataError as error:
        return str(error), {}
    except ABSENT as error:
        return f"it cannot be read: {error}", {}


def _joined(item: Inspected, read: Mapping[str, tuple[Header | str, dict[str, Vector]]]) -> Inspected:
    headers = {shard.name: read[shard.content][0] for shard in item.shards if shard.content in read}
    first = read.get(item.shards[0].content) if item.shards else None
    return Inspected(**{**vars(item), "headers": headers, "sample": first[1] if first else {}})
