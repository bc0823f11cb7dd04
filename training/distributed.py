"""The processes of a run: one, or several that torchrun started and FSDP2 holds together."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from training.config import Loop

PATIENCE = timedelta(hours=1)
"""How long processes wait for one that reads or writes alone."""

__all__ = ["Processes", "agreed", "processes", "synchronised", "total"]


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many."""

    rank: int
    world: int
    device: torch.device
    sharded: bool
    """Whether weights are shared out by FSDP: with several processes, and for compute in another dtype."""
    saving: dist.ProcessGroup | None
    """A group of its own for saving, which goes on beside the training; None: one process."""

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


@contextmanager
def processes(loop: Loop) -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one."""
    launched, local = "LOCAL_RANK" in os.environ, int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, loop.threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # where one process reads
    with ExitStack() as ends:
        if not cuda:  # fused operators would add in the order in which threads come
            ends.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
            torch.use_deterministic_algorithms(True)
            how: Any = torch.utils.deterministic  # fills memory that nothing reads, to find those who do
            ends.callback(setattr, how, "fill_uninitialized_memory", how.fill_uninitialized_memory)
            how.fill_uninitialized_memory = False
        if not launched and loop.compute_dtype == "float32":
            yield Processes(0, 1, device, sharded=False, saving=None)
            return
        _join("cpu:gloo,cuda:nccl" if cuda else "gloo", launched)
        ends.callback(dist.destroy_process_group)
        saving = dist.new_group(backend="gloo")
        yield Processes(dist.get_rank(), dist.get_world_size(), device, sharded=True, saving=saving)


def _join(backend: str, launched: bool) -> None:
    if launched:
        dist.init_process_group(backend, timeout=PATIENCE)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


def agreed(here: Processes, asked: Sequence[int]) -> int:
    """The signal that any process was sent, or 0."""
    found = asked[-1] if asked else 0
    if here.world > 1:
        largest = torch.tensor(found)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        found = int(largest)
    return found


def total(here: Processes, *values: float) -> list[float]:
    """The sum of each value over all processes."""
    if here.world == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed)
    return [float(value) for value in summed.tolist()]


def synchronised(model: torch.nn.Module, *, now: bool) -> None:
    """Whether the next backward pass adds up gradients over the processes, or keeps them for later."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
