"""The tables of a published series' cards: every number comes from a file of the series.

What no file says is left out, and where a file is missing the table's place says so.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis360.digests import file_sha256
from analysis360.doctor.headers import read_header
from analysis360.doctor.standing import OPTIMIZER
from analysis360.errors import DataError
from analysis360.loopback.published import MANIFEST_NAME, Published
from analysis360.places import LocalFile
from analysis360.series.reading import manifest_of
from analysis360.series.records import Schedule
from training.config import Rate, Recipe
from training.publishing.history import History, Stay, chunk_losses, finished, read_history
from training.publishing.local import reading
from training.series import METRICS, RECIPE, REPORT, read_recipe, read_report

__all__ = [
    "HUB",
    "REMAKE",
    "Release",
    "cell",
    "checkpoint_table",
    "code",
    "data_tables",
    "is_state",
    "metrics_table",
    "model_table",
    "release_of",
    "table",
    "training_table",
]

HUB = "https://huggingface.co"
REMAKE = "delete it and make it again: python -m training prepare --out RUN"
SPIKE = 6.0
"""Height from which a spike is worth a word."""
LONG = 40
"""Lines from which a table is folded away."""
NONE = "–"
SPECIAL = {ord(character): f"&#{ord(character)};" for character in "\\`*_[]!<>|&~$"}
"""What Markdown or a table would take for its own, as entities."""
HELD_OUT = ("held_out_rows", "held_out_documents")
UNITS = {
    "step": "number of the step, from 0",
    "chunk": "chunk trained on",
    "stage": "stage of the mixture",
    "position": "place of the chunk in the order of training, from 0",
    "tokens": "targets trained on so far",
    "loss": "mean cross entropy of the step, in nats a target",
    "learning_rate": "of the step",
    "gradient_norm": "before clipping",
    "seconds": "that the step took",
    "tokens_per_second": "targets a second, over all processes",
    "memory_mb": "most memory the first process held so far, in MB",
    "mfu": "FLOPs of the model as a share of the machine's peak; null where that is not known",
    "spike": "height of the loss above the median of those before it, in robust standard deviations",
}
CONFIG = {
    "hidden_size": "Hidden size",
    "intermediate_size": "Intermediate size (in MLPs)",
    "num_attention_heads": "Attention heads",
    "num_key_value_heads": "Key-value heads",
    "num_hidden_layers": "Hidden layers",
    "rms_norm_eps": "RMSNorm epsilon",
    "max_position_embeddings": "Positions (longest context)",
    "vocab_size": "Vocabulary",
}


@dataclass(frozen=True)
class Release:
    """A series and what its files say of how it was made."""

    repository: str
    """`org/name`; the data are in `org/name-data`."""
    series: Published
    recipe: Recipe | None
    report: dict[str, Any] | None
    history: History | None
    endpoint: str = HUB
    """Address of the Hub, without user and password."""

    @property
    def data(self) -> str:
        """The repository of the data."""
        return f"{self.repository}-data"

    @cached_property
    def schedule(self) -> Schedule:
        """What the manifest says had been trained on when. Raises SeriesError for a manifest that does not fit."""
        raw = {key: value for key, value in self.series.raw.items() if key != "manifest"}
        return manifest_of(raw, MANIFEST_NAME).exposure

    @property
    def order(self) -> list[int | None]:
        """The chunk at each position of training, None for an unknown one; empty where the manifest does not say."""
        return list(self.schedule.order)

    @property
    def plain(self) -> bool:
        """Whether the chunks were trained on in the order of their numbers."""
        return bool(self.order) and self.order == list(range(len(self.order)))

    @property
    def chunks(self) -> int:
        """Chunks of training data."""
        return int(self.series.raw["data"]["count"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the last checkpoint; empty where it is not to be read."""
        path = self.series.checkpoint(self.series.last).get("config.json")
        try:
            config = json.loads(path.read_text("utf-8")) if path else {}
        except ValueError:
            config = {}
        return config if isinstance(config, dict) else {}

    @property
    def kind(self) -> str:
        """The kind of model, such as `llama`; empty where the config does not say."""
        kind = self.config.get("model_type")
        return kind if isinstance(kind, str) and re.fullmatch(r"[a-z0-9_-]+", kind) else ""


def release_of(out: Path, series: Published, repository: str, endpoint: str = HUB) -> Release:
    """Read what the cards need. Raises TrainingError for a recipe, a report or metrics that cannot be read."""
    with reading(out / REPORT, "the report of `prepare`", REMAKE):
        report = read_report(out)
    return Release(repository, series, read_recipe(out), report, read_history(out / METRICS), endpoint)


def data_tables(release: Release) -> str:
    """Tokens, documents and held-out rows of each source, and what was planted."""
    report = release.report
    if report is None:
        return f"## Data\n\nNo {REPORT}: tokens a source are not known."
    note = f"As prepared, in {release.chunks:,} chunks:"
    with reading(release.series.data.get(REPORT, REPORT), "the counts of `prepare`", REMAKE):
        return "\n\n".join(["## Data", note, _sources(report), _planted(report)])


def _sources(report: dict[str, Any]) -> str:
    """A line a source, and the total; a column of tokens for each stage where there are several."""
    stages = report.get("stages", {}) if len(report.get("stages", {})) > 1 else {}
    columns = ("tokens", "documents", *(f"stages/{stage}" for stage in stages), *HELD_OUT)
    sources = {name: _flat(name, counts, stages) for name, counts in report.get("sources", {}).items()}
    total = {key: _sum(counts.get(key) for counts in sources.values()) for key in columns}
    rows = []
    for name, counts in [*((cell(name), counts) for name, counts in sources.items()), ("**total**", total)]:
        tokens, documents, *others = (counts.get(key) for key in columns)
        share = f"{100 * tokens / total['tokens']:.2f} %" if tokens is not None and total["tokens"] else NONE
        read = counts.get("epochs")
        epochs = NONE if read is None else f"{read:.2f}" if read else "0"
        rows.append([name, _count(tokens), share, _count(documents), epochs, *map(_count, others)])
    titles = [
        "source",
        "tokens",
        "share",
        "documents",
        "epochs",
        *(f"tokens, {cell(name)}" for name in stages),
    ]
    return table([*titles, "held-out rows", "held-out documents"], rows)


def _flat(name: str, counts: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """Counts of a source, tokens of a stage as `stages/NAME`; a stage that does not name it has none of it."""
    return counts | {
        f"stages/{stage}": of.get("sources", {}).get(name, {}).get("tokens", 0)
        for stage, of in stages.items()
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    """Of what is counted; None where nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _planted(report: dict[str, Any]) -> str:
    """How many rows were planted how often, random ids by their spacing and duplicates of text."""
    canaries = Counter((row["repeats"], row["spacing"]) for row in report.get("canaries", []))
    copies = Counter(row["repeats"] for row in report.get("duplicates", []))
    if not canaries and not copies:
        return "Nothing was planted."
    levels = sorted({repeats for repeats, _ in canaries} | copies.keys())
    spacings = ("even", "chunk", "never")
    rows = [
        [
            _count(level),
            *(_count(canaries[level, spacing]) for spacing in spacings),
            _count(copies[level]),
        ]
        for level in levels
    ]
    titles = ["times planted", "canaries, spread evenly", "canaries, in one chunk", "canaries, never planted"]
    note = "Planted rows, of which it is known how often they stand in the chunks (canaries are rows of random ids):"
    return f"{note}\n\n{table([*titles, 'duplicates of text'], rows)}"


def _weights(files: dict[str, Path]) -> dict[str, Path]:
    """The files of weights: safetensors, or pickles where there are none."""
    for suffix in (".safetensors", ".bin"):
        found = {name: file for name, file in files.items() if name.endswith(suffix) and not is_state(name)}
        if found:
            return found
    return {}


def model_table(release: Release) -> str:
    """The architecture of the last checkpoint, as the paper's Table 3 has it."""
    config = release.config
    numbers, dtypes = _parameters(_weights(release.series.checkpoint(release.series.last)).values())
    rows = [("Parameters", f"{numbers:,}")] if numbers else []
    rows += [(title, _number(config[key])) for key, title in CONFIG.items() if key in config]
    if "tie_word_embeddings" in config:
        rows += [("Head shares the embeddings", "yes" if config["tie_word_embeddings"] else "no")]
    rows += [("Weights stored as", ", ".join(dtypes))] if dtypes else []
    return "## Model\n\n" + table(["", code(release.kind or "unknown")], rows)


def _parameters(weights: Iterable[Path]) -> tuple[int, list[str]]:
    """Numbers in the weights and their types, by the headers; 0 where the files have none."""
    count, dtypes = 0, set[str]()
    for path in weights:
        file = LocalFile(path)
        try:
            for dtype, shape, _ in read_header(file).tensors.values():
                count, dtypes = count + math.prod(shape), dtypes | {dtype}
        except DataError:
            return 0, []
        finally:
            file.close()
    return count, sorted(dtypes)


def training_table(release: Release) -> str:
    """How it was trained, by the recipe."""
    recipe = release.recipe
    if recipe is None:
        return f"## Training\n\nNo {RECIPE}: how it was trained is not known."
    loop, mix, done = recipe.loop, recipe.mix, len(release.order)
    targets, stages = mix.row_tokens - 1, mix.stages if len(mix.stages) > 1 else ()
    rows = [
        ("Optimiser", f"AdamW, betas {loop.betas[0]:g} and {loop.betas[1]:g}, epsilon {loop.eps:g}"),
        ("Weight decay", f"{loop.weight_decay:g}"),
        ("Gradient clipping, norm", f"{loop.clip:g}"),
        ("Batch", f"{loop.batch:,} rows, {loop.batch * targets:,} targets"),
        *_rates(recipe),
        ("Compute dtype", loop.compute_dtype),
        ("Steps", f"{done * recipe.chunk_steps:,} of {recipe.steps:,}"),
        ("Chunks", f"{done:,} of {mix.chunks:,}, {recipe.chunk_steps:,} steps each"),
        ("Tokens a row", f"{mix.row_tokens:,}, of which {targets:,} are targets"),
        ("Targets a chunk", f"{recipe.chunk_targets:,}"),
        ("Targets in all", f"{done * recipe.chunk_targets:,} of {mix.chunks * recipe.chunk_targets:,}"),
        *((f"Stage {cell(stage.name)}", f"{stage.chunks:,} chunks planned") for stage in stages),
        ("Seeds", f"{mix.seed} of the data, {recipe.model.seed} of the weights"),
        ("Started from", _parent(recipe)),
        ("Data prepared with", _prepared_with(release)),
        ("Checkpoints written with", _written_with(release)),
    ]
    return "## Training\n\n" + table(["", ""], rows)


def _rates(recipe: Recipe) -> list[tuple[str, str]]:
    spans = recipe.spans()
    if len(spans) == 1:
        return [("Learning rate", _rate(*spans[0], "run"))]
    stages = zip(recipe.mix.stages, spans, strict=True)
    return [(f"Learning rate, {cell(stage.name)}", _rate(*span, "stage")) for stage, span in stages]


def _rate(rate: Rate, steps: int, whole: str) -> str:
    """Rise and fall in words, each over its steps; and which of them the run or the stage takes, if not all."""
    total = rate.steps or steps
    rise = f"up to {rate.peak:g} over {_steps(rate.warm_up)}"
    fall = f"{rate.shape} to {rate.last:g} over {_steps(total - rate.warm_up)}"
    taken = f"of the {whole}"
    if (rate.start, steps) != (0, total):
        taken = f"of which the {whole} takes {rate.start + 1:,} to {rate.start + steps:,} of {total:,}"
    return f"{rise}, then {fall}, {taken}"


def _steps(count: int) -> str:
    return f"{count:,} step" if count == 1 else f"{count:,} steps"


def _parent(recipe: Recipe) -> str:
    parent = recipe.parent
    if parent is None:
        return "random weights"
    state = "with" if parent.optimizer else "without"
    where = f"{code(parent.checkpoint)} of {cell(parent.series)}"
    return f"{where} ({code(parent.digest[:16])}), {state} its optimiser"


def _prepared_with(release: Release) -> str:
    with reading(release.series.data.get(REPORT, REPORT), "the report of `prepare`", REMAKE):
        made_with = (release.report or {}).get("made_with", {}).items()
        return ", ".join(f"{cell(name)} {cell(version)}" for name, version in made_with) or NONE


def _written_with(release: Release) -> str:
    version = release.config.get("transformers_version")
    return f"transformers {cell(version)}" if version else NONE


def checkpoint_table(release: Release) -> str:
    """Every checkpoint: what it was trained on last, how much in all, with what loss, and its digest."""
    schedule, order = release.schedule, release.order
    done = () if schedule.label else schedule.done or ()
    size = schedule.tokens_per_chunk
    losses = chunk_losses(release.history, order)
    rows = []
    for index, name in enumerate(release.series.checkpoints):
        reached = done[index] if index < len(done) else None
        chunk, loss = NONE, None
        if reached and reached <= len(order):
            chunk, loss = _number(order[reached - 1]), losses[reached - 1]
        digests = [file_sha256(path)[:16] for path in _weights(release.series.checkpoint(name)).values()]
        tokens = None if reached is None or size is None else reached * size
        shown = " ".join(f"`{digest}`" for digest in digests) or NONE
        rows.append([code(name), chunk, _count(tokens), _loss(loss), shown])
    titles = ["checkpoint, its branch", "chunk before it", "tokens so far", "mean loss of that chunk"]
    text = table([*titles, "SHA-256 of the weights"], rows)
    if len(rows) > LONG:
        text = f"<details>\n<summary>{len(rows):,} checkpoints</summary>\n\n{text}\n\n</details>"
    note = "The first 16 hex digits of each digest. Tokens are targets of this run, and losses the mean of a target."
    return f"## Checkpoints\n\n{note}\n\n{text}"


def metrics_table(release: Release) -> str:
    """What the metrics hold, the first and the last loss, and the chunks that were abandoned."""
    history = release.history
    if history is None:
        return f"## Metrics\n\nNo {METRICS}."
    known = release.order and None not in release.order
    stays = [stay for stay in finished(history, release.order) if stay] if known else history.stays
    steps, seconds = sum(len(stay.losses) for stay in stays), math.fsum(stay.seconds for stay in stays)
    told = f"`{METRICS}`: {steps:,} steps, a line each; {seconds:,.1f} seconds.{_curve(stays)}"
    if rest := history.steps - steps:
        told += f" {rest:,} more steps belong to no checkpoint that is here."
    parts = ["## Metrics", f"{told} Chunks abandoned: {len(history.abandoned):,}."]
    if history.abandoned:
        keys = ("chunk", "position", "step", "loss", "reason")
        rows = [[_number(event.get(key)) for key in keys] for event in history.abandoned]
        parts.append("An abandoned chunk has no place in the order of training; its steps were undone:")
        parts.append(table(["abandoned chunk", *keys[1:]], rows))
    fields = [(code(name), UNITS.get(name, NONE)) for name in history.fields]
    return "\n\n".join([*parts, table(["field", "meaning"], fields)])


def _curve(stays: Sequence[Stay]) -> str:
    if not stays:
        return ""
    first, last = stays[0], stays[-1]
    curve = f" Loss {_loss(first.losses[0])} at step {first.first:,}, {_loss(last.losses[-1])} at step {last.step:,}."
    spikes = [stay.spike for stay in stays if stay.spike]
    if not spikes:
        return curve
    height, step = max(spikes)
    return f"{curve} Largest spike: " + (
        f"{height:g} at step {step:,}." if height >= SPIKE else f"none of {SPIKE:g} or more."
    )


def is_state(path: str) -> bool:
    """Whether a file is called after an optimiser."""
    return OPTIMIZER.fullmatch(Path(path).name.lower()) is not None


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """Text that is shown as it is, and can end neither its cell nor our part of the file."""
    return " ".join(str(value).split()).translate(SPECIAL)


def code(value: object) -> str:
    """The same as code. Between backticks nothing can be escaped, so what would have to be is in a tag."""
    text = " ".join(str(value).split())
    return f"`{text}`" if re.fullmatch(r"[^`|<>&\\]+", text) else f"<code>{cell(text)}</code>"


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else cell(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
