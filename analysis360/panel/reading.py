"""Reading `Bytes`: opened and closed, read twice where nothing guards them, or as a file for other readers."""

from __future__ import annotations

import contextlib
import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from analysis360.errors import DataError
from analysis360.places import Bytes, Span
from analysis360.series import Chunk

ATTEMPTS = 8
BLOCK = 1 << 16
BLOCKS = 64
PIECE = 1 << 20


@contextlib.contextmanager
def opened(chunk: Chunk) -> Iterator[list[Bytes]]:
    """The files of a chunk, closed at the end."""
    files = chunk.open()
    try:
        yield files
    finally:
        for file in files:
            file.close()


def certain(file: Bytes) -> Bytes:
    """The file, read twice where its connection has no check of integrity (`guarded` is false)."""
    return file if getattr(file, "guarded", True) else Twice(file)


class Twice:
    """Every span is asked for twice and the answers must agree: no range of plain HTTP has a checksum.

    Windows that hold no row are read twice as well: a newline lost on the way would not spoil a row,
    it would silently draw another.
    """

    def __init__(self, file: Bytes) -> None:
        self.where, self.size = file.where, file.size
        self._file = file

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """See `Bytes.read`. Raises DataError when a span gives two answers time and again."""
        pieces = [b""] * len(spans)
        open_spans = list(range(len(spans)))
        for _ in range(ATTEMPTS):
            asked = [spans[i] for i in open_spans]
            answers = self._file.read([*asked, *asked])
            pairs = list(zip(open_spans, answers, answers[len(asked) :], strict=False))
            for i, one, other in pairs:
                pieces[i] = one
                if one == other:
                    open_spans.remove(i)
            if not open_spans:
                return pieces
        raise DataError(
            f"{self.where} byte {spans[open_spans[0]][0]}: read {ATTEMPTS} times, never twice alike; "
            "the connection damages what it carries"
        )

    def close(self) -> None:
        """Nothing: who opened the file closes it."""


def whole(file: Bytes) -> Iterator[bytes]:
    """All bytes in order, in pieces of at most 1 MiB, four of them asked for at a time."""
    for start in range(0, file.size, 4 * PIECE):
        yield from file.read(split(start, min(start + 4 * PIECE, file.size)))


def split(start: int, stop: int) -> list[Span]:
    """[start, stop) in spans of at most 1 MiB."""
    return [(at, min(at + PIECE, stop)) for at in range(start, stop, PIECE)]


class Seekable(io.RawIOBase):
    """`Bytes` as a binary file, for pyarrow and h5py.

    Short reads go through 64 blocks of 64 KiB, long ones are asked for 1 MiB at a time, several at once.
    """

    def __init__(self, file: Bytes, *, through_c: bool = False) -> None:
        self._file, self._at = file, 0
        # An exception that passes through HDF5 leaves it with a file it crashes on at exit: it reads zeros.
        self._through_c = through_c
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._spans: list[Span] = []
        self._held: list[bytes] = []
        self.problem: BaseException | None = None
        """What went wrong while reading: not every reader passes it on."""

    def hold(self, spans: Sequence[Span]) -> None:
        """Read these spans, all at once, and keep them for later reads until the next call."""
        self._spans = sorted(set(spans))
        self._held = self._file.read(self._spans) if self._spans else []

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read starts, bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read starts."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, unless the file ends before."""
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self._file.size)
        if start >= stop:
            return 0
        try:
            data = self._read(start, stop) if self.problem is None else bytes(stop - start)
        except BaseException as error:
            self.problem = error
            if not self._through_c:
                raise
            data = bytes(stop - start)
        view[: len(data)] = data
        self._at = stop
        return len(data)

    def _read(self, start: int, stop: int) -> bytes:
        i = bisect_right(self._spans, (start, self._file.size)) - 1
        if i >= 0 and stop <= self._spans[i][1]:
            return self._held[i][start - self._spans[i][0] : stop - self._spans[i][0]]
        if stop - start > BLOCK:
            return b"".join(self._file.read(split(start, stop)))
        data = b"".join(self._block(number) for number in range(start // BLOCK, (stop - 1) // BLOCK + 1))
        skipped = start % BLOCK
        return data[skipped : skipped + stop - start]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK
            [self._blocks[number]] = self._file.read([(start, min(start + BLOCK, self._file.size))])
            if len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]
