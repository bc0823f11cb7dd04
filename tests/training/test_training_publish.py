"""A run is published: its tables are true, what is there is not sent again, and what differs is named."""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from released_run import ORDER, ROW_TOKENS, SOURCES, VOCABULARY, recipe, released_run
from transformers import AutoModelForCausalLM, AutoTokenizer

import analysis360 as a360
from analysis360.doctor import doctor
from analysis360.doctor.standing import REPORT as COUNTED
from analysis360.loopback import Fault, Loopback
from training.__main__ import main
from training.config import Loop, Parent
from training.data.mix import read_mix
from training.errors import TrainingError
from training.publishing.card import AS_MIX
from training.publishing.publish import publish
from training.publishing.readme import BEGIN, END
from training.records import as_json, from_json

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL, DATA = "org/released", "org/released-data"
SCORE: dict[str, Any] = {"prompt_tokens": 8, "continuation_tokens": 16, "engine": "torch", "progress": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Do not change it."""
    return released_run(tmp_path_factory.mktemp("run") / "released")


@pytest.fixture(autouse=True)
def plain_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Xet, no token of the developer's, no bars."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Loopback]:
    with Loopback(tmp_path / "store", page=4) as running:
        yield running


def send(hub: Loopback, run: Path, **how: Any) -> tuple[str, list[str]]:
    """Publish in this process: the summary, and the lines before it."""
    lines: list[str] = []
    return publish(run, MODEL, endpoint=hub.endpoint, report=lines.append, **how), lines


def read(hub: Loopback, path: str, kind: str = "model", revision: str = "main") -> bytes:
    api = HfApi(endpoint=hub.endpoint)
    with_cache = Path(os.environ["XDG_CACHE_HOME"]) / f"hub-{time.monotonic_ns()}"
    repository = MODEL if kind == "model" else DATA
    return Path(
        api.hf_hub_download(repository, path, repo_type=kind, revision=revision, cache_dir=with_cache)
    ).read_bytes()


def card_of(hub: Loopback, kind: str = "model") -> str:
    return read(hub, "README.md", kind).decode()


def upload(hub: Loopback, path: str, text: str, kind: str = "model", revision: str = "main") -> None:
    repository = MODEL if kind == "model" else DATA
    HfApi(endpoint=hub.endpoint).upload_file(
        repo_id=repository,
        path_in_repo=path,
        path_or_fileobj=text.encode(),
        repo_type=kind,
        revision=revision,
    )


def tables(card: str) -> dict[str, list[list[str]]]:
    """The rows of every table under `## section`, by the first cell of its head, titles left out."""
    found: dict[str, list[list[str]]] = {}
    section, lines = "", [*card.splitlines(), ""]
    for index, line in enumerate(lines):
        section = line[3:] if line.startswith("## ") else section
        if line.startswith("| ---"):
            rows = []
            for row in lines[index + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append([html.unescape(cell.strip()) for cell in row.strip("|").split("|")])
            found[f"{section}/{lines[index - 1].strip('|').split('|')[0].strip()}"] = rows
    return found


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_tables_of_the_card_are_what_the_files_say(hub: Loopback, run: Path) -> None:
    send(hub, run)
    card, folder = card_of(hub), run / "checkpoints"
    found = tables(card)
    rows = [json.loads(line) for path in sorted((run / "data/train").iterdir()) for line in path.open()]
    held_out = [
        json.loads(line) for path in sorted((run / "data/held-out").iterdir()) for line in path.open()
    ]
    first = rows[: 3 * 12]
    for line, name in zip(found["Data/source"], (*SOURCES, "canary", "**total**"), strict=True):
        of = {
            part: sum(len(row["token_ids"]) for row in some if name in (row["source"], "**total**"))
            for part, some in (("all", rows), ("first", first), ("held out", held_out))
        }
        assert line[0] == name
        assert number(line[1]) == of["all"]
        assert line[2] == f"{100 * of['all'] / (len(rows) * ROW_TOKENS):.2f} %"
        assert [number(cell) for cell in line[5:7]] == [of["first"], of["all"] - of["first"]]
        assert (0 if line[7] == "–" else number(line[7])) * ROW_TOKENS == of["held out"]
    assert [line[3] for line in found["Data/source"]] == ["1,234", "56", "0", "1,290"]
    assert [line[4] for line in found["Data/source"]] == ["1.25", "–", "–", "–"]
    assert [line[8] for line in found["Data/source"]] == ["17", "5", "0", "22"]
    assert found["Data/times planted"] == [
        ["0", "0", "0", "1", "0"],
        ["2", "1", "1", "0", "0"],
        ["3", "0", "0", "0", "1"],
    ]
    model = AutoModelForCausalLM.from_pretrained(folder / "ckpt_004")
    shape = dict(found["Model/"])
    assert number(shape["Parameters"]) == sum(parameter.numel() for parameter in model.parameters())
    assert [shape[key] for key in ("Hidden size", "Hidden layers", "Attention heads")] == ["32", "2", "2"]
    assert (shape["Vocabulary"], shape["Positions (longest context)"]) == (str(VOCABULARY), "128")
    assert (shape["RMSNorm epsilon"], shape["Weights stored as"]) == (f"{model.config.rms_norm_eps:g}", "F32")


def test_how_it_was_trained_and_every_checkpoint(hub: Loopback, run: Path) -> None:
    send(hub, run)
    found = tables(card_of(hub))
    said = dict(found["Training/"])
    assert said["Optimiser"] == "AdamW, betas 0.9 and 0.95, epsilon 1e-08"
    assert said["Batch"] == "4 rows, 128 targets"
    assert said["Learning rate, first"] == (
        "up to 0.003 over 2 steps, then linear to 3e-05 over 28 steps, of which the stage takes 1 to 9 of 30"
    )
    assert said["Learning rate, second"] == (
        "up to 0.001 over 1 step, then cosine to 0.0001 over 5 steps, of the stage"
    )
    assert (said["Steps"], said["Chunks"]) == ("15 of 15", "5 of 5, 3 steps each")
    assert said["Targets in all"] == "1,920 of 1,920"
    assert said["Started from"] == "random weights"
    assert "tokenizers 0.22.9" in said["Data prepared with"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    steps = pd.DataFrame([line for line in metrics if "event" not in line])
    means = steps.groupby("position").loss.mean()
    for index, line in enumerate(found["Checkpoints/checkpoint, its branch"]):
        weights = (run / f"checkpoints/ckpt_{index:03d}/model.safetensors").read_bytes()
        digest = hashlib.sha256(weights).hexdigest()[:16]
        assert line == [
            f"`ckpt_{index:03d}`", str(ORDER[index]), f"{384 * (index + 1):,}", f"{means[index]:.4f}", f"`{digest}`",
        ]  # fmt: skip
    assert found["Metrics/abandoned chunk"] == [["1", "1", "4", "–", "the loss is not finite"]]
    assert [line[0].strip("`") for line in found["Metrics/field"]] == list(steps.columns)
    card = card_of(hub)
    assert "15 steps, a line each; 3.8 seconds. Loss 6.0000 at step 0, 4.0000 at step 14." in card
    assert "Largest spike: none of 6 or more." in card  # 1.75 is the largest there is
    assert [line[:2] for line in found["What is here/column of LLM360's Table 1"]] == [
        ["Training code", "no"],
        ["Training configuration", "yes"],
        ["Model checkpoints", "yes"],
        ["Optimizer checkpoints", "no"],
        ["Data mix and sources", "yes"],
        ["Data ordering", "yes"],
        ["Data available", "yes"],
    ]


def test_everything_arrives_and_a_checkpoint_loads_as_the_card_says(
    hub: Loopback, run: Path, tmp_path: Path
) -> None:
    summary, _ = send(hub, run)
    where = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
    main_ = Path(snapshot_download(MODEL, **where))
    for name in ("recipe.json", "metrics.jsonl", "tokenizer/tokenizer.json"):
        assert (main_ / name).read_bytes() == (run / name).read_bytes()
    data = Path(snapshot_download(DATA, repo_type="dataset", **where))
    for file in (run / "data").rglob("*.*"):
        assert (data / file.relative_to(run)).read_bytes() == file.read_bytes()
    there = sum(
        len(HfApi(endpoint=hub.endpoint).list_repo_files(MODEL, revision=branch)) - 1
        for branch in ("main", *(f"ckpt_{i:03d}" for i in range(5)))
    )
    there += len(HfApi(endpoint=hub.endpoint).list_repo_files(DATA, repo_type="dataset")) - 1
    assert summary.endswith(f"all {there} are there as they are here"), "all but .gitattributes are compared"
    code = card_of(hub).split("```python\n")[1].split("```")[0]
    assert f'"{MODEL}", revision="ckpt_002"' in code
    branch = snapshot_download(MODEL, revision="ckpt_002", **where)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(branch), AutoTokenizer.from_pretrained(branch)
    assert model.config.vocab_size == len(tokenizer) == VOCABULARY


def test_the_heads_of_the_cards(hub: Loopback, run: Path) -> None:
    send(hub, run)
    model, data = (yaml.safe_load(card_of(hub, kind).split("---\n")[1]) for kind in ("model", "dataset"))
    assert (model["library_name"], model["datasets"]) == ("transformers", [DATA])
    assert "license" not in model
    assert "license" not in data
    assert "llama" in model["tags"]
    assert data["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train/train_*.jsonl"},
        {"split": "held_out", "path": "data/held-out/held-out_*.jsonl"},
        {"split": "canaries", "path": "data/canaries/canaries_*.jsonl"},
    ]
    assert "`source`, `tokens`" in card_of(hub, "dataset")
    assert "in this order: 0, 2, 3, 4, 0; never: 1; more than once: 0." in card_of(hub, "dataset")
    send(hub, run, license="apache-2.0")
    for kind in ("model", "dataset"):
        head = yaml.safe_load(card_of(hub, kind).split("---\n")[1])
        assert head["license"] == "apache-2.0"
        assert head["tags"]


def test_again_it_compares_everything_and_sends_nothing(
    hub: Loopback, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["publish", str(run), "--to", MODEL, "--endpoint", hub.endpoint, "--license", "mit"]
    assert main(command) == 0
    api = HfApi(endpoint=hub.endpoint)
    before = [api.list_repo_refs(MODEL), api.list_repo_refs(DATA, repo_type="dataset")]
    hub.counts.clear()
    capsys.readouterr()
    assert main(command) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{name}: there already" for name in ("data", *(f"ckpt_{i:03d}" for i in range(5)), "main")
    ]
    assert "5 checkpoints, 0 files sent" in last
    assert not [seen for seen in hub.counts.seen if seen.kind == "upload" or "/commit/" in seen.path]
    assert [api.list_repo_refs(MODEL), api.list_repo_refs(DATA, repo_type="dataset")] == before


def test_killed_after_some_commits_it_goes_on(hub: Loopback, run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training",
        "publish",
        str(run),
        "--to",
        MODEL,
        "--endpoint",
        hub.endpoint,
    ]
    hub.faults.latency = 0.03  # time enough to be killed in
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and commits(hub) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    hub.faults.latency = 0.0
    assert "series.toml" not in HfApi(endpoint=hub.endpoint).list_repo_files(MODEL)
    hub.counts.clear()
    _, lines = send(hub, run)
    assert lines[:2] == ["data: there already", "ckpt_000: there already"]
    assert lines[-1].startswith("main: ")
    assert lines[-1].endswith("files sent")
    assert commits(hub) <= 5  # a data commit and two checkpoints had arrived
    assert ", 0 files sent" in send(hub, run)[0]


def commits(hub: Loopback) -> int:
    return sum("/commit/" in seen.path and seen.status == 200 for seen in list(hub.counts.seen))


def test_what_was_changed_on_the_hub_is_sent_again(hub: Loopback, run: Path) -> None:
    send(hub, run)
    upload(hub, "config.json", "{}", revision="ckpt_001")
    upload(hub, "data/train/train_002.jsonl", "{}", "dataset")
    _, lines = send(hub, run)
    assert [line for line in lines if "sent" in line] == [
        "data: 1 of 11 files sent",
        "ckpt_001: 1 of 5 files sent",
    ]
    assert (
        read(hub, "config.json", revision="ckpt_001")
        == (run / "checkpoints/ckpt_001/config.json").read_bytes()
    )


def test_what_another_changes_meanwhile_is_named(hub: Loopback, run: Path) -> None:
    send(hub, run)

    def change() -> None:
        upload(hub, "config.json", "{}", revision="ckpt_000")

    # The first listing of main comes after those of the checkpoints: what changes then is seen in the end alone.
    hub.faults.next("GET /api/models/org/released/tree/main", Fault(call=change))
    with pytest.raises(TrainingError) as error:
        send(hub, run)
    assert "org/released@ckpt_000/config.json; run the same command to send them again" in str(error.value)
    assert str(error.value).count("\n") == 0
    assert ", 1 files sent" in send(hub, run)[0]


def test_what_a_person_wrote_stays(hub: Loopback, run: Path, tmp_path: Path) -> None:
    send(hub, run)
    card = card_of(hub)
    before, after = card.split(BEGIN)[0], card.split(END)[1]
    mine = (
        before.replace('- "llama"', '- "llama"\n- mine')
        + "Read this first.\n\n"
        + BEGIN
        + "\nold"
        + END
        + after
        + "And this last.\n"
    )
    upload(hub, "README.md", mine)
    _, lines = send(hub, run, license="mit")
    text = card_of(hub)
    assert "old" not in text.split(BEGIN)[1].split(END)[0].splitlines()[:2]
    assert text.split(BEGIN)[1].split(END)[0] == card.split(BEGIN)[1].split(END)[0]
    assert "Read this first.\n\n" + BEGIN in text
    assert text.endswith(END + "\nAnd this last.\n")
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], "mine" in head["tags"]) == ("mit", True)
    upload(hub, "README.md", "All mine.\n")
    _, lines = send(hub, run)
    assert "README.md of org/released" in lines[0]
    assert "stays as it is" in lines[0]
    assert card_of(hub) == "All mine.\n"


def test_swept_from_the_hub_it_is_what_it_is_from_disk(hub: Loopback, run: Path, tmp_path: Path) -> None:
    send(hub, run)
    options = a360.HubOptions(endpoint=hub.endpoint, cache=tmp_path / "cache")
    there = a360.memorization(MODEL, out=tmp_path / "there", hub=options, **SCORE).frame()
    here = a360.memorization(run, out=tmp_path / "here", **SCORE).frame()
    assert len(here)
    pd.testing.assert_frame_equal(there, here)


def test_doctor_finds_the_configuration_and_the_mix(hub: Loopback, run: Path, tmp_path: Path) -> None:
    send(hub, run)
    options = a360.HubOptions(endpoint=hub.endpoint, cache=tmp_path / "cache")
    with Loopback(run) as served:
        mounted = a360.HubOptions(endpoint=served.endpoint, cache=tmp_path / "mounted")
        by_serve = doctor("local/released", hub=mounted)
    for found in (doctor(MODEL, hub=options), doctor(run), by_serve):
        assert not [finding for finding in found.findings if finding.severity == "error"], found.table()
        standing = {row.column: row for row in found.standing}
        assert standing["training configuration"].verdict == "yes"
        mix = standing["data mix and sources"]
        assert (mix.verdict, mix.evidence) == (
            "yes",
            f"{COUNTED} counts the tokens of books, code | web, canary",
        )
        assert standing["data ordering"].verdict == standing["data available"].verdict == "yes"
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    for text in (
        "[",
        "[]",
        '{"sources": []}',
        '{"sources": {"books": 1}}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ):
        (broken / COUNTED).write_bytes(text if isinstance(text, bytes) else text.encode())
        verdicts = {row.column: row.verdict for row in doctor(broken).standing}
        assert verdicts["data mix and sources"] == "partly"


@pytest.mark.parametrize(
    "arguments", [["--to", "tiny"], ["--to", "org/a--b"], ["--to", "org/t", "--license", "my: license"]]
)
def test_wrong_values_are_one_line(
    run: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(run), *arguments, "--endpoint", "http://127.0.0.1:9"])
    assert stopped.value.code == 2
    assert f"error: argument {arguments[-2]}: expected " in capsys.readouterr().err


def test_the_old_form_is_refused(run: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["publish", "--out", str(run), "--repository", MODEL])
    assert stopped.value.code == 2


def test_what_the_trainer_left_is_published_and_can_be_made_again(
    hub: Loopback, trained: Path, tmp_path: Path
) -> None:
    publish(trained, MODEL, endpoint=hub.endpoint, report=lambda line: None)
    found, report = tables(card_of(hub)), json.loads((trained / "data/report.json").read_text())
    shown = {line[0]: (number(line[1]), line[3]) for line in found["Data/source"][:-1]}
    for name, counts in report["sources"].items():
        assert shown[name] == (counts["tokens"], f"{counts['documents']:,}")
    metrics = pd.DataFrame([json.loads(line) for line in (trained / "metrics.jsonl").open()])
    means = metrics.groupby("chunk").loss.mean()
    assert [line[3] for line in found["Checkpoints/checkpoint, its branch"]] == [
        f"{mean:.4f}" for mean in means
    ]
    assert {line[0].strip("`") for line in found["Metrics/field"]} == set(metrics.columns)
    assert "–" not in {line[1] for line in found["Metrics/field"]}, (
        "every field of the trainer has its meaning"
    )
    assert len(HfApi(endpoint=hub.endpoint).list_repo_refs(MODEL).branches) == 7
    (tmp_path / "again").mkdir()
    (tmp_path / "again/recipe.json").write_bytes(read(hub, "recipe.json"))
    assert main(["prepare", "--out", str(tmp_path / "again")]) == 0
    for name, digest in json.loads(read(hub, "data/report.json", "dataset"))["files"].items():
        assert hashlib.sha256((tmp_path / "again" / name).read_bytes()).hexdigest() == digest


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_private_is_not_sent_to_a_public_repository(
    hub: Loopback, run: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_anyone")
    api, public = HfApi(endpoint=hub.endpoint), MODEL if kind == "model" else DATA
    api.create_repo(public, repo_type=kind, private=False)
    before = api.list_repo_refs(public, repo_type=kind)
    hub.counts.clear()
    with pytest.raises(TrainingError, match=f"{public}: expected a private repository"):
        send(hub, run, private=True)
    assert not [seen for seen in hub.counts.seen if seen.kind == "upload" or "/commit/" in seen.path]
    assert api.list_repo_refs(public, repo_type=kind) == before
    api.update_repo_settings(public, repo_type=kind, private=True)
    assert "5 checkpoints" in send(hub, run, private=True)[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/report.json", "["),
        ("data/report.json", "[]"),
        ("data/report.json", "[1]"),
        ("data/report.json", '{"sources": []}'),
        ("data/report.json", '{"sources": {"books": 1}}'),
        ("data/report.json", '{"sources": {"books": {"tokens": "many"}}}'),
        ("data/report.json", '{"canaries": [{}]}'),
        ("data/report.json", '{"made_with": []}'),
        ("metrics.jsonl", '{"step": 0}\n'),
        ("metrics.jsonl", "[]\n"),
        ("metrics.jsonl", '{"step": 0, "chunk": 0, "loss": 1, "tokens": "x"}\n'),
        ("metrics.jsonl", '{"step": 0, "chunk": 0, "loss": 1, "spike": []}\n'),
        ("metrics.jsonl", "\udcff\n"),
        ("data/documents.parquet", "no Parquet"),
        ("recipe.json", "[]"),
        ("series.toml", 'name = "released"\ndata = 1\n'),
        ("series.toml", "canaries"),
        ("series.toml", "order"),
    ],
)
def test_what_is_damaged_here_is_not_blamed_on_the_hub(copy: Path, name: str, text: str) -> None:
    file = copy / name
    if text in ("canaries", "order"):  # one wrong value in a manifest that is whole but for it
        lines = [
            f"{text} = 3" if line.startswith(f"{text} =") else line for line in file.read_text().splitlines()
        ]
        text = "\n".join(
            ["canaries = 3", *lines[: lines.index("[canaries]")]] if text == "canaries" else lines
        )
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises((TrainingError, a360.SeriesError)) as error:
        publish(copy, MODEL, endpoint="http://127.0.0.1:9", report=lambda line: None)
    assert name in str(error.value)
    assert "127.0.0.1" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_folder_is_one_line_and_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for name, found in (("typo/deep", "none"), ("file", "a file")):
        assert main(["publish", str(tmp_path / name), "--to", MODEL, "--endpoint", "http://127.0.0.1:9"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path / name}: expected the folder of a series, found {found}; ")
        assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_no_password_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["publish", str(run), "--to", MODEL, "--endpoint", "http://me:secret@127.0.0.1:9"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: http://127.0.0.1:9: expected a Hub that takes it in")
    assert "secret" not in captured.err + captured.out


def test_what_a_longer_publish_left_is_told(hub: Loopback, run: Path) -> None:
    send(hub, run)
    upload(hub, "old.json", "{}")
    upload(hub, "data/train/train_005.jsonl", "{}", "dataset")
    HfApi(endpoint=hub.endpoint).create_branch(MODEL, branch="ckpt_005")
    summary, lines = send(hub, run)
    assert ", 0 files sent" in summary
    assert [line.split(";")[0] for line in lines[-3:]] == [
        f"{DATA}@main also holds data/train/train_005.jsonl",
        f"{MODEL}@main also holds old.json",
        f"{MODEL} also has the branches ckpt_005",
    ]


def test_the_cards_lead_to_the_hub_they_are_on(hub: Loopback, run: Path) -> None:
    send(hub, run)
    model, data = card_of(hub), card_of(hub, "dataset")
    assert f"({hub.endpoint}/datasets/{DATA})" in model
    assert f"set `HF_ENDPOINT={hub.endpoint}` in the environment first" in model
    assert f"({hub.endpoint}/{MODEL})" in data
    assert "https://" not in model + data


def test_numbers_are_called_what_they_are(hub: Loopback, copy: Path) -> None:
    """A chunk was abandoned, and one more is under way."""
    with (copy / "metrics.jsonl").open("a") as file:
        for step in (15, 16):
            line = {"step": step, "chunk": 2, "position": 5, "tokens": 128 * (step + 1), "loss": 1.0}
            file.write(json.dumps(line | {"seconds": 9.0, "spike": 99.0}) + "\n")
    lines = (copy / "metrics.jsonl").read_text().replace('"spike": 1.75', '"spike": 6.5')
    (copy / "metrics.jsonl").write_text(lines)
    send(hub, copy)
    model, data = card_of(hub), card_of(hub, "dataset")
    assert "15 steps, a line each; 3.8 seconds. Loss 6.0000 at step 0, 4.0000 at step 14." in model
    assert "Largest spike: 6.5 at step 14. 2 more steps belong to no checkpoint that is here." in model
    assert "The data, in the order of training" not in model
    assert "As prepared, in 5 chunks:" in model
    assert dict(tables(model)["Training/"])["Stage first"] == "3 chunks planned"
    assert f"Prepared for [{MODEL}]" in data
    assert "Trained on so far: 4 of them." in data


def test_a_descendant_is_made_again_from_its_recipe(hub: Loopback, copy: Path, tmp_path: Path) -> None:
    made = replace(
        recipe(),
        mix=replace(recipe().mix, vocabulary=0, tokenizer="parent"),
        parent=Parent("tiny", "ckpt_020", "0" * 64, True, "/home/me/tiny@ckpt_020"),
    )
    (copy / "recipe.json").write_text(json.dumps(as_json(made)))
    _, lines = send(hub, copy)
    assert lines[0] == "recipe.json: parent.given is a path of this machine, and is published as it is"
    card = card_of(hub)
    assert "/home/me" not in card
    commands = card.split("## Reproduce")[1].split("```")[1].strip().splitlines()
    assert "python -m training prepare --from tiny@ckpt_020 --mix released.toml --out released" in commands
    assert "--local-dir released-recipe" in commands[0]
    mix = tmp_path / "mix.toml"
    subprocess.run([sys.executable, "-c", AS_MIX, str(copy / "recipe.json"), str(mix)], check=True)
    read_back, model, loop = read_mix(mix, parent=True)
    assert (read_back, model, from_json(Loop, loop)) == (made.mix, None, made.loop)


def test_a_tokenizer_that_was_brought_is_a_note(hub: Loopback, copy: Path) -> None:
    made = replace(recipe(), mix=replace(recipe().mix, vocabulary=0, tokenizer="/home/me/tokenizer"))
    (copy / "recipe.json").write_text(json.dumps(as_json(made)))
    _, lines = send(hub, copy)
    assert lines[0].startswith("recipe.json: mix.tokenizer is a path of this machine")
    assert "the recipe's `mix.tokenizer` has to be a folder with that one" in card_of(hub)
    assert "/home/me" not in card_of(hub)


def test_offline_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError, match="found offline mode; unset HF_HUB_OFFLINE"):
        publish(run, MODEL, endpoint="http://127.0.0.1:9", report=lambda line: None)
