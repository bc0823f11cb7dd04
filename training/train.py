"""The training loop, top to bottom: rows in, checkpoints out.

Everything follows from the recipe and the position: rows are taken in file order, chunk by chunk, whatever
the number of processes, and a run that was stopped goes on from its last state with the same bits.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaForCausalLM

from training.batches import Batch, read_batches
from training.config import Loop, Recipe
from training.distributed import Processes, agreed, processes, synchronised, total
from training.errors import StoppedError, TrainingError
from training.files import file_sha256
from training.metrics import Meter, Metrics
from training.model import compiles, load_weights, new_model, start_weights
from training.progress import Progress
from training.rates import learning_rate
from training.series import METRICS, PARENT, TRAIN
from training.state import Saver, newest, restore
from training.tracking import open_tracker

TORCH_ADDS = 1e-6
"""To a norm, before it divides by it."""

__all__ = ["row_loss", "train"]


@dataclass
class Run:
    """What the loop works on."""

    out: Path
    recipe: Recipe
    report: dict[str, Any]
    here: Processes
    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    loss: Callable[[LlamaForCausalLM, torch.Tensor], torch.Tensor]
    """`row_loss`, compiled where that is asked for."""
    meter: Meter
    saver: Saver
    asked: list[int]
    """Signals that ask the run to end."""
    progress: Progress = field(default_factory=Progress)


def train(out: Path, recipe: Recipe, report: dict[str, Any], trackers: Sequence[str] = ()) -> str:
    """Train what is left of the schedule; a state, a checkpoint and the manifest follow every chunk.

    Returns a line on how it went. Raises StoppedError after a signal, and TrainingError.
    """
    with processes(recipe.loop) as here, signals(here) as asked, ExitStack() as ends:
        run = begin(out, recipe, report, here, asked)
        ends.callback(run.saver.close)
        metrics = None
        if here.first:
            following = [open_tracker(name, out, recipe, run.progress.steps) for name in trackers]
            metrics = Metrics(out / METRICS, run.progress.lines, following)
            ends.callback(metrics.close)
        tokens, start = run.progress.tokens, time.perf_counter()
        steps, done = recipe.steps, run.progress.steps
        with tqdm(total=steps, initial=done, unit="step", desc=recipe.name, disable=not here.first) as bar:
            while len(run.progress.order) < recipe.mix.chunks:
                train_position(run, metrics, bar)
        run.saver.wait()
        seconds = time.perf_counter() - start
        speed, waited = (run.progress.tokens - tokens) / seconds, run.saver.seconds / seconds
        return f"{speed:,.0f} tokens/s; saving held training up for {waited:.1%} of the time"


def begin(out: Path, recipe: Recipe, report: dict[str, Any], here: Processes, asked: list[int]) -> Run:
    """A run at its newest state, or at its beginning."""
    model = new_model(out, recipe, report, here)
    whole = compiles(recipe.loop) and not here.sharded  # FSDP compiles block by block
    # Shapes never change, so that looking at each tensor's in every step would find nothing.
    loss = torch.compile(row_loss, dynamic=False, options={"size_asserts": False}) if whole else row_loss
    optimizer, meter = new_optimizer(model, recipe.loop), Meter(model.config, recipe, here)
    saver = Saver(out, here, recipe, report)
    run = Run(out, recipe, report, here, model, optimizer, loss, meter, saver, asked)
    state = newest(out)
    rewind(run, state)
    if state is not None:
        saver.catch_up(state, model, run.progress)
    return run


def rewind(run: Run, state: Path | None) -> None:
    """Go back to a state; without one, to the beginning: the parent's weights and optimiser, or random weights."""
    if state is not None:
        run.progress = restore(state, run.here, run.model, run.optimizer)
        return
    run.optimizer = new_optimizer(run.model, run.recipe.loop)
    if run.recipe.parent and run.recipe.parent.optimizer:
        inherited = newest(run.out / PARENT)
        if inherited is None:
            fix = "prepare into a new folder"
            raise TrainingError(run.out / PARENT, expected="the parent's state", found="none", fix=fix)
        restore(inherited, run.here, run.model, run.optimizer)
    else:
        load_weights(run.model, start_weights(run.out, run.recipe, run.report, run.here), run.here)


def train_position(run: Run, metrics: Metrics | None, bar: "tqdm[Any]") -> None:
    """Train on the next chunk of the schedule; give it up where the loss or the gradient is not finite."""
    recipe, progress = run.recipe, run.progress
    chunk = progress.next_chunk(recipe.mix.chunks)
    check_chunk(run, TRAIN.format(index=chunk))
    path, done = run.out / TRAIN.format(index=chunk), progress.chunk_steps
    run.meter.start()
    for batch in read_batches(path, recipe.loop.batch, run.here, done):
        run.saver.check()
        rate = learning_rate(progress.steps, recipe)
        loss, norm, stop = step(run, batch, rate)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            abandon(run, chunk, loss, norm, metrics)
            bar.update(run.progress.steps - bar.n)
            return
        position, steps = len(progress.order), progress.steps
        progress.advance(batch.targets)
        if metrics:
            where = {
                "step": steps,
                "chunk": chunk,
                "stage": recipe.mix.stage_of(chunk).name,
                "position": position,
            }
            found = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
            metrics.step(where | {"tokens": progress.tokens} | found | run.meter.stop(batch.targets))
        bar.set_postfix(ckpt=position, loss=f"{loss:.2f}", refresh=False)
        bar.update()
        if stop:
            run.saver.save(run.model, run.optimizer, progress)
            run.saver.wait()
            raise StoppedError(stop)
    progress.finish(chunk)
    run.saver.save(run.model, run.optimizer, progress)


def step(run: Run, batch: Batch, rate: float) -> tuple[float, float, int]:
    """One step of the optimiser: loss (nats per token) and norm of the gradient, and a signal that came, or 0.

    Where either is not finite the weights stay as they are.
    """
    loop, here = run.recipe.loop, run.here
    parts = batch.parts(loop.micro_batch)
    summed = torch.zeros((), device=here.device)
    for index, (rows, weight) in enumerate(parts):
        synchronised(run.model, now=index == len(parts) - 1)
        part = run.loss(run.model, rows.to(here.device)) * (weight / batch.targets)
        torch.autograd.backward(part * here.world)  # FSDP takes the mean over the processes
        summed += part.detach()
    found = clip(run.model, loop.clip)
    loss, asked = total(here, summed.item(), len(run.asked))
    if math.isfinite(loss) and math.isfinite(found):
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.step()
    run.optimizer.zero_grad()
    return loss, found, agreed(here, run.asked) if asked else 0


def clip(model: LlamaForCausalLM, most: float) -> float:
    """The norm of the gradient, which is made smaller where that is more than `most`."""
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    found = float((norm.full_tensor() if isinstance(norm, DTensor) else norm).item())
    if not found + TORCH_ADDS <= most:  # otherwise torch would multiply by one
        torch.nn.utils.clip_grads_with_norm_(weights, most, norm)
    return found


def row_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropies, in nats, of ids 1 to L of rows [B, L + 1] given the ids before each."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # [B, L, vocabulary]
    return cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="sum")


def abandon(run: Run, chunk: int, loss: float, norm: float, metrics: Metrics | None) -> None:
    """Give a chunk up: everything goes back to its start, as if it had not been there, but for an event.

    So the paper skipped four chunks (section 4.1.5), where it kept what they had done to the weights.
    """
    failed, run.progress = run.progress, Progress()
    run.saver.drop_unfinished()
    total(run.here, 0.0)  # no process looks for the state before it is there
    rewind(run, newest(run.out, whole=True))
    run.progress.abandoned = [*failed.abandoned, chunk]
    run.progress.lines = failed.lines - failed.chunk_steps  # events of chunks given up before it stay
    if metrics:
        metrics.back_to(run.progress.lines)
        metrics.event(
            {
                "event": "abandoned",
                "chunk": chunk,
                "position": len(failed.order),
                "step": failed.steps,
                "tokens": failed.tokens,
                "loss": loss if math.isfinite(loss) else None,
                "gradient_norm": norm if math.isfinite(norm) else None,
                "reason": f"the {'gradient' if math.isfinite(loss) else 'loss'} is not finite",
            }
        )
    run.progress.lines += 1


def check_chunk(run: Run, name: str) -> None:
    """A chunk must be the one that was prepared: checked as it is reached, since a release has terabytes."""
    wrong = run.here.first and file_sha256(run.out / name) != run.report["files"][name]
    if total(run.here, float(wrong))[0]:
        fix = f"bring it back: python -m training prepare --out {run.out}"
        where, expected = run.out / name, "the file that was prepared"
        raise TrainingError(where, expected=expected, found="another", fix=fix)


def new_optimizer(model: LlamaForCausalLM, loop: Loop) -> torch.optim.Optimizer:
    """AdamW over all parameters; the loop sets the learning rate before each step."""
    weights, decay = model.parameters(), loop.weight_decay
    return torch.optim.AdamW(weights, betas=loop.betas, eps=loop.eps, weight_decay=decay, fused=True)


@contextmanager
def signals(here: Processes) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end the run after the step under way; alone, a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT and here.world == 1:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
