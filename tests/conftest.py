"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_series import MakeSeries, small


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Digests are remembered in a folder of the tests' own."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def make_series(tmp_path_factory: pytest.TempPathFactory) -> MakeSeries:
    """Build a series in a new folder and return the folder."""

    def make(name: str = "small", **size: Any) -> Path:
        return small(tmp_path_factory.mktemp(name), name=name, **size)

    return make


@pytest.fixture(scope="session")
def small_series(make_series: MakeSeries) -> Path:
    """Four checkpoints, four chunks of twelve rows, two held-out chunks, three canaries. Do not change it."""
    return make_series()
