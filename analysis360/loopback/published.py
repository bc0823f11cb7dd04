"""A series on disk as it looks on a Hub: a model repository with a branch a checkpoint, and one of its data."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from analysis360.errors import SeriesError

__all__ = ["MANIFEST_NAME", "Published", "published"]

MANIFEST_NAME = "series.toml"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
INDEX = re.compile(r"\{index(?::0\d+d)?\}")
BESIDE_CHECKPOINTS = ("recipe.json",)
"""What a trainer leaves that no manifest names, for `main` of the model repository; each where it is there."""
BESIDE_DATA = ("data/report.json", "data/documents.parquet")
"""The same for the repository of the data."""
Files = dict[str, Path]


@dataclass(frozen=True)
class Published:
    """Which files of a series go where. Paths in the repositories lead to files on disk."""

    name: str
    """Of the series."""
    checkpoints: dict[str, Path]
    """The folder of each checkpoint, in order, by its name, which is also its branch."""
    data: Files
    """Files of the data repository: chunks, held-out text, canaries, and what was counted of them."""
    extra: Files
    """What `main` of the model repository holds beside the last checkpoint."""
    raw: dict[str, Any]
    """The manifest as it is on disk."""

    def checkpoint(self, name: str) -> Files:
        """The files of one checkpoint. Raises SeriesError where the folder is missing or empty."""
        return _files(self.checkpoints[name])

    @property
    def last(self) -> str:
        """Name of the last checkpoint."""
        return list(self.checkpoints)[-1]

    def manifest(self, model: str, data: str) -> bytes:
        """The manifest for a Hub where the series is called `model` and its data `data` (`org/name`).

        Raises SeriesError where tomli-w is missing.
        """
        try:
            import tomli_w
        except ImportError:
            raise SeriesError("writing a manifest for a Hub needs tomli-w: pip install tomli-w") from None
        checkpoints = self.raw["checkpoints"]
        moved = {key: checkpoints[key] for key in checkpoints if key not in ("path", "first", "count")}
        moved |= {"repository": model, "revision": _pattern(checkpoints["path"]), "order": ["index"]}
        sections = {"checkpoints": moved | {"expected": len(self.checkpoints)}}
        for section in ("data", "held_out", "canaries"):
            if section in self.raw:
                sections[section] = {"repository": data, **self.raw[section]}
        if "exposure" in self.raw:
            sections["exposure"] = _exposure(self.raw["exposure"], checkpoints)
        return tomli_w.dumps(self.raw | sections).encode()


def published(folder: Path) -> Published:
    """What a series folder holds, arranged for a Hub.

    Raises SeriesError for a manifest that cannot be read, lists files elsewhere, or names a missing one.
    """
    path = folder / MANIFEST_NAME
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SeriesError(f"{path}: not a readable manifest: {error}") from None
    name = raw.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SeriesError(f"{path}: key 'name': expected letters, digits, '.', '_' and '-', found {name!r}")
    sections = {"data": raw.get("data")}
    sections |= {"held_out": raw["held_out"]} if "held_out" in raw else {}
    sections |= {"canaries": {**raw["canaries"], "count": 1}} if "canaries" in raw else {}
    listed = [file for key, table in sections.items() for _, file in _numbered(table, f"{path} [{key}]")]
    data = {relative: folder / relative for relative in listed}
    for file in data.values():
        if not file.is_file():
            raise SeriesError(f"{path} names {file}, which is missing; make it or correct the manifest")
    data |= {name: folder / name for name in BESIDE_DATA if (folder / name).is_file()}
    branches = _numbered(raw.get("checkpoints"), f"{path} [checkpoints]")
    if not branches:
        raise SeriesError(f"{path} [checkpoints]: there are none; train some first")
    checkpoints = {branch: folder / relative for branch, relative in branches}
    if "main" in checkpoints or len(checkpoints) < len(branches):
        raise SeriesError(f"{path} [checkpoints]: expected names that differ, none of them main")
    return Published(name, checkpoints, data, _extra(folder, raw, str(path)), raw)


def _numbered(section: Any, where: str) -> list[tuple[str, str]]:
    """(name, path) of each file or folder of a section; the name is that of the numbered part."""
    table = section if isinstance(section, dict) else {}
    path, first, count = table.get("path"), table.get("first", 0), table.get("count")
    if not isinstance(path, str) or type(first) is not int or type(count) is not int:
        raise SeriesError(
            f"{where}: expected path and count of files in this folder; only those can be served"
        )
    _check_inside(path, where)
    if len(INDEX.findall(path)) > 1 or set(INDEX.sub("", path)) & set("{}"):
        raise SeriesError(f"{where}: path {path!r}; expected one {{index}} or {{index:03d}} field")
    indices = range(first, first + count)
    return [(_name(path).format(index=index), path.format(index=index)) for index in indices]


def _check_inside(path: str, where: str) -> None:
    """Nothing outside the folder is ever served. Raises SeriesError."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise SeriesError(f"{where}: {path!r} leaves the folder of the series")


def _name(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    numbered = next((part for part in reversed(parts) if "{" in part), parts[-1])
    return numbered.removesuffix(PurePosixPath(numbered).suffix) if numbered == parts[-1] else numbered


def _pattern(path: str) -> str:
    """The regular expression of the branches of checkpoints, with their number as the group `index`."""
    before, *after = INDEX.split(_name(path))
    return re.escape(before) + (r"(?P<index>\d+)" if after else r"(?P<index>)") + re.escape("".join(after))


def _exposure(exposure: dict[str, Any], checkpoints: dict[str, Any]) -> dict[str, Any]:
    """The exposure by the checkpoints' numbers, so that a branch that is missing shifts nothing."""
    if "done" not in exposure or "label" in exposure or not INDEX.search(checkpoints["path"]):
        return exposure
    return {**exposure, "label": "index", "offset": -checkpoints.get("first", 0)}


def _extra(folder: Path, raw: dict[str, Any], where: str) -> Files:
    """The recipe, and the loss curve and the tokenizer where the manifest names them."""
    keys = [key for key in ("metrics", "tokenizer") if isinstance(raw.get(key), str)]
    for key in keys:
        _check_inside(raw[key], f"{where}: key {key!r}")
    named = [folder / name for name in (*BESIDE_CHECKPOINTS, *(raw[key] for key in keys))]
    files = [file for file in named if file.is_file()]
    files += [file for place in named if place.is_dir() for file in _files(place).values()]
    return {file.relative_to(folder).as_posix(): file for file in files}


def _files(folder: Path) -> Files:
    """Every file below a folder, and what links in it lead to. Raises SeriesError where there is none."""
    try:
        found = sorted(file for file in folder.rglob("*") if file.is_file())
    except OSError as error:
        raise SeriesError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise SeriesError(
            f"checkpoint folder {folder} is missing or empty; train it, or correct the manifest"
        )
    return {file.relative_to(folder).as_posix(): file for file in found}
