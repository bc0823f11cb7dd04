"""Checkpoints one by one: which are missing or surplus, and whether the files of each are whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from analysis360.doctor.findings import Finding, common, printable, runs
from analysis360.doctor.headers import Header
from analysis360.doctor.inspection import NUMBERED, Inspected
from analysis360.series import Series
from analysis360.series.discovery import Listing
from analysis360.series.records import INDEX, Files

AGAIN = "upload the checkpoint again, or leave it out with --ckpts"


def check_listing(series: Series, found: Sequence[Inspected]) -> list[Finding]:
    """Checkpoints that are missing or surplus, and gaps in their numbers."""
    if series.listing is not None:
        return _of_repository(series, series.listing)
    empty = tuple(item.name for item in found if not item.names)
    findings = [_missing(empty, series, f"{len(found)} folders of checkpoints")] if empty else []
    if surplus := _surplus_on_disk(series):
        findings.append(_surplus(surplus, runs(surplus, surplus)))
    return findings


def _of_repository(series: Series, listing: Listing) -> list[Finding]:
    order = [item.name for item in listing.found]
    findings = []
    if listing.missing:
        where = runs(listing.missing, listing.names)
        found = f"{len(listing.missing)} of them are not listed"
        findings.append(_missing(listing.missing, series, f"{listing.expected} checkpoints", where, found))
    elif listing.expected is not None and len(order) < listing.expected:
        where = "; ".join(_gaps(listing)) or "at the beginning or the end"
        found = f"{len(order)} are listed"
        findings.append(_missing((), series, f"{listing.expected} checkpoints", where, found))
    elif listing.expected is None and (gaps := _gaps(listing)):
        advice = "whether there should be any is not known: no number is promised"
        findings.append(
            Finding("note", "numbering-gap", "; ".join(gaps), "even steps", "gaps in the numbers", advice)
        )
    if listing.surplus:
        findings.append(_surplus(listing.surplus, runs(listing.surplus, order)))
    for same in listing.duplicates:
        found = f"branches {', '.join(same)} have the same numbers"
        advice = f"{same[0]} is used; remove the other"
        findings.append(
            Finding("note", "branches-alike", same[0], "one branch a checkpoint", found, advice, same)
        )
    for item in listing.found:
        if item.name != item.branch:
            found, advice = f"it is read from {item.branch}", "make a branch of its own"
            findings.append(
                Finding("note", "no-branch", item.name, "its own branch", found, advice, (item.name,))
            )
    return findings


def _missing(
    names: Sequence[str], series: Series, expected: str, where: str = "", found: str = "nothing is there"
) -> Finding:
    where = where or runs(names, [checkpoint.name for checkpoint in series.checkpoints])
    advice = "publish what is missing; until then results have a gap there"
    return Finding("error", "checkpoint-missing", where, expected, found, advice, tuple(names))


def _surplus(names: Sequence[str], where: str) -> Finding:
    advice = "correct the manifest, or remove what is no checkpoint of this series"
    return Finding(
        "note", "checkpoint-surplus", where, "what the manifest names", "more", advice, tuple(names)
    )


def _surplus_on_disk(series: Series) -> tuple[str, ...]:
    """Folders beside those of the manifest that have the form of their names."""
    files, place = series.manifest.checkpoints, series.place
    if not isinstance(files, Files) or place is None or not INDEX.search(files.path):
        return ()
    before, after = INDEX.split(files.path)[:2]
    form = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    listed = {path for _, path in files.paths()}
    there = (path.relative_to(place.path).as_posix() for path in place.path.glob(f"{before}*{after}"))
    return tuple(sorted(path for path in there if form.fullmatch(path) and path not in listed))


def _gaps(listing: Listing) -> list[str]:
    """Where an even numbering leaves some out: `between a and b`."""
    found = []
    rows = [(list(item.labels.items()), item.name) for item in listing.found if item.labels]
    for group in {tuple(labels[:-1]): None for labels, _ in rows}:
        members = [(labels[-1][1], name) for labels, name in rows if tuple(labels[:-1]) == group]
        steps = [b - a for (a, _), (b, _) in pairwise(members)]
        for i, step in enumerate(steps):
            usual = common(steps)
            if step > usual > 0 and step % usual == 0 and usual in steps[max(0, i - 1) : i + 2]:
                found.append(f"between {members[i][1]} and {members[i + 1][1]}")
    return found


def check_files(found: Sequence[Inspected]) -> list[Finding]:
    """Whether the files of each checkpoint are there, named and whole."""
    findings: list[Finding] = []
    for item in found:
        if item.problem is not None:
            expected, advice = "a list of files", "see whether the branch was deleted"
            findings.append(_error(item, "unreadable", "", expected, item.problem, advice))
        elif item.names:
            findings += [*_config(item), *_weights(item), *_shards(item)]
    return findings


def _config(item: Inspected) -> list[Finding]:
    if isinstance(item.config, dict):
        return []
    kind = "config-missing" if item.config == "missing" else "config-unreadable"
    return [_error(item, kind, "config.json", "a JSON object", item.config, AGAIN)]


def _weights(item: Inspected) -> list[Finding]:
    if item.index_problem is not None:
        expected = "an index of the shards"
        return [_error(item, "index-unreadable", item.index or "", expected, item.index_problem, AGAIN)]
    if not item.named:
        expected = "model.safetensors or pytorch_model.bin, or shards with an index"
        return [_error(item, "weights-missing", "", expected, "neither", AGAIN)]
    there = {shard.name for shard in item.shards}
    by = f"{item.index} names it" if item.index else "the numbers of its neighbours"
    found = [
        _error(item, "shard-missing", name, by, "no such file", AGAIN)
        for name in item.named
        if name not in there
    ]
    if not found and item.index is None and NUMBERED.fullmatch(item.named[0]):
        advice = "write the index, without which no engine finds the shards"
        found.append(
            _error(item, "index-missing", "", f"an index of {len(there)} shards", "no index", advice)
        )
    return found + _unnamed(item)


def _unnamed(item: Inspected) -> list[Finding]:
    """Shards of the kind in use that the index does not name."""
    kind = item.named[0].rpartition(".")[2]
    extra = [
        name
        for name in sorted(item.names - set(item.named))
        if (match := NUMBERED.fullmatch(name)) and match["suffix"] == kind
    ]
    advice = "remove it if it is left over from another upload; engines do not read it"
    expected = "only shards that are in use"
    return [
        Finding("note", "shard-unnamed", _at(item, name), expected, "no index names it", advice, (item.name,))
        for name in extra
    ]


def _shards(item: Inspected) -> list[Finding]:
    """Shards that are cut or damaged, as far as their headers show."""
    findings = []
    for shard in item.shards:
        header = item.headers.get(shard.name)
        if isinstance(header, str):
            findings.append(_error(item, "shard-damaged", shard.name, "a safetensors header", header, AGAIN))
        elif isinstance(header, Header) and header.size != shard.size:
            kind = "shard-truncated" if shard.size < header.size else "shard-damaged"
            expected, is_ = f"{header.size:,} bytes by its header", f"{shard.size:,}"
            findings.append(_error(item, kind, shard.name, expected, is_, AGAIN))
    if not findings and item.whole and item.promised and item.size < item.promised:
        expected = f"{item.promised:,} bytes of tensors by {item.index}"
        advice = "write the index again if the weights load; otherwise upload the weights again"
        is_ = f"{item.size:,} in all shards"
        findings.append(Finding("note", "index-total", _at(item, ""), expected, is_, advice, (item.name,)))
    return findings


def _error(item: Inspected, kind: str, file: str, expected: str, found: str, advice: str) -> Finding:
    return Finding("error", kind, _at(item, file), expected, printable(found), advice, (item.name,))


def _at(item: Inspected, file: str) -> str:
    return f"{item.name}/{printable(file)}" if file else item.name
