"""doctor: audits a release without downloading weights, and with `loss` tests how its numbers line up.

`inspection` reads lists of files, small files and headers; `checkpoints`, `agreement`, `likeness`
and `chunks` judge them; `standing` fills in the seven columns of the LLM360 paper's Table 1;
`losses` and `alignment` read a few rows under a few checkpoints; `report` shows it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis360.doctor.agreement import check_configs, check_loading, check_tokenizers, check_weights
from analysis360.doctor.alignment import Alignment, align, alignment_findings
from analysis360.doctor.checkpoints import check_files, check_listing
from analysis360.doctor.chunks import check_chunks
from analysis360.doctor.findings import Finding
from analysis360.doctor.inspection import Inspected, inspect
from analysis360.doctor.likeness import check_likeness
from analysis360.doctor.report import Diagnosis
from analysis360.doctor.standing import Standing, standing_of
from analysis360.errors import CheckpointError
from analysis360.series import Series, open_series
from analysis360.series.selectors import Selector

if TYPE_CHECKING:
    from analysis360.hub.options import HubOptions

__all__ = ["Diagnosis", "Finding", "Standing", "doctor"]


def doctor(
    series: Series | str | Path,
    *,
    loss: bool = False,
    hub: HubOptions | None = None,
    pattern: str | None = None,
    engine: str = "auto",
    sequences: int = 32,
    ckpts: Selector | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Audit a series: what is missing, doubled, damaged, out of place, or unlike its neighbours.

    No weights are downloaded: lists of files, configs, indices, digests, and of one shard a checkpoint
    the header and some 12 KB of numbers. On disk every file is read once for its digest.

    With `loss` the weights of a few neighbouring checkpoints (those before and at `ckpts`, eight pairs
    if left out, and the first) are fetched one after another to score `sequences` rows a chunk.
    `engine` and `seed` are for that alone. Raises Analysis360Error when the series cannot be opened or
    the Hub does not answer; what is wrong with single checkpoints and chunks is a finding.
    """
    series = series.afresh() if isinstance(series, Series) else open_series(series, hub=hub, pattern=pattern)
    found = inspect(series.checkpoints)
    findings = [*_of_checkpoints(series, found), *check_chunks(series)]
    alignment: Alignment | None = None
    if loss:
        options = {"engine": engine, "sequences": sequences, "seed": seed, "progress": progress}
        alignment = _aligned(series, ckpts, options)
        findings += alignment_findings(series, alignment)
    bad = {name for finding in findings if finding.severity == "error" for name in finding.names}
    findings.sort(key=lambda finding: finding.severity != "error")
    return Diagnosis(
        series=series.name,
        where=series.where,
        checkpoints=len(series.checkpoints),
        chunks=len(series.chunks),
        controls=len(series.controls),
        findings=tuple(findings),
        standing=standing_of(series, found, bad),
        alignment=alignment,
        remarks=_remarks(series),
        traffic=tuple(traffic.line() for traffic in series.traffic if traffic.requests),
    )


def _of_checkpoints(series: Series, found: Sequence[Inspected]) -> list[Finding]:
    findings = [*check_listing(series, found), *check_files(found)]
    broken = {name for finding in findings if finding.severity == "error" for name in finding.names}
    findings += [*check_likeness(found), *check_weights(found, broken)]
    return [*findings, *check_configs(found), *check_tokenizers(found), *check_loading(found)]


def _aligned(series: Series, ckpts: Selector | None, options: Mapping[str, Any]) -> Alignment:
    try:
        return align(series, ckpts=ckpts, **options)
    except CheckpointError as error:  # of the first checkpoint, which says what the model is
        return Alignment(None, str(error))


def _remarks(series: Series) -> tuple[str, ...]:
    """Notes of the series that no finding says already, and branches that moved meanwhile."""
    told = series.listing.notes() if series.listing else []
    notes = [note for note in series.notes if not any(note.endswith(line) for line in told)]
    other = [line for line in told if "are no checkpoints of this series" in line]
    return (*notes, *other, *series.moved())
