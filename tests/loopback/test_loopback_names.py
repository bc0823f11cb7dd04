"""Nothing that comes from outside leads out of the folder, however it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st
from raw import get_path, raw_request

from analysis360.loopback import Loopback
from analysis360.loopback.application import allowed_host
from analysis360.loopback.bodies import UnsatisfiableError, parse_range
from analysis360.loopback.names import checked_path, checked_ref, checked_repository
from analysis360.loopback.refusals import RefusedError

ORDINARY = re.compile(r"(?!\.git/)[a-z0-9_][a-zA-Z0-9_. -]{0,20}(/[a-z0-9_][a-zA-Z0-9_. -]{0,20}){0,3}")
CLIMBS = [
    "../x",
    "a/../x",
    "a/..",
    "..",
    ".",
    "a/./b",
    "/etc/passwd",
    "a//b",
    "a/",
    "",
    "..\\x",
    "a\\..\\b",
    "C:/x",
]
CLIMBS += [
    "C:x",
    "%2e%2e/x",
    "%252e%252e%252fx",
    "a%2f..%2fb",
    "%5c..",
    "a\0b",
    "a\nb",
    ".git/config",
    "a/.GIT/x",
    "x" * 256,
]


@given(st.from_regex(ORDINARY, fullmatch=True))
def test_ordinary_paths_pass(path: str) -> None:
    assert checked_path(path) == path


@given(st.text(st.sampled_from("ab./\\%2eE5cC:\0"), max_size=14))
def test_a_path_that_passes_stays_inside(path: str) -> None:
    try:
        checked_path(path)
    except RefusedError:
        return
    root = Path("/store/files")
    assert root in (root / path).resolve().parents
    assert ".." not in path.split("/")
    assert "\\" not in path


@pytest.mark.parametrize("path", CLIMBS)
def test_paths_that_climb_are_refused(path: str) -> None:
    with pytest.raises(RefusedError):
        checked_path(path)


@given(st.text(max_size=30), st.text(max_size=30))
def test_repository_names_hold_no_separators(namespace: str, name: str) -> None:
    try:
        full = checked_repository(namespace, name)
    except RefusedError:
        return
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", full, re.ASCII)
    assert ".." not in full


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a..b",
        "-x",
        "a//b",
        "/a",
        "a/",
        "a b",
        "x.lock",
        "a@{1}",
        "refs/heads/x",
        "f" * 40,
        "a\nb",
        "",
    ],
)
def test_references_git_would_not_take(name: str) -> None:
    with pytest.raises(RefusedError):
        checked_ref(name)


@given(
    st.integers(0, 1000),
    st.one_of(st.none(), st.integers(0, 2000)),
    st.one_of(st.none(), st.integers(0, 2000)),
)
def test_ranges_are_python_slices(size: int, first: int | None, last: int | None) -> None:
    content = bytes(i % 251 for i in range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        expected: bytes | None = content
    elif first is None:
        expected = content[max(0, size - (last or 0)) :] or None
    elif last is not None and last < first:
        expected = content
    else:
        expected = content[first : None if last is None else last + 1] or None
    try:
        part = parse_range(header, size)
    except UnsatisfiableError:
        assert expected is None
        return
    assert (content if part is None else content[part.start : part.stop]) == expected


@given(st.text(max_size=40))
def test_any_other_range_means_the_whole_file_or_lies_inside(header: str) -> None:
    for text in (header, f"bytes={header}"):
        try:
            part = parse_range(text, 100)
        except UnsatisfiableError:
            continue
        assert part is None or 0 <= part.start < part.stop <= 100


@pytest.mark.parametrize(
    "header", ["bytes=0-1,3-4", "bytes=5-2", "lines=0-1", "bytes=a-b", "bytes=--1", "bytes=-", "bytes=١-٢"]
)
def test_ranges_that_are_not_obeyed(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "climb",
    [
        "../../hub.json",
        "..%2f..%2fhub.json",
        "%2e%2e/%2e%2e/hub.json",
        "..%5c..%5chub.json",
        "%252e%252e%252fhub.json",
        "....//hub.json/..",
        "/etc/passwd",
        "%00",
    ],
)
def test_no_address_leads_out(hub: Loopback, api: HfApi, climb: str) -> None:
    api.create_repo("org/m")
    addresses = [f"/org/m/resolve/main/{climb}", f"/org/m/resolve/{climb}/x", f"/{climb}/m/resolve/main/x"]
    addresses += [
        f"/org/{climb}/resolve/main/x",
        f"/datasets/org/{climb}/resolve/main/x",
        f"/cdn/{climb}",
        f"/upload/{climb}",
    ]
    addresses += [
        f"/api/models/org/{climb}",
        f"/api/models/org/m/tree/main/{climb}",
        f"/api/models/org/m/revision/{climb}",
        climb,
    ]
    for address in addresses:
        status, answer = get_path(hub.port, address)
        assert 400 <= status < 500, (address, status)
        assert b"store" not in answer
        assert b"root:" not in answer


@pytest.mark.parametrize("path", CLIMBS)
def test_no_commit_leads_out(hub: Loopback, api: HfApi, path: str, tmp_path: Path) -> None:
    api.create_repo("org/m")
    before = sorted(tmp_path.rglob("*"))
    value = {"path": path, "content": "eA==", "encoding": "base64", "oid": "0" * 64}
    for key in ("file", "lfsFile", "deletedFile"):
        lines = [{"key": "header", "value": {"summary": "s"}}, {"key": key, "value": value}]
        body = "\n".join(json.dumps(line) for line in lines).encode()
        status, answer = get_path(hub.port, "/api/models/org/m/commit/main", method="POST", body=body)
        assert status == 400, answer
    assert sorted(tmp_path.rglob("*")) == before


def test_no_repository_is_made_outside(hub: Loopback, tmp_path: Path) -> None:
    for name in ("..", "../x", "a/b", "a\\\\b", ".x", "x.git", "a--b", ""):
        body = f'{{"name": "{name}", "organization": "org"}}'.encode()
        assert get_path(hub.port, "/api/repos/create", method="POST", body=body)[0] == 400
    assert not list(tmp_path.rglob("repository.json"))


def test_names_other_than_its_own_are_refused(hub: Loopback) -> None:
    for host in (
        "evil.example",
        f"evil.example:{hub.port}",
        "127.0.0.1.evil.example",
        "",
        "a b",
        "localhost@evil",
    ):
        status, _ = raw_request(
            hub.port, f"GET /api/models/a/b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert status in (400, 403), host
    assert allowed_host("10.0.0.5:8360", "10.0.0.5")
    assert not allowed_host("10.0.0.6:8360", "10.0.0.5")
    assert allowed_host("10.0.0.6:8360", "0.0.0.0")
    assert not allowed_host("evil.example", "0.0.0.0")


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
def test_malformed_requests_end_with_an_error(hub: Loopback, data: bytes) -> None:
    assert 400 <= raw_request(hub.port, data)[0] < 500
    assert get_path(hub.port, "/api/models/a/b")[0] == 401


def test_a_file_name_of_any_script_survives(hub: Loopback, api: HfApi) -> None:
    api.create_repo("org/m")
    name = "données/ファイル 100%.txt"
    api.upload_file(repo_id="org/m", path_or_fileobj=b"x", path_in_repo=name)
    assert name in api.list_repo_files("org/m")
    assert get_path(hub.port, f"/org/m/resolve/main/{quote(name)}")[0] == 200
