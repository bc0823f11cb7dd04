"""The cards of a published series: the tables that a release owes its readers (LLM360, section 3).

Every number comes from a file of the series; what no file says is left out, and where a file is missing the
card says so.
"""

import json
import re
from collections import Counter
from pathlib import Path

from analysis360 import __version__
from training.publishing.readme import head
from training.publishing.tables import (
    Release,
    cell,
    checkpoint_table,
    data_tables,
    is_state,
    metrics_table,
    model_table,
    table,
    training_table,
)
from training.series import RECIPE, REPORT

__all__ = ["data_card", "data_head", "model_card", "model_head"]

DOCUMENTS = "data/documents.parquet"


def model_head(release: Release, license: str | None) -> str:
    """The YAML of the model repository."""
    kind = [f"- {release.kind}"] if release.kind else []
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "datasets:", f"- {release.data}"]
    return head(license, [*lines, "tags:", *kind, "- analysis360", "- llm360", "- training-checkpoints"])


def data_head(release: Release, license: str | None) -> str:
    """The YAML of the data repository, with the splits for those who read it with `datasets`."""
    raw, lines = release.series.raw, ["tags:", "- analysis360", "- llm360", "- pretraining", "- tokenized"]
    names = {"data": "train", "held_out": "held_out", "canaries": "canaries"}
    if raw["data"].get("format", "jsonl") in ("jsonl", "parquet"):
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for section, split in names.items():
            if section in raw:
                lines += [f"  - split: {split}", f"    path: {json.dumps(_glob(raw[section]['path']))}"]
        if DOCUMENTS in release.series.data:
            lines += ["- config_name: documents", f"  data_files: {DOCUMENTS}"]
    return head(license, lines)


def _glob(path: str) -> str:
    return re.sub(r"\{index[^}]*\}", "*", path)


def model_card(release: Release) -> str:
    """What the model repository's README.md says between the marks."""
    done, name = len(release.series.checkpoints), release.series.name
    first = (
        f"A series of {done:,} checkpoints of one run, each in a branch of its own; `main` holds the last of them, "
        f"`{release.series.last}`. The data, in the order of training, are in "
        f"[{release.data}](https://huggingface.co/datasets/{release.data}). Written from the files of `{cell(name)}` "
        f"by analysis360 {__version__}."
    )
    parts = [first, _contents(release), data_tables(release), model_table(release), training_table(release)]
    return "\n\n".join(
        [*parts, checkpoint_table(release), metrics_table(release), _use(release), _again(release)]
    )


def data_card(release: Release) -> str:
    """What the data repository's README.md says between the marks."""
    raw = release.series.raw
    first = (
        f"What [{release.repository}](https://huggingface.co/{release.repository}) was trained on: "
        f"{release.chunks:,} chunks of rows of token ids, each file in the order in which its rows were read."
    )
    lines = [("Training", raw["data"]["path"], f"{release.chunks:,}", "a chunk each")]
    if "held_out" in raw:
        held_out = raw["held_out"]
        lines += [("Held out", held_out["path"], f"{held_out['count']:,}", "of documents never trained on")]
    if "canaries" in raw:
        lines += [("Canaries", raw["canaries"]["path"], "1", "every planted row of random ids, once")]
    if REPORT in release.series.data:
        lines += [("Report", REPORT, "1", "counts by source, plantings, SHA-256 of every file")]
    if DOCUMENTS in release.series.data:
        columns = ", ".join(f"`{cell(column)}`" for column in _columns(release.series.data[DOCUMENTS]))
        lines += [("Documents", DOCUMENTS, "1", f"columns {columns}")]
    files = table(["", "files", "number", ""], [(a, f"`{b}`", c, d) for a, b, c, d in lines])
    row = 'A row of JSON lines: `{"token_ids": [...], "source": "..."}`.'
    parts = [first, "## Files\n\n" + files, *([row] if raw["data"].get("format", "jsonl") == "jsonl" else [])]
    return "\n\n".join([*parts, data_tables(release), _order(release)])


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_schema(path).names)


def _contents(release: Release) -> str:
    """What is there and what is not: the columns of the paper's Table 1."""
    series = release.series
    states = [name for name in series.checkpoints if any(map(is_state, series.checkpoint(name)))]
    planned = release.recipe.mix.chunks if release.recipe else len(series.checkpoints)
    known = bool(release.order) and "unknown" not in release.order
    code = f"the `training` package of analysis360 (published with {__version__}), not in these repositories"
    mix = f"{REPORT} of the data's repository"
    have, several = len(series.checkpoints), f"of {planned:,}"
    rows = [
        ("Training code", "no", code),
        ("Training configuration", "yes" if RECIPE in series.extra else "no", RECIPE),
        ("Model checkpoints", _yes(have, planned), f"{have:,} {several}"),
        ("Optimizer checkpoints", _yes(len(states), planned), f"beside {len(states):,} {several}"),
        ("Data mix and sources", "yes" if REPORT in series.data else "no", mix),
        ("Data ordering", "yes" if known else "no", "[exposure] of series.toml"),
        ("Data available", "yes", f"{release.chunks:,} of {release.chunks:,} chunks"),
    ]
    return "## What is here\n\n" + table(["column of LLM360's Table 1", "here", ""], rows)


def _yes(some: int, all_: int) -> str:
    return "yes" if some >= all_ else "partly" if some else "no"


def _order(release: Release) -> str:
    order, count = release.order, release.chunks
    if not order:
        return "## Order\n\nThe manifest does not say in which order the chunks were trained on."
    times = Counter(chunk for chunk in order if isinstance(chunk, int))
    never = [chunk for chunk in range(count) if not times[chunk]]
    often = [chunk for chunk in range(count) if times[chunk] > 1]
    plain = order == list(range(len(order)))
    lines = ["in the order of their numbers" if plain else f"in this order: {', '.join(map(str, order))}"]
    lines += [f"never: {', '.join(map(str, never))}"] if never else []
    lines += [f"more than once: {', '.join(map(str, often))}"] if often else []
    return "## Order\n\nChunks trained on " + "; ".join(lines) + "."


def _use(release: Release) -> str:
    """How to load one checkpoint, and the series."""
    series = release.series
    files, names = series.checkpoint(series.last), list(series.checkpoints)
    branch, count = names[len(names) // 2], len(names)
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += [f'model = AutoModelForCausalLM.from_pretrained("{release.repository}", revision="{branch}")']
    if any(name.startswith("tokenizer") for name in files):
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{release.repository}", revision="{branch}")']
    elif any(name.startswith("tokenizer/") for name in series.extra):
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{release.repository}", subfolder="tokenizer")']
    else:
        lines[0] = "from transformers import AutoModelForCausalLM"
    ckpts = f"0:{count}:{max(1, count // 10)}"
    score = f"analysis360 memorization --series {release.repository} --ckpts {ckpts}"
    one, all_ = "\n".join(lines), f"{score}\nanalysis360 doctor {release.repository}"
    return f"## Use\n\nOne checkpoint:\n\n```python\n{one}\n```\n\nThe series:\n\n```\n{all_}\n```"


def _again(release: Release) -> str:
    if RECIPE not in release.series.extra or release.recipe is None:
        return f"## Reproduce\n\nNot possible from here: there is no {RECIPE}."
    name, needs = release.series.name, ""
    if any(source.files for source in release.recipe.mix.sources):
        needs = " It needs the text of its sources where the recipe says."
    if release.recipe.parent:
        needs += " It continues another run, whose checkpoint it needs as well."
    lines = [
        f"hf download {release.repository} {RECIPE} --local-dir {name}",
        f"python -m training prepare --out {name}",
        f"python -m training run --out {name}",
    ]
    same = f"`{REPORT}` has the SHA-256 of every file that `prepare` should make." if release.report else ""
    text = f"`{RECIPE}` holds every number of the run.{needs} {same}".strip()
    return f"## Reproduce\n\n{text}\n\n" + "```\n" + "\n".join(lines) + "\n```"
