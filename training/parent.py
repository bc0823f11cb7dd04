"""A run that goes on from a checkpoint of any series, on other data: what it inherits, and what it remembers.

The parent's weights, config and tokenizer are copied into the new folder, and the optimiser's state where the
parent's folder still has it, so that the new series does not depend on the old one.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis360 import Checkpoint, Series, open_series
from training.config import Loop, Model, Parent, Recipe
from training.data.mix import read_mix
from training.data.prepare import prepare
from training.errors import TrainingError
from training.files import folder_aside, only_one
from training.records import from_json
from training.series import PARENT, RECIPE, check_recipe, read_recipe
from training.state import STATES

__all__ = ["descend"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def descend(out: Path, name: str, mix: Path, workers: int = 1) -> str:
    """Make `out` ready to train on from checkpoint `name` (SERIES@CKPT) with the data of a mix file.

    The learning rate goes on along the parent's schedule, unless the mix file has a [loop] of its own.
    Raises TrainingError, and Analysis360Error where the parent cannot be read.
    """
    stored = read_recipe(out)
    if stored and stored.parent and stored.parent.given == name and (out / PARENT).exists():
        recipe = replace(stored, mix=read_mix(mix, parent=True)[0])  # the parent itself may be gone
    else:
        recipe = _inherit(out, name, mix)
    check_recipe(out, recipe)
    said = prepare(recipe, out, workers)
    if recipe.parent and not recipe.parent.optimizer:
        said += f"\nthe optimiser begins anew: the state of {name} was not kept"
    return said


def _inherit(out: Path, name: str, mix: Path) -> Recipe:
    """Copy what is inherited from SERIES@CKPT; the recipe of the run that goes on from it."""
    source, _, selector = name.rpartition("@")
    if not source:
        fix = "for example runs/demo/tiny@ckpt_020"
        raise TrainingError("--from", expected="SERIES@CKPT", found=name, fix=fix)
    series = open_series(source)
    chosen = series.select(selector)
    if len(chosen) != 1:
        raise TrainingError("--from", expected="one checkpoint", found=f"{len(chosen)}", fix="name one")
    state = Path(series.where) / STATES / chosen[0].name
    identity = Parent(series.name, chosen[0].name, chosen[0].digest, state.is_dir(), name)
    try:
        recipe = _recipe(series, chosen[0], mix, identity)
    except ValueError as error:  # of a record that does not fit the others
        fix = "mend the mix"
        raise TrainingError(mix, expected="what the parent can read", found=str(error), fix=fix) from None
    check_recipe(out, recipe)
    with only_one(out):
        if not (out / PARENT).exists():
            _copy(chosen[0], out / PARENT, state)
    return recipe


def _recipe(series: Series, checkpoint: Checkpoint, path: Path, identity: Parent) -> Recipe:
    """The mix file's data, the parent's shape, and the mix file's loop or what is left of the parent's."""
    mix, model, loop = read_mix(path, parent=True)
    if model is not None:
        fix = "leave it out: the model is the parent's"
        raise TrainingError(path, expected="no [model]", found="one", fix=fix)
    shape = _shape(checkpoint)
    if loop is not None:
        return Recipe(mix, shape, _loop(loop, path), identity)
    before = _recipe_of(series)
    if before is None:
        fix = f"add one to {path}: batch, rates"
        raise TrainingError(
            series.where, expected=f"a {RECIPE}, or a [loop] in the mix", found="neither", fix=fix
        )
    return Recipe(mix, shape, _rest(before, checkpoint.index), identity)


def _loop(plain: dict[str, Any], path: Path) -> Loop:
    try:
        return from_json(Loop, plain)
    except ValueError as error:
        raise TrainingError(path, expected="a loop", found=str(error), fix="mend it") from None


def _rest(before: Recipe, index: int) -> Loop:
    """The parent's loop, its learning rate from where the checkpoint stood in it."""
    done, spans = (index + 1) * before.chunk_steps, before.spans()
    while len(spans) > 1 and done >= spans[0][1]:
        done -= spans.pop(0)[1]
    rate, steps = spans[0]
    rest = replace(rate, steps=rate.steps or steps, start=rate.start + done)
    return replace(before.loop, rates=(rest,))


def _recipe_of(series: Series) -> Recipe | None:
    """The recipe that a series of this trainer carries, on disk or published; None: it carries none."""
    if series.place is None or RECIPE not in series.place.names():
        return None
    try:
        return from_json(Recipe, json.loads(series.place.read(RECIPE)))
    except ValueError as error:
        fix = "add a [loop] to the mix"
        raise TrainingError(
            f"{series.where}/{RECIPE}", expected="a recipe", found=str(error), fix=fix
        ) from None


def _shape(checkpoint: Checkpoint) -> Model:
    config = checkpoint.config
    if config.get("model_type") != "llama" or "auto_map" in config:
        found = f"{config.get('model_type')}{' with code of its own' if 'auto_map' in config else ''}"
        fix = "take a parent of that kind"
        raise TrainingError(f"checkpoint {checkpoint.name}", expected="a Llama", found=found, fix=fix)
    return Model(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        norm_eps=config["rms_norm_eps"],
    )


def _copy(checkpoint: Checkpoint, folder: Path, state: Path) -> None:
    """Weights, config, tokenizer and state, whole when the folder exists."""
    place = checkpoint.place
    there = [name for name in TOKENIZER_FILES if name in place.names()]
    if TOKENIZER_FILES[0] not in there:
        where, fix = f"checkpoint {checkpoint.name}", "take one that carries its tokenizer"
        raise TrainingError(where, expected=TOKENIZER_FILES[0], found="none", fix=fix)
    checkpoint.fetch()
    with folder_aside(folder) as aside:
        for name in checkpoint.needed:
            shutil.copyfile(checkpoint.path / name, aside / name)
        for name in there:
            (aside / name).write_bytes(place.read(name))
        if state.is_dir():
            shutil.copytree(state, aside / STATES / state.name)
    checkpoint.release()
