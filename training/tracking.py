"""Weights & Biases and TensorBoard, for those who want the curves there too; neither is needed."""

import importlib
import uuid
from pathlib import Path
from typing import Any, Protocol

from training.config import Recipe
from training.errors import TrainingError
from training.files import write_aside
from training.records import as_json

__all__ = ["TRACKERS", "Tracker", "open_tracker"]

TRACKERS = ("wandb", "tensorboard")


class Tracker(Protocol):
    """Where metrics go beside the file."""

    def log(self, values: dict[str, Any], step: int) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class _Wandb:
    def __init__(self, out: Path, recipe: Recipe) -> None:
        wandb = _installed("wandb", "wandb")
        # One run a folder: a training that goes on goes on in its curves, too.
        known = out / "wandb-run"
        if not known.exists():
            write_aside(known, uuid.uuid4().hex.encode())
        run_id = known.read_text()
        settings = wandb.Settings(silent=True)
        self._run = wandb.init(
            project=recipe.name, id=run_id, resume="allow", dir=out, config=as_json(recipe), settings=settings
        )
        self._run.define_metric("*", step_metric="step")  # a run may go back, its own counter may not

    def log(self, values: dict[str, Any], step: int) -> None:
        self._run.log(values | {"step": step})

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    def __init__(self, out: Path, step: int) -> None:
        _installed("tensorboard", "tensorboard")
        kind = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = kind(out / "tensorboard", purge_step=step)  # a killed run may have written further

    def log(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_tracker(name: str, out: Path, recipe: Recipe, step: int) -> Tracker:
    """`wandb` (WANDB_MODE=offline without a network) or `tensorboard` (below `out`), to go on from a step.

    Raises TrainingError.
    """
    return _Wandb(out, recipe) if name == "wandb" else _TensorBoard(out, step)


def _installed(package: str, feature: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        fix = f"pip install {package}"
        raise TrainingError(
            f"--track {feature}", expected=f"the package {package}", found="none", fix=fix
        ) from None
