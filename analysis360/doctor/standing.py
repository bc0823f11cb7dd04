"""A release's standing in the seven columns of the LLM360 paper's Table 1, as far as its files show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from analysis360.doctor.findings import printable, runs
from analysis360.doctor.inspection import ABSENT, Inspected, attempt
from analysis360.places import Place
from analysis360.series import Chunk, Series
from analysis360.series.schedules import RowExposure

Verdict = Literal["yes", "partly", "no", "unknown"]
TRAINING = re.compile(r"(pre)?train(er|ing|_\w+)?\.(py|sh)|(pretrain|train)_?\w*\.py")
RECIPE = re.compile(
    r"(recipe|hparams|hyperparameters|train(ing)?_(config|args|arguments)|trainer_state|ds_config)\w*"
    r"\.(json|ya?ml|toml|bin)|.*\.yml"
)
OPTIMIZER = re.compile(
    r"optim\w*\.(pt|pth|bin|safetensors)|opt_\d+\.\w+|.*optim_states\.pt|optimizer_\w+\..*|\w+\.distcp"
)
MIXTURE = re.compile(r".*(mixture|data_mix|datamix|composition)\w*\.(json|ya?ml|toml|csv|md)")
CODE_LINK = re.compile(r"https?://github\.com/[\w.-]+/[\w.-]+")
REPORT = "data/report.json"
"""Where the trainer of this project counts what each source gave."""
SOURCE_FIELDS = ("source", "subset_name", "meta", "dataset")
LONGEST_LINE = 1 << 16
"""Bytes read of a chunk to see the fields of a row."""


@dataclass(frozen=True)
class Standing:
    """One column of the table."""

    column: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class _Files:
    """What a release's folders and repositories hold beside weights, and its cards."""

    names: frozenset[str]
    cards: str | None
    """Text of the README files; None where there is none to read."""
    counted: tuple[str, ...]
    """Sources whose tokens the report of the data counts."""


def standing_of(series: Series, found: Sequence[Inspected], missing: Iterable[str]) -> tuple[Standing, ...]:
    """The seven columns; nothing counts as disclosed that the files do not show.

    `missing` are the names of checkpoints and chunks that are not there or not whole. Raises HubError.
    """
    files, lacking = _files(series, found), set(missing)
    return (
        _code(files),
        _config(files, found),
        _models(series, found, lacking),
        _optimizer(files, found),
        _mix(series, files),
        _ordering(series),
        _data(series, lacking),
    )


def _files(series: Series, found: Sequence[Inspected]) -> _Files:
    places: dict[str, Place] = {}
    if series.place is not None:
        places[series.place.where] = series.place
    for item in (found[0], found[-1]):
        places.setdefault(item.checkpoint.place.where, item.checkpoint.place)
    for chunk in series.chunks[:1]:
        places.setdefault(chunk.place.where, chunk.place)
    names: set[str] = set()
    cards = []
    counted: list[str] = []
    for place in places.values():
        listed = attempt(lambda p: p.names(), place)
        if isinstance(listed, str):
            continue
        names.update(listed)
        if "README.md" in listed:
            card = attempt(lambda p: p.read("README.md"), place)
            cards.append(card.decode("utf-8", "replace") if isinstance(card, bytes) else "")
        if REPORT in listed and not counted:
            counted = _counted(attempt(lambda p: p.read(REPORT), place))
    return _Files(frozenset(names), "\n".join(cards) if cards else None, tuple(counted))


def _counted(body: bytes | str) -> list[str]:
    """Sources with a number of tokens in a report; none where it is something else, or why it is not read."""
    try:
        report = json.loads(body) if isinstance(body, bytes) else None
    except ValueError:
        return []
    sources = report.get("sources") if isinstance(report, dict) else None
    if not isinstance(sources, dict):
        return []
    return [name for name, counts in sources.items() if isinstance(counts, dict) and "tokens" in counts]


def _matching(names: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    return sorted(name for name in names if pattern.fullmatch(PurePosixPath(name).name.lower()))


def _some(names: Sequence[str]) -> str:
    return printable(", ".join(names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _code(files: _Files) -> Standing:
    column = "training code"
    if scripts := _matching(files.names, TRAINING):
        return Standing(column, "yes", f"files {_some(scripts)}")
    links = sorted(set(CODE_LINK.findall(files.cards or "")))
    if links:
        return Standing(column, "partly", f"the README links to {_some(links)}; not followed")
    if files.cards is None:
        return Standing(column, "unknown", "no training script, and no README that may link to one")
    return Standing(column, "no", "no training script, and no link to one in the README")


def _config(files: _Files, found: Sequence[Inspected]) -> Standing:
    column = "training configuration"
    if recipes := _matching(files.names, RECIPE):
        return Standing(column, "yes", f"files {_some(recipes)}")
    if any(isinstance(item.config, dict) for item in found):
        return Standing(column, "partly", "config.json describes the model; no hyperparameters of training")
    return Standing(column, "no", "neither a config of the model nor one of its training")


def _models(series: Series, found: Sequence[Inspected], lacking: set[str]) -> Standing:
    column = "model checkpoints"
    whole = [item for item in found if item.whole]
    expected = series.listing.expected if series.listing and series.listing.expected else len(found)
    if len(whole) < 2:
        return Standing(column, "no", f"{len(whole)} checkpoint with weights")
    bad = [item for item in found if not item.whole or item.name in lacking]
    evidence = f"{len(whole)} with weights of {max(expected, len(found))} expected"
    if len(found) < expected or bad:
        return Standing(column, "partly", evidence + (f"; {len(bad)} with errors" if bad else ""))
    return Standing(column, "yes", evidence)


def _optimizer(files: _Files, found: Sequence[Inspected]) -> Standing:
    column = "optimizer checkpoints"
    having = [item.name for item in found if _matching(item.names, OPTIMIZER)]
    elsewhere = _matching(files.names, OPTIMIZER)
    if having and len(having) == len(found):
        return Standing(column, "yes", "optimizer states beside every checkpoint")
    if having:
        where = runs(having, [item.name for item in found])
        return Standing(column, "partly", f"beside {len(having)} of {len(found)} checkpoints: {where}")
    if elsewhere:
        return Standing(
            column, "partly", f"{len(elsewhere)} for {len(found)} checkpoints: {_some(elsewhere)}"
        )
    return Standing(column, "no", "no file is called after an optimizer")


def _mix(series: Series, files: _Files) -> Standing:
    column = "data mix and sources"
    if mixtures := _matching(files.names, MIXTURE):
        return Standing(column, "yes", f"files {_some(mixtures)}")
    if files.counted:
        return Standing(column, "yes", f"{REPORT} counts the tokens of {_some(files.counted)}")
    for chunk in series.chunks[:1]:
        row = _first_row(chunk)
        fields = [name for name in SOURCE_FIELDS if name in row]
        if fields:
            return Standing(
                column, "partly", f"rows name their {_some(fields)}, so that the mix can be counted"
            )
        if row:
            return Standing(column, "no", "rows name no source, and no file describes the mix")
    return Standing(column, "unknown", "no file describes the mix; sources of rows were not looked for")


def _first_row(chunk: Chunk) -> dict[str, Any]:
    """Fields of the first row of JSON lines; empty where it is not to be read."""
    if chunk.layout.format != "jsonl":
        return {}
    try:
        file = chunk.place.open(chunk.files[0])
        try:
            body = file.read([(0, min(LONGEST_LINE, file.size))])[0]
        finally:
            file.close()
        row = json.loads(body.split(b"\n", 1)[0])
    except (*ABSENT, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def _ordering(series: Series) -> Standing:
    column = "data ordering"
    exposure, last = series.exposure, len(series.checkpoints) - 1
    if not series.chunks:
        return Standing(column, "unknown", "the manifest names no data")
    times = exposure.times(last)
    unknown = int(np.isnan(times).sum())
    if unknown == len(times):
        return Standing(column, "unknown", "the manifest does not say what was trained on when")
    ordered = isinstance(exposure, RowExposure) or bool(exposure.order)
    if unknown or not ordered or None in exposure.order:
        left = f"; {unknown} of {len(times)} chunks are unknown" if unknown else ""
        return Standing(column, "partly", f"the manifest gives the order in part{left}")
    return Standing(
        column, "yes", f"by the manifest: {len(times)} chunks, each at its place; --loss tests it"
    )


def _data(series: Series, lacking: set[str]) -> Standing:
    column = "data available"
    if not series.chunks:
        return Standing(column, "unknown", "the manifest names no data")
    there = [chunk for chunk in series.chunks if chunk.name not in lacking]
    evidence = f"{len(there)} of {len(series.chunks)} chunks are there and whole"
    return Standing(
        column, "yes" if len(there) == len(series.chunks) else "partly" if there else "no", evidence
    )
