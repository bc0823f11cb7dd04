"""Fixtures of the doctor's tests: the real client, without the transport that only the real Hub has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars


@pytest.fixture(autouse=True)
def plain_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Xet, no token of the developer's, no bars."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    disable_progress_bars()
    yield
    enable_progress_bars()
