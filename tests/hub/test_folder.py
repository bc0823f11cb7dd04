"""A pinned folder: listed once, fetched, verified, resumed, borrowed and evicted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from lab import CONFIG, MODEL, WEIGHTS, Open, sha256, upload

from analysis360.errors import CheckpointError, HubError, UnreachableError
from analysis360.hub.client import Hub
from analysis360.hub.folder import HubFolder
from analysis360.hub.options import HubOptions
from analysis360.loopback import Fault, Loopback

WEIGHT_FILE = "model.safetensors"
FILES = ["config.json", WEIGHT_FILE]
CDN = r"GET /cdn/"


def test_it_is_listed_without_reading_anything(lab: Loopback, opened: Open) -> None:
    folder = opened()
    assert folder.names() == [".gitattributes", "config.json", "folder/notes.txt", WEIGHT_FILE]
    assert folder.size(WEIGHT_FILE) == len(WEIGHTS)
    assert folder.sha256(WEIGHT_FILE) == sha256(WEIGHTS)
    assert lab.counts.requests == {"api": 2}, "one request for the branches, one for the files"
    assert opened(prefix="folder").names() == ["notes.txt"]


def test_a_small_file_is_read_once(lab: Loopback, opened: Open) -> None:
    folder = opened()
    assert [folder.read("config.json"), folder.read("config.json")] == [CONFIG, CONFIG]
    assert folder.sha256("config.json") == sha256(CONFIG)
    assert lab.counts.requests["resolve"] == 2, "HEAD to find it, GET to read it"
    with pytest.raises(FileNotFoundError):
        folder.read("none.json")


def test_fetched_files_are_the_ones_asked_for_and_stay(lab: Loopback, opened: Open) -> None:
    folder = opened()
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS
    assert not (folder.path / "folder").exists()
    assert not list(folder.path.rglob("*.part"))
    lab.counts.clear()
    again = opened()
    again.fetch(FILES)
    assert lab.counts.requests == {"api": 1}, "only the branches are asked for again"


def test_pinned_means_pinned(lab: Loopback, opened: Open) -> None:
    folder = opened()
    upload(lab, {"config.json": b'{"vocab_size": 97}', WEIGHT_FILE: WEIGHTS[::-1]})
    folder.fetch(FILES)
    assert folder.read("config.json") == CONFIG
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS


def test_a_readme_does_not_change_what_the_weights_are(lab: Loopback, opened: Open) -> None:
    before = opened()
    upload(lab, {"README.md": b"# hello\n"})
    after = opened()
    assert before.commit != after.commit
    assert before.sha256(WEIGHT_FILE) == after.sha256(WEIGHT_FILE)


def test_a_broken_connection_is_resumed_where_it_broke(lab: Loopback, opened: Open) -> None:
    lab.faults.next(CDN, Fault(truncate=2_000_000))
    folder = opened()
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS
    first, second = [seen.range for seen in lab.counts.seen if seen.kind == "cdn"]
    assert first == f"bytes=0-{len(WEIGHTS) - 1}"
    start = int(str(second).removeprefix("bytes=").split("-")[0])
    assert 1_900_000 < start <= 2_000_000


def test_another_process_goes_on_where_one_was_killed(lab: Loopback, opened: Open, tmp_path: Path) -> None:
    lab.faults.bandwidth = 1_000_000
    code = (
        "from pathlib import Path; from analysis360.hub.client import Hub\n"
        "from analysis360.hub.folder import HubFolder; from analysis360.hub.options import HubOptions\n"
        f"hub = Hub(HubOptions(cache=Path({str(tmp_path / 'cache')!r}), endpoint={lab.endpoint!r}))\n"
        f"commit = hub.branches({MODEL!r}, 'model')['main']\n"
        f"HubFolder(hub, {MODEL!r}, 'model', commit, 'main').fetch({FILES!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    folder = opened()
    part = folder.path / f"{WEIGHT_FILE}.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 500_000) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    have = part.stat().st_size
    assert 500_000 < have < len(WEIGHTS)
    lab.faults.bandwidth = None
    lab.counts.clear()
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS
    assert lab.counts.bytes["cdn"] == len(WEIGHTS) - have


def test_wrong_bytes_are_noticed_and_fetched_again(lab: Loopback, opened: Open) -> None:
    lab.faults.next(CDN, Fault(flip=1_234_567))
    lab.faults.next(r"GET /lab/model/resolve/", Fault(flip=3))
    folder = opened()
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS
    assert folder.read("config.json") == CONFIG


def test_a_file_that_is_never_right_is_named_and_not_kept(lab: Loopback, opened: Open) -> None:
    lab.faults.often(CDN, Fault(flip=0), 1.0)
    folder = opened()
    with pytest.raises(
        CheckpointError, match=r"lab/model@main/model.safetensors: what the Hub serves differs"
    ) as e:
        folder.fetch(FILES)
    assert "\n" not in str(e.value)
    assert not (folder.path / WEIGHT_FILE).exists()


def test_a_file_that_was_changed_on_disk_is_fetched_again(opened: Open) -> None:
    folder = opened()
    folder.fetch(FILES)
    damaged = folder.path / WEIGHT_FILE
    damaged.write_bytes(WEIGHTS[:-1] + b"x")
    folder.fetch(FILES)
    assert damaged.read_bytes() == WEIGHTS


def test_an_address_that_expired_is_asked_for_again(lab: Loopback, opened: Open) -> None:
    folder = opened()
    file = folder.open(WEIGHT_FILE)
    assert file.read([(5, 9)]) == [WEIGHTS[5:9]]
    lab.faults.next(CDN, Fault(expired=True), times=2)
    assert file.read([(256, 300)]) == [WEIGHTS[256:300]]
    assert folder.traffic.resolves == 3


def test_an_address_that_is_always_refused_is_given_up(lab: Loopback, opened: Open) -> None:
    lab.faults.often(CDN, Fault(expired=True), 1.0)
    with pytest.raises(HubError, match="403"):
        opened(patience=20.0).open(WEIGHT_FILE).read([(0, 4)])


def test_ranges_are_read_in_order_with_one_resolve(lab: Loopback, opened: Open) -> None:
    spans = [(i * 997, i * 997 + 50 + i) for i in range(300)]
    file = opened().open(WEIGHT_FILE)
    lab.faults.often(CDN, Fault(status=503), 0.1)
    lab.faults.often(CDN, Fault(truncate=7), 0.1)
    assert file.read(spans) == [WEIGHTS[a:b] for a, b in spans]
    assert lab.counts.requests["resolve"] == 1
    assert file.read([]) == []
    assert file.read([(9, 9)]) == [b""]


def test_what_the_user_has_already_is_borrowed_and_not_touched(
    lab: Loopback, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "huggingface"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(theirs))
    folder = opened()
    hf_hub_download(
        MODEL, WEIGHT_FILE, revision=folder.commit, cache_dir=theirs, endpoint=lab.endpoint, token="hf_owner"
    )
    before = snapshot(theirs)
    lab.counts.clear()
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS
    assert lab.counts.bytes["cdn"] == 0
    assert snapshot(theirs) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*"))
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in files}


def test_room_is_made_by_giving_up_the_oldest(lab: Loopback, opened: Open) -> None:
    folders = {}
    for i, name in enumerate(["a", "b", "c"]):
        from huggingface_hub import HfApi

        HfApi(endpoint=lab.endpoint, token="hf_owner").create_branch(MODEL, branch=name)
        upload(lab, {WEIGHT_FILE: WEIGHTS[i:] + WEIGHTS[:i]}, name)
    for name in ["a", "b", "c"]:
        folders[name] = opened(name, disk=7_000_000)
        folders[name].fetch(FILES)
        folders[name].release()
        time.sleep(0.02)  # of two uses within a tick of the clock none is the older
    kept = [name for name in folders if (folders[name].path / WEIGHT_FILE).exists()]
    assert kept == ["b", "c"]
    assert all((folder.path / "config.json").exists() for folder in folders.values()), "planning needs these"


def test_what_is_in_use_is_not_given_up(lab: Loopback, opened: Open) -> None:
    upload(lab, {"config.json": b'{"vocab_size": 95}'})
    first = opened(disk=4_000_000)
    first.fetch(FILES)
    upload(lab, {WEIGHT_FILE: WEIGHTS[::-1]})
    second = opened(disk=4_000_000)  # a client of its own, as another process would be
    with pytest.raises(HubError, match=r"needs 3.1 MB, .* more than there is room for"):
        second.fetch(FILES)
    assert (first.path / WEIGHT_FILE).exists()
    first.release()
    second.fetch(FILES)
    assert not (first.path / WEIGHT_FILE).exists()


def test_one_client_waits_for_its_own_release(lab: Loopback, opened: Open) -> None:
    first = opened(disk=4_000_000)
    first.fetch(FILES)
    commit = upload(lab, {WEIGHT_FILE: WEIGHTS[::-1]})
    second = HubFolder(first.hub, MODEL, "model", commit, "main")
    threading.Timer(0.3, first.release).start()
    second.fetch(FILES)
    assert (second.path / WEIGHT_FILE).exists()
    assert not (first.path / WEIGHT_FILE).exists()


def test_more_than_the_budget_is_refused_at_once(opened: Open) -> None:
    with pytest.raises(HubError, match=r"needs 3.1 MB; the budget is 1.0 MB: give a larger --disk"):
        opened(disk=1_000_000).fetch(FILES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(opened: Open) -> None:
    folder = opened()
    _ = folder.names()
    (folder.path / f"{WEIGHT_FILE}.part").symlink_to("/dev/full")
    with pytest.raises(HubError, match="No space left on device") as caught:
        folder.fetch([WEIGHT_FILE])
    assert "\n" not in str(caught.value)


OFFLINE = """
import sys
from pathlib import Path
from analysis360.errors import UnreachableError
from analysis360.hub.client import Hub
from analysis360.hub.folder import HubFolder
from analysis360.hub.options import HubOptions
hub = Hub(HubOptions(cache=Path(sys.argv[1]), endpoint=sys.argv[2]))
folder = HubFolder(hub, "lab/model", "model", sys.argv[3], "main")
print(folder.names(), folder.read("config.json"), folder.sha256("model.safetensors"))
folder.fetch(["config.json", "model.safetensors"])
try:
    folder.read("folder/notes.txt")
except UnreachableError as error:
    print(error)
"""


def test_offline_what_is_cached_works_and_what_is_not_is_named(lab: Loopback, opened: Open) -> None:
    folder = opened()
    folder.fetch(FILES)
    _ = folder.read("config.json")
    lab.counts.clear()
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(folder.hub.options.cache), lab.endpoint, folder.commit],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sha256(WEIGHTS) in done.stdout
    assert "notes.txt: offline, and it is not in the cache" in done.stdout
    assert not lab.counts.requests


def test_without_a_server_the_line_says_so(tmp_path: Path) -> None:
    hub = Hub(HubOptions(cache=tmp_path, endpoint="http://127.0.0.1:9", patience=0.2))
    with pytest.raises(UnreachableError, match="no connection"):
        hub.branches(MODEL, "model")


def test_what_is_not_ours_in_the_cache_folder_is_left_alone(
    lab: Loopback, opened: Open, tmp_path: Path
) -> None:
    theirs = tmp_path / "cache/models--LLM360--Amber/blobs/abc"
    other = tmp_path / f"cache/my--project/{'0' * 40}/model.bin"
    for path in (theirs, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(WEIGHTS)
    folder = opened(disk=4_000_000)
    folder.fetch(FILES)
    assert theirs.read_bytes() == other.read_bytes() == WEIGHTS


def test_with_nothing_to_fetch_nothing_is_evicted(
    lab: Loopback, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    first.fetch(FILES)
    first.release()
    commit = upload(lab, {WEIGHT_FILE: WEIGHTS[::-1]})
    second = HubFolder(first.hub, MODEL, "model", commit, "main")
    second.fetch(FILES)
    second.release()
    monkeypatch.setattr("analysis360.hub.shelf.RESERVE", 1 << 60)  # as if the disk were full
    second.fetch(FILES)
    assert (first.path / WEIGHT_FILE).exists()


def test_patience_begins_anew_with_every_byte(lab: Loopback, opened: Open) -> None:
    lab.faults.bandwidth = 1_500_000
    lab.faults.next(CDN, Fault(truncate=2_900_000))
    folder = opened(patience=1.0)  # less than the two seconds of the transfer
    folder.fetch(FILES)
    assert (folder.path / WEIGHT_FILE).read_bytes() == WEIGHTS


def test_two_at_one_file_do_not_disturb_each_other(lab: Loopback, opened: Open) -> None:
    lab.faults.bandwidth = 6_000_000
    lab.faults.next(CDN, Fault(flip=99))
    folders = [opened(), opened()]
    threads = [threading.Thread(target=folder.fetch, args=(FILES,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folders[0].path / WEIGHT_FILE).read_bytes() == WEIGHTS
    assert not list(folders[0].path.rglob("*.part"))
    assert lab.counts.bytes["cdn"] == 2 * len(WEIGHTS), "the wrong one and the right one, for both"
