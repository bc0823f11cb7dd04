"""Fixtures of the loopback Hub's tests: the real client, without the transport that only the real Hub has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars, get_session

from analysis360.loopback import Loopback

TOKENS = {"hf_alice_secret": ("alice", "org"), "hf_bob_secret": ("bob",)}
Get = Callable[..., Any]


@pytest.fixture(autouse=True)
def plain_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Xet, no token of the developer's, no bars."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Loopback]:
    """A server on an empty store, open to everyone, with small pages."""
    with Loopback(tmp_path / "store", page=4) as running:
        yield running


@pytest.fixture
def api(hub: Loopback) -> HfApi:
    """The client of that server."""
    return HfApi(endpoint=hub.endpoint)


@pytest.fixture
def get() -> Get:
    """A GET of one URL by the client's own transport; redirects are not followed."""

    def ask(url: str, method: str = "GET", **options: Any) -> Any:
        return get_session().request(method, url, follow_redirects=False, **options)

    return ask
