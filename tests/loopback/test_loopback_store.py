"""The store: the same after it is reopened, sound after it is killed, no commit lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session
from raw import get_path, raw_request

from analysis360.errors import SeriesError
from analysis360.loopback import Loopback
from analysis360.loopback.attributes import LARGE_BYTES, is_large


def test_reopened_it_is_as_it_was(tmp_path: Path) -> None:
    content = os.urandom(1000)
    with Loopback(tmp_path / "store") as hub:
        api = HfApi(endpoint=hub.endpoint, token="any")
        api.create_repo("org/m", private=True)
        api.create_repo("org/d", repo_type="dataset")
        sha = api.upload_file(repo_id="org/m", path_or_fileobj=content, path_in_repo="a/model.bin").oid
        api.create_branch("org/m", branch="b")
        api.create_tag("org/m", tag="t")
        refs, commits = api.list_repo_refs("org/m"), api.list_repo_commits("org/m")
        info = api.model_info("org/m", files_metadata=True)
    with Loopback(tmp_path / "store") as hub:
        again = HfApi(endpoint=hub.endpoint, token="any")
        assert (again.list_repo_refs("org/m"), again.list_repo_commits("org/m")) == (refs, commits)
        assert again.model_info("org/m", files_metadata=True) == info
        assert info.private
        assert again.dataset_info("org/d").sha
        file = again.hf_hub_download("org/m", "a/model.bin", revision=sha, cache_dir=tmp_path / "cache")
        assert Path(file).read_bytes() == content


def test_only_one_server_and_only_a_store(tmp_path: Path) -> None:
    with Loopback(tmp_path / "store"), pytest.raises(SeriesError, match="another server"):
        Loopback(tmp_path / "store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    with pytest.raises(SeriesError, match="found other files"):
        Loopback(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]


SERVE = "import sys; from pathlib import Path; from analysis360.loopback import serve; serve(Path(sys.argv[1]), port=0)"


def started(folder: Path) -> tuple[subprocess.Popen[str], int]:
    folder.mkdir(exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("export HF_ENDPOINT=http://127.0.0.1:")
    assert server.stdout.readline().startswith("analysis360 memorization --series ")
    return server, int(line.split()[1].rsplit(":", 1)[1])


def test_killed_in_the_middle_of_an_upload_it_is_sound(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    sha256 = hashlib.sha256(content).hexdigest()
    server, port = started(tmp_path / "store")
    api = HfApi(endpoint=f"http://127.0.0.1:{port}")
    api.create_repo("org/m")
    kept = api.upload_file(repo_id="org/m", path_or_fileobj=b"kept", path_in_repo="kept.bin").oid
    asked = {"operation": "upload", "objects": [{"oid": sha256, "size": len(content)}]}
    batch = get_session().post(f"{api.endpoint}/org/m.git/info/lfs/objects/batch", json=asked).json()
    path = batch["objects"][0]["actions"]["upload"]["href"].split(str(port), 1)[1]

    def half() -> None:
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        raw_request(port, head.encode() + content[:2_000_000])

    sending = threading.Thread(target=half)
    sending.start()
    deadline = time.monotonic() + 10
    while not any(file.stat().st_size for file in (tmp_path / "store/incoming").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.kill()
    server.wait()
    sending.join()
    assert list((tmp_path / "store/incoming").iterdir())
    with Loopback(tmp_path / "store") as hub:
        assert not list((tmp_path / "store/incoming").iterdir())
        again = HfApi(endpoint=hub.endpoint)
        assert again.model_info("org/m").sha == kept
        again.upload_file(repo_id="org/m", path_or_fileobj=content, path_in_repo="new.bin")
        down = again.hf_hub_download("org/m", "new.bin", cache_dir=tmp_path / "cache")
        assert Path(down).read_bytes() == content


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    server, _ = started(tmp_path / "store")
    server.send_signal(signal.SIGINT)
    out, error = server.communicate(timeout=20)
    assert (server.returncode, out, error) == (0, "", "")


def test_a_taken_port_and_a_missing_folder_are_one_line(tmp_path: Path) -> None:
    from analysis360.loopback import serve

    (tmp_path / "other").mkdir()
    with Loopback(tmp_path / "store") as hub, pytest.raises(SeriesError, match="choose another --port"):
        serve(tmp_path / "other", port=hub.port)
    with pytest.raises(SeriesError, match="is no folder"):
        serve(tmp_path / "none")


def test_commits_at_once_are_all_kept_in_order(hub: Loopback, api: HfApi) -> None:
    api.create_repo("org/m")

    def add(i: int) -> str:
        return api.upload_file(
            repo_id="org/m", path_or_fileobj=b"%d" % i, path_in_repo=f"{i}.txt", commit_message=str(i)
        ).oid

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(add, range(24)))
    history = [commit.commit_id for commit in api.list_repo_commits("org/m")]
    assert set(history[:-1]) == set(made)
    assert len(history) == 25
    assert len(api.list_repo_files("org/m")) == 25


def test_of_commits_on_one_parent_one_wins(hub: Loopback, api: HfApi) -> None:
    api.create_repo("org/m")
    parent = api.model_info("org/m").sha

    def add(i: int) -> int:
        operations = [CommitOperationAdd(f"{i}.txt", b"x")]
        try:
            api.create_commit("org/m", operations, commit_message=str(i), parent_commit=parent)
        except HfHubHTTPError as error:
            return int(error.response.status_code)
        return 200

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(add, range(8))) == [200] + [412] * 7
    assert len(api.list_repo_commits("org/m")) == 2


def test_a_commit_never_changes(api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/m")
    first = api.upload_file(repo_id="org/m", path_or_fileobj=b"1", path_in_repo="a").oid
    api.upload_file(repo_id="org/m", path_or_fileobj=b"2", path_in_repo="a")
    assert Path(api.hf_hub_download("org/m", "a", revision=first, cache_dir=tmp_path)).read_bytes() == b"1"


def batch_of(hub: Loopback, sha256: str, size: int) -> dict[str, Any]:
    asked = {"operation": "upload", "objects": [{"oid": sha256, "size": size}]}
    answer = get_session().post(f"{hub.endpoint}/org/m.git/info/lfs/objects/batch", json=asked)
    return dict(answer.json()["objects"][0])


def test_uploads_are_what_they_were_declared_to_be(hub: Loopback, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/m")
    content = os.urandom(5000)
    sha256 = hashlib.sha256(content).hexdigest()
    path = batch_of(hub, sha256, len(content))["actions"]["upload"]["href"].split(str(hub.port), 1)[1]
    changed = bytes([content[0] ^ 1]) + content[1:]
    for body, status in ((changed, 400), (content[:-1], 400), (content + b"x", 413)):
        assert get_path(hub.port, path, method="PUT", body=body)[0] == status
    head = (
        f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    chunked = head.encode() + b"%x\r\n" % (2 * len(content)) + 2 * content + b"\r\n0\r\n\r\n"
    assert raw_request(hub.port, chunked)[0] == 413  # more than declared, without a length to say so
    assert get_path(hub.port, path.replace(sha256, "0" * 64), method="PUT", body=content)[0] == 403
    assert get_path(hub.port, path.replace("size=5000", "size=9000"), method="PUT", body=content)[0] == 403
    assert not list((tmp_path / "store/incoming").iterdir())
    assert not (tmp_path / "store/blobs" / sha256[:2] / sha256).exists()
    assert get_path(hub.port, path, method="PUT", body=content)[0] == 200
    assert "actions" not in batch_of(hub, sha256, len(content))


def test_uploads_have_a_limit(tmp_path: Path) -> None:
    with Loopback(tmp_path / "store", limit=1000) as hub:
        api = HfApi(endpoint=hub.endpoint)
        api.create_repo("org/m")
        with pytest.raises(ValueError, match="1001 bytes are more than the 1000 allowed"):
            api.upload_file(repo_id="org/m", path_or_fileobj=bytes(1001), path_in_repo="x.bin")
        api.upload_file(repo_id="org/m", path_or_fileobj=bytes(1000), path_in_repo="x.bin")


def test_a_commit_of_what_was_never_uploaded_is_refused(hub: Loopback, api: HfApi) -> None:
    api.create_repo("org/m")
    value = {"path": "x.bin", "algo": "sha256", "oid": "0" * 64, "size": 3}
    lines = [{"key": "header", "value": {"summary": "s"}}, {"key": "lfsFile", "value": value}]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    status, answer = get_path(hub.port, "/api/models/org/m/commit/main", method="POST", body=body)
    assert status == 400
    assert b"has not been uploaded" in answer


def test_large_files_are_those_the_hub_takes_for_large() -> None:
    for name in ("a.safetensors", "A.BIN", "d/x.parquet", "x.arrow", "x.tar.gz"):
        assert is_large(name, 1)
    for name in ("config.json", "train.jsonl", "README.md", "bin"):
        assert not is_large(name, LARGE_BYTES)
        assert is_large(name, LARGE_BYTES + 1)
    assert not is_large("empty.safetensors", 0)
