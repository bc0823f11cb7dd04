"""The repository that the tests of the Hub's client read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from huggingface_hub import CommitOperationAdd, HfApi

from analysis360.hub.folder import HubFolder
from analysis360.loopback import Loopback

MODEL = "lab/model"
WEIGHTS = bytes(range(256)) * 12_000
"""3 MB, which the server keeps in LFS and sends from its other address."""
CONFIG = b'{"vocab_size": 96}'
Open = Callable[..., HubFolder]


def upload(server: Loopback, files: dict[str, bytes], branch: str = "main") -> str:
    """Commit files and return the commit."""
    api = HfApi(endpoint=server.endpoint, token="hf_owner")
    done = api.create_commit(
        MODEL,
        [CommitOperationAdd(name, content) for name, content in files.items()],
        commit_message="files",
        revision=branch,
    )
    return str(done.oid)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
