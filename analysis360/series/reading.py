"""Reading a manifest: TOML into records, unknown keys and wrong types refused by name."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from analysis360.errors import SeriesError
from analysis360.series.checks import check
from analysis360.series.ranges import numbers
from analysis360.series.records import (
    Canaries,
    Canary,
    Facts,
    Files,
    Manifest,
    Model,
    Phase,
    Revisions,
    Schedule,
)

VERSION = 1
UNKNOWN = "unknown"
SECTIONS: dict[str, type] = {
    "data": Files,
    "model": Model,
    "held_out": Files,
    "canaries": Canaries,
    "exposure": Schedule,
    "facts": Facts,
}
ROWS: dict[tuple[str, str], type] = {("canaries", "rows"): Canary, ("exposure", "phases"): Phase}
RANGES = ("order", "done", "repeats")
Record = TypeVar("Record")


def table_of(text: str, where: str) -> dict[str, Any]:
    """The TOML table of a manifest, its version checked and left out. Raises SeriesError."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SeriesError(f"{where}: not a readable manifest: {error}") from None
    version = raw.pop("manifest", None)
    if version != VERSION:
        raise SeriesError(f"{where}: expected `manifest = {VERSION}`, found {version!r}")
    return raw


def manifest_of(raw: Mapping[str, Any], where: str) -> Manifest:
    """The manifest that a TOML table holds. Raises SeriesError naming the section and the key."""
    kinds = SECTIONS | {"checkpoints": _kind_of(raw.get("checkpoints"))}
    parsed: dict[str, Any] = {}
    for section, kind in kinds.items():
        if section in raw:
            parsed[section] = _record(kind, _rows(raw[section], section, where), f"{where} [{section}]")
    manifest = _record(Manifest, {**raw, **parsed}, where)
    check(manifest, where)
    return manifest


def _kind_of(checkpoints: Any) -> type:
    return Revisions if isinstance(checkpoints, dict) and "repository" in checkpoints else Files


def _rows(table: Any, section: str, where: str) -> Any:
    """The table with its lists of tables read into records, and with short forms of numbers written out."""
    if not isinstance(table, dict):
        return table
    written = dict(table)
    for (owner, key), kind in ROWS.items():
        if owner == section and isinstance(table.get(key), list):
            written[key] = [_record(kind, row, f"{where} [[{section}.{key}]]") for row in table[key]]
    for key in RANGES:
        if section == "exposure" and key in table:
            written[key] = _written_out(table[key])
    return written


def _written_out(value: Any) -> Any:
    """Numbers of a list with short forms such as `0..15`; what is none is left for the check of types."""
    items: list[Any] = []
    for item in value if isinstance(value, list) else [value]:
        try:
            items += numbers(item) if isinstance(item, str) and item != UNKNOWN else [item]
        except ValueError:
            return value
    return items if isinstance(value, list | str) else value


def _record(kind: type[Record], raw: Any, where: str) -> Record:
    if not isinstance(raw, dict):
        raise SeriesError(f"{where}: expected a table, found {raw!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in raw.keys() - fields.keys():
        raise SeriesError(f"{where}: unknown key {key!r}; expected one of {', '.join(fields)}")
    hints = get_type_hints(kind)
    values = {key: _tuples(value) for key, value in raw.items()}
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if name not in values:
            if required:
                raise SeriesError(f"{where}: key {name!r} is missing")
        elif not _fits(values[name], hints[name]):
            raise SeriesError(f"{where}: key {name!r}: expected {entry.type}, found {raw[name]!r}")
    return kind(**values)


def _tuples(value: Any) -> Any:
    """TOML lists as tuples; TOML has no null, so the word `unknown` stands for it in lists."""
    return (
        tuple(None if item == UNKNOWN else _tuples(item) for item in value)
        if isinstance(value, list)
        else value
    )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: str, int, None, records, unions, tuples and tables of them."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is dict:
        keys, values = get_args(hint)
        return isinstance(value, dict) and all(_fits(k, keys) and _fits(v, values) for k, v in value.items())
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return type(value) is hint  # an exact match: a truth value is no integer
