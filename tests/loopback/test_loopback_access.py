"""Private and gated repositories, who may write, and tokens that are never written down."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TOKENS
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from analysis360.loopback import Fault, Loopback

ALICE, BOB = TOKENS
SERVER = ("uvicorn", "starlette", "asyncio", "analysis360")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Loopback]:
    """A server with two accounts."""
    with Loopback(tmp_path / "store", tokens=TOKENS) as running:
        yield running


def client(hub: Loopback, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def test_who_one_is(guarded: Loopback) -> None:
    assert client(guarded, ALICE).whoami()["name"] == "alice"
    assert [org["name"] for org in client(guarded, ALICE).whoami()["orgs"]] == ["org"]
    with pytest.raises(HfHubHTTPError) as error:
        client(guarded, "hf_nobody").whoami()
    assert error.value.response.status_code == 401


def test_one_writes_in_ones_own_namespaces(guarded: Loopback) -> None:
    assert client(guarded, ALICE).create_repo("m").repo_id == "alice/m"
    client(guarded, ALICE).create_repo("org/m")
    for token, status in ((BOB, 403), (False, 401)):
        for write in (
            lambda api: api.create_repo("org/other"),
            lambda api: api.create_branch("org/m", branch="b"),
            lambda api: api.delete_branch("org/m", branch="main"),
            lambda api: api.create_tag("org/m", tag="t"),
            lambda api: api.upload_file(repo_id="org/m", path_or_fileobj=b"", path_in_repo="x"),
            lambda api: api.update_repo_settings("org/m", private=True),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                write(client(guarded, token))
            assert error.value.response.status_code == status
    assert client(guarded, False).list_repo_files("org/m") == [".gitattributes"]


def test_a_private_repository_looks_as_if_it_were_not_there(guarded: Loopback, tmp_path: Path) -> None:
    owner = client(guarded, ALICE)
    owner.create_repo("org/m", private=True)
    owner.upload_file(repo_id="org/m", path_or_fileobj=b"s", path_in_repo="x.bin")
    for token in (BOB, False):
        stranger, answers = client(guarded, token), []
        for name in ("org/m", "org/none"):
            with pytest.raises(RepositoryNotFoundError) as error:
                stranger.model_info(name)
            answers.append((error.value.response.status_code, error.value.response.json()))
            with pytest.raises(RepositoryNotFoundError):
                stranger.hf_hub_download(name, "x.bin", cache_dir=tmp_path)
        assert answers[0] == answers[1]
    down = owner.hf_hub_download("org/m", "x.bin", cache_dir=tmp_path)  # the link itself needs no token
    assert Path(down).read_bytes() == b"s"


def test_a_gated_repository_shows_its_files_but_not_what_is_in_them(
    guarded: Loopback, tmp_path: Path
) -> None:
    owner = client(guarded, ALICE)
    owner.create_repo("org/m")
    owner.upload_file(repo_id="org/m", path_or_fileobj=b"s", path_in_repo="x.txt")
    owner.update_repo_settings("org/m", gated="manual")
    for token, status in ((BOB, 403), (False, 401)):
        assert client(guarded, token).model_info("org/m").gated == "manual"
        with pytest.raises(GatedRepoError) as error:
            client(guarded, token).hf_hub_download("org/m", "x.txt", cache_dir=tmp_path / "none")
        assert error.value.response.status_code == status
    owner.grant_access("org/m", "bob")
    assert client(guarded, BOB).hf_hub_download("org/m", "x.txt", cache_dir=tmp_path)


def test_tokens_are_never_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(caplog.at_level(logging.DEBUG))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(out))
        with Loopback(tmp_path / "store", tokens=TOKENS) as hub:
            api = client(hub, ALICE)
            api.create_repo("org/m", private=True)
            api.upload_file(repo_id="org/m", path_or_fileobj=b"x", path_in_repo="x.bin")
            hub.faults.next("/api/", Fault(status=500))
            with pytest.raises(HfHubHTTPError):
                api.model_info("org/m")
            with pytest.raises(HfHubHTTPError):
                client(hub, "hf_wrong_secret").model_info("org/m")
            api.hf_hub_download("org/m", "x.bin", cache_dir=tmp_path / "cache")
            hub.faults.next(
                "/api/", Fault(call=lambda: 1 / 0)
            )  # what goes wrong is not told with its request
            with pytest.raises(HfHubHTTPError):
                api.create_branch("org/m", branch="b")
            seen = repr(hub.counts)
    ours = "\n".join(
        f"{record.getMessage()} {record.exc_text}"
        for record in caplog.records
        if record.name.startswith(SERVER)
    )
    written = [file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()]
    for secret in ("hf_alice_secret", "hf_wrong_secret", "signature="):
        assert secret not in ours + out.getvalue() + seen
        assert not any(secret.encode() in content for content in written)
