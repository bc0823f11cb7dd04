"""A real Hub on this machine, and a client with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from lab import CONFIG, MODEL, WEIGHTS, Open, upload

from analysis360.hub.client import Hub
from analysis360.hub.folder import HubFolder
from analysis360.hub.options import HubOptions
from analysis360.loopback import Loopback


@pytest.fixture(autouse=True)
def without_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads go by LFS: the server does not speak Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Loopback]:
    """A server with one repository: config.json, model.safetensors and a file in a folder."""
    (tmp_path / "store").mkdir()
    with Loopback(tmp_path / "store", tokens={"hf_owner": ["lab"], "hf_guest": ["guest"]}) as server:
        api = HfApi(endpoint=server.endpoint, token="hf_owner")
        api.create_repo(MODEL)
        files = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "folder/notes.txt": b"notes"}
        upload(server, files)
        server.counts.clear()
        yield server


@pytest.fixture
def opened(lab: Loopback, tmp_path: Path) -> Open:
    """Open a branch of the repository with a client whose options may be given."""

    def make(branch: str = "main", prefix: str = "", **options: object) -> HubFolder:
        how = {"cache": tmp_path / "cache", "endpoint": lab.endpoint, "patience": 5.0, "timeout": 1.0}
        hub = Hub(HubOptions(**{**how, **options}))  # type: ignore[arg-type]
        commit = hub.branches(MODEL, "model")[branch]
        return HubFolder(hub, MODEL, "model", commit, branch, prefix)

    return make
