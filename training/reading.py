"""States read as data: torch's distributed checkpoint unpickles, and a folder may come from anywhere."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from training.errors import TrainingError

__all__ = ["CarefulPlanner", "CarefulReader"]

_RECORDS = "torch.distributed.checkpoint.metadata"
_KNOWN = {
    (_RECORDS, name)
    for name in (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    )
}
_KNOWN |= {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
}
_KNOWN |= {("torch", "Size"), ("torch", "float32"), ("torch", "int64"), ("torch", "bfloat16")}
_KNOWN |= {("pathlib", "PosixPath"), ("pathlib", "PurePosixPath")}


class _Unpickler(pickle.Unpickler):
    """Makes what describes a state, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no part of a state")
        return super().find_class(module, name)


class CarefulReader(FileSystemReader):
    """Reads the index of a state without running what it may hold."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainingError where the index is anything but the records of one."""
        super().__init__(folder)
        index = folder / ".metadata"
        try:
            with index.open("rb") as file:
                self._metadata: Metadata = _Unpickler(file).load()
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError) as error:
            fix = "remove the folder of that state; the one before it counts then"
            raise TrainingError(index, expected="a state", found=str(error), fix=fix) from None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index."""
        self._metadata.storage_meta = self._metadata.storage_meta or StorageMeta()
        self._metadata.storage_meta.load_id = self.load_id
        return self._metadata


class CarefulPlanner(DefaultLoadPlanner):
    """Takes values that are no tensors as data too."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """As torch's own, with `weights_only`."""
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)
        plain.seek(0)
        super().load_bytes(read_item, plain)
