"""Without a folder the problems are those of the Hub, in its own layout; once fetched they are there offline."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from code_materials import write_problems
from huggingface_hub import HfApi, constants

from analysis360.coding import _questions
from analysis360.hub.options import HubOptions
from analysis360.loopback import Loopback
from analysis360.tasks.code.prompts import style

FILES = {
    "openai/openai_humaneval": {"openai_humaneval/test-00000-of-00001.parquet": ("humaneval", range(3))},
    "google-research-datasets/mbpp": {
        "full/prompt-00000-of-00001.parquet": ("mbpp", range(3)),
        "full/test-00000-of-00001.parquet": ("mbpp", range(3, 7)),
    },
}


def test_the_problems_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    folder = write_problems(tmp_path / "problems")
    (tmp_path / "store").mkdir()
    with Loopback(tmp_path / "store") as hub:
        api = HfApi(endpoint=hub.endpoint)
        for repository, files in FILES.items():
            api.create_repo(repository, repo_type="dataset")
            for path, (name, some) in files.items():
                rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
                pq.write_table(pa.Table.from_pylist([rows[i] for i in some]), tmp_path / "rows.parquet")
                api.upload_file(
                    path_or_fileobj=tmp_path / "rows.parquet",
                    path_in_repo=path,
                    repo_id=repository,
                    repo_type="dataset",
                )
        options = HubOptions(cache=tmp_path / "cache", endpoint=hub.endpoint, patience=5)
        found = _questions("humaneval,mbpp", "paper", None, options)
    here = _questions("humaneval,mbpp", "paper", folder, None)
    assert [one.digest for one in found] == [one.digest for one in here]
    assert found[1].style == style("mbpp", "paper")
    offline = _questions("humaneval,mbpp", "paper", None, options)
    assert [one.digest for one in offline] == [one.digest for one in here]
