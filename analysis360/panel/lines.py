"""JSON lines: uniform draws from a file of lines of unequal length, without reading it.

Draw number t of a chunk's stream is an offset u, uniform over [-L, size - 1), and the window of bytes
[u, u + L). Lines start after a newline; one is thought before the first byte, at -1. A window that
holds a newline at p draws the line that starts at p + 1; one that holds none is rejected; a line that
was drawn before is drawn no second time. L is at most the length of the shortest line, its newline
included, so no window holds two, and the line at p + 1 is drawn by the L offsets p - L + 1 ... p and
by no other: each draw is exactly uniform over the lines, however unequal they are. (It is the rule
"take the line after a random byte with probability L / length of the line that holds the byte", in
one contiguous read.) "The line after a random byte" alone favours what follows long lines.

**The panel is defined by that sequence alone**: distinct lines in the order of their first draw, less
the excluded source, the first n. Windows of a large file are fetched, then the lines they drew are
completed; a file that costs no more whole is read whole, and the same draws are looked up in the
list of its lines. Neither n nor how the file is reached has a part in what is drawn.

**Bytes.** A window costs L and draws with probability L / mean length, so windows cost one mean
length a draw, whatever L is; the line costs its own length once more, less what its window held of
it. Hence at most 2 x the bytes of the lines kept, plus what is read past their ends; 4 x on a
connection that nothing guards, where all is read twice. Repeats and excluded lines add their share:
when the cost so far, carried on, reaches the size of the file, it is read whole instead.

L follows from `row_tokens` (a digit and a comma an id, and the brackets and names of the fields), or
from the width where the release does not say: then panels of other widths hold other lines, and
windows are so short that a line takes mean length / L requests, which is many: say `row_tokens`.
"""

from __future__ import annotations

from analysis360.panel.line_stream import Lines
from analysis360.panel.reading import certain, opened
from analysis360.panel.rows import Row, Wanted
from analysis360.panel.whole import draw_whole, in_file_order
from analysis360.panel.windows import Windows
from analysis360.series import Chunk

SMALL = 1 << 20
"""Bytes of a file that is read whole without a thought."""


def draw_lines(chunk: Chunk, wanted: Wanted) -> list[Row]:
    """Up to n rows of a chunk of JSON lines; all of them, in file order, of a file of canaries."""
    with opened(chunk) as [file]:
        lines = Lines(chunk, wanted, file.size)
        if chunk.role == "canary":
            return in_file_order(lines, file)
        if file.size > SMALL and 2 * wanted.n * lines.bound < file.size:
            rows = Windows(lines, certain(file)).draw()
            if rows is not None:
                return rows
        return draw_whole(lines, file)
