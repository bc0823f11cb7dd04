"""What a run is made of. A recipe is a function that returns every number of it; there are no other knobs."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["RECIPES", "Canaries", "Data", "Loop", "Model", "Recipe", "Source", "as_json", "micro", "tiny"]


def _expect(ok: bool, field: str, expected: str, found: object) -> None:
    if not ok:
        raise ValueError(f"{field}: expected {expected}, found {found}")


@dataclass(frozen=True)
class Source:
    """How much of one named source goes into training."""

    name: str
    """One of the names in `training.sources.SOURCES`; written into every row."""
    tokens: int
    """Tokens of this source in the training rows: a whole number of rows."""


@dataclass(frozen=True)
class Data:
    """The rows: where they come from and how they are cut."""

    sources: tuple[Source, ...]
    """The mixture; together exactly `chunks * rows` rows."""
    vocabulary: int
    """Ids of the tokenizer, the special one included."""
    chunks: int
    """Training chunks, and so checkpoints."""
    rows: int
    """Rows of a chunk, held-out chunks as well."""
    row_tokens: int = 129
    """Ids of a row: one more than the targets trained on."""
    held_out_chunks: int = 2
    """Chunks of documents never trained on, in the same mixture."""
    held_out_fraction: float = 0.15
    """Share of the documents set aside for them, by the hash of their text."""

    def __post_init__(self) -> None:
        _expect(len(self.sources) > 0, "Data.sources", "at least one source", self.sources)
        _expect(
            self.vocabulary > 256,
            "Data.vocabulary",
            "256 bytes and a special token at least",
            self.vocabulary,
        )
        for field in ("chunks", "rows", "held_out_chunks"):
            _expect(getattr(self, field) > 0, f"Data.{field}", "a positive number", getattr(self, field))
        _expect(self.row_tokens > 1, "Data.row_tokens", "2 or more", self.row_tokens)
        _expect(
            0 < self.held_out_fraction < 1,
            "Data.held_out_fraction",
            "between 0 and 1",
            self.held_out_fraction,
        )
        for source in self.sources:
            whole = source.tokens > 0 and source.tokens % self.row_tokens == 0
            _expect(whole, "Source.tokens", f"a multiple of {self.row_tokens} ({source.name})", source.tokens)
        rows = sum(source.tokens for source in self.sources) // self.row_tokens
        _expect(rows == self.total_rows, "Data.sources", f"{self.total_rows} rows in all", rows)

    @property
    def total_rows(self) -> int:
        """Rows of all training chunks."""
        return self.chunks * self.rows


@dataclass(frozen=True)
class Canaries:
    """Rows of random ids planted a known number of times."""

    levels: tuple[tuple[int, int], ...]
    """(repeats, canaries): so many canaries are planted so often, in each of the two spacings."""
    one_chunk: tuple[int, ...]
    """The chunk of each canary that is planted in one chunk alone, the most repeated first."""
    never: int
    """Canaries that are never planted: what chance looks like."""
    largest_share: float = 0.1
    """Share of the training rows that canaries may take."""

    def __post_init__(self) -> None:
        for repeats, canaries in self.levels:
            _expect(repeats > 0 and canaries > 0, "Canaries.levels", "positive numbers", (repeats, canaries))
        planted = sum(canaries for _, canaries in self.levels)
        _expect(len(self.one_chunk) == planted, "Canaries.one_chunk", f"{planted} chunks", self.one_chunk)
        _expect(self.never >= 0, "Canaries.never", "0 or more", self.never)
        _expect(
            0 <= self.largest_share < 1, "Canaries.largest_share", "from 0 to below 1", self.largest_share
        )

    @property
    def planted_rows(self) -> int:
        """Rows that canaries take, in both spacings."""
        return 2 * sum(repeats * canaries for repeats, canaries in self.levels)


@dataclass(frozen=True)
class Model:
    """The shape of the Llama that is trained."""

    hidden: int
    """Width of the residual stream."""
    layers: int
    """Blocks."""
    heads: int
    """Attention heads; they share out the width."""
    intermediate: int
    """Inner width of the MLP."""
    positions: int = 256
    """Longest context the finished model accepts."""

    def __post_init__(self) -> None:
        for field in ("hidden", "layers", "heads", "intermediate", "positions"):
            _expect(getattr(self, field) > 0, f"Model.{field}", "a positive number", getattr(self, field))
        _expect(self.hidden % (2 * self.heads) == 0, "Model.heads", "an even share of the width", self.heads)


@dataclass(frozen=True)
class Loop:
    """How the model is trained: Amber's settings where size does not forbid it."""

    batch: int
    """Rows of a step; divides the rows of a chunk."""
    peak: float
    """Learning rate after the warm-up."""
    warm_up: int
    """Steps of linear rise."""
    floor: float = 0.1
    """Learning rate of the last step, as a share of the peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two decay rates."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    threads: int = 2
    """Threads of torch: fixed, because sums depend on how they are split."""
    keep_optimizer_every: int = 0
    """Keep the optimiser state of every N-th checkpoint; 0 keeps that of the latest alone."""

    def __post_init__(self) -> None:
        for field in ("batch", "peak", "warm_up", "clip", "threads"):
            _expect(getattr(self, field) > 0, f"Loop.{field}", "a positive number", getattr(self, field))
        _expect(0 < self.floor <= 1, "Loop.floor", "above 0, at most 1", self.floor)
        _expect(all(0 <= beta < 1 for beta in self.betas), "Loop.betas", "from 0 to below 1", self.betas)
        _expect(self.weight_decay >= 0, "Loop.weight_decay", "0 or more", self.weight_decay)
        _expect(
            self.keep_optimizer_every >= 0,
            "Loop.keep_optimizer_every",
            "0 or more",
            self.keep_optimizer_every,
        )


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    name: str
    """Name of the series."""
    seed: int
    """Everything random follows from it."""
    data: Data
    """The rows."""
    canaries: Canaries
    """What is planted in them."""
    model: Model
    """What is trained."""
    loop: Loop
    """How."""

    def __post_init__(self) -> None:
        data, canaries, loop = self.data, self.canaries, self.loop
        largest = int(canaries.largest_share * data.total_rows)
        _expect(
            canaries.planted_rows <= largest,
            "Canaries.levels",
            f"{largest} rows at most",
            canaries.planted_rows,
        )
        places = set(canaries.one_chunk)
        fits = len(places) == len(canaries.one_chunk) and places <= set(range(data.chunks))
        _expect(fits, "Canaries.one_chunk", f"different chunks below {data.chunks}", canaries.one_chunk)
        repeats = max((repeats for repeats, _ in canaries.levels), default=0)
        _expect(repeats <= data.rows, "Canaries.levels", f"{data.rows} repeats at most", repeats)
        _expect(data.rows % loop.batch == 0, "Loop.batch", f"a divisor of {data.rows} rows", loop.batch)
        _expect(loop.warm_up < self.steps, "Loop.warm_up", f"below {self.steps} steps", loop.warm_up)
        fits = data.row_tokens - 1 <= self.model.positions
        _expect(fits, "Model.positions", f"{data.row_tokens - 1} or more", self.model.positions)

    @property
    def chunk_steps(self) -> int:
        """Steps of a chunk."""
        return self.data.rows // self.loop.batch

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.data.chunks * self.chunk_steps

    @property
    def chunk_tokens(self) -> int:
        """Targets trained on in a chunk."""
        return self.data.rows * (self.data.row_tokens - 1)


def tiny() -> Recipe:
    """36 checkpoints of a Llama of about two million parameters: two minutes on two cores."""
    sources = (
        Source("python-docs", tokens=340 * 129),
        Source("python-stdlib", tokens=2940 * 129),
        Source("python-codecs", tokens=770 * 129),
        Source("shakespeare", tokens=2286 * 129),
    )
    levels = ((128, 1), (64, 1), (32, 1), (16, 2), (8, 1), (4, 2), (2, 2), (1, 2))
    # The five most repeated fall just before a checkpoint of 3:36:4, where their effect is freshest. None
    # comes in the first third: the model is still too young to remember a row after one chunk of it.
    one_chunk = (15, 19, 23, 27, 31, 12, 13, 14, 16, 17, 18, 20)
    return Recipe(
        name="tiny",
        seed=360,
        data=Data(sources=sources, vocabulary=2048, chunks=36, rows=176, held_out_chunks=4),
        canaries=Canaries(levels=levels, one_chunk=one_chunk, never=32),
        model=Model(hidden=192, layers=3, heads=6, intermediate=512),
        loop=Loop(batch=4, peak=5e-3, warm_up=100),
    )


def micro() -> Recipe:
    """Six checkpoints in a few seconds, for tests: the same code, too small to learn anything."""
    sources = (
        Source("python-docs", tokens=48 * 129),
        Source("python-stdlib", tokens=120 * 129),
        Source("shakespeare", tokens=120 * 129),
    )
    return Recipe(
        name="micro",
        seed=6,
        data=Data(sources=sources, vocabulary=512, chunks=6, rows=48, held_out_fraction=0.4),
        canaries=Canaries(levels=((4, 1), (1, 1)), one_chunk=(2, 3), never=4),
        model=Model(hidden=64, layers=2, heads=2, intermediate=128),
        loop=Loop(batch=8, peak=3e-3, warm_up=4, threads=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny": tiny, "micro": micro}


def as_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON would give it back, so that a stored one can be compared."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain
