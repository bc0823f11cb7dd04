"""Chunks of data: which are missing, surplus, of unequal size, or there twice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median

from analysis360.doctor.findings import Finding, runs
from analysis360.doctor.inspection import ABSENT, AT_A_TIME, attempt
from analysis360.errors import MissingError
from analysis360.hub.options import shown_size
from analysis360.hub.threads import in_threads
from analysis360.places import content_of
from analysis360.series import Chunk, Series
from analysis360.series.records import INDEX

SIZE_SHARE = 0.2
"""Share of the median by which a chunk may differ in size."""
SPREAD = 10.0
"""Where sizes vary by nature: how many times their median departure one may depart."""
COPY = "upload the right file; until then leave one of them out with --chunks"


def check_chunks(series: Series) -> list[Finding]:
    """What is wrong with the files of the chunks, of held-out text and of canaries. Raises HubError."""
    chunks = [*series.chunks, *series.controls]
    sizes = dict(zip([c.name for c in chunks], in_threads(_size, chunks, AT_A_TIME), strict=True))
    there = [chunk for chunk in chunks if isinstance(sizes[chunk.name], int)]
    known = {chunk.name: size for chunk in there if isinstance(size := sizes[chunk.name], int)}
    return [
        *_missing(chunks, sizes),
        *_unequal([chunk for chunk in there if chunk.role == "train"], known),
        *_unequal([chunk for chunk in there if chunk.role == "held-out"], known),
        *_twice(there, known),
        *_surplus(series),
    ]


def _size(chunk: Chunk) -> int | str:
    """Bytes of a chunk, or why they are not known; of a window, of its rows."""
    sizes = attempt(lambda c: [c.place.size(name) for name in c.files], chunk)
    if isinstance(sizes, str):
        return sizes
    if chunk.window is None:
        return sum(sizes)
    first, last = chunk.window
    return last - first


def _missing(chunks: Sequence[Chunk], sizes: Mapping[str, int | str]) -> list[Finding]:
    """One finding a reason and a role."""
    groups: dict[tuple[str, str], list[Chunk]] = {}
    for chunk in chunks:
        if isinstance(reason := sizes[chunk.name], str):
            groups.setdefault((chunk.role, reason), []).append(chunk)
    findings = []
    for (role, reason), lacking in groups.items():
        names = [chunk.name for chunk in lacking]
        where = f"{runs(names, [c.name for c in chunks])} ({lacking[0].files[0]})"
        expected = f"{sum(c.role == role for c in chunks)} files of role {role}"
        advice = "upload what is missing, or correct the manifest"
        findings.append(Finding("error", "chunk-missing", where, expected, reason, advice, tuple(names)))
    return findings


def _unequal(chunks: Sequence[Chunk], sizes: Mapping[str, int]) -> list[Finding]:
    """Chunks far from the median size; the last one of all may be short."""
    if len(chunks) < 3:
        return []
    middle = median(sizes[chunk.name] for chunk in chunks)
    spread = median(abs(sizes[chunk.name] - middle) for chunk in chunks)
    findings = []
    for chunk in chunks:
        size = sizes[chunk.name]
        if abs(size - middle) <= max(SIZE_SHARE * middle, SPREAD * spread):
            continue
        last = chunk is chunks[-1] and 0 < size < middle
        unit = _rows if chunk.window else shown_size
        expected = f"{unit(middle)}, the median, within {SIZE_SHARE:.0%}"
        advice = "the rest of the data" if last else "see whether rows are missing or there twice"
        where = f"{chunk.name} ({chunk.files[0]})"
        severity, kind = ("note", "chunk-short") if last else ("error", "chunk-size")
        findings.append(
            Finding(severity, kind, where, expected, unit(size), advice, (chunk.name,))  # type: ignore[arg-type]
        )
    return findings


def _rows(count: float) -> str:
    return f"{count:,.0f} rows"


def _twice(chunks: Sequence[Chunk], sizes: Mapping[str, int]) -> list[Finding]:
    """Chunks of the same content: only those of equal size can be, so only their digests are asked for."""
    alike: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        if chunk.window is None and sizes[chunk.name]:
            alike.setdefault(sizes[chunk.name], []).append(chunk)
    compared = [chunk for group in alike.values() if len(group) > 1 for chunk in group]
    contents: dict[str, list[Chunk]] = {}
    for chunk, content in zip(compared, in_threads(_content, compared, AT_A_TIME), strict=True):
        contents.setdefault(content, []).append(chunk)
    order = [chunk.name for chunk in chunks]
    return [_same(group, order) for group in contents.values() if len(group) > 1] + _same_files(chunks)


def _content(chunk: Chunk) -> str:
    """What names the content of a chunk; a name of its own where it cannot be read."""
    try:
        return "+".join(content_of(chunk.place, name) for name in chunk.files)
    except ABSENT:
        return chunk.name


def _same(group: Sequence[Chunk], order: Sequence[str]) -> Finding:
    names = [chunk.name for chunk in group]
    trained = any(chunk.role == "train" for chunk in group)
    apart = [chunk.name for chunk in group if chunk.role != "train"]
    where = f"{runs(names, order)} ({group[0].files[0]})"
    if trained and apart:
        advice = "take another control: this text was trained on, or it was uploaded under a wrong name"
        expected, found = (
            "text that was never trained on",
            f"{', '.join(apart)}: the content of a trained chunk",
        )
        return Finding("error", "held-out-trained", where, expected, found, advice, tuple(apart))
    return Finding(
        "error", "duplicate-chunk", where, "data of its own", "the same content", COPY, tuple(names)
    )


def _same_files(chunks: Sequence[Chunk]) -> list[Finding]:
    """Of windows over several files: files of the same content."""
    windows = next((chunk for chunk in chunks if chunk.window is not None), None)
    if windows is None:
        return []
    contents: dict[str, list[str]] = {}
    for name in windows.files:
        content = attempt(lambda file: content_of(windows.place, file), name)
        contents.setdefault(content, []).append(name)
    return [
        Finding(
            "error",
            "duplicate-chunk",
            runs(names, windows.files),
            "data of its own",
            "the same content",
            COPY,
        )
        for names in contents.values()
        if len(names) > 1
    ]


def _surplus(series: Series) -> list[Finding]:
    """Files of the form of a chunk's name that the manifest does not count."""
    files = series.manifest.data
    if files is None or not series.chunks or not INDEX.search(files.path):
        return []
    before, after = INDEX.split(files.path)[:2]
    form = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    named = {name for chunk in series.chunks for name in chunk.files}
    try:
        there = series.chunks[0].place.names()
    except (OSError, MissingError):
        return []
    extra = tuple(name for name in there if form.fullmatch(name) and name not in named)
    if not extra:
        return []
    advice = "correct `count` in the manifest, or remove them"
    found = f"{len(extra)} more"
    return [
        Finding(
            "note", "chunk-surplus", runs(extra, extra), "the files of the manifest", found, advice, extra
        )
    ]
