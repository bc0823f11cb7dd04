"""Training: our loop beside the transformers `Trainer` and beside the limit, and what saving costs.

    python tests/benchmarks/trainer.py [--quick]

Ours is `training.train.train` on a folder that `training.data.prepare` made. What is timed are the steps after a
warm-up, from the moment one step has been recorded to the moment the last has: a tracker, such as W&B's
would be, notes the clock after each line of metrics, so reading, logging and saving are in it. The Trainer is
timed by a callback at the end of each step. It has the same model, initial seed, rows in the same order
(its own sequential sampler), batch, clipping, AdamW (fused) and learning rates (its `optimizers` argument);
rows are tensors in memory, labels are shifted before, so that it computes no position more than we do;
logging is at its default, saving off. All must end at the same loss, or there is no result. The Trainer does
not compile unless it is asked to; a second one is.

The limit is the matrix products of all linear layers, head included, alone: forward, and backward to the
input and to the weight, at the batch of a step and in fp32. Imports and compilation are before the clock and
told apart, as seconds up to the first step: of a run with an empty cache of compiled code, of the timed
runs, which find it filled, and of a run that does not compile.

Saving: the same rows and steps, in chunks with a state and a checkpoint each, and as one chunk. The clock
runs from the end of the first chunk to that of the last, so that there are as many saves as chunks in it.
Two equal runs differ by several per cent, more than saves cost: these runs are longer, and there are more pairs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from harness import Line, Rounds, Run, alone, figure, median, once, ratio, take_turns
from materials import joined, training_recipes

if TYPE_CHECKING:
    from training.config import Recipe

SAME = {"of all steps": 0.008, "held-out, at the end": 0.02}
"""How far the losses of two contestants may be apart, relatively. Compiled code rounds in other places, and
at these learning rates that grows to some thousandths; another seed is 0.018 and 0.04 away."""


class Clock:
    """A tracker that notes when each step was recorded, and its loss."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        self.times.append(time.perf_counter())
        self.losses.append(values["loss"])

    def close(self) -> None: ...


def ours(folder: str, warm: int, compiled: bool = True) -> dict[str, Any]:
    """A run from the beginning, in a copy of a prepared folder; compiled code is kept beside that."""
    began, clock = time.perf_counter(), Clock()
    keep_compiled(folder)
    with tempfile.TemporaryDirectory() as scratch:
        from transformers import LlamaForCausalLM

        from training.series import CHECKPOINT, read_recipe, read_report
        from training.train import train

        out = Path(shutil.copytree(folder, f"{scratch}/run"))
        recipe, report = read_recipe(out), read_report(out)
        assert recipe is not None
        assert report is not None
        recipe = replace(recipe, loop=replace(recipe.loop, compiled=compiled))
        with mock.patch("training.train.open_tracker", return_value=clock):
            said = train(out, recipe, report, ["clock"])
        last = LlamaForCausalLM.from_pretrained(out / CHECKPOINT.format(index=recipe.mix.chunks - 1))
        losses = statistics.fmean(clock.losses), held_out_loss(last, out)
    seconds, first = clock.times[-1] - clock.times[warm - 1], clock.times[0] - began
    return {"seconds": seconds, "first": first, "losses": losses, "said": said}


def transformers_trainer(folder: str, warm: int, compiled: bool = False) -> dict[str, Any]:
    """What people use: the Trainer, on rows in memory."""
    keep_compiled(folder)
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from training.rates import learning_rate

    torch, recipe, model = same_model(folder)
    rows = [torch.tensor(row) for row in read_rows(Path(folder) / "data/train/train_000.jsonl")]
    examples = [{"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for row in rows]
    loop, times = recipe.loop, []
    peak = loop.rates[0].peak
    how = {"betas": loop.betas, "eps": loop.eps, "weight_decay": loop.weight_decay, "fused": True}
    adamw = torch.optim.AdamW(model.parameters(), lr=peak, **how)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: learning_rate(step, recipe) / peak)

    class Note(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        asked = TrainingArguments(
            scratch,
            per_device_train_batch_size=loop.batch,
            num_train_epochs=1,
            max_grad_norm=loop.clip,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,  # it would take the shifted labels away
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            torch_compile=compiled,
        )
        given = {"train_dataset": examples, "optimizers": (adamw, schedule), "callbacks": [Note()]}
        with contextlib.redirect_stdout(sys.stderr):  # where it says how it went
            loss = Trainer(model, asked, **given).train().training_loss
    assert len(times) == recipe.steps, f"{len(times)} steps, {recipe.steps} expected"
    return {"seconds": times[-1] - times[warm - 1], "losses": (loss, held_out_loss(model, Path(folder)))}


def limit(folder: str, warm: int) -> dict[str, float]:
    """The matrix products of a step, as many times."""
    torch, recipe, model = same_model(folder)
    weights = [layer.weight.detach() for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    positions = recipe.loop.batch * (recipe.mix.row_tokens - 1)
    values = {size: torch.randn(positions, size) for size in {size for w in weights for size in w.shape}}
    times = []
    for _ in range(recipe.steps):
        for weight in weights:
            output, input_ = (values[size] for size in weight.shape)
            torch.nn.functional.linear(input_, weight)
            torch.mm(output, weight)
            torch.mm(output.t(), input_)
        times.append(time.perf_counter())
    return {"seconds": times[-1] - times[warm - 1]}


def keep_compiled(folder: str) -> None:
    """Keep compiled code beside the folder (torch cannot have it below a name with a blank)."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder).parent / "compiled")


def same_model(folder: str) -> tuple[Any, Recipe, Any]:
    """torch with the recipe's threads, the recipe, and its model before the first step."""
    import torch
    from transformers import LlamaForCausalLM

    from training.model import llama_config
    from training.series import read_recipe, read_report

    recipe, report = read_recipe(Path(folder)), read_report(Path(folder))
    assert recipe is not None
    assert report is not None
    torch.set_num_threads(recipe.loop.threads)
    torch.manual_seed(recipe.model.seed)
    return torch, recipe, LlamaForCausalLM(llama_config(recipe.model, report["eos_token_id"]))


def read_rows(path: Path) -> list[list[int]]:
    """Ids of each row."""
    return [json.loads(line)["token_ids"] for line in path.open()]


def held_out_loss(model: Any, out: Path) -> float:
    """Nats per token on the first 64 held-out rows."""
    import torch

    from training.train import row_loss

    rows = torch.tensor(read_rows(out / "data/held-out/held-out_000.jsonl")[:64])
    with torch.inference_mode():
        return float(row_loss(model.eval(), rows)) / rows[:, 1:].numel()


# --- lines


def turns(folder: str, warm: int, repeats: int) -> Rounds:
    """All contestants on one model."""
    contestants = {"ours": once(ours, folder=folder, warm=warm)}
    contestants["Trainer"] = once(transformers_trainer, folder=folder, warm=warm)
    contestants["compiled Trainer"] = once(transformers_trainer, folder=folder, warm=warm, compiled=True)
    contestants["limit"] = once(limit, folder=folder, warm=warm)
    return take_turns(contestants, repeats)


def expect_same(one: dict[str, Run]) -> None:
    """Stop where a contestant did other work than ours."""
    losses = {who: run.facts["losses"] for who, run in one.items() if who != "limit"}
    for who, found in losses.items():
        for (what, far), other, own in zip(SAME.items(), found, losses["ours"], strict=True):
            if not abs(other / own - 1) <= far:
                raise SystemExit(f"{who} has a loss of {other}, ours of {own} ({what}): {losses}")


def speed(name: str, rounds: Rounds, targets: int, goal: float | None, before: str) -> list[Line]:
    """Ours beside the Trainer and the limit, the Trainer beside the limit; `targets` were trained on."""
    rate = {who: targets / median(rounds, who) for who in rounds[0]}
    end = ", ".join(
        f"{run.facts['losses'][1]:.4f} {who}" for who, run in rounds[-1].items() if who != "limit"
    )
    said = f"; {before}; held-out loss at the end: {end}"
    found = []
    goals = {
        ("ours", "Trainer"): 1.3,
        ("ours", "compiled Trainer"): None,
        ("ours", "limit"): goal,
        ("Trainer", "limit"): None,
    }
    for (one, other), least in goals.items():
        detail = f"{rate[one]:,.0f} and {rate[other]:,.0f} tokens/s{said}"
        what, unit = f"{name}: {one} beside the {other}", "%" if other == "limit" else "x"
        found.append(Line(what, ratio(rounds, other, one), unit, at_least=least, detail=detail))
        said = ""
    return found


def before(rounds: Rounds, cold: Run, eager: Run, targets: int) -> str:
    """What comes before the first step is done, and after how many tokens compiling has paid for itself."""
    start = eager.facts["first"]
    again = statistics.median(one["ours"].facts["first"] for one in rounds) - start
    compiling, gain = cold.facts["first"] - start, (eager.seconds - median(rounds, "ours")) / targets
    paid = f"paid for after {compiling / gain:,.0f} tokens" if gain > 0 else "never paid for"
    rate = f"{targets / eager.seconds:,.0f} tokens/s without"
    loss = f"which ended at {eager.facts['losses'][1]:.4f}"
    return f"start {start:.1f} s, compiling {compiling:.1f} s ({again:.1f} s again), {paid}: {rate}, {loss}"


def saving(name: str, recipe: Recipe, prepared: Path, chunks: int, repeats: int) -> Line:
    """The share of the time that the same run without saves would not have taken."""
    whole = joined(prepared, prepared.with_name("joined-saving"), recipe, chunks)
    folders = {"ours": whole, "saving": str(prepared)}
    runs = {who: once(ours, folder=folder, warm=recipe.chunk_steps) for who, folder in folders.items()}
    rounds = take_turns(runs, repeats)
    for one in rounds:
        expect_same(one)
    share = figure(rounds, lambda one: 1 - one["ours"].seconds / one["saving"].seconds)
    seconds = f"{median(rounds, 'saving'):.2f} and {median(rounds, 'ours'):.2f} s, {chunks - 1} saves"
    said = rounds[-1]["saving"].facts["said"].rpartition("; ")[2]
    what, detail = f"{name}: a state and a checkpoint a chunk", f"{seconds}; by its own account {said}"
    return Line(what, share, "%", at_most=0.03, detail=detail)


def measure(
    name: str, recipe: Recipe, prepared: Path, chunks: int, warm: int, repeats: int, goal: float | None
) -> list[Line]:
    """One model on the first `chunks` chunks, the first `warm` steps before the clock."""
    folder = joined(prepared, prepared.with_name(f"joined-{recipe.loop.batch}"), recipe, chunks)
    cold, eager = (once(ours, folder=folder, warm=warm, compiled=it)() for it in (True, False))
    rounds = turns(folder, warm, repeats)
    for one in rounds:
        expect_same(one | {"ours, not compiled": eager})
    targets = chunks * recipe.chunk_targets - warm * recipe.loop.batch * (recipe.mix.row_tokens - 1)
    return speed(name, rounds, targets, goal, before(rounds, cold, eager, targets))


def lines(quick: bool) -> list[Line]:
    """`tiny`, and a model three times as large on less of the same rows; for a quick look, one layer of `tiny`."""
    from training.data.prepare import prepare

    chunks, rows = (2, 32) if quick else (12, 176)
    tiny, larger = training_recipes(chunks, rows)
    if quick:
        tiny = replace(tiny, model=replace(tiny.model, layers=1))
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        prepare(tiny, prepared)
        if quick:
            found = measure("a layer of tiny", tiny, prepared, chunks, tiny.chunk_steps, 1, None)
            return [*found, saving("a layer of tiny", tiny, prepared, chunks, 1)]
        found = measure("tiny", tiny, prepared, 8, tiny.chunk_steps, 5, None)
        found.append(saving("tiny", tiny, prepared, chunks, 9))
        return found + measure("6.9 M", larger, prepared, 2, 4, 3, 0.6)


if __name__ == "__main__":
    alone(lines, __doc__)
