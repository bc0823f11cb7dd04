"""Opening a series: a folder, a manifest, a shipped name or a repository becomes checkpoints and chunks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.errors import SelectionError, SeriesError
from analysis360.places import LocalFolder, Place
from analysis360.series.checkpoint import CONFIG, Checkpoint
from analysis360.series.chunk import Chunk, Layout, Role
from analysis360.series.exposure import exposure_of
from analysis360.series.manifest import (
    NAME,
    Canaries,
    Files,
    Manifest,
    Revisions,
    manifest_for,
    read_manifest,
    read_manifest_text,
    read_shipped,
    shipped,
)
from analysis360.series.series import Series

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions
    from analysis360.series.remote import Remote

MANIFEST_NAME = "series.toml"
REPOSITORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*")


def open_series(source: str | Path, *, hub: HubOptions | None = None, pattern: str | None = None) -> Series:
    """Open a series: a folder with series.toml or one model, a manifest, a shipped name, or `org/name` on a Hub.

    `pattern`, for a repository: regular expression of the branches that are checkpoints, with a named
    group of digits to order them by. Raises SelectionError when nothing of that name exists, SeriesError when
    the manifest is malformed, HubError when the Hub does not answer.
    """
    text, path = str(source), Path(source)
    if pattern is not None and (path.exists() or read_shipped(text) is not None):
        raise SelectionError(
            f"pattern: {text} has a manifest, which says what its checkpoints are; leave it out"
        )
    if path.is_dir():
        path = path / MANIFEST_NAME
    if path.is_file():
        return _build(read_manifest(path), str(path.parent), LocalFolder(path.parent), hub)
    known = read_shipped(text)
    if known is not None:
        return _build(known, text, None, hub)
    if Path(source).is_dir():
        if (Path(source) / CONFIG).is_file():
            return _single(Path(source), hub)
        raise _no_manifest(Path(source))
    if REPOSITORY.fullmatch(text) and path.name != MANIFEST_NAME:
        return _from_hub(text, pattern, hub)
    names = ", ".join(shipped())
    raise SelectionError(
        f"unknown series {text!r}: expected a folder with {MANIFEST_NAME}, a manifest file, "
        f"a repository org/name, or one of {names}"
    )


def _single(folder: Path, options: HubOptions | None) -> Series:
    """A folder with one model is a series of one checkpoint without data."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.resolve().name).lstrip(".-") or "model"
    manifest = Manifest(name, Files(path=name, count=1))
    trusted = options is not None and options.trust_remote_code
    checkpoint = Checkpoint(name, 0, LocalFolder(folder.resolve()), {}, trusted)
    exposure = exposure_of(manifest, [{}], [], [])
    return Series(
        name, str(folder), manifest, (checkpoint,), (), (), (), exposure, LocalFolder(folder.resolve())
    )


def _no_manifest(folder: Path) -> SelectionError:
    """A folder that is no series; the one that is meant is often just below."""
    below = [str(file.parent) for file in sorted(folder.glob(f"*/{MANIFEST_NAME}"))]
    hint = f"; {' and '.join(below[:3])} have one" if below[1:] else f"; {below[0]} has one" if below else ""
    return SelectionError(f"folder {folder} has no {MANIFEST_NAME}, so it is no series{hint}")


def _from_hub(repository: str, pattern: str | None, options: HubOptions | None) -> Series:
    """A repository: by the manifest on its main branch, or by a pattern of its branches."""
    remote = _remote(options)
    main = None if pattern else remote.folder(repository, "model")
    if main is not None and MANIFEST_NAME in main.names():
        where = f"{main.where}/{MANIFEST_NAME}"
        manifest = read_manifest_text(main.read(MANIFEST_NAME).decode("utf-8", "replace"), where)
        return _build(manifest, repository, main, options, remote)
    return _build(manifest_for(repository, pattern), repository, None, options, remote)


def _remote(options: HubOptions | None) -> Remote:
    """The Hub; its client is imported only when one is asked for."""
    from analysis360.series.remote import Remote

    return Remote(options)


def _build(
    manifest: Manifest,
    where: str,
    place: Place | None,
    options: HubOptions | None,
    remote: Remote | None = None,
) -> Series:
    sections = (manifest.checkpoints, manifest.data, manifest.held_out, manifest.canaries)
    if remote is None and any(getattr(section, "repository", None) for section in sections):
        remote = _remote(options)
    opener = _Opener(where, place, remote, trusted=options is not None and options.trust_remote_code)
    checkpoints = opener.checkpoints(manifest.checkpoints)
    excluded = manifest.canaries.source if manifest.canaries else None
    chunks = opener.chunks(manifest.data, "train", excluded)
    held_out = opener.chunks(manifest.held_out, "held-out")
    canaries = opener.chunks(_as_files(manifest.canaries), "canary")
    _check_names([checkpoint.name for checkpoint in checkpoints], "checkpoints", where)
    _check_names([chunk.name for chunk in [*chunks, *held_out, *canaries]], "chunks", where)
    labels = [checkpoint.labels for checkpoint in checkpoints]
    rows = [chunk.window[1] - chunk.window[0] if chunk.window else None for chunk in chunks]
    exposure = exposure_of(manifest, labels, rows, [chunk.files[0] for chunk in chunks])
    return Series(
        name=manifest.name,
        where=where,
        manifest=manifest,
        checkpoints=checkpoints,
        chunks=chunks,
        held_out=held_out,
        canaries=canaries,
        exposure=exposure,
        place=place,
        notes=(*(remote.notes if remote else ()), *exposure.remarks),
        listing=remote.listing if remote else None,
        moved=remote.moved if remote else list,
    )


class _Opener:
    """Turns the sections of a manifest into checkpoints and chunks."""

    def __init__(self, where: str, place: Place | None, remote: Remote | None, *, trusted: bool) -> None:
        self._where, self._place, self._remote, self._trusted = where, place, remote, trusted

    def checkpoints(self, section: Files | Revisions) -> tuple[Checkpoint, ...]:
        if isinstance(section, Revisions):
            assert self._remote is not None
            return self._remote.checkpoints(section)
        here = self._here("checkpoints")
        listed = enumerate(section.paths())
        trusted = self._trusted
        return tuple(Checkpoint(name, i, LocalFolder(here / path), {}, trusted) for i, (name, path) in listed)

    def chunks(self, files: Files | None, role: Role, excluded: str | None = None) -> tuple[Chunk, ...]:
        if files is None:
            return ()
        place = self._data(files)
        of_hdf5 = (files.dataset, files.select) if files.format == "hdf5" else (None, None)
        layout = Layout(files.format, files.fields, files.row_tokens, files.token_dtype, *of_hdf5)
        listed = place.names() if files.files is not None or files.count is None else None
        paths = files.paths(listed)
        if files.window_rows:
            return _windows(files, [path for _, path in paths], place, role, layout, excluded)
        numbered = enumerate(paths)
        return tuple(Chunk(name, i, place, (path,), role, layout, excluded) for i, (name, path) in numbered)

    def _data(self, files: Files) -> Place:
        if files.repository is None:
            return LocalFolder(self._here("data"))
        assert self._remote is not None
        names = (files.repository, *files.aliases)
        return self._remote.folder(self._remote.called(names, "dataset"), "dataset", files.revision)

    def _here(self, section: str) -> Path:
        """The manifest's own folder; a manifest that came from elsewhere may not name files on this disk."""
        if self._place is None or self._place.far:
            raise SeriesError(
                f"{self._where} [{section}]: expected a repository, found files beside the manifest"
            )
        return self._place.path


def _windows(
    files: Files, names: list[str], place: Place, role: Role, layout: Layout, excluded: str | None
) -> tuple[Chunk, ...]:
    """Windows of consecutive rows over files whose bytes follow one another; the last may be short."""
    try:
        windows = files.windows(sum(place.size(name) for name in names))
    except OSError as error:
        raise SeriesError(f"{error.filename} is missing; the data is not whole") from None
    return tuple(
        Chunk(name, i, place, tuple(names), role, layout, excluded, (start, stop))
        for i, (name, start, stop) in enumerate(windows)
    )


def _as_files(canaries: Canaries | None) -> Files | None:
    if canaries is None:
        return None
    where = {"repository": canaries.repository, "aliases": canaries.aliases, "revision": canaries.revision}
    return Files(canaries.path, 1, **where)  # type: ignore[arg-type]


def _check_names(names: list[str], what: str, where: str) -> None:
    """Results are joined by name and kept in folders of it: each is plain and unique. Raises SeriesError."""
    seen: set[str] = set()
    for name in names:
        if not NAME.fullmatch(name):
            raise SeriesError(f"{where}: one of the {what} is called {name!r}, which cannot name a folder")
        if name in seen:
            raise SeriesError(f"{where}: two {what} are called {name!r}; give their files other names")
        seen.add(name)
