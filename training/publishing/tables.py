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
from analysis360.loopback.published import Published
from analysis360.places import LocalFile
from training.config import Rate, Recipe
from training.publishing.history import History, chunk_losses, read_history
from training.series import METRICS, RECIPE, REPORT, read_recipe, read_report

__all__ = [
    "Release",
    "cell",
    "checkpoint_table",
    "data_tables",
    "is_state",
    "metrics_table",
    "model_table",
    "release_of",
    "table",
    "training_table",
]

LONG = 40
"""Lines from which a table is folded away."""
NONE = "–"
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

    @property
    def data(self) -> str:
        """The repository of the data."""
        return f"{self.repository}-data"

    @property
    def order(self) -> list[Any]:
        """The chunk at each position of training; empty where the manifest does not say."""
        return list(self.series.raw.get("exposure", {}).get("order", []))

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


def release_of(out: Path, series: Published, repository: str) -> Release:
    """Read what the cards need. Raises TrainingError for a recipe or metrics that cannot be read."""
    return Release(repository, series, read_recipe(out), read_report(out), read_history(out / METRICS))


def data_tables(release: Release) -> str:
    """Tokens, documents and held-out rows of each source, and what was planted."""
    report = release.report
    if report is None:
        return f"## Data\n\nNo {REPORT}: tokens a source are not known."
    return "\n\n".join(["## Data", _sources(report), _planted(report)])


def _sources(report: dict[str, Any]) -> str:
    """A line a source, and the total; a column of tokens for each stage where there are several."""
    stages = report.get("stages", {}) if len(report.get("stages", {})) > 1 else {}
    sources = {name: _flat(name, counts, stages) for name, counts in report.get("sources", {}).items()}
    total = Counter[str]()
    for counts in sources.values():
        total.update(counts)
    rows = []
    for name, counts in [*sources.items(), ("**total**", total)]:
        share = f"{100 * counts['tokens'] / total['tokens']:.2f} %" if total["tokens"] else NONE
        epochs = report["sources"].get(name, {}).get("epochs")
        columns = ("documents", *(f"stages/{stage}" for stage in stages), *HELD_OUT)
        documents, *others = (_count(counts[key] or None) for key in columns)
        read = f"{epochs:.2f}" if epochs else NONE
        rows.append([cell(name), _count(counts["tokens"]), share, documents, read, *others])
    titles = [
        "source",
        "tokens",
        "share",
        "documents",
        "epochs",
        *(f"tokens, {cell(name)}" for name in stages),
    ]
    return table([*titles, "held-out rows", "held-out documents"], rows)


def _flat(name: str, counts: dict[str, Any], stages: dict[str, Any]) -> Counter[str]:
    """Counts of a source, tokens of a stage as `stages/NAME`; what is not counted is 0."""
    by_stage = {
        f"stages/{stage}": of.get("sources", {}).get(name, {}).get("tokens", 0)
        for stage, of in stages.items()
    }
    return Counter({key: counts.get(key, 0) for key in ("tokens", "documents", *HELD_OUT)} | by_stage)


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
            *(_count(canaries[level, spacing] or None) for spacing in spacings),
            _count(copies[level] or None),
        ]
        for level in levels
    ]
    titles = ["times planted", "canaries, spread evenly", "canaries, in one chunk", "canaries, never planted"]
    note = "Planted rows, of which it is known how often they were read (canaries are rows of random ids):"
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
    return "## Model\n\n" + table(["", f"`{release.kind or 'unknown'}`"], rows)


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
        *((f"Stage {cell(stage.name)}", f"{stage.chunks:,} chunks") for stage in stages),
        ("Seeds", f"{mix.seed} of the data, {recipe.model.seed} of the weights"),
        ("Started from", _parent(recipe)),
        ("Software", _software(release)),
    ]
    return "## Training\n\n" + table(["", ""], rows)


def _rates(recipe: Recipe) -> list[tuple[str, str]]:
    spans = recipe.spans()
    if len(spans) == 1:
        return [("Learning rate", _rate(*spans[0]))]
    stages = zip(recipe.mix.stages, spans, strict=True)
    return [(f"Learning rate, {cell(stage.name)}", _rate(*span)) for stage, span in stages]


def _rate(rate: Rate, steps: int) -> str:
    """Peak, warm-up and fall in words."""
    start = f", the first step being its step {rate.start:,}" if rate.start else ""
    fall = f"{rate.shape} to {rate.last:g} at step {rate.steps or steps:,}"
    return f"up to {rate.peak:g} in {rate.warm_up:,} warm-up steps, then {fall}{start}"


def _parent(recipe: Recipe) -> str:
    parent = recipe.parent
    if parent is None:
        return "random weights"
    state = "with" if parent.optimizer else "without"
    return f"`{cell(parent.checkpoint)}` of {cell(parent.series)} (`{parent.digest[:16]}`), {state} its optimiser"


def _software(release: Release) -> str:
    made_with = dict((release.report or {}).get("made_with", {}))
    if "transformers_version" in release.config:
        made_with.setdefault("transformers", release.config["transformers_version"])
    return ", ".join(f"{cell(name)} {cell(version)}" for name, version in made_with.items()) or NONE


def checkpoint_table(release: Release) -> str:
    """Every checkpoint: what it was trained on last, how much in all, with what loss, and its digest."""
    exposure, order = release.series.raw.get("exposure", {}), release.order
    done, size = exposure.get("done", []), exposure.get("tokens_per_chunk")
    losses = chunk_losses(release.history, order)
    rows = []
    for index, name in enumerate(release.series.checkpoints):
        finished = done[index] if index < len(done) else None
        chunk, loss = NONE, None
        if finished and finished <= len(order):
            chunk, loss = str(order[finished - 1]), losses[finished - 1]
        digests = [file_sha256(path)[:16] for path in _weights(release.series.checkpoint(name)).values()]
        tokens = None if finished is None or size is None else finished * size
        shown = " ".join(f"`{digest}`" for digest in digests) or NONE
        rows.append([f"`{cell(name)}`", chunk, _count(tokens), _loss(loss), shown])
    titles = ["checkpoint, its branch", "chunk before it", "tokens so far", "mean loss of that chunk"]
    text = table([*titles, "SHA-256 of the weights"], rows)
    if len(rows) > LONG:
        text = f"<details>\n<summary>{len(rows):,} checkpoints</summary>\n\n{text}\n\n</details>"
    note = "The first 16 hex digits of each digest. Tokens are targets of this run."
    return f"## Checkpoints\n\n{note}\n\n{text}"


def metrics_table(release: Release) -> str:
    """What the metrics hold, the first and the last loss, and the chunks that were abandoned."""
    history = release.history
    if history is None:
        return f"## Metrics\n\nNo {METRICS}."
    told = f"`{METRICS}`: {history.steps:,} steps, a line each; {history.seconds:,.1f} seconds. {_curve(history)}"
    parts = ["## Metrics", f"{told} Chunks abandoned: {len(history.abandoned):,}."]
    if history.abandoned:
        keys = ("chunk", "position", "step", "loss", "reason")
        rows = [[_number(event.get(key)) for key in keys] for event in history.abandoned]
        parts.append("An abandoned chunk has no place in the order of training; its steps were undone:")
        parts.append(table(["abandoned chunk", *keys[1:]], rows))
    fields = [(f"`{cell(name)}`", UNITS.get(name, NONE)) for name in history.fields]
    return "\n\n".join([*parts, table(["field", "meaning"], fields)])


def _curve(history: History) -> str:
    first = f"Loss {_loss(history.first['loss'])} at step {history.first['step']:,}"
    if not history.stays:
        return first + "."
    last = history.stays[-1]
    spike = f" Largest spike: {history.spike[0]:g} at step {history.spike[1]:,}." if history.spike else ""
    return f"{first}, {_loss(last.losses[-1])} at step {last.step:,}.{spike}"


def is_state(path: str) -> bool:
    """Whether a file is called after an optimiser."""
    return OPTIMIZER.fullmatch(Path(path).name.lower()) is not None


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """Text that can end neither its cell nor our part of the file."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else cell(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
