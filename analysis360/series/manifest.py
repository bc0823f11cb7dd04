"""The manifest of a series: one TOML file, the user's own or shipped, read into frozen records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from analysis360.errors import SeriesError
from analysis360.series.checks import DTYPES, NAME, REPOSITORY, SPACINGS, check
from analysis360.series.discovery import compiled
from analysis360.series.reading import VERSION, manifest_of, table_of
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

__all__ = [
    "DTYPES",
    "NAME",
    "SPACINGS",
    "VERSION",
    "Canaries",
    "Canary",
    "Facts",
    "Files",
    "Manifest",
    "Model",
    "Phase",
    "Revisions",
    "Schedule",
    "manifest_for",
    "read_manifest",
    "read_manifest_text",
    "read_shipped",
    "shipped",
]
SIZE = "{size}"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises SeriesError naming the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: not a readable manifest: {error}") from None
    return read_manifest_text(text, str(path))


def read_manifest_text(text: str, where: str) -> Manifest:
    """Check a manifest that was read elsewhere; `where` names it in messages. Raises SeriesError."""
    return manifest_of(table_of(text, where), where)


def shipped() -> list[str]:
    """Names of the series that come with the package, families written out, in the order to show them."""
    return list(_tables())


def read_shipped(name: str) -> Manifest | None:
    """The manifest of a shipped series; None when there is none of that name."""
    entry = _tables().get(name)
    return None if entry is None else manifest_of(entry[1], entry[0])


def manifest_for(repository: str, revision: str | None = None) -> Manifest:
    """A manifest for any model repository on the Hub, `organisation/name`, without data.

    `revision` is the rule of the checkpoints' branches, its numbers as named groups (see `Revisions`),
    or the name of one branch; without it the branches of the most common form count. The series is
    called `organisation--name`. Raises SeriesError for a malformed name or rule.
    """
    if not REPOSITORY.fullmatch(repository) or ".." in repository:
        raise SeriesError(f"{repository!r}: expected a repository on the Hub, organisation/name")
    rule = Revisions(repository, revision=revision or "")
    where = f"series {repository}"
    if revision and not _groups(revision):
        rule = replace(rule, single=True)
    manifest = Manifest(repository.replace("/", "--"), rule)
    check(manifest, where)
    return manifest


def _groups(revision: str) -> bool:
    """Whether a rule has groups; the name of a branch has none, and need not be a regular expression."""
    return "(?P<" in revision and bool(compiled(revision).groupindex)


@cache
def _tables() -> dict[str, tuple[str, dict[str, Any]]]:
    """(where, table) of each shipped series by its name; a family has one entry a size."""
    folder = resources.files("analysis360.series") / "shipped"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    files.sort(key=lambda file: file.name.removesuffix(".toml"))
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in files:
        raw = table_of(file.read_text(encoding="utf-8"), file.name)
        for table in _family(raw):
            found[table["name"]] = (file.name, table)
    return found


def _family(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The members of a family: `{size}` put in, and what a size has of its own put over the rest."""
    sizes, own = raw.pop("sizes", None), raw.pop("size", {})
    if sizes is None:
        yield raw
        return
    for size in sizes:
        yield _filled(_over(raw, own.get(size, {})), size)


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged and lists joined; other values replace those of the base."""
    merged = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _over(merged[key], value)
        elif isinstance(value, list) and isinstance(merged.get(key), list):
            merged[key] = [*merged[key], *value]
        else:
            merged[key] = value
    return merged


def _filled(value: Any, size: str) -> Any:
    if isinstance(value, str):
        return value.replace(SIZE, size)
    if isinstance(value, list):
        return [_filled(item, size) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, size) for key, item in value.items()}
    return value
