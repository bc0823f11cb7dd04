"""A table of texts as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

ESCAPES = {
    **{char: rf"\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
}
Cells = Sequence[Sequence[str]]


def markdown(title: str, header: Sequence[str], rows: Cells, notes: Iterable[str]) -> str:
    """The first column aligned left, all others right; notes as a list below."""
    table = [
        [_one_line(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in [header, *rows]
    ]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [table[0], rule, *table[1:]]
    ]
    written = [f"**{_one_line(title)}**", "", *(f"| {line} |" for line in lines), ""]
    return "\n".join([*written, *(f"- {_one_line(note)}" for note in notes)]) + "\n"


def latex(title: str, header: Sequence[str], rows: Cells, notes: Iterable[str], groups: Sequence[str]) -> str:
    """A `table` for the package booktabs. `groups` says what each column stands under, "" for nothing."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escaped(title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        *(_spans(groups) if any(groups) else []),
        _row(header),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escaped(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A text from elsewhere as LaTeX that prints it, on one line."""
    return "".join(ESCAPES.get(char, char) for char in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _row(cells: Sequence[str]) -> str:
    line = " & ".join(map(escaped, cells)) + r" \\"
    # after the end of a row or a rule, these would be read as its options
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def _spans(groups: Sequence[str]) -> list[str]:
    """The line of groups above the header, and the rules under them."""
    cells, rules, start = [], [], 1
    for name, columns in groupby(groups):
        count = len(list(columns))
        cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escaped(name)}}}" if name else " &" * (count - 1))
        if name:
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [" & ".join(cells) + r" \\", "".join(rules)]
