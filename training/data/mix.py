"""A mix in a file: TOML with the fields of `training.config.Mix`, and a model and a loop if it wants any.

The fields of Mix stand at the top; `[[sources]]`, `[[stages]]` with `[[stages.takes]]`, and `[canaries]` are
tables. `training/mixes/three-stages.toml` is an example.
"""

import tomllib
from pathlib import Path
from typing import Any

from training.config import Loop, Mix, Model, Recipe
from training.errors import TrainingError
from training.records import from_json
from training.series import PARENT

__all__ = ["mix_recipe", "read_mix"]


def read_mix(path: Path, parent: bool = False) -> tuple[Mix, dict[str, Any] | None, dict[str, Any] | None]:
    """The mix, and the tables `model` and `loop` as they stand, None where the file has none.

    With a `parent`, its tokenizer takes the place of `vocabulary` and `tokenizer`, given or not. Raises TrainingError
    naming the file and the field.
    """
    try:
        plain: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        found = error.strerror or "none"
        raise TrainingError(path, expected="a mix file", found=found, fix="mend the path") from None
    except ValueError as error:  # of TOML or of UTF-8
        found = str(error).replace("\n", " ")
        raise TrainingError(path, expected="TOML", found=found, fix="mend the file") from None
    model, loop = (_table(path, plain, name) for name in ("model", "loop"))
    if parent:
        plain = {name: value for name, value in plain.items() if name != "vocabulary"} | {"tokenizer": PARENT}
    try:
        return from_json(Mix, plain), model, loop
    except ValueError as error:
        raise _explained(path, error) from None


def mix_recipe(path: Path, base: Recipe | None) -> Recipe:
    """The recipe of a mix file: its data, with its [model] and [loop], or those of another recipe.

    Raises TrainingError naming the file and the field.
    """
    mix, model, loop = read_mix(path)
    if base is None:
        for name in [name for name, table in {"model": model, "loop": loop}.items() if table is None]:
            fix = "add it, or take it from a recipe with --recipe"
            raise TrainingError(path, expected=f"a table [{name}]", found="none", fix=fix)
    try:
        shape = base.model if base and model is None else from_json(Model, model)
        how = base.loop if base and loop is None else from_json(Loop, loop)
        return Recipe(mix, shape, how)
    except ValueError as error:
        raise _explained(path, error) from None


def _table(path: Path, plain: dict[str, Any], name: str) -> dict[str, Any] | None:
    table = plain.pop(name, None)
    if table is None or isinstance(table, dict):
        return table
    where = f"{path}: {name}"
    raise TrainingError(where, expected=f"a table [{name}]", found=repr(table), fix="mend the file")


def _explained(path: Path, error: ValueError) -> TrainingError:
    """A record's complaint (`field: expected this, found that`) with the file and the way out."""
    field, _, rest = str(error).partition(": expected ")
    expected, _, found = rest.rpartition(", found ")
    return TrainingError(f"{path}: {field}", expected=expected, found=found, fix="mend the file")
