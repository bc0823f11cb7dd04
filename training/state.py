"""What a run goes on from: weights, optimiser and position, by torch's distributed checkpoint.

A state is written aside and renamed, first; then the checkpoint that others read, in Hugging Face's layout;
then the manifest. Saving goes on beside the training: only the copy of the tensors stops it.
"""

import os
import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from transformers import LlamaForCausalLM

from training.config import Recipe
from training.distributed import Processes
from training.errors import TrainingError
from training.files import folder_aside
from training.model import Weights, full_weights
from training.progress import Progress
from training.reading import CarefulPlanner, CarefulReader
from training.series import CHECKPOINT, METRICS, TOKENIZER, write_manifest

__all__ = ["Saver", "newest", "restore", "write_checkpoint"]

STATES = "state"
SHARD_SIZE = "5GB"
_NAME = re.compile(r"(?:start|ckpt_(\d+))(?:_step_(\d+))?")


def state_name(progress: Progress) -> str:
    """`ckpt_003`, or `ckpt_003_step_17` within the chunk that follows."""
    done = len(progress.order)
    name = f"ckpt_{done - 1:03d}" if done else "start"
    return f"{name}_step_{progress.chunk_steps}" if progress.chunk_steps else name


def states(out: Path) -> list[tuple[int, int, Path]]:
    """(positions finished, steps of the next, folder) of every state, the newest last."""
    names = [(_NAME.fullmatch(folder.name), folder) for folder in (out / STATES).glob("*")]
    return sorted(
        (int(match[1]) + 1 if match[1] else 0, int(match[2] or 0), folder) for match, folder in names if match
    )


def newest(out: Path, *, whole: bool = False) -> Path | None:
    """The folder of the newest state, or of the newest at the end of a chunk; None: from the beginning."""
    found = [folder for _, steps, folder in states(out) if not (whole and steps)]
    return found[-1] if found else None


def _state(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer),
        "progress": progress,
    }


def restore(
    folder: Path,
    here: Processes,
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Bring weights, optimiser and position back as they were, bit by bit, on any number of processes."""
    state = _state(model, optimizer, progress)
    group = here.saving
    load(
        state,
        storage_reader=CarefulReader(folder),
        planner=CarefulPlanner(),
        process_group=group,
        no_dist=group is None,
    )
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def write_checkpoint(folder: Path, weights: Weights, model: LlamaForCausalLM, tokenizer: Path) -> None:
    """A checkpoint as transformers reads it: safetensors in fp32, config, tokenizer; whole when it exists."""
    with folder_aside(folder) as aside:
        save_torch_state_dict(weights, aside, max_shard_size=SHARD_SIZE)
        model.config.save_pretrained(aside)
        for file in tokenizer.glob("*.json"):
            shutil.copyfile(file, aside / file.name)


def _synchronise(file: Path) -> None:
    """What was written to a file is on disk."""
    if file.exists():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


class Saver:
    """Saves beside the training, one state at a time."""

    def __init__(self, out: Path, here: Processes, recipe: Recipe, report: dict[str, Any]) -> None:
        self.seconds = 0.0
        """How long the training stood still for it."""
        self._out, self._here, self._recipe, self._report = out, here, recipe, report
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._pending: Future[None] | None = None

    def save(self, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Copy everything now and write it meanwhile: the state, and between chunks the checkpoint too."""
        began = time.perf_counter()
        self.wait()
        final = self._out / STATES / state_name(progress)
        aside = final.with_name(f".{final.name}.partial")
        if self._here.first:
            shutil.rmtree(aside, ignore_errors=True)
        state = _state(model, optimizer, progress) | {"progress": progress.state_dict()}
        group = self._here.saving
        written = async_save(state, checkpoint_id=aside, process_group=group, no_dist=group is None)
        weights = {} if progress.chunk_steps else full_weights(model, self._here)
        order = list(progress.order)

        def finish() -> None:
            assert isinstance(written, Future)
            written.result()
            if self._here.first:
                _synchronise(self._out / METRICS)  # a state vouches for the lines before it
                shutil.rmtree(final, ignore_errors=True)  # of the same steps, before a chunk was given up
                aside.rename(final)
                if weights:
                    self._write(weights, model, order)
                self._prune(final)

        self._pending = self._pool.submit(finish)
        self.seconds += time.perf_counter() - began

    def catch_up(self, model: LlamaForCausalLM, progress: Progress) -> None:
        """Write what a run that was killed between a state and its checkpoint left out."""
        if progress.order and not progress.chunk_steps:
            weights, order = full_weights(model, self._here), list(progress.order)
            if self._here.first:
                self._pending = self._pool.submit(lambda: self._write(weights, model, order))

    def drop_unfinished(self) -> None:
        """Remove states within a chunk: it was given up, and what is between chunks counts."""
        self.wait()
        if self._here.first:
            for folder in [folder for _, steps, folder in states(self._out) if steps]:
                shutil.rmtree(folder)

    def check(self) -> None:
        """Raise what went wrong meanwhile, if anything is known of it."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until what was handed over is written. Raises TrainingError where it could not be."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except (OSError, CheckpointException) as error:
            reason = " ".join(str(error).split())[:300]
            fix = "make room; the same command goes on from the state before"
            raise TrainingError(self._out, expected="to save a state", found=reason, fix=fix) from None

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _write(self, weights: Weights, model: LlamaForCausalLM, order: list[int]) -> None:
        folder = self._out / CHECKPOINT.format(index=len(order) - 1)
        if not folder.exists():
            write_checkpoint(folder, weights, model, self._out / TOKENIZER)
        write_manifest(self._out, self._recipe, self._report, order)

    def _prune(self, latest: Path) -> None:
        """Older states go, but every N-th of whole chunks, and the last of those: an abandoned chunk needs it."""
        every, base = self._recipe.loop.keep_state_every, newest(self._out, whole=True)
        for positions, steps, folder in states(self._out):
            kept = every and not steps and positions % every == 0
            if folder not in (latest, base) and not kept:
                shutil.rmtree(folder)
