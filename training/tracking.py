"""Weights & Biases and TensorBoard, for those who want the curves there too; neither is needed."""

import hashlib
import importlib
from pathlib import Path
from typing import Any, Protocol

from training.config import Recipe
from training.errors import TrainingError
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
        run_id = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
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
    def __init__(self, out: Path) -> None:
        _installed("tensorboard", "tensorboard")
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(out / "tensorboard")

    def log(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_tracker(name: str, out: Path, recipe: Recipe) -> Tracker:
    """`wandb` (WANDB_MODE=offline without a network) or `tensorboard` (below `out`). Raises TrainingError."""
    return _Wandb(out, recipe) if name == "wandb" else _TensorBoard(out)


def _installed(package: str, feature: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        fix = f"pip install {package}"
        raise TrainingError(
            f"--track {feature}", expected=f"the package {package}", found="none", fix=fix
        ) from None
