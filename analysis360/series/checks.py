"""Checks of a manifest: what is wrong is refused by the file and the key."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from analysis360.errors import SeriesError
from analysis360.series.discovery import compiled, discover
from analysis360.series.records import (
    INDEX,
    TOKEN_BYTES,
    Canaries,
    Files,
    Manifest,
    Phase,
    Revisions,
    Schedule,
)

DTYPES = ("float32", "bfloat16", "float16")
FORMATS = ("jsonl", "bin", "parquet", "hdf5")
SPACINGS = ("even", "chunk", "never")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
REPOSITORY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*")
MOST_WILDCARDS = 6


def check(manifest: Manifest, where: str) -> None:
    """Raises SeriesError, naming the key, for values that fit their types and make no series."""
    if not NAME.fullmatch(manifest.name):
        raise SeriesError(
            f"{where}: key 'name': expected letters, digits, '.', '_' and '-', found {manifest.name!r}"
        )
    if manifest.model.compute_dtype not in DTYPES:
        found = manifest.model.compute_dtype
        raise SeriesError(f"{where} [model]: compute_dtype {found!r}; expected one of {', '.join(DTYPES)}")
    for section in ("checkpoints", "data", "held_out"):
        part: Files | Revisions | None = getattr(manifest, section)
        if isinstance(part, Revisions):
            _check_revisions(part, f"{where} [{section}]")
        elif part is not None:
            _check_files(part, f"{where} [{section}]", folders=section == "checkpoints")
    if isinstance(manifest.checkpoints, Files):
        if manifest.data is None:
            raise SeriesError(f"{where}: key 'data' is missing")
        if not manifest.checkpoints.count:
            raise SeriesError(
                f"{where} [checkpoints]: count is 0: there are no checkpoints; train some first"
            )
    if manifest.data is not None and manifest.data.count == 0:
        raise SeriesError(f"{where} [data]: count is 0: there is nothing to score")
    for key in ("metrics", "tokenizer"):
        _check_inside(getattr(manifest, key) or "", f"{where}: key {key!r}")
    chunks = _chunks(manifest)
    if manifest.canaries is not None:
        _check_canaries(manifest.canaries, chunks, f"{where} [canaries]")
    _check_schedule(manifest, chunks, f"{where} [exposure]")


def _chunks(manifest: Manifest) -> int | None:
    """Chunks of training data; None when only a listing tells."""
    if manifest.data is None or manifest.data.window_rows:
        return None
    return manifest.data.count


def _check_files(files: Files, where: str, *, folders: bool = False) -> None:
    if files.files is None and not files.path:
        raise SeriesError(f"{where}: key 'path' is missing")
    if files.files is not None and (files.path or files.count is not None or folders):
        raise SeriesError(f"{where}: `files` is a glob and stands in place of path and count")
    if files.count is None and files.files is None and (folders or files.repository is None):
        raise SeriesError(f"{where}: key 'count' is missing")
    if (files.count or 0) < 0 or files.first < 0:
        raise SeriesError(
            f"{where}: expected first and count of 0 or more, found {files.first} and {files.count}"
        )
    _check_repository(files, where)
    _check_format(files, where)
    if files.files is not None:
        _check_glob(files.files, f"{where}: files")
        return
    _check_pattern(files.path, where)
    if files.count != 1 and "{" not in files.path and files.count is not None and files.count > 1:
        raise SeriesError(f"{where}: path {files.path!r} has no {{index}} field but count = {files.count}")


def _check_format(files: Files, where: str) -> None:
    if files.format not in FORMATS:
        raise SeriesError(f"{where}: format {files.format!r}; expected one of {', '.join(FORMATS)}")
    if not files.fields:
        raise SeriesError(f"{where}: fields is empty; expected the fields of a row that hold ids")
    for key in ("rows", "row_tokens", "window_rows"):
        if (value := getattr(files, key)) is not None and value < 1:
            raise SeriesError(f"{where}: {key} = {value}; expected at least 1")
    if files.select is not None and files.select < 0:
        raise SeriesError(f"{where}: select = {files.select}; expected 0 or more")
    if files.format == "bin":
        if files.token_dtype not in TOKEN_BYTES or files.row_tokens is None:
            found = f"{files.token_dtype!r} and {files.row_tokens}"
            expected = f"row_tokens and a token_dtype of {', '.join(TOKEN_BYTES)}"
            raise SeriesError(f"{where}: format bin: expected {expected}, found {found}")
    elif files.token_dtype is not None or files.window_rows is not None:
        raise SeriesError(
            f"{where}: token_dtype and window_rows belong to format bin, found {files.format!r}"
        )


def _check_repository(part: Files | Revisions | Canaries, where: str) -> None:
    for name in (part.repository, *part.aliases):
        if name is not None and (not REPOSITORY.fullmatch(name) or ".." in name):
            raise SeriesError(f"{where}: repository {name!r}; expected organisation/name")
    if part.aliases and part.repository is None:
        raise SeriesError(f"{where}: aliases are other names of a repository, and none is given")


def _check_revisions(rule: Revisions, where: str) -> None:
    _check_repository(rule, where)
    _check_inside(rule.subfolder or "", f"{where}: subfolder")
    if isinstance(rule.expected, int) and rule.expected < 1:
        raise SeriesError(f"{where}: expected = {rule.expected}; expected at least 1 checkpoint")
    if rule.single:
        if rule.order or rule.expected or rule.main:
            raise SeriesError(f"{where}: a single checkpoint has no order, expected or main")
        return
    try:
        groups = compiled(rule.revision).groupindex
    except SeriesError as error:
        raise SeriesError(f"{where}: key 'revision': {error}") from None
    if not rule.revision:
        if rule.order or rule.main or isinstance(rule.expected, tuple):
            raise SeriesError(
                f"{where}: key 'revision' is missing: order, expected and main speak of its groups"
            )
        return
    if not groups:
        raise SeriesError(
            f"{where}: key 'revision': {rule.revision!r} has no named group such as (?P<index>\\d+)"
        )
    for group in (*rule.order, *(rule.main or ())):
        if group not in groups:
            raise SeriesError(f"{where}: {group!r} is no group of revision {rule.revision!r}")
    try:
        discover({}, rule)
    except SeriesError as error:
        raise SeriesError(f"{where}: {error}") from None


def _check_schedule(manifest: Manifest, chunks: int | None, where: str) -> None:
    schedule, checkpoints = manifest.exposure, manifest.checkpoints
    order, done = schedule.order, schedule.done
    if done is not None:
        saved = checkpoints.count if isinstance(checkpoints, Files) else 1 if checkpoints.single else None
        if saved is not None and len(done) != saved:
            raise SeriesError(f"{where}: `done` has {len(done)} entries; the series has {saved} checkpoints")
        for positions in done:
            if not 0 <= positions <= len(order):
                raise SeriesError(f"{where}: `done` holds {positions}; `order` has {len(order)} positions")
    for key, listed in (("order", order), ("repeats", schedule.repeats)):
        for chunk in listed:
            if chunk is not None and (chunk < 0 or (chunks is not None and chunk >= chunks)):
                raise SeriesError(f"{where}: chunk {chunk} in `{key}`; the series has {chunks}")
    _check_labels(schedule, checkpoints, where)
    _check_kind(schedule, manifest.data, where)


def _check_labels(schedule: Schedule, checkpoints: Files | Revisions, where: str) -> None:
    groups = compiled(checkpoints.revision).groupindex if isinstance(checkpoints, Revisions) else {}
    for key in ("label", "phase"):
        if (group := getattr(schedule, key)) is not None and group not in groups:
            raise SeriesError(f"{where}: {key} {group!r} is no group of the names of the checkpoints")
    for key in ("offset", "rows_per_step", "phase"):
        if getattr(schedule, key) and schedule.label is None:
            raise SeriesError(f"{where}: {key} needs a label, the group that counts")


def _check_kind(schedule: Schedule, data: Files | None, where: str) -> None:
    kinds = {"order": schedule.order, "rows_per_step": schedule.rows_per_step, "phases": schedule.phases}
    if len(given := [key for key, value in kinds.items() if value]) > 1:
        raise SeriesError(
            f"{where}: expected one of order, rows_per_step and phases, found {' and '.join(given)}"
        )
    if schedule.rows_per_step is not None:
        if schedule.rows_per_step < 1:
            raise SeriesError(f"{where}: rows_per_step = {schedule.rows_per_step}; expected at least 1")
        if data is None or not data.window_rows:
            raise SeriesError(f"{where}: rows_per_step needs chunks that are windows: window_rows of [data]")
    if bool(schedule.phases) != (schedule.phase is not None):
        raise SeriesError(f"{where}: expected `phase` and `phases` together")
    for phase in schedule.phases:
        _check_phase(phase, where)
    if schedule.skipped or schedule.repeats:
        known = [chunk for chunk in schedule.order if chunk is not None]
        if len(set(known)) < len(schedule.order):
            raise SeriesError(f"{where}: skipped needs an `order` of known chunks, each once")
        if not 0 <= schedule.skipped <= len(known):
            raise SeriesError(f"{where}: skipped = {schedule.skipped}; `order` has {len(known)} chunks")


def _check_phase(phase: Phase, where: str) -> None:
    if phase.steps < 1 or (phase.epochs is not None and phase.epochs < 1):
        raise SeriesError(f"{where}: phase {phase.number}: expected steps and epochs of at least 1")
    for glob in phase.chunks:
        _check_glob(glob, f"{where}: phase {phase.number}: chunks")


def _check_canaries(canaries: Canaries, chunks: int | None, where: str) -> None:
    _check_pattern(canaries.path, where)
    _check_repository(canaries, where)
    for canary in canaries.rows:
        if canary.spacing not in SPACINGS:
            raise SeriesError(f"{where}: spacing {canary.spacing!r}; expected one of {', '.join(SPACINGS)}")
        if len(canary.planted) != canary.repeats:
            found = f"{len(canary.planted)} plantings of row {canary.row}"
            raise SeriesError(f"{where}: {found} are listed; repeats = {canary.repeats}")
        for chunk, _ in canary.planted:
            if chunk < 0 or (chunks is not None and chunk >= chunks):
                raise SeriesError(
                    f"{where}: row {canary.row} is planted in chunk {chunk}; the series has {chunks}"
                )


def _check_pattern(pattern: str, where: str) -> None:
    _check_inside(pattern, f"{where}: path")
    if len(INDEX.findall(pattern)) > 1 or set(INDEX.sub("", pattern)) & set("{}"):
        raise SeriesError(f"{where}: path {pattern!r}; expected one {{index}} or {{index:03d}} field")


def _check_glob(glob: str, where: str) -> None:
    _check_inside(glob, where)
    if not glob or glob.replace("**", "*").count("*") > MOST_WILDCARDS or "***" in glob:
        raise SeriesError(f"{where}: {glob!r}; expected a glob with at most {MOST_WILDCARDS} wildcards")


def _check_inside(path: str, where: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise SeriesError(f"{where}: {path!r} leaves the folder of the series")
