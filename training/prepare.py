"""Text to rows: `prepare` writes everything a run reads, the same bytes each time."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import tokenizers

from training.canaries import SOURCE, Canary, canary_ids, plan, plant
from training.errors import TrainingError
from training.files import only_one, write_aside
from training.recipes import Recipe, as_json
from training.rows import Ids, Stream, is_held_out, pack, permute, random, row_lines, shuffled
from training.series import CANARIES, HELD_OUT, RECIPE, REPORT, TOKENIZER, TRAIN, check_files, read_report
from training.sources import read_source
from training.tokenizer import tokenizer_files, train_tokenizer

__all__ = ["build", "prepare"]

# Text enough for any budget: a token of a vocabulary of some thousands is about three bytes.
_BYTES_A_TOKEN = 6


def prepare(recipe: Recipe, out: Path) -> str:
    """Write the data of a recipe below `out`; what is there and complete stays. Returns a line to print."""
    with only_one(out):
        report = read_report(out)
        if report and not check_files(out, report):
            return f"{out}: prepared already ({recipe.name})"
        write_aside(out / RECIPE, (json.dumps(as_json(recipe), indent=2) + "\n").encode())
        files = build(recipe)
        _check_same(out, report, files)
        for name, data in files.items():
            write_aside(out / name, data)
    return f"{out}: prepared {recipe.name}: {recipe.data.chunks} chunks of {recipe.data.rows} rows"


def build(recipe: Recipe) -> dict[str, bytes]:
    """Every file by name, the report last: it says that the others are complete."""
    training, held_out = split(recipe)
    tokenizer = train_tokenizer(
        (text for texts in training.values() for text in texts), recipe.data.vocabulary
    )
    packed, used = pack_training(recipe, training, tokenizer)
    packed_aside, used_aside = pack_held_out(recipe, held_out, tokenizer)
    ids, sources = permute(packed, random(recipe.seed, Stream.TRAIN_ROWS))
    ids_aside, sources_aside = permute(packed_aside, random(recipe.seed, Stream.HELD_OUT_ROWS))
    canaries = plan(recipe)
    canary_rows = canary_ids(recipe, len(canaries))
    plant(ids, sources, canaries, canary_rows, recipe.data.rows)

    tokenizer_parts = tokenizer_files(tokenizer, recipe.model.positions)
    files = {f"{TOKENIZER}/{name}": data for name, data in tokenizer_parts.items()}
    files |= cut(ids, sources, recipe.data.rows, recipe.data.chunks, TRAIN)
    files |= cut(ids_aside, sources_aside, recipe.data.rows, recipe.data.held_out_chunks, HELD_OUT)
    files[CANARIES.format(index=0)] = row_lines(canary_rows, [SOURCE] * len(canaries))
    counts: dict[str, Any] = {}
    kept_aside = sources_aside[: recipe.data.held_out_chunks * recipe.data.rows]
    for name in [*used, SOURCE]:
        rows = sources.count(name)
        here = {
            "rows": rows,
            "tokens": rows * recipe.data.row_tokens,
            "held_out_rows": kept_aside.count(name),
        }
        counts[name] = here | {"documents": used.get(name, 0), "held_out_documents": used_aside.get(name, 0)}
    files[REPORT] = _report(recipe, counts, canaries, files)
    return files


def split(recipe: Recipe) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Documents of each source in seeded order: those trained on, and those set aside."""
    training: dict[str, list[str]] = {}
    held_out: dict[str, list[str]] = {}
    for index, source in enumerate(recipe.data.sources):
        documents = shuffled(read_source(source.name), random(recipe.seed, Stream.DOCUMENTS, index))
        aside = [is_held_out(document, recipe.data.held_out_fraction) for document in documents]
        held_out[source.name] = [text for text, out in zip(documents, aside, strict=True) if out]
        kept = [text for text, out in zip(documents, aside, strict=True) if not out]
        training[source.name] = _enough(kept, source.tokens * _BYTES_A_TOKEN)
    return training, held_out


def _enough(documents: list[str], size: int) -> list[str]:
    """The first documents that together have `size` bytes, or all."""
    total = 0
    for index, document in enumerate(documents):
        if total >= size:
            return documents[:index]
        total += len(document.encode())
    return documents


def pack_training(
    recipe: Recipe, documents: dict[str, list[str]], tokenizer: tokenizers.Tokenizer
) -> tuple[dict[str, Ids], dict[str, int]]:
    """Rows [rows, row_tokens] and documents used, of each source."""
    row_tokens = recipe.data.row_tokens
    packed: dict[str, Ids] = {}
    used: dict[str, int] = {}
    for source in recipe.data.sources:
        name, rows = source.name, source.tokens // row_tokens
        packed[name], used[name] = pack(documents[name], tokenizer, rows, row_tokens, f"{name}, training")
    return packed, used


def pack_held_out(
    recipe: Recipe, documents: dict[str, list[str]], tokenizer: tokenizers.Tokenizer
) -> tuple[dict[str, Ids], dict[str, int]]:
    """The same of the documents set aside: each source has the share it has in training, rounded up."""
    row_tokens = recipe.data.row_tokens
    packed: dict[str, Ids] = {}
    used: dict[str, int] = {}
    for source in recipe.data.sources:
        rows = -(-source.tokens // row_tokens * recipe.data.held_out_chunks // recipe.data.chunks)
        name, where = source.name, f"{source.name}, held out"
        packed[name], used[name] = pack(documents[name], tokenizer, rows, row_tokens, where)
    return packed, used


def cut(ids: Ids, sources: list[str], rows: int, chunks: int, path: str) -> dict[str, bytes]:
    """Equal chunks of rows, as files by name; rows over stay out."""
    files: dict[str, bytes] = {}
    for chunk in range(chunks):
        span = slice(chunk * rows, (chunk + 1) * rows)
        files[path.format(index=chunk)] = row_lines(ids[span], sources[span])
    return files


def _report(recipe: Recipe, counts: dict[str, Any], canaries: list[Canary], files: dict[str, bytes]) -> bytes:
    report = {
        "recipe": recipe.name,
        "made_with": {"python": platform.python_version(), "tokenizers": tokenizers.__version__},
        "sources": counts,
        "canaries": [canary.as_json() for canary in canaries],
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    return (json.dumps(report, indent=1) + "\n").encode()


def _check_same(out: Path, report: dict[str, Any] | None, files: dict[str, bytes]) -> None:
    """Files that were lost may be made again, but only as they were: a run may have been trained on them."""
    now = json.loads(files[REPORT])
    if report is None or report["files"] == now["files"]:
        return
    made_with = [
        ", ".join(f"{name} {is_}" for name, is_ in each["made_with"].items()) for each in (report, now)
    ]
    fix = "prepare into another folder"
    raise TrainingError(
        out / REPORT, expected=f"what {made_with[1]} makes", found=f"{made_with[0]}'s", fix=fix
    )
