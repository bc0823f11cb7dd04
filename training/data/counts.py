"""What `prepare` counts: rows, tokens, documents and epochs of every source, and the table made of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Usage", "aligned", "counted", "mix_table"]


class Usage:
    """Which documents of a source are used in one scope (a stage, the run, or the held-out rows)."""

    def __init__(self, documents: int) -> None:
        self._seen: npt.NDArray[np.bool_] = np.zeros(documents, dtype=np.bool_)
        self.documents = 0
        """Different documents."""
        self.distinct_tokens = 0
        """Their tokens, end of sequence included, each document once and whole."""
        self.rows = 0
        """Rows cut from them, those included that plantings take the place of."""

    def add(self, document: int, tokens: int) -> None:
        """A document is used, perhaps not for the first time."""
        if not self._seen[document]:
            self._seen[document] = True
            self.documents += 1
            self.distinct_tokens += tokens


def counted(rows: Counter[str], usage: dict[str, Usage], row_tokens: int) -> dict[str, dict[str, Any]]:
    """Counts of every source by name. `share` is of all tokens counted here.

    `rows` are those of the chunks; what plantings took the place of is theirs. `epochs` are the tokens cut
    from a source over the tokens of the different documents that were used for them.
    """
    total = sum(rows.values())
    counts: dict[str, dict[str, Any]] = {}
    for name in [*usage, *sorted(rows.keys() - usage.keys())]:
        used = usage.get(name, Usage(0))
        epochs = used.rows * row_tokens / used.distinct_tokens if used.distinct_tokens else 0.0
        counts[name] = {
            "rows": rows[name],
            "tokens": rows[name] * row_tokens,
            "share": rows[name] / total if total else 0.0,
            "documents": used.documents,
            "epochs": epochs,
        }
    return counts


def mix_table(report: dict[str, Any]) -> str:
    """The mix as a table for people, as Table 2 of the LLM360 paper: tokens and share of every source.

    Where there are several stages, each has its share of the source in a column of its own.
    """
    stages: dict[str, Any] = report["stages"]
    columns = [] if len(stages) == 1 else [*stages]
    header = ["source", "documents", "epochs", "tokens", "share, %", *(f"{name}, %" for name in columns)]
    lines = [header]
    for name, counts in report["sources"].items():
        shares = [stages[stage]["sources"].get(name, {"share": 0.0})["share"] for stage in columns]
        shown = [f"{counts['documents']:,}", f"{counts['epochs']:.2f}"] if counts["documents"] else ["", ""]
        tokens = [f"{counts['tokens']:,}", f"{100 * counts['share']:.2f}"]
        lines.append([name, *shown, *tokens, *(f"{100 * share:.2f}" if share else "" for share in shares)])
    tokens = sum(counts["tokens"] for counts in report["sources"].values())
    parts = [f"{100 * stages[stage]['share']:.2f}" for stage in columns]
    lines.append(["all", "", "", f"{tokens:,}", "100.00", *parts])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells, the first line its header; all but the first `left` columns flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
