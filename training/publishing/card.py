"""The cards of a published series: the tables that a release owes its readers (LLM360, section 3).

Every number comes from a file of the series; what no file says is left out, and where a file is missing the
card says so.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from analysis360 import __version__
from training.config import Parent
from training.data.packing import DOCUMENTS
from training.publishing.local import reading
from training.publishing.readme import head, scalar
from training.publishing.tables import (
    HUB,
    REMAKE,
    Release,
    checkpoint_table,
    code,
    data_tables,
    is_state,
    metrics_table,
    model_table,
    table,
    training_table,
)
from training.records import as_json
from training.series import RECIPE, REPORT

__all__ = ["absolute_paths", "data_card", "data_head", "model_card", "model_head"]


def model_head(release: Release, license: str | None) -> str:
    """The YAML of the model repository."""
    kind = [f"- {scalar(release.kind)}"] if release.kind else []
    lines = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "datasets:",
        f"- {scalar(release.data)}",
    ]
    return head(license, [*lines, "tags:", *kind, "- analysis360", "- llm360", "- training-checkpoints"])


def data_head(release: Release, license: str | None) -> str:
    """The YAML of the data repository, with the splits for those who read it with `datasets`."""
    raw, lines = release.series.raw, ["tags:", "- analysis360", "- llm360", "- pretraining", "- tokenized"]
    names = {"data": "train", "held_out": "held_out", "canaries": "canaries"}
    if raw["data"].get("format", "jsonl") in ("jsonl", "parquet"):
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for section, split in names.items():
            if section in raw:
                lines += [f"  - split: {split}", f"    path: {scalar(_glob(raw[section]['path']))}"]
        if DOCUMENTS in release.series.data:
            lines += ["- config_name: documents", f"  data_files: {DOCUMENTS}"]
    return head(license, lines)


def _glob(path: str) -> str:
    return re.sub(r"\{index[^}]*\}", "*", path)


def model_card(release: Release) -> str:
    """What the model repository's README.md says between the marks."""
    done, name = len(release.series.checkpoints), release.series.name
    where = f"[{release.data}]({release.endpoint}/datasets/{release.data})"
    what = "The data, in the order of training," if release.plain else "The data"
    first = (
        f"A series of {done:,} checkpoints of one run, each in a branch of its own; `main` holds the last of them, "
        f"{code(release.series.last)}. {what} are in {where}. Written from the files of {code(name)} "
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
        f"Prepared for [{release.repository}]({release.endpoint}/{release.repository}): {release.chunks:,} chunks of "
        f"rows of token ids, each file in the order in which its rows are read. {_trained(release)}"
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
        columns = ", ".join(code(column) for column in _columns(release.series.data[DOCUMENTS]))
        lines += [("Documents", DOCUMENTS, "1", f"columns {columns}")]
    files = table(["", "files", "number", ""], [(a, code(b), c, d) for a, b, c, d in lines])
    row = 'A row of JSON lines: `{"token_ids": [...], "source": "..."}`.'
    parts = [first, "## Files\n\n" + files, *([row] if raw["data"].get("format", "jsonl") == "jsonl" else [])]
    return "\n\n".join([*parts, data_tables(release), _order(release)])


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet

    with reading(path, "a Parquet file", REMAKE):
        return list(pyarrow.parquet.read_schema(path).names)


def _trained(release: Release) -> str:
    """How many of them were trained on, where that is known."""
    if not release.order or None in release.order:
        return "How many of them were trained on is not known."
    return f"Trained on so far: {len({*release.order}):,} of them."


def _contents(release: Release) -> str:
    """What is there and what is not: the columns of the paper's Table 1."""
    series = release.series
    states = [name for name in series.checkpoints if any(map(is_state, series.checkpoint(name)))]
    planned = release.recipe.mix.chunks if release.recipe else len(series.checkpoints)
    known = bool(release.order) and None not in release.order
    trainer = (
        f"the `training` package of analysis360 (published with {__version__}), not in these repositories"
    )
    mix = f"{REPORT} of the data's repository"
    have, several = len(series.checkpoints), f"of {planned:,}"
    rows = [
        ("Training code", "no", trainer),
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
    times = Counter(order)
    never = [chunk for chunk in range(count) if not times[chunk]]
    often = [chunk for chunk in range(count) if times[chunk] > 1]
    places = ", ".join("unknown" if chunk is None else str(chunk) for chunk in order)
    lines = ["in the order of their numbers" if release.plain else f"in this order: {places}"]
    lines += [f"never: {', '.join(map(str, never))}"] if never and None not in order else []
    lines += [f"more than once: {', '.join(map(str, often))}"] if often else []
    return "## Order\n\nChunks trained on " + "; ".join(lines) + "."


def _use(release: Release) -> str:
    """How to load one checkpoint, and the series."""
    series = release.series
    files, names = series.checkpoint(series.last), list(series.checkpoints)
    branch, count = names[len(names) // 2], len(names)
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += [
        f'model = AutoModelForCausalLM.from_pretrained("{release.repository}", revision={scalar(branch)})'
    ]
    if any(name.startswith("tokenizer") for name in files):
        lines += [
            f'tokenizer = AutoTokenizer.from_pretrained("{release.repository}", revision={scalar(branch)})'
        ]
    elif any(name.startswith("tokenizer/") for name in series.extra):
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{release.repository}", subfolder="tokenizer")']
    else:
        lines[0] = "from transformers import AutoModelForCausalLM"
    ckpts = f"0:{count}:{max(1, count // 10)}"
    score = f"analysis360 memorization --series {release.repository} --ckpts {ckpts}"
    one, all_ = "\n".join(lines), f"{score}\nanalysis360 doctor {release.repository}"
    where = ""
    if urlsplit(release.endpoint).hostname != urlsplit(HUB).hostname:
        setting = code(f"HF_ENDPOINT={release.endpoint}")
        where = f"This Hub is not huggingface.co: set {setting} in the environment first.\n\n"
    return f"## Use\n\n{where}One checkpoint:\n\n```python\n{one}\n```\n\nThe series:\n\n```\n{all_}\n```"


def _again(release: Release) -> str:
    """The commands that make the series again, and what they need."""
    recipe = release.recipe
    if RECIPE not in release.series.extra or recipe is None:
        return f"## Reproduce\n\nNot possible from here: there is no {RECIPE}."
    name, notes = release.series.name, [f"`{RECIPE}` holds every number of the run."]
    if any(source.files for source in recipe.mix.sources):
        notes += ["It needs the text of its sources where the recipe says."]
    if recipe.parent:
        notes += ["It continues another run, whose checkpoint it needs as well."]
        folder, parent = f"{name}-recipe", _given(recipe.parent)
        prepare = [f"python -c {shlex.quote(AS_MIX)} {folder}/{RECIPE} {name}.toml"]
        prepare += [f"python -m training prepare --from {parent} --mix {name}.toml --out {name}"]
    else:
        folder, prepare = name, [f"python -m training prepare --out {name}"]
        if recipe.mix.tokenizer:
            notes += [
                "Its tokenizer is not learned: the recipe's `mix.tokenizer` has to be a folder with that one."
            ]
    if release.report:
        notes += [f"`{REPORT}` has the SHA-256 of every file that `prepare` should make."]
    fetch = f"hf download {release.repository} {RECIPE} --local-dir {folder}"
    lines = "\n".join([fetch, *prepare, f"python -m training run --out {name}"])
    return f"## Reproduce\n\n{' '.join(notes)}\n\n```\n{lines}\n```"


AS_MIX = (
    "import json, sys, tomli_w; made = json.load(open(sys.argv[1])); "
    'open(sys.argv[2], "w").write(tomli_w.dumps({**made["mix"], "loop": made["loop"]}))'
)
"""The data and the loop of a recipe as a mix file."""


def _given(parent: Parent) -> str:
    """SERIES@CKPT as it was asked for; the names alone where that is a path of this machine."""
    names = (parent.given, f"{parent.series}@{parent.checkpoint}")
    plain = (name for name in names if re.fullmatch(r"[\w./@:-]+", name) and not _absolute(name))
    return next(plain, "SERIES@CKPT")


def absolute_paths(release: Release) -> list[str]:
    """Fields of the recipe that hold a path of this machine from its root."""
    plain = as_json(release.recipe) if release.recipe else {}
    return [name for name, text in _texts(plain, "") if _absolute(text)]


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every string in a plain value, by the path of its field."""
    if isinstance(value, str):
        yield name, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _texts(item, f"{name}.{key}".lstrip("."))


def _absolute(text: str) -> bool:
    return text[:1] == "~" or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
