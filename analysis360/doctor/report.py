"""The diagnosis: a table for people, JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis360.doctor.alignment import Alignment
from analysis360.doctor.findings import Finding
from analysis360.doctor.standing import Standing

WIDTH = 110


@dataclass(frozen=True)
class Diagnosis:
    """What an audit found of a series."""

    series: str
    where: str
    """The folder, manifest or repository."""
    checkpoints: int
    chunks: int
    controls: int
    """Held-out chunks and files of canaries."""
    findings: tuple[Finding, ...]
    """Errors before notes."""
    standing: tuple[Standing, ...]
    """In the seven columns of the LLM360 paper's Table 1."""
    alignment: Alignment | None = None
    """What losses say of the numbers of checkpoints and chunks; None when they were not read."""
    remarks: tuple[str, ...] = ()
    """What else the reader should know of the series."""
    traffic: tuple[str, ...] = ()
    """A line for each Hub that was asked."""

    @property
    def errors(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong; notes alone are not."""
        return bool(self.errors)

    def table(self) -> str:
        """Findings, standing and alignment for a terminal."""
        blocks = [self._title(), self._summary(), *map(_shown_finding, self.findings)]
        blocks.append("\n".join(_standing(self.standing)))
        if self.alignment is not None:
            blocks.append("\n".join(_alignment(self.alignment)))
        if self.remarks or self.traffic:
            blocks.append("\n".join([*(f"note: {remark}" for remark in self.remarks), *self.traffic]))
        return "\n\n".join(blocks)

    def _title(self) -> str:
        held = f", {self.controls} controls" if self.controls else ""
        return f"{self.series} ({self.where}): {self.checkpoints} checkpoints, {self.chunks} chunks{held}"

    def _summary(self) -> str:
        errors, notes = len(self.errors), len(self.findings) - len(self.errors)
        return f"{_counted(errors, 'error')}, {_counted(notes, 'note')}" if self.findings else "nothing wrong"

    def as_json(self) -> dict[str, Any]:
        """Everything, of values that JSON knows; `wrong` says whether there is an error."""
        alignment = None if self.alignment is None else _alignment_json(self.alignment)
        written: dict[str, Any] = _plain(asdict(self) | {"alignment": alignment})
        return {"doctor": 1, "wrong": self.wrong, **written}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _shown_finding(finding: Finding) -> str:
    lines = [f"{finding.severity:5}  {finding.kind}  {finding.where}"]
    for what, text in (("expected", finding.expected), ("found", finding.found), ("do", finding.advice)):
        lines.append(
            textwrap.fill(text, WIDTH, initial_indent=f"       {what + ':':10}", subsequent_indent=" " * 17)
        )
    return "\n".join(lines)


def _standing(standing: Sequence[Standing]) -> list[str]:
    wide = max((len(row.column) for row in standing), default=0)
    title = "Standing in the columns of Table 1 of the LLM360 paper, as far as the files show"
    return [title, *(f"  {row.column:{wide}}  {row.verdict:7}  {row.evidence}" for row in standing)]


def _alignment(alignment: Alignment) -> list[str]:
    best = "undetermined" if alignment.offset is None else f"offset {alignment.offset:+d}"
    lines = [f"Alignment of checkpoints and chunks, by loss: {best}", f"  {alignment.reason}"]
    if alignment.excess:
        lines.append("  offset  drop beyond strangers, nats a token [95 % for all at once]  pairs")
    for d, interval in alignment.excess.items():
        bounds = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        votes = f"{alignment.votes.get(d, 0)} of {len(alignment.pairs)}"
        lines.append(f"  {d:+6d}  {bounds}  best of {votes}")
    if alignment.first_loss is not None:
        looks = "looks untrained" if alignment.untrained else "has been trained"
        share = f"loss {alignment.first_loss:.3f}, log(vocabulary) {alignment.chance:.3f} nats a token"
        lines.append(f"  {alignment.first} {looks}: {share}")
    return lines


def _alignment_json(alignment: Alignment) -> dict[str, Any]:
    rows = [
        {"offset": d, **asdict(interval), "votes": alignment.votes.get(d, 0)}
        for d, interval in alignment.excess.items()
    ]
    written = {key: value for key, value in vars(alignment).items() if key not in ("excess", "votes")}
    return {**written, "untrained": alignment.untrained, "excess": rows}


def _plain(value: Any) -> Any:
    """JSON has no tuples, no numpy numbers and no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
