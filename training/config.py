"""What a run is made of: frozen records, each field with its meaning, each checked where it is made."""

import math
from dataclasses import dataclass

from training.records import expect, positive

__all__ = [
    "Canaries",
    "Loop",
    "Mix",
    "Model",
    "Parent",
    "Rate",
    "Recipe",
    "Source",
    "Stage",
    "Take",
]


@dataclass(frozen=True)
class Source:
    """A named body of text."""

    name: str
    """Written into every row. Without `files`, one of the names in `training.data.built_in.BUILT_IN`."""
    files: str = ""
    """Glob of the files it is read from: `.txt` (a file is a document), `.jsonl` or `.parquet` (a row is)."""
    field: str = "text"
    """Field of a row of JSON lines or Parquet that holds the text."""

    def __post_init__(self) -> None:
        expect(bool(self.name) and "/" not in self.name, "Source.name", "a name without /", repr(self.name))


@dataclass(frozen=True)
class Take:
    """How much of one source goes into a stage: a budget of tokens, or a share of what budgets leave."""

    source: str
    """Name of the source."""
    weight: float = 0.0
    """Share of the stage's rows that no budget takes, beside the other weights."""
    tokens: int = 0
    """Budget, instead of a weight: a whole number of rows."""
    part: tuple[float, float] = (0.0, 1.0)
    """From and to: the part of the source's training documents, in their seeded order, that may be used."""
    epochs: int = 1
    """How often each document may be used at most. Later ones take the documents in another order."""

    def __post_init__(self) -> None:
        expect(math.isfinite(self.weight), f"Take.weight ({self.source})", "a finite number", self.weight)
        expect(
            (self.weight > 0) != (self.tokens > 0) and min(self.weight, self.tokens) >= 0,
            f"Take.weight and Take.tokens ({self.source})",
            "one of the two above 0",
            f"{self.weight} and {self.tokens}",
        )
        first, end = self.part
        expect(0 <= first < end <= 1, f"Take.part ({self.source})", "0 <= from < to <= 1", self.part)
        expect(self.epochs > 0, f"Take.epochs ({self.source})", "1 or more", self.epochs)


@dataclass(frozen=True)
class Stage:
    """A stretch of training on a mixture of its own, permuted as a whole."""

    name: str
    """Written into the metrics and the report."""
    chunks: int
    """Chunks of the stage, and so checkpoints."""
    takes: tuple[Take, ...]
    """The mixture."""

    def __post_init__(self) -> None:
        positive(self, "chunks")
        expect(len(self.takes) > 0, f"Stage.takes ({self.name})", "at least one", self.takes)


@dataclass(frozen=True)
class Canaries:
    """Rows planted a known number of times: rows of random ids, and rows of the text itself."""

    levels: tuple[tuple[int, int], ...] = ()
    """(repeats, canaries): so many rows of random ids are planted so often, in each of the two spacings."""
    one_chunk: tuple[int, ...] = ()
    """The chunk of each canary that is planted in one chunk alone, the most repeated first."""
    never: int = 0
    """Rows of random ids that are never planted: what chance looks like."""
    duplicates: tuple[tuple[int, int], ...] = ()
    """(repeats, rows): so many rows of ordinary text stand so often in all, spread evenly."""
    largest_share: float = 0.1
    """Share of the training rows that plantings may take."""
    even: tuple[tuple[int, int], ...] = ()
    """(repeats, canaries) that are planted evenly alone: more often than one chunk has room for."""

    def __post_init__(self) -> None:
        for repeats, canaries in (*self.levels, *self.even):
            expect(repeats > 0 and canaries > 0, "Canaries.levels", "positive numbers", (repeats, canaries))
        for repeats, rows in self.duplicates:
            expect(
                repeats > 1 and rows > 0, "Canaries.duplicates", "2 or more, of 1 or more", (repeats, rows)
            )
        planted = sum(canaries for _, canaries in self.levels)
        expect(
            len(self.one_chunk) == planted,
            "Canaries.one_chunk",
            f"{planted} chunks, one for each canary of levels",
            list(self.one_chunk),
        )
        expect(self.never >= 0, "Canaries.never", "0 or more", self.never)
        share = self.largest_share
        expect(0 <= share < 1, "Canaries.largest_share", "from 0 to below 1", share)

    @property
    def planted_rows(self) -> int:
        """Rows that plantings take from the text."""
        copies = sum((repeats - 1) * rows for repeats, rows in self.duplicates)
        levels = (*self.levels, *self.levels, *self.even)  # the first in both spacings
        return sum(repeats * canaries for repeats, canaries in levels) + copies


@dataclass(frozen=True)
class Mix:
    """The data: bodies of text, stages that draw on them, and how rows are cut."""

    name: str
    """Name of the series."""
    seed: int
    """Everything random about the data follows from it."""
    sources: tuple[Source, ...]
    """The text there is."""
    stages: tuple[Stage, ...]
    """What is trained on, in this order."""
    rows: int
    """Rows of a chunk, held-out chunks as well."""
    row_tokens: int = 129
    """Ids of a row: one more than the targets trained on."""
    vocabulary: int = 0
    """Ids of the tokenizer that is learned from the text, the special one included; 0 with `tokenizer`."""
    tokenizer: str = ""
    """Folder of a tokenizer to use instead of learning one."""
    longest: int = 1 << 13
    """Characters of a document: of a longer one, the first so many are the document."""
    held_out_chunks: int = 2
    """Chunks of documents never trained on, in the mixture of all stages together."""
    held_out_fraction: float = 0.15
    """Share of the documents set aside for them, by the hash of their text."""
    canaries: Canaries = Canaries()
    """What is planted."""

    def __post_init__(self) -> None:
        expect(self.seed >= 0, "Mix.seed", "0 or more", self.seed)
        learned = not self.tokenizer and self.vocabulary > 256
        expected = "257 or more (bytes and a special token), or a tokenizer's folder"
        found = f"{self.vocabulary} and {self.tokenizer!r}"
        fits = learned or (bool(self.tokenizer) and self.vocabulary == 0)
        expect(fits, "Mix.vocabulary and Mix.tokenizer", expected, found)
        positive(self, "rows", "longest")
        expect(self.held_out_chunks >= 0, "Mix.held_out_chunks", "0 or more", self.held_out_chunks)
        expect(self.row_tokens > 1, "Mix.row_tokens", "2 or more", self.row_tokens)
        share = self.held_out_fraction
        expect(
            (0 < share < 1) or (share == 0 == self.held_out_chunks), "Mix.held_out_fraction", "0 to 1", share
        )
        expect(len(self.stages) > 0, "Mix.stages", "at least one", self.stages)
        names = [source.name for source in self.sources]
        expect(len(set(names)) == len(names), "Mix.sources", "different names", names)
        stages = [stage.name for stage in self.stages]
        expect(len(set(stages)) == len(stages), "Mix.stages", "different names", stages)
        for stage in self.stages:
            self._check_stage(stage, names)
        self._check_canaries()

    def _check_stage(self, stage: Stage, names: list[str]) -> None:
        where, rows = f"Stage {stage.name}", stage.chunks * self.rows
        for take in stage.takes:
            expect(take.source in names, f"{where}: Take.source", " or ".join(names), take.source)
            whole = take.tokens % self.row_tokens == 0
            expect(
                whole,
                f"{where}: Take.tokens",
                f"a multiple of {self.row_tokens} ({take.source})",
                take.tokens,
            )
        budgets = sum(take.tokens for take in stage.takes) // self.row_tokens
        weights = any(take.weight for take in stage.takes)
        fits = budgets < rows if weights else budgets == rows
        expect(
            fits, f"{where}: Take.tokens", f"{'fewer than ' if weights else ''}{rows} rows in all", budgets
        )

    def _check_canaries(self) -> None:
        canaries, most = self.canaries, int(self.canaries.largest_share * self.total_rows)
        fits = canaries.planted_rows <= most
        expect(fits, "Canaries.levels and duplicates", f"{most} rows at most", canaries.planted_rows)
        places = set(canaries.one_chunk)
        fits = len(places) == len(canaries.one_chunk) and places <= set(range(self.chunks))
        expect(fits, "Canaries.one_chunk", f"different chunks below {self.chunks}", canaries.one_chunk)
        repeats = max((repeats for repeats, _ in canaries.levels), default=0)
        expect(repeats <= self.rows, "Canaries.levels", f"{self.rows} repeats at most", repeats)

    @property
    def chunks(self) -> int:
        """Training chunks of all stages."""
        return sum(stage.chunks for stage in self.stages)

    @property
    def total_rows(self) -> int:
        """Rows of all training chunks."""
        return self.chunks * self.rows

    def stage_of(self, chunk: int) -> Stage:
        """The stage that a chunk belongs to."""
        for stage in self.stages:
            if chunk < stage.chunks:
                return stage
            chunk -= stage.chunks
        raise IndexError(chunk)

    def rows_of(self, stage: Stage) -> list[int]:
        """Rows of each take of a stage: budgets as they are, the rest by weight, largest remainders first."""
        budgets = [take.tokens // self.row_tokens for take in stage.takes]
        left, total = stage.chunks * self.rows - sum(budgets), sum(take.weight for take in stage.takes)
        exact = [left * take.weight / total if total else 0.0 for take in stage.takes]
        shares = [math.floor(share) for share in exact]
        order = sorted(range(len(exact)), key=lambda index: (shares[index] - exact[index], index))
        for index in order[: left - sum(shares)]:
            shares[index] += 1
        return [budget + share for budget, share in zip(budgets, shares, strict=True)]


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
    vocabulary: int
    """Ids that have an embedding: those of the tokenizer, or more."""
    positions: int = 256
    """Longest context the finished model accepts."""
    norm_eps: float = 1e-6
    """Epsilon of the RMS norms."""
    seed: int = 360
    """Of the initial weights."""

    def __post_init__(self) -> None:
        positive(self, "hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "norm_eps")
        expect(self.hidden % (2 * self.heads) == 0, "Model.heads", "an even share of the width", self.heads)


@dataclass(frozen=True)
class Rate:
    """A learning rate: a linear rise to the peak, then a fall to the last."""

    peak: float
    """After the warm-up."""
    last: float
    """At the last step of the fall, and after it."""
    warm_up: int
    """Steps of the rise."""
    shape: str = "cosine"
    """Of the fall: `cosine` (half a wave) or `linear`."""
    steps: int = 0
    """Steps of rise and fall together; 0: those of the run, or of the stage."""
    start: int = 0
    """Steps that were done before, in the run this one continues."""

    def __post_init__(self) -> None:
        positive(self, "peak")
        expect(0 <= self.last <= self.peak, "Rate.last", f"0 to {self.peak}", self.last)
        expect(self.warm_up >= 0, "Rate.warm_up", "0 or more", self.warm_up)
        expect(self.shape in ("cosine", "linear"), "Rate.shape", "cosine or linear", self.shape)
        expect(
            self.steps >= 0 and self.start >= 0,
            "Rate.steps and Rate.start",
            "0 or more",
            (self.steps, self.start),
        )


@dataclass(frozen=True)
class Loop:
    """How the model is trained: Amber's settings where size does not forbid it."""

    batch: int
    """Rows of a step, over all processes. The last step of a chunk takes what is left."""
    rates: tuple[Rate, ...]
    """One for the whole run, or one a stage."""
    micro_batch: int = 0
    """Rows a process reads at a time, gradients added up; 0: its whole share of the batch."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two decay rates."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    compute_dtype: str = "float32"
    """Of activations and gradients: `float32` or `bfloat16`. Weights and optimiser are float32 in any case."""
    compiled: bool = False
    """Fuse operators with torch.compile, where a C++ compiler is there: some seconds at the start, then faster."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more work."""
    threads: int = 2
    """Threads of torch on a CPU: fixed, because sums depend on how they are split."""
    keep_state_every: int = 0
    """Keep the state of every N-th checkpoint, three times the weights; 0 keeps that of the latest alone."""

    def __post_init__(self) -> None:
        positive(self, "batch", "eps", "clip", "threads")
        expect(len(self.rates) > 0, "Loop.rates", "at least one", self.rates)
        expect(all(0 <= beta < 1 for beta in self.betas), "Loop.betas", "from 0 to below 1", self.betas)
        for name in ("weight_decay", "micro_batch", "keep_state_every"):
            expect(getattr(self, name) >= 0, f"Loop.{name}", "0 or more", getattr(self, name))
        dtypes = ("float32", "bfloat16")
        expect(self.compute_dtype in dtypes, "Loop.compute_dtype", " or ".join(dtypes), self.compute_dtype)


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a run continues."""

    series: str
    """Name of its series."""
    checkpoint: str
    """Its name there."""
    digest: str
    """Content identity of its weights and config."""
    optimizer: bool
    """Whether the optimiser's state came with it; otherwise it starts from nothing."""
    given: str
    """SERIES@CKPT as it was asked for."""


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    mix: Mix
    """What is trained on."""
    model: Model
    """What is trained."""
    loop: Loop
    """How."""
    parent: Parent | None = None
    """What it continues; None: random weights."""

    def __post_init__(self) -> None:
        mix, loop, model = self.mix, self.loop, self.model
        rates = (1, len(mix.stages))
        expect(len(loop.rates) in rates, "Loop.rates", f"1 or {len(mix.stages)} of them", len(loop.rates))
        for rate, steps in self.spans():
            fits = rate.warm_up < (rate.steps or steps)
            expect(fits, "Rate.warm_up", f"below {rate.steps or steps} steps", rate.warm_up)
        expect(loop.batch <= mix.rows, "Loop.batch", f"{mix.rows} rows of a chunk at most", loop.batch)
        fits = mix.row_tokens - 1 <= model.positions
        expect(fits, "Model.positions", f"{mix.row_tokens - 1} or more", model.positions)
        fits = mix.vocabulary <= model.vocabulary
        expect(fits, "Model.vocabulary", f"{mix.vocabulary} or more", model.vocabulary)

    @property
    def name(self) -> str:
        """Name of the series."""
        return self.mix.name

    @property
    def chunk_steps(self) -> int:
        """Steps of a chunk."""
        return -(-self.mix.rows // self.loop.batch)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.mix.chunks * self.chunk_steps

    @property
    def chunk_targets(self) -> int:
        """Targets trained on in a chunk: a row's ids but the first."""
        return self.mix.rows * (self.mix.row_tokens - 1)

    def spans(self) -> list[tuple[Rate, int]]:
        """(rate, its steps of the run) in order."""
        if len(self.loop.rates) == 1:
            return [(self.loop.rates[0], self.steps)]
        stages = [stage.chunks * self.chunk_steps for stage in self.mix.stages]
        return list(zip(self.loop.rates, stages, strict=True))
