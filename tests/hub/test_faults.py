"""Five hundred faults over sweeps of one series: not one wrong, missing or repeated result."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import HfApi
from released import release
from small_series import VOCABULARY, small

import analysis360 as a360
from analysis360.hub import asking
from analysis360.loopback import Fault, Faults, Loopback

ENOUGH = 500
ROW_TOKENS = 2000
MODEL = "lab/small"
HOW = {"prompt_tokens": 8, "continuation_tokens": 24, "engine": "torch", "sequences": 60, "progress": False}


class Counted(Faults):
    """Faults that are counted when they happen.

    No byte is wrong where the last ones were: bytes read twice by plain HTTP and damaged twice alike
    are beyond what anyone could tell.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.happened: Counter[str] = Counter()

    def draw(self, request: str) -> Fault | None:
        """See `Faults.draw`."""
        fault = super().draw(request)
        if fault is None:
            return None
        self.happened[kind_of(fault)] += 1
        return fault if fault.flip is None else replace(fault, flip=-self.happened["flip"])


def kind_of(fault: Fault) -> str:
    """What a fault does."""
    does = {"call": fault.call, "stall": fault.stall, "status": fault.status, "expired": fault.expired}
    return next((name for name, value in does.items() if value), "truncate" if fault.truncate else "flip")


def series_with_a_large_chunk(folder: Path) -> Path:
    """Three checkpoints; one chunk is beyond 10 MB, so that LFS holds it and its rows are read by ranges."""
    root = small(folder, checkpoints=3, chunks=2)
    rng = np.random.default_rng(3)
    for chunk, rows in enumerate((20, 1700)):
        ids = rng.integers(0, VOCABULARY, (rows, ROW_TOKENS)).tolist()
        lines = [json.dumps({"token_ids": row, "source": "text"}) + "\n" for row in ids]
        (root / f"train/train_{chunk:03d}.jsonl").write_text("".join(lines))
    manifest = root / "series.toml"
    manifest.write_text(
        manifest.read_text().replace("count = 2\n", f"count = 2\nrow_tokens = {ROW_TOKENS}\n", 1)
    )
    return root


def make_trouble(faults: Faults, move: object) -> None:
    """What a bad day has, each at its own rate. Bytes of files may be wrong; the Hub's own lists are not."""
    anything, files = r"(GET|HEAD) ", r"GET (/cdn/|/\S*/resolve/)"
    faults.often(anything, Fault(status=429, retry_after=0), 0.06)
    faults.often(anything, Fault(status=500), 0.06)
    faults.often(anything, Fault(status=503), 0.04)
    faults.often(anything, Fault(stall=1.0), 0.015)
    faults.often(files, Fault(truncate=300), 0.06)
    faults.often(files, Fault(flip=-1), 0.06)
    faults.often(r"GET /cdn/", Fault(expired=True), 0.05)
    faults.often(anything, Fault(call=move), 0.005)  # type: ignore[arg-type]


def test_five_hundred_faults_and_not_one_wrong_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(asking, "LONGEST_WAIT", 0.1)
    folder = series_with_a_large_chunk(tmp_path / "series")
    expected = a360.memorization(folder, out=tmp_path / "disk", **HOW).frame()
    happened: Counter[str] = Counter()
    for attempt in range(50):
        faults, store = Counted(attempt), tmp_path / f"store{attempt}"
        store.mkdir()
        with Loopback(store, faults=faults) as server:
            release(server, folder, MODEL)
            api = HfApi(endpoint=server.endpoint)

            def move(api: HfApi = api) -> None:
                readme = "---\nlicense: mit\n---\n" + str(np.random.default_rng().integers(1 << 30))
                api.upload_file(
                    path_or_fileobj=readme.encode(),
                    path_in_repo="README.md",
                    repo_id=MODEL,
                    revision="ckpt_001",
                )

            make_trouble(faults, move)
            hub = a360.HubOptions(
                cache=tmp_path / f"cache{attempt}", endpoint=server.endpoint, timeout=0.5, patience=120.0
            )
            result = a360.memorization(MODEL, hub=hub, out=tmp_path / f"out{attempt}", **HOW)
            faults.clear()
            pd.testing.assert_frame_equal(result.frame(), expected)
            assert len(result) == len(expected)
        happened += faults.happened
        if happened.total() >= ENOUGH:
            break
    assert happened.total() >= ENOUGH
    assert set(happened) == {"call", "stall", "status", "expired", "flip", "truncate"}, happened
    print(dict(happened), f"over {attempt + 1} sweeps")
