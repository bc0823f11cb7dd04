"""Exposure: how often, and when last, a checkpoint had been trained on a piece of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis360.series.records import Manifest, Schedule, fits
from analysis360.series.schedules import Exposure, PhaseExposure, RowExposure, SkippedExposure

__all__ = ["Exposure", "exposure_of"]

Labels = Sequence[Mapping[str, int]]


def exposure_of(
    manifest: Manifest,
    labels: Labels,
    chunk_rows: Sequence[int | None] | None = None,
    chunk_paths: Sequence[str] | None = None,
) -> Exposure:
    """What each checkpoint of a series had been trained on, as its manifest says.

    `labels` holds a mapping for each checkpoint, in series order: the numbers of its branch (see
    `discovery.Found`), empty ones for folders on disk. `chunk_rows` are the rows of each chunk and
    `chunk_paths` their paths in the release, as far as they are known; they are needed for windows
    of rows and for files found by a glob. What they leave open is unknown.
    """
    schedule = manifest.exposure
    blank = Exposure(_count(manifest, chunk_rows, chunk_paths), tokens_per_chunk=schedule.tokens_per_chunk)
    if schedule.rows_per_step is not None:
        return _rows(manifest, labels, chunk_rows, blank)
    if schedule.phases:
        return _phases(manifest, labels, chunk_paths, blank)
    done, remarks = _done(schedule, labels)
    order = schedule.order if all((chunk or 0) < blank.chunks for chunk in schedule.order) else ()
    plain = replace(blank, order=order, done=done, remarks=remarks)
    return _skipped(plain, schedule) if schedule.skipped or schedule.repeats else plain


def _count(
    manifest: Manifest, chunk_rows: Sequence[int | None] | None, chunk_paths: Sequence[str] | None
) -> int:
    for known in (chunk_rows, chunk_paths):
        if known is not None:
            return len(known)
    return (manifest.data.count or 0) if manifest.data and not manifest.data.window_rows else 0


def _counted(schedule: Schedule, labels: Labels) -> list[int | None]:
    """The label of each checkpoint with the offset, at least 0; None where a name has none."""
    found = [mapping.get(schedule.label or "") for mapping in labels]
    return [None if value is None else max(0, value + schedule.offset) for value in found]


def _done(schedule: Schedule, labels: Labels) -> tuple[tuple[int | None, ...] | None, tuple[str, ...]]:
    """Positions finished at each checkpoint, and what to say of them."""
    listed = schedule.done
    if schedule.label is not None:
        counted = _counted(schedule, labels)
        if listed is None:
            return tuple(counted), ()
        return tuple(listed[n] if n is not None and n < len(listed) else None for n in counted), ()
    if listed is not None and len(listed) != len(labels):
        what = f"`done` speaks of {len(listed)} checkpoints and {len(labels)} are there"
        return None, (f"{what}: what each had been trained on is unknown",)
    return listed, ()


def _skipped(plain: Exposure, schedule: Schedule) -> Exposure:
    remark = (
        f"{schedule.skipped} of {len(schedule.order)} chunks were left out of training, and it is not known "
        f"which: a chunk counted as trained on may be one of them, and those that may have come up to "
        f"{schedule.skipped} positions early are neither seen nor unseen"
    )
    return SkippedExposure(
        **{**vars(plain), "remarks": (*plain.remarks, remark)},
        skipped=schedule.skipped,
        repeats=schedule.repeats,
    )


def _rows(
    manifest: Manifest, labels: Labels, chunk_rows: Sequence[int | None] | None, blank: Exposure
) -> Exposure:
    schedule, data = manifest.exposure, manifest.data
    rows = [count for count in chunk_rows or () if count is not None]
    if data is None or not data.window_rows or not rows or len(rows) < blank.chunks:
        return blank
    return RowExposure(
        **vars(blank),
        starts=(0, *(int(end) for end in np.cumsum(rows))),
        steps=tuple(_counted(schedule, labels)),
        rows_per_step=schedule.rows_per_step or 1,
        window_rows=data.window_rows,
    )


def _phases(
    manifest: Manifest, labels: Labels, chunk_paths: Sequence[str] | None, blank: Exposure
) -> Exposure:
    schedule = manifest.exposure
    if chunk_paths is None and manifest.data is not None and manifest.data.count is not None:
        chunk_paths = [path for _, path in manifest.data.paths()]
    paths = list(chunk_paths or ())
    phases = sorted(schedule.phases, key=lambda phase: phase.number)
    place = {phase.number: i for i, phase in enumerate(phases)}
    steps = _counted(schedule, labels)
    found = [place.get(mapping.get(schedule.phase or "", -1)) for mapping in labels]
    return PhaseExposure(
        **vars(blank),
        lengths=tuple(phase.steps for phase in phases),
        epochs=tuple(phase.epochs for phase in phases),
        members=tuple(
            tuple(i for i, path in enumerate(paths) if any(fits(path, glob) for glob in phase.chunks))
            for phase in phases
        ),
        at=tuple(None if p is None or s is None else (p, s) for p, s in zip(found, steps, strict=True)),
    )
