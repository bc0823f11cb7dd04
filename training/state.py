"""What a run goes on from: weights, optimiser and position, by torch's distributed checkpoint.

A state is written aside and renamed, first; then the checkpoint that others read, in Hugging Face's layout;
then the manifest. Saving goes on beside the training: only the copy of the tensors stops it. Nothing in a
state is ever run: tensors are safetensors, the position is JSON.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import LlamaForCausalLM

from training.config import Recipe
from training.distributed import Processes
from training.errors import TrainingError
from training.files import folder_aside, synchronise, write_aside
from training.model import Weights
from training.progress import Progress
from training.records import as_json, from_json
from training.series import CHECKPOINT, METRICS, TOKENIZER, write_manifest
from training.shards import ShardReader, ShardWriter, no_state, reason

__all__ = ["Saver", "newest", "restore", "write_checkpoint"]

STATES = "state"
PROGRESS = "progress.json"
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


def _tensors(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and averages themselves, by name. The optimiser's settings follow from the recipe and the step."""
    weights = dict(model.named_parameters())
    return {
        "model": {name: weight.detach() for name, weight in weights.items()},
        "optimizer": {name: optimizer.state[weight] for name, weight in weights.items()},
    }


def restore(
    folder: Path, here: Processes, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer
) -> Progress:
    """Bring weights and averages back as they were, bit by bit, on any number of processes; the position then.

    Raises TrainingError where the folder holds anything else.
    """
    progress = _read_progress(folder)
    get_optimizer_state_dict(model, optimizer)  # gives a new optimiser averages to read into
    _read(ShardReader(folder), _tensors(model, optimizer), here.saving)
    return progress


def _read_progress(folder: Path) -> Progress:
    try:
        return from_json(Progress, json.loads((folder / PROGRESS).read_bytes()))
    except FileNotFoundError:
        raise no_state(folder, f"no {PROGRESS}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise no_state(folder, f"{PROGRESS}: {reason(error)}") from None


def _read(reader: ShardReader, tensors: dict[str, Any], group: dist.ProcessGroup | None) -> None:
    """Fill tensors with what a state holds under their names; without a group, in this process alone."""
    try:
        load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        raise no_state(Path(reader.path), reason(error)) from None


def _read_weights(folder: Path) -> Weights:
    """All weights of a state, put together where they were shared out."""
    reader, kind = ShardReader(folder), "model."
    sizes = {name: record.size for name, record in reader.tensors.items() if name.startswith(kind)}
    weights = {name.removeprefix(kind): torch.empty(size) for name, size in sizes.items()}
    _read(reader, {"model": weights}, None)
    return weights


def write_checkpoint(folder: Path, weights: Weights, model: LlamaForCausalLM, tokenizer: Path) -> None:
    """A checkpoint as transformers reads it: safetensors in fp32, config, tokenizer; whole when it exists."""
    with folder_aside(folder) as aside:
        save_torch_state_dict(weights, aside, max_shard_size=SHARD_SIZE)
        model.config.save_pretrained(aside)
        for file in tokenizer.glob("*.json"):
            shutil.copyfile(file, aside / file.name)


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
        stager = DefaultStager(StagingOptions(False, False, False, False))  # copies to memory, at once
        copies: Any = stager.stage(_tensors(model, optimizer))
        position, order = json.dumps(as_json(progress)), list(progress.order)
        group, between = self._here.saving, not progress.chunk_steps

        def weights() -> Weights:
            whole: Weights = copies["model"]
            return _read_weights(final) if self._here.sharded else whole

        def finish() -> None:
            save(copies, storage_writer=ShardWriter(aside), process_group=group, no_dist=group is None)
            if self._here.first:
                write_aside(aside / PROGRESS, position.encode())
                synchronise(self._out / METRICS)  # a state vouches for the lines before it
                shutil.rmtree(final, ignore_errors=True)  # of the same steps, before a chunk was given up
                aside.rename(final)
                if between:
                    self._write(weights, model, order)
                self._prune(final)

        self._pending = self._pool.submit(finish)
        self.seconds += time.perf_counter() - began

    def catch_up(self, state: Path, model: LlamaForCausalLM, progress: Progress) -> None:
        """Write what a run that was killed between a state and its checkpoint left out."""
        if self._here.first and progress.order and not progress.chunk_steps:
            order = list(progress.order)
            self._pending = self._pool.submit(self._write, lambda: _read_weights(state), model, order)

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
        except (OSError, SafetensorError, CheckpointException) as error:
            fix = "make room; the same command goes on from the state before"
            raise TrainingError(self._out, expected="to save a state", found=reason(error), fix=fix) from None

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _write(self, weights: Callable[[], Weights], model: LlamaForCausalLM, order: list[int]) -> None:
        folder = self._out / CHECKPOINT.format(index=len(order) - 1)
        if not folder.exists():
            write_checkpoint(folder, weights(), model, self._out / TOKENIZER)
        write_manifest(self._out, self._recipe, self._report, order)

    def _prune(self, latest: Path) -> None:
        """Older states go, but every N-th of whole chunks, and the last of those: an abandoned chunk needs it."""
        every, base = self._recipe.loop.keep_state_every, newest(self._out, whole=True)
        for positions, steps, folder in states(self._out):
            kept = every and not steps and positions % every == 0
            if folder not in (latest, base) and not kept:
                shutil.rmtree(folder)
