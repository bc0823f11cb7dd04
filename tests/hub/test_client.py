"""What a Hub may answer, and the one line each refusal becomes."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st
from lab import MODEL, Open

from analysis360.errors import HubError, MissingError, SelectionError
from analysis360.hub.asking import one_line
from analysis360.hub.client import Hub, safe_name
from analysis360.hub.options import HubOptions, parse_size, shown_size
from analysis360.hub.threads import in_threads
from analysis360.loopback import Fault, Loopback

API = r"GET /api/"


def refused(folder: Open, **options: object) -> str:
    with pytest.raises(HubError) as caught:
        folder(**options).names()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_busy_hub_is_asked_again(lab: Loopback, opened: Open) -> None:
    lab.faults.next(API, Fault(status=429, retry_after=1))
    lab.faults.next(API, Fault(status=500))
    lab.faults.next(API, Fault(status=503))
    began = time.monotonic()
    folder = opened()
    assert time.monotonic() - began > 1.0, "the wait that was asked for"
    assert folder.names()
    assert folder.traffic.retries == 3


def test_a_stalled_answer_is_asked_for_again(lab: Loopback, opened: Open) -> None:
    lab.faults.next(API, Fault(stall=3.0))
    assert opened(timeout=0.3).names()


def test_a_rate_limit_beyond_patience_is_one_line(lab: Loopback, opened: Open) -> None:
    lab.faults.often(API, Fault(status=429, retry_after=3600), 1.0)
    line = refused(opened)
    assert "rate limited for 3600 s, longer than the patience of 5 s; run the same command later" in line


def test_failures_beyond_patience_are_one_line(lab: Loopback, opened: Open) -> None:
    lab.faults.often(API, Fault(status=500), 1.0)
    assert "after 1 s of trying" in refused(opened, patience=1.0)


def test_a_repository_that_is_not_there(lab: Loopback, tmp_path: Path) -> None:
    hub = Hub(HubOptions(cache=tmp_path, endpoint=lab.endpoint))
    with pytest.raises(MissingError, match="lab/none: list of branches: no such repository"):
        hub.branches("lab/none", "model")


@pytest.mark.parametrize("token", [None, "hf_guest", "hf_wrongwrongwrong"])
def test_gated_and_private_say_what_to_do_and_not_the_token(
    lab: Loopback,
    opened: Open,
    token: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    owner = HfApi(endpoint=lab.endpoint, token="hf_owner")
    owner.update_repo_settings(MODEL, gated="manual")
    with pytest.raises(HubError) as gated:
        opened().read("config.json")
    owner.update_repo_settings(MODEL, gated=False, private=True)
    with pytest.raises(HubError) as private:
        opened().read("folder/notes.txt")
    for caught in (gated, private):
        assert "HF_TOKEN" in str(caught.value)
        assert "\n" not in str(caught.value)
    if token:
        everything = f"{gated.value} {private.value} {caplog.text} {''.join(capsys.readouterr())}"
        assert token not in everything


def test_the_token_opens_what_it_may(lab: Loopback, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    HfApi(endpoint=lab.endpoint, token="hf_owner").update_repo_settings(MODEL, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    folder = opened()
    folder.fetch(["config.json", "model.safetensors"])
    kept = "".join(path.read_text("utf-8", "replace") for path in folder.path.rglob("*") if path.is_file())
    assert "hf_owner" not in kept


def test_long_lists_come_in_pages(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    from lab import upload

    with Loopback(tmp_path / "store", tokens={"hf_owner": ["lab"]}, page=3) as server:
        HfApi(endpoint=server.endpoint, token="hf_owner").create_repo(MODEL)
        upload(server, {f"folder/{i}.txt": b"%d" % i for i in range(11)})
        hub = Hub(HubOptions(cache=tmp_path / "cache", endpoint=server.endpoint))
        tree = hub.tree(MODEL, "model", hub.branches(MODEL, "model")["main"])
        assert {f"folder/{i}.txt" for i in range(11)} <= set(tree)


# --- a server that lies ------------------------------------------------------------------------------

COMMIT = "0123456789" * 4


class Liar(BaseHTTPRequestHandler):
    """Answers every GET with what the test put there."""

    answer: object = None

    def do_GET(self) -> None:
        body = json.dumps(self.answer).encode() if not isinstance(self.answer, bytes) else self.answer
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[tuple[type[Liar], Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield Liar, Hub(HubOptions(cache=tmp_path, endpoint=endpoint, patience=0.5))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", "a\\..\\b", "C:\\b", "a\0b", "a\nb", "", 7, None],
)
def test_a_file_name_that_leaves_its_folder_is_refused(liar: tuple[type[Liar], Hub], name: object) -> None:
    server, hub = liar
    server.answer = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40}]
    with pytest.raises(HubError, match="which is refused"):
        hub.tree(MODEL, "model", COMMIT)


@pytest.mark.parametrize("answer", [[], {}, {"branches": 3}, {"branches": [{"name": "main"}]}, b"<html>"])
def test_a_list_that_is_none_is_one_line(liar: tuple[type[Liar], Hub], answer: object) -> None:
    server, hub = liar
    server.answer = answer
    with pytest.raises(HubError) as caught:
        hub.branches(MODEL, "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("commit", ["../../../x", "main", "A" * 40, 3])
def test_a_commit_is_forty_hex_digits(liar: tuple[type[Liar], Hub], commit: object) -> None:
    server, hub = liar
    server.answer = {"branches": [{"name": "main", "targetCommit": commit}]}
    with pytest.raises(HubError, match="expected a commit of 40 hex digits"):
        hub.branches(MODEL, "model")


@given(st.text(max_size=20))
def test_a_safe_name_stays_inside(name: str) -> None:
    root = Path("/somewhere/cache")
    try:
        safe = safe_name(name, "r")
    except HubError:
        return
    assert (root / safe).resolve().is_relative_to(root)
    assert (root / safe).resolve() != root


# --- small parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("60GB", 60 * 10**9), ("1.5T", 15 * 10**11), ("500 mb", 5 * 10**8), ("7", 7), ("2k", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-3GB", "1e9", "3XB", "1,5GB"])
def test_no_size(text: str) -> None:
    with pytest.raises(SelectionError, match="such as 60GB"):
        parse_size(text)


@given(st.integers(0, 10**16))
def test_a_shown_size_is_near_the_size(size: int) -> None:
    assert parse_size(shown_size(size)) == pytest.approx(size, rel=0.06, abs=1)


def test_secrets_are_no_part_of_a_line() -> None:
    line = one_line(ValueError("at https://x/y?X-Amz-Signature=abc&v=1 with hf_abcdefgh\nmore"))
    assert line == "at https://x/y?X-Amz-Signature=...&v=1 with ..."


def test_threads_answer_in_order_and_stop_at_the_first_failure() -> None:
    assert in_threads(lambda x: x * x, range(100), 7) == [x * x for x in range(100)]
    assert in_threads(lambda x: x, [], 3) == []
    seen: list[int] = []

    def fails(x: int) -> None:
        seen.append(x)
        if x == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        in_threads(fails, range(10_000), 2)
    assert len(seen) < 10_000


def test_the_token_goes_to_the_hub_alone_and_by_its_own_protocol(tmp_path: Path) -> None:
    hub = Hub(HubOptions(cache=tmp_path, endpoint="https://hub.example"))
    assert hub._own("https://hub.example/a/resolve/b")
    assert not hub._own("http://hub.example/a/resolve/b")
    assert not hub._own("https://cdn.example/a")
    assert not hub._own("https://hub.example:8443/a")


@pytest.mark.parametrize(
    "endpoint", ["hub.example", "http://", "http://[", "http://localhost:port", "ftp://x"]
)
def test_an_address_that_is_none_is_refused_at_once(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(HubError, match=r"expected an address such as https://huggingface\.co"):
        Hub(HubOptions(cache=tmp_path, endpoint=endpoint))


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}],
)
def test_pages_of_other_sites_may_not_use_the_server(lab: Loopback, headers: dict[str, str]) -> None:
    url = f"{lab.endpoint}/api/repos/create"
    answer = httpx2.post(
        url, content=b'{"name": "theirs"}', headers={"Content-Type": "text/plain", **headers}
    )
    assert answer.status_code in (400, 403, 421)
    assert "theirs" not in str(list(lab.store.names("models")))
