"""The parts of a card: the losses of chunks out of any metrics, the marks in any README, long tables."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from huggingface_hub.errors import BadRequestError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_series import MakeSeries

from analysis360.loopback.published import Published, published
from training.errors import TrainingError
from training.publishing.card import data_card, model_card
from training.publishing.history import chunk_losses, read_history
from training.publishing.hub import explained
from training.publishing.readme import BEGIN, END, brought_up_to_date, head, scalar
from training.publishing.tables import Release, cell, checkpoint_table, code, release_of

CHUNKS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 3)), min_size=1, max_size=8)


@given(CHUNKS, st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_loss_of_a_chunk_is_that_of_its_own_steps(
    tmp_path: Path, stays: list[tuple[int, bool, int]], undone: bool
) -> None:
    """Whether the steps of an abandoned chunk are still in the file or not."""
    lines: list[dict[str, Any]] = []
    order: list[int] = []
    means: list[float] = []
    for turn, (chunk, abandoned, steps) in enumerate(stays):
        at = {"chunk": chunk, "position": len(order)}
        losses = [turn + step / 10 for step in range(steps)]
        if not (abandoned and undone):
            lines += [{"step": step, **at, "loss": loss} for step, loss in enumerate(losses)]
        if abandoned:
            lines.append({"event": "abandoned", **at, "step": steps, "loss": None})
        else:
            order.append(chunk)
            means.append(sum(losses) / steps)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "chu')
    history = read_history(path)
    assert chunk_losses(history, order) == pytest.approx(means)
    if history:
        assert len(history.abandoned) == sum(abandoned for _, abandoned, _ in stays)


def test_metrics_that_lack_a_chunk_say_so(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "chunk": 0, "loss": 2.0}\n{"step": 1, "chunk": 2, "loss": 1.0}\n')
    assert chunk_losses(read_history(path), [0, 1, 2]) == [2.0, None, 1.0]
    assert chunk_losses(None, [0, "unknown"]) == [None, None]
    path.write_text('{"step": 0, "chunk": 0, "loss": 2.0}\n{"step": 1, "loss"\n')
    with pytest.raises(TrainingError, match=r"metrics.jsonl, line 2: expected a step or an event"):
        read_history(path)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40)


@given(TEXT, TEXT, TEXT)
def test_all_but_our_part_of_a_readme_stays(before: str, after: str, body: str) -> None:
    new = brought_up_to_date(None, head(None, ["tags:", "- a"]), "title", body, None)
    assert new is not None
    assert yaml.safe_load(new.split("---\n")[1]) == {"tags": ["a"]}
    edited = before + BEGIN + "gone" + END + after
    once = brought_up_to_date(edited, "", "", body, None)
    assert once is not None
    assert once == f"{before}{BEGIN}\n\n{body.strip()}\n\n{END}{after}"
    assert brought_up_to_date(once, "", "", body, None) == once
    assert brought_up_to_date(before + after, "", "", body, None) is None
    assert brought_up_to_date(once + once, "", "", body, None) is None


@pytest.mark.parametrize(
    "metadata",
    ["", "license: mit\n", "a: 1\nlicense:\n- mit\n- isc\nb: 2\n", "license: other\nlicense_name: x\n"],
)
def test_a_license_is_set_in_a_head_that_is_there(metadata: str) -> None:
    old = f"---\n{metadata}---\nHello {BEGIN}{END}" if metadata else f"Hello {BEGIN}{END}"
    text = brought_up_to_date(old, "", "", "body", "apache-2.0")
    assert text is not None
    kept = yaml.safe_load(metadata) or {}
    assert yaml.safe_load(text.split("---\n")[1]) == {**kept, "license": "apache-2.0"}
    assert text.split("---\n")[2].strip().startswith(f"Hello {BEGIN}")


@given(st.text(st.sampled_from("\\`*_[]!<>|&~$ -a#"), max_size=30))
def test_a_name_is_shown_as_it_is_and_ends_nothing(name: str) -> None:
    plain, shown = " ".join(name.split()), cell(name)
    assert html.unescape(shown) == plain
    assert not set("\\`*_[]!<>|~$") & set(shown)
    as_code = code(name)
    inside = as_code.strip("`") if as_code.startswith("`") else as_code[len("<code>") : -len("</code>")]
    assert html.unescape(inside) == plain
    assert not set("\\`<>|") & set(inside)


@given(TEXT)
def test_any_text_is_a_scalar_of_yaml(text: str) -> None:
    text = "".join(character for character in text if character.isprintable())
    assert yaml.safe_load(head("no", ["datasets:", f"- {scalar(text)}"]).split("---\n", 1)[1][:-4]) == {
        "license": "no",
        "datasets": [text],
    }


@pytest.mark.parametrize(
    "marks", [BEGIN + BEGIN + END, BEGIN + END + END, END + BEGIN, BEGIN, END, END + BEGIN + END]
)
def test_marks_that_are_not_one_pair_in_order_are_left_alone(marks: str) -> None:
    assert brought_up_to_date(f"mine {marks} mine", "", "", "body", "mit") is None


def test_the_loss_of_a_chunk_is_a_mean_of_targets(tmp_path: Path) -> None:
    """Chunks of 4 + 4 + 2 targets, the second one abandoned, its steps still there."""
    steps = [(0, 0, 4, 3.0), (1, 0, 8, 2.0), (2, 0, 10, 1.0), (3, 1, 14, 9.0), (4, 1, 18, 9.0)]
    again = [(3, 2, 14, 2.0), (4, 2, 18, 1.0), (5, 2, 20, 0.5)]
    gone = {"event": "abandoned", "chunk": 1, "position": 1, "step": 5, "tokens": 18, "loss": None}
    lines = [
        {"step": step, "chunk": chunk, "position": min(chunk, 1), "tokens": tokens, "loss": loss}
        for step, chunk, tokens, loss in (*steps, *again)
    ]
    lines.insert(len(steps), gone)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # (4 x 3 + 4 x 2 + 2 x 1) / 10 and (4 x 2 + 4 x 1 + 2 x 0.5) / 10; means of steps would be 2 and 1.17.
    assert chunk_losses(read_history(path), [0, 2]) == pytest.approx([2.2, 1.3])


def failed(error: Exception, cause: Exception | None = None) -> str:
    with pytest.raises(TrainingError) as raised, explained("http://hub"):
        raise error from cause
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_the_client_raises_is_told_with_a_way_out(tmp_path: Path) -> None:
    offline = failed(LocalEntryNotFoundError("An error happened"), OfflineModeIsEnabled("Cannot reach"))
    assert offline == "http://hub: expected a connection, found offline mode; unset HF_HUB_OFFLINE"
    lost = failed(LocalEntryNotFoundError("An error happened"), httpx2.ConnectError("refused"))
    assert lost.endswith("found refused; run the same command to go on")
    assert "An error happened; run" in failed(LocalEntryNotFoundError("An error happened"))
    request = httpx2.Request("POST", "http://hub/api/models/org/a/commit/main")
    answer = httpx2.Response(400, json={"error": '"license" must be\none of them'}, request=request)
    try:
        hf_raise_for_status(answer)
    except BadRequestError as refused:
        text = failed(refused)
    assert 'found 400: "license" must be one of them; mend what it names' in text
    with pytest.raises(TrainingError, match=r"^\S*/gone: expected a file to read"), explained("http://hub"):
        (tmp_path / "gone").read_bytes()


def test_a_series_without_recipe_or_report_says_what_is_not_known(small_series: Path) -> None:
    release = release_of(small_series, published(small_series), "org/small")
    card = model_card(release)
    assert "how it was trained is not known" in card
    assert "tokens a source are not known" in card
    assert "| `ckpt_002` | 2 | 2,340 | – | `" in card
    assert "Not possible from here" in card
    assert "| Training configuration | no |" in card
    assert "`train/train_{index:03d}.jsonl`" in data_card(release)


def test_a_long_table_is_folded(make_series: MakeSeries) -> None:
    folder = make_series("one", checkpoints=1, chunks=1)
    one = published(folder)
    many = Published(
        one.name, {f"c{i}": one.checkpoints["ckpt_000"] for i in range(360)}, one.data, one.extra, one.raw
    )
    text = checkpoint_table(Release("org/one", many, None, None, None))
    assert "<details>\n<summary>360 checkpoints</summary>\n\n| checkpoint" in text
    assert sum(line.startswith("| `c") for line in text.splitlines()) == 360
