"""Every fault happens when it is told to, and only then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from raw import get_path

from analysis360.loopback import Fault, Faults, Loopback

CONTENT = os.urandom(400_000)
Get = Callable[..., Any]


@pytest.fixture
def url(hub: Loopback, api: HfApi) -> str:
    """The address of a large file."""
    api.create_repo("org/m")
    api.upload_file(repo_id="org/m", path_or_fileobj=CONTENT, path_in_repo="model.safetensors")
    hub.counts.clear()
    return f"{hub.endpoint}/org/m/resolve/main/model.safetensors"


@pytest.fixture
def link(url: str, get: Get) -> str:
    """Its link on the delivery network."""
    return str(get(url).headers["Location"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_is_sent_as_often_as_scripted(hub: Loopback, url: str, get: Get, status: int) -> None:
    hub.faults.next("resolve/.*safetensors", Fault(status=status, retry_after=3), times=2)
    answers = [get(url, "HEAD") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 302]
    assert answers[0].headers["Retry-After"] == "3"
    assert [seen.status for seen in hub.counts.seen] == [status, status, 302]


def test_the_client_waits_as_long_as_it_is_told(hub: Loopback, url: str, api: HfApi) -> None:
    hub.faults.next("GET /api/.*/tree/", Fault(status=429, retry_after=0))
    start = time.monotonic()
    assert [item.path for item in api.list_repo_tree("org/m")] == [".gitattributes", "model.safetensors"]
    assert time.monotonic() - start > 0.9  # the client adds a second to what it was told


def test_a_stall_outlasts_a_timeout(hub: Loopback, url: str, get: Get) -> None:
    hub.faults.next("/resolve/", Fault(stall=1.0))
    with pytest.raises(Exception, match="timed out"):
        get(url, timeout=0.2)
    assert get(url, timeout=5).status_code == 302


def test_a_body_cut_short(hub: Loopback, link: str) -> None:
    hub.faults.next("/cdn/", Fault(truncate=1000))
    path = link.split(str(hub.port), 1)[1]
    status, answer = get_path(hub.port, path)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert status == 200
    assert b"content-length: 400000" in head.lower()
    assert body == CONTENT[:1000]
    assert get_path(hub.port, path)[1].endswith(CONTENT)


def test_the_client_asks_again_for_a_body_cut_short(hub: Loopback, url: str, tmp_path: Path) -> None:
    hub.faults.next("/cdn/", Fault(truncate=100_000))
    hub.counts.clear()
    file = hf_hub_download("org/m", "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
    assert Path(file).read_bytes() == CONTENT
    assert [seen.sent for seen in hub.counts.seen if seen.kind == "cdn"] == [100_000, len(CONTENT)]


@pytest.mark.parametrize("position", [0, 5, -1])
def test_a_byte_arrives_changed(hub: Loopback, link: str, get: Get, position: int) -> None:
    hub.faults.next("/cdn/", Fault(flip=position))
    damaged = get(link).content
    assert [i for i, (a, b) in enumerate(zip(damaged, CONTENT, strict=True)) if a != b] == [
        position % len(CONTENT)
    ]
    hub.faults.next("/cdn/", Fault(flip=position))
    part = get(link, headers={"Range": "bytes=100-109"}).content
    assert part != CONTENT[100:110]
    assert get(link).content == CONTENT


def test_a_branch_moves_between_two_requests(hub: Loopback, url: str, get: Get) -> None:
    before = hub.store.repository("models", "org/m")
    assert before is not None
    head = before.branches["main"]

    def move() -> None:
        HfApi(endpoint=hub.endpoint).upload_file(
            repo_id="org/m", path_or_fileobj=b"new", path_in_repo="new.txt"
        )

    hub.faults.next("HEAD .*/resolve/main/", Fault(call=move))
    assert get(url, "HEAD").headers["X-Repo-Commit"] != head
    assert get(url.replace("main", head), "HEAD").headers["X-Repo-Commit"] == head


def test_links_expire(hub: Loopback, url: str, link: str, get: Get) -> None:
    hub.faults.next("/cdn/", Fault(expired=True))
    assert [get(link).status_code for _ in range(2)] == [403, 200]
    hub.faults.link_seconds = 0.2
    short = get(url).headers["Location"]
    assert get(short).status_code == 200
    time.sleep(0.3)
    assert get(short).status_code == 403
    assert get(link).status_code == 200  # was made for longer


def test_links_cannot_be_forged(hub: Loopback, link: str, get: Get) -> None:
    for forged in (
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.replace("expires=", "expires=9"),
        link.split("?")[0],
    ):
        assert get(forged).status_code == 403
    other = "0" * 64
    assert get(link.replace(link.split("/cdn/")[1][:64], other)).status_code == 403


def test_chance_is_seeded(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[bool]:
        faults = Faults(seed=seed)
        faults.often("/resolve/", Fault(status=503), 0.3)
        return [faults.draw("GET /a/b/resolve/main/x") is not None for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 230 < sum(drawn(1)) < 370


def test_latency_and_bandwidth(hub: Loopback, link: str, get: Get) -> None:
    hub.faults.latency = 0.2
    start = time.monotonic()
    get(link, headers={"Range": "bytes=0-0"})
    assert time.monotonic() - start > 0.2
    hub.faults.latency, hub.faults.bandwidth = 0.0, 400_000.0
    start = time.monotonic()
    assert get(link, timeout=30).content == CONTENT
    assert 0.9 < time.monotonic() - start < 10


def test_requests_are_counted_by_kind(hub: Loopback, url: str, get: Get) -> None:
    get(get(url).headers["Location"], headers={"Range": "bytes=10-19"})
    assert hub.counts.requests == {"resolve": 1, "cdn": 1}
    assert hub.counts.bytes["cdn"] == 10
    assert [(seen.kind, seen.range) for seen in hub.counts.seen] == [
        ("resolve", None),
        ("cdn", "bytes=10-19"),
    ]


def test_a_failed_upload_leaves_nothing(hub: Loopback, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/m")
    hub.faults.next("/commit/", Fault(status=400))
    with pytest.raises(HfHubHTTPError):
        api.upload_file(repo_id="org/m", path_or_fileobj=b"x" * 100, path_in_repo="a.bin")
    assert api.list_repo_files("org/m") == [".gitattributes"]
    assert not list((tmp_path / "store/incoming").iterdir())
