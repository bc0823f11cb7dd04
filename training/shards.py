"""The tensors of a state on disk: safetensors, a file a process, for any number of processes to read.

The layout is that of torch's distributed checkpoint for Hugging Face: each file says where its tensors belong.
"""

import json
import math
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from training.errors import TrainingError
from training.files import synchronise

__all__ = ["ShardReader", "ShardWriter", "no_state", "reason"]

SHARD = "optimizer_and_weights_{index:05d}.safetensors"


class ShardWriter(HuggingFaceStorageWriter):
    """Writes from where the tensors are; torch's own makes the whole file in memory first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), save_distributed=True)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """This process's share, in one file that is on disk afterwards."""
        tensors: dict[str, torch.Tensor] = {}
        places: dict[str, dict[str, torch.Size]] = {}
        for item in plan.items:
            assert item.tensor_data is not None
            tensors[item.index.fqn] = cast(torch.Tensor, planner.resolve_data(item))
            places[item.index.fqn] = {SAVED_OFFSETS_KEY: item.tensor_data.chunk.offsets}
        path = Path(self.path) / SHARD.format(index=plan.storage_data["shard_index"])
        save_file(tensors, path, {CUSTOM_METADATA_KEY: json.dumps(places)})
        synchronise(path)
        written: Future[list[WriteResult]] = Future()
        written.set_result([])  # there is no index to write
        return written


class ShardReader(HuggingFaceStorageReader):
    """Reads what is whole: of torch's own, a tensor of which a part is nowhere keeps what it held there."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainingError where the files of the folder are no shards, or not all of them."""
        super().__init__(str(folder))
        try:
            self._index = super().read_metadata()
        except Exception as error:  # headers hold anything; each kind means the same to the reader
            raise no_state(folder, reason(error)) from None
        for name, record in self.tensors.items():
            there = sum(math.prod(chunk.sizes) for chunk in record.chunks)
            if there != math.prod(record.size):
                raise no_state(folder, f"{there:,} of {math.prod(record.size):,} values of {name}")

    @property
    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """Every tensor by name: its whole size, and the parts there are."""
        return cast(dict[str, TensorStorageMetadata], self._index.state_dict_metadata)

    def read_metadata(self) -> Metadata:
        """The index."""
        return self._index


def no_state(folder: Path, found: str) -> TrainingError:
    """What is wrong with the folder of a state, and the way out."""
    fix = "remove that folder: the state before it counts then, or the beginning"
    return TrainingError(folder, expected="a state of this version", found=found, fix=fix)


def reason(error: BaseException) -> str:
    """What went wrong, in a line; of a failure in several processes, in the first of them."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())[:300] or type(error).__name__
