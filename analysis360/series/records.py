"""The records a manifest is read into."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from analysis360.errors import SeriesError

INDEX = re.compile(r"\{index(?::0\d{1,2}d)?\}")
MOST_STARS = 3
TOKEN_BYTES = {"uint16": 2, "uint32": 4, "int32": 4}


@dataclass(frozen=True)
class Model:
    """What every checkpoint of the series shares."""

    compute_dtype: str = "float32"
    """Dtype that scores are computed in; one a sweep, whatever the files store."""
    eos_token_id: int | None = None
    """Id that ends a document."""
    pad_token_id: int | None = None
    """Id that published pipelines pad with after EOS; EOS itself when absent."""
    add_bos: bool | None = None
    """Whether text begins with BOS, as it did in training; None: as the tokenizer has it."""
    prefix_token_id: int | None = None
    """Id that stands before text without context. None: BOS where text begins with it, otherwise EOS."""


@dataclass(frozen=True)
class Files:
    """A numbered list of files or folders, beside the manifest or in a dataset repository."""

    path: str = ""
    """Pattern with one `{index}` field, such as `train/train_{index:03d}.jsonl`."""
    count: int | None = None
    """Number of files. None: as many as a listing of the repository shows."""
    first: int = 0
    format: str = "jsonl"
    """`jsonl`, `bin` (rows of equal size), `parquet` or `hdf5`."""
    fields: tuple[str, ...] = ("token_ids",)
    """Fields of a row that hold ids; several are joined in this order."""
    rows: int | None = None
    """Rows a file, when the release says so."""
    row_tokens: int | None = None
    """Ids a row, when the release says so. A line of so many ids has a least length."""
    files: str | None = None
    """Instead of `path`: a glob such as `train/*.parquet`; the files it finds, sorted by name."""
    repository: str | None = None
    """Dataset repository on the Hub. None: the files lie beside the manifest."""
    aliases: tuple[str, ...] = ()
    """Other names of the repository, tried in this order when the first is not found."""
    revision: str = "main"
    """Branch of the repository."""
    token_dtype: str | None = None
    """Of `bin`: `uint16`, `uint32` or `int32`, little endian."""
    dataset: str = "data"
    """Of `hdf5`: the dataset that holds the ids, [rows, tokens] or [rows, n, tokens]."""
    select: int | None = None
    """Of `hdf5`: which of the n."""
    window_rows: int | None = None
    """Of `bin`: a chunk is so many consecutive rows of the bytes of all files, one after another."""

    @property
    def row_bytes(self) -> int | None:
        """Bytes a row of `bin`; None for other formats."""
        if self.format != "bin" or self.token_dtype is None or self.row_tokens is None:
            return None
        return self.row_tokens * TOKEN_BYTES[self.token_dtype]

    def paths(self, listed: Iterable[str] | None = None) -> list[tuple[str, str]]:
        """(name, relative path) of each file, in order.

        The name is that of the file or folder with the index; of files found by a glob, the path
        without its suffix, `-` between folders. `listed` are the files there are; only a glob and an
        open `count` need them. A file that `count` promises is given whether it is listed or not.
        Raises SeriesError without the list, where nothing fits, and where a window's files have a gap.
        """
        if self.files is not None:
            return [(_flat(path), path) for path in self._found(listed, _glob(self.files))]
        if self.count is not None:
            indices: Iterable[int] = range(self.first, self.first + self.count)
        elif "{" not in self.path:
            indices = [0]
        else:
            indices = self._indices(listed)
        return [(_stem(self.path).format(index=index), self.path.format(index=index)) for index in indices]

    def windows(self, size: int) -> list[tuple[str, int, int]]:
        """(name, first row, last row + 1) of each window of files that hold `size` bytes together.

        The last window may be shorter. Raises SeriesError where `size` is no whole number of rows.
        """
        if not self.row_bytes or not self.window_rows:
            raise SeriesError(
                'windows of rows need `format = "bin"`, row_tokens, token_dtype and window_rows'
            )
        total, rest = divmod(size, self.row_bytes)
        if rest:
            expected = f"rows of {self.row_bytes} bytes"
            raise SeriesError(f"{self.path}: expected {expected}; {size} bytes leave a rest of {rest}")
        starts = range(0, total, self.window_rows)
        width = len(str(total))
        return [(f"rows_{start:0{width}d}", start, min(start + self.window_rows, total)) for start in starts]

    def _found(self, listed: Iterable[str] | None, pattern: re.Pattern[str]) -> list[str]:
        where = self.repository or "the folder of the manifest"
        if listed is None:
            raise SeriesError(f"{self.files or self.path}: which files there are was not listed")
        found = sorted(path for path in listed if pattern.fullmatch(path))
        if not found:
            raise SeriesError(f"no file of {where} fits {self.files or self.path}")
        return found

    def _indices(self, listed: Iterable[str] | None) -> list[int]:
        before, after = INDEX.split(self.path)
        found = set(self._found(listed, re.compile(re.escape(before) + "[0-9]{1,15}" + re.escape(after))))
        read = {int(path[len(before) : len(path) - len(after)]) for path in found}
        indices = sorted(i for i in read if i >= self.first and self.path.format(index=i) in found)
        if self.window_rows and indices != list(range(self.first, self.first + len(indices))):
            expected = f"numbers from {self.first} without a gap, found {len(indices)} up to {indices[-1:]}"
            raise SeriesError(f"files of {self.path} are missing: expected {expected}")
        return indices


@dataclass(frozen=True)
class Revisions:
    """Checkpoints that are branches of a model repository on the Hub."""

    repository: str
    """`organisation/name`."""
    aliases: tuple[str, ...] = ()
    """Other names of the repository, tried in this order when the first is not found."""
    revision: str = ""
    """Regular expression of the whole name of a branch, its numbers as named groups, such as
    `ckpt_(?P<index>\\d+)`. Empty: the most common form of the branches' names. Of a single
    checkpoint: the name of its branch, `main` when empty."""
    order: tuple[str, ...] = ()
    """Groups that order the checkpoints, the most significant first; a group that a name lacks
    comes before 0. All groups as they are written when empty."""
    expected: int | tuple[str, ...] | None = None
    """What should be there: names such as `step{0,1,2,1000..143000..1000}`, or how many. None: unknown."""
    main: dict[str, int] | None = None
    """Which checkpoint the branch `main` is, where no branch of its own carries it."""
    subfolder: str | None = None
    """Folder of the model in the repository."""
    single: bool = False
    """One checkpoint and no series, such as a model fine-tuned from one."""


@dataclass(frozen=True)
class Canary:
    """One planted row of random ids and where it was planted."""

    row: int
    """Row in the canary file."""
    repeats: int
    """Times it was planted in all; 0 for a control that never was."""
    spacing: str
    """`even` over training, within one `chunk`, or `never`."""
    planted: tuple[tuple[int, int], ...] = ()
    """[chunk, row] of each planting."""


@dataclass(frozen=True)
class Canaries:
    """Planted rows of known repetition, kept apart from text."""

    path: str
    source: str = "canary"
    """Rows of the training chunks with this source are canaries and are left out of text results."""
    ordinary_ids: int | None = None
    """Number of ids that canaries are drawn from, evenly: chance is one over it."""
    rows: tuple[Canary, ...] = ()
    repository: str | None = None
    """Dataset repository on the Hub. None: the file lies beside the manifest."""
    aliases: tuple[str, ...] = ()
    revision: str = "main"


@dataclass(frozen=True)
class Phase:
    """A phase of training on data of its own, of which only the whole is known."""

    number: int
    """Value of the group that tells the phases apart."""
    steps: int
    """Steps of the whole phase."""
    chunks: tuple[str, ...] = ()
    """Globs of the paths of the chunks that the phase trains on, in whatever order."""
    epochs: int | None = None
    """Times each row of these chunks is trained on in the phase; None when it is not known."""


@dataclass(frozen=True)
class Schedule:
    """What had been trained on when (see `exposure_of`)."""

    order: tuple[int | None, ...] = ()
    """Chunk trained on at each position; None where it is not known which."""
    done: tuple[int, ...] | None = None
    """Positions finished at each checkpoint, in series order; with `label`, at each value of the group."""
    tokens_per_chunk: int | None = None
    """Tokens trained on in one position."""
    label: str | None = None
    """Group of the branch names that counts the positions finished (the steps, for phases and rows)."""
    offset: int = 0
    """Positions finished are the label and this."""
    skipped: int = 0
    """Chunks of `order` that training left out, when it is not known which: later ones came so much earlier."""
    repeats: tuple[int, ...] = ()
    """With `skipped`: chunks trained on once more after all others, in this order."""
    rows_per_step: int | None = None
    """The label counts steps, and a step trains on so many rows, in file order, again from the first
    row when all have been read."""
    phase: str | None = None
    """Group of the branch names that tells the phases apart; the label counts the steps of each."""
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What the manifest rests on."""

    first_hand: tuple[str, ...] = ()
    """Read in the release itself: its code, its cards, its papers."""
    assumed: tuple[str, ...] = ()
    """Likely, and not confirmed: check before you lean on it."""


@dataclass(frozen=True)
class Manifest:
    """A series as its TOML file describes it."""

    name: str
    checkpoints: Files | Revisions
    data: Files | None = None
    """Chunks of training data. None: not given, so nothing is sampled."""
    model: Model = field(default_factory=Model)
    held_out: Files | None = None
    canaries: Canaries | None = None
    exposure: Schedule = field(default_factory=Schedule)
    metrics: str | None = None
    """JSON lines of the training run, for the loss curve."""
    tokenizer: str | None = None
    base: str | None = None
    """Series and checkpoint it was fine-tuned from, such as `amber/ckpt_355`."""
    facts: Facts = field(default_factory=Facts)


def fits(path: str, glob: str) -> bool:
    """Whether a relative path fits a glob: `*` and `?` stay within a folder, `**/` crosses folders."""
    return _glob(glob).fullmatch(path) is not None


def _glob(glob: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    if sum(piece.startswith("*") for piece in pieces) > MOST_STARS:  # each multiplies the work by the length
        raise SeriesError(f"glob {glob!r}: expected at most {MOST_STARS} stars")
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(piece) or re.escape(piece) for piece in pieces))


def _flat(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix).replace("/", "-")


def _stem(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    numbered = next((part for part in reversed(parts) if "{" in part), parts[-1])
    return numbered.removesuffix(PurePosixPath(numbered).suffix) if numbered == parts[-1] else numbered
