"""Perplexity of chunks and text against one model pass a target, lm-eval's own figure, and plain resampling."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent / "engines"))
from pretrained import smollm2
from small_series import EOS, ROW_TOKENS, MakeSeries
from small_tokenizer import save_tokenizer
from wheels import UnavailableError

from analysis360 import statistics
from analysis360.errors import Analysis360Error, NotStoredError, SelectionError
from analysis360.perplexing import perplexity, stored_perplexities
from analysis360.perplexities import PerplexityResult
from analysis360.series import Series, open_series
from analysis360.summaries.losses import loss_summary

WIKITEXT = Path(__file__).resolve().parents[2] / "shared/data/wikitext/wikitext.txt"
WINDOW = ROW_TOKENS - 1
PROSE = ["def main(name):\n    return name\n" * 3, "caf\u00e9 \u4e16\u754c\n" * 7, "x"]


def ask(series: Path | Series, out: Path, **how: Any) -> PerplexityResult:
    return perplexity(series, **{"engine": "torch", "out": out, "progress": False, **how})


class Judge:
    """A checkpoint in float64, asked for one target after another."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()

    def logprob(self, context: list[int], target: int) -> float:
        with self.torch.no_grad():
            logits = self.model(self.torch.tensor([context])).logits[0, -1]
        return float(logits[target] - logits.logsumexp(0))

    def row(self, ids: list[int]) -> list[float]:
        """Of every target of a row."""
        return [self.logprob(ids[:place], ids[place]) for place in range(1, len(ids))]


@pytest.fixture(scope="module")
def scored(small_series: Path, tmp_path_factory: pytest.TempPathFactory) -> PerplexityResult:
    return ask(small_series, tmp_path_factory.mktemp("scored"), window=WINDOW)


@pytest.fixture(scope="module")
def readable_series(make_series: MakeSeries) -> Path:
    """Two checkpoints that read text."""
    root = make_series("readable", checkpoints=2, chunks=2)
    from small_series import save_llama

    for i in range(2):
        save_llama(root / f"checkpoints/ckpt_{i:03d}", seed=i, vocab_size=300)
        save_tokenizer(root / f"checkpoints/ckpt_{i:03d}")
    return root


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prose") / "prose.jsonl"
    sources = ["code", "words", "words"]
    rows = [{"text": text, "source": source} for text, source in zip(PROSE, sources, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- chunks -------------------------------------------------------------------------------------------


def test_rows_of_chunks_are_as_likely_as_one_pass_a_target_says(
    scored: PerplexityResult, small_series: Path
) -> None:
    frame = scored.frame()
    assert scored.joined is not None
    judge = Judge(small_series / "checkpoints/ckpt_002")
    for name in ("train_001", "held-out_000", "canaries"):
        for position, ids in enumerate(scored.joined.by_name[name].ids[:3].tolist()):
            logprob = judge.row(ids)
            eos = [one for one, target in zip(logprob, ids[1:], strict=True) if target == EOS]
            mine = frame[
                (frame["ckpt"] == "ckpt_002") & (frame["chunk"] == name) & (frame["position"] == position)
            ]
            (row,) = mine.to_dict("records")
            assert row["targets"] == WINDOW
            assert row["eos_targets"] == len(eos)
            assert row["logprob"] == pytest.approx(sum(logprob), abs=2e-4)
            assert row["eos_logprob"] == pytest.approx(sum(eos), abs=2e-5)
    assert (frame["eos_targets"] > 0).any()


def test_loss_by_checkpoint_and_chunk_weighs_targets(scored: PerplexityResult) -> None:
    frame, matrix, without = scored.frame(), scored.matrix(), scored.matrix(without_eos=True)
    assert matrix.shape == (4, 7)
    for ckpt in matrix.index:
        for chunk in matrix.columns:
            rows = frame[(frame["ckpt"] == ckpt) & (frame["chunk"] == chunk)]
            assert matrix.loc[ckpt, chunk] == pytest.approx(-rows["logprob"].sum() / rows["targets"].sum())
            kept = (
                -(rows["logprob"] - rows["eos_logprob"]).sum() / (rows["targets"] - rows["eos_targets"]).sum()
            )
            assert without.loc[ckpt, chunk] == pytest.approx(kept)
    by_chunk = scored.summary("chunk").set_index(["ckpt", "chunk"])["loss"].unstack()
    np.testing.assert_allclose(by_chunk.to_numpy(), matrix.to_numpy())


def test_a_window_without_a_number_leaves_none_to_its_cell(scored: PerplexityResult) -> None:
    """As where half precision overflows: a mean of the other windows would be of other text."""
    frame = scored.frame()
    lost = (frame["ckpt"] == "ckpt_001") & (frame["chunk"] == "train_001") & (frame["position"] == 3)
    assert lost.sum() == 1
    broken = replace(scored)
    broken.__dict__["_frame"] = frame.assign(
        logprob=frame["logprob"].mask(lost), loss=frame["loss"].mask(lost)
    )
    for without in (False, True):
        matrix, whole = broken.matrix(without), scored.matrix(without)
        assert np.isnan(matrix.loc["ckpt_001", "train_001"])
        assert matrix.isna().to_numpy().sum() == whole.isna().to_numpy().sum() + 1
    by_chunk = broken.summary("chunk").set_index(["ckpt", "chunk"])
    assert by_chunk.loc[("ckpt_001", "train_001"), ["loss", "loss_low", "loss_high"]].isna().all()


def test_groups_follow_what_had_been_trained_on(scored: PerplexityResult, small_series: Path) -> None:
    frame = scored.frame()
    exposure = open_series(small_series).exposure
    train = frame[frame["role"] == "train"]
    for (ckpt, chunk), rows in train.groupby(["ckpt", "chunk"], observed=True):
        seen = exposure.times(int(ckpt[-3:]))[int(chunk[-3:])] > 0
        assert set(rows["group"]) == {"trained text" if seen else "not yet trained"}
    summary = scored.summary()
    counts = summary.set_index(["ckpt", "group"])["windows"]
    assert counts["ckpt_001", "trained text"] == counts["ckpt_001", "not yet trained"] == 24
    assert counts["ckpt_001", "held-out text"] == 24
    assert counts["ckpt_003", "never planted"] == 1
    assert ("ckpt_003", "not yet trained") not in counts.index
    assert np.allclose(summary["perplexity"], np.exp(summary["loss"]))
    assert summary["bits_per_byte"].isna().all()  # no tokenizer
    assert any("no checkpoint brings a tokenizer" in note for note in scored.notes)


def test_neither_batches_nor_neighbours_change_a_row(
    scored: PerplexityResult, small_series: Path, tmp_path: Path
) -> None:
    alone = ask(small_series, tmp_path, ckpts="1", chunks="2", sequences=1, window=WINDOW)
    keys = ["ckpt", "chunk", "position"]
    both = alone.frame().merge(scored.frame(), on=keys, suffixes=("", "_together"))
    assert len(both) == len(alone) == 1 + 2 + 3
    np.testing.assert_allclose(both["loss"], both["loss_together"], atol=1e-5)


def test_what_is_stored_is_not_computed_again_and_other_settings_stand_apart(
    small_series: Path, tmp_path: Path
) -> None:
    asked = {"ckpts": "0,2", "chunks": ":2", "window": 20}
    with pytest.raises(NotStoredError, match="run `analysis360 perplexity` first"):
        ask(small_series, tmp_path, compute=False, **asked)
    first = ask(small_series, tmp_path, sequences=5, **asked)
    more = ask(small_series, tmp_path, **asked)
    assert first.report.computed == 2 * (2 * 5 + 2 * 5 + 3)
    assert more.report.computed == 2 * (4 * 12 + 3) - first.report.computed
    read = ask(small_series, tmp_path, compute=False, **asked)
    pd.testing.assert_frame_equal(read.frame(), more.frame())
    shorter = ask(small_series, tmp_path, **{**asked, "window": 19})
    assert shorter.report.stored == 0
    assert (shorter.frame()["targets"] == 19).all()
    stored = list(stored_perplexities(open_series(small_series), engine="torch", out=tmp_path))
    assert sorted(result.task.how.window for result in stored) == [19, 20]
    (found,) = (result for result in stored if result.task.how.window == 20)
    pd.testing.assert_frame_equal(found.summary(), more.summary(), check_categorical=False)


def test_bytes_of_chunks_are_those_of_their_text(readable_series: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(readable_series / "checkpoints/ckpt_000")
    result = ask(readable_series, tmp_path, ckpts="0", chunks="0", window=40)
    rows = result.frame().query("chunk == 'train_000'")
    assert result.joined is not None
    panel = result.joined.by_name["train_000"]
    for size, ids in zip(rows["bytes"], panel.ids.tolist(), strict=True):
        pieces = tokenizer.convert_ids_to_tokens([one for one in ids[1:] if one != EOS])
        assert size == sum(map(len, pieces))  # a character of a byte-level token is a byte
    bits = -(rows["logprob"] - rows["eos_logprob"]).sum() / math.log(2) / rows["bytes"].sum()
    summary = result.summary("chunk").set_index("chunk")
    assert summary.loc["train_000", "bits_per_byte"] == pytest.approx(bits)


# --- text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride", "prefix"), [(16, 16, True), (16, 5, True), (9, 1, False)])
def test_text_is_as_likely_as_one_pass_a_target_says(
    readable_series: Path, prose: Path, tmp_path: Path, window: int, stride: int, prefix: bool
) -> None:
    from tokenizers import Tokenizer

    folder = readable_series / "checkpoints/ckpt_001"
    result = ask(
        readable_series, tmp_path, ckpts="1", text=prose, window=window, stride=stride, prefix=prefix
    )
    judge, tokenizer = Judge(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    total = []
    for number, text in enumerate(PROSE):
        ids = ([EOS] if prefix else []) + tokenizer.encode(text).ids
        done, logprob = 0, []
        while done < len(ids) - 1:
            end = min(len(ids) - 1, done + (stride if done else window))
            begin = max(0, end - window)
            logprob += [judge.logprob(ids[begin:place], ids[place]) for place in range(done + 1, end + 1)]
            done = end
        rows = result.frame()[result.frame()["document"] == number]
        assert rows["targets"].sum() == len(logprob) == len(ids) - 1
        assert rows["logprob"].sum() == pytest.approx(sum(logprob), abs=2e-4)
        if prefix:
            assert rows["bytes"].sum() == len(text.encode())
        total += logprob
    (line,) = result.summary().to_dict("records")
    assert line["loss"] == pytest.approx(-np.mean(total), abs=1e-5)
    assert line["perplexity"] == pytest.approx(math.exp(-np.mean(total)), rel=1e-4)
    by_source = result.summary("source").set_index("source")
    assert by_source["documents"].to_dict() == {"code": 1, "words": 2 if prefix else 1}


def test_a_longer_context_helps_what_repeats_itself(
    readable_series: Path, tmp_path: Path, prose: Path
) -> None:
    """Overlap changes targets after the first window only, and none of a document that fits one."""
    frames = [
        ask(readable_series, tmp_path, ckpts="0", text=prose, window=16, stride=stride).frame()
        for stride in (16, 4)
    ]
    disjoint, strided = (frame.groupby("document")["logprob"].sum() for frame in frames)
    assert disjoint[2] == strided[2]
    assert disjoint[0] != strided[0]
    firsts = [frame.drop_duplicates("document")["logprob"].to_numpy() for frame in frames]
    np.testing.assert_allclose(*firsts, atol=1e-4)


def test_text_beside_other_text_is_as_likely(readable_series: Path, prose: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.txt").write_text(PROSE[1])
    both = ask(readable_series, tmp_path / "a", text=[prose, tmp_path / "alone.txt"], window=24)
    alone = ask(readable_series, tmp_path / "b", text=tmp_path / "alone.txt", window=24)
    summary = both.summary().set_index(["ckpt", "group"])
    for line in alone.summary().to_dict("records"):
        there = summary.loc[(line["ckpt"], "alone")]
        assert there["loss"] == pytest.approx(line["loss"], abs=1e-5)
        assert there["interval"] == "bootstrap over rows"  # of one document, its windows
    frame = both.frame().query("chunk == 'prose' and document == 1")
    np.testing.assert_allclose(alone.frame()["loss"], frame["loss"], atol=1e-5)


def rolling(model: Any, tokenizer: Any, texts: list[str], window: int) -> tuple[int, list[float]]:
    """lm-eval's prefix id and log-probabilities, one sequence at a time."""
    HFLM = pytest.importorskip("lm_eval.models.huggingface").HFLM  # noqa: N806
    from lm_eval.api.instance import Instance

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=window, device="cpu")
    asked = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    return lm.prefix_token_id, lm.loglikelihood_rolling(asked, disable_tqdm=True)


def compare_with_lm_eval(checkpoint: Path, texts: list[str], window: int, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    prefix, theirs = rolling(model, AutoTokenizer.from_pretrained(checkpoint), texts, window)
    series = open_series(checkpoint)
    model = replace(series.manifest.model, prefix_token_id=prefix)
    series = replace(series, manifest=replace(series.manifest, model=model))
    (out / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    ours = ask(series, out, text=out / "texts.jsonl", window=window)
    found = ours.frame().groupby("document")["logprob"].sum()
    np.testing.assert_allclose(found, theirs, atol=1e-3)


def test_equals_lm_eval_on_a_small_model(readable_series: Path, tmp_path: Path) -> None:
    compare_with_lm_eval(readable_series / "checkpoints/ckpt_000", [*PROSE, "a" * 33], 16, tmp_path)


def test_equals_lm_eval_on_real_weights_and_real_text(tmp_path: Path) -> None:
    if not WIKITEXT.exists():
        pytest.skip(f"no text at {WIKITEXT}")
    try:
        folder = smollm2()
    except UnavailableError as error:
        pytest.skip(str(error))
    lines = [line for line in WIKITEXT.read_text().split("\n") if 500 < len(line) < 900][:3]
    compare_with_lm_eval(folder, lines, 64, tmp_path)


# --- intervals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [40, 400])
def test_rows_are_resampled_within_their_strata(n: int) -> None:
    rng = np.random.default_rng(n)
    strata = rng.integers(0, 4, n)
    counts = rng.integers(1, 30, n).astype(float)
    sums = counts * (strata + rng.normal(size=n))
    found = statistics.bootstrap_within_strata(sums, counts, strata)
    draws = []
    for _ in range(4000):
        picked = np.concatenate(
            [rng.choice(np.flatnonzero(strata == i), int((strata == i).sum())) for i in range(4)]
        )
        draws.append(sums[picked].sum() / counts[picked].sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.value == pytest.approx(sums.sum() / counts.sum())
    width = high - low
    assert found.low == pytest.approx(low, abs=0.12 * width)
    assert found.high == pytest.approx(high, abs=0.12 * width)


def test_many_documents_have_the_bounds_that_drawing_them_has() -> None:
    rng = np.random.default_rng(0)
    n = 2400
    targets = rng.integers(20, 400, n)
    frame = pd.DataFrame(
        {
            "ckpt": "one",
            "tokens": 1.0,
            "chunk": "web",
            "group": "web",
            "document": np.arange(n),
            "targets": targets,
            "logprob": -targets * rng.gamma(9, 0.4, n),
            "eos_targets": 0,
            "eos_logprob": 0.0,
            "bytes": targets * 4,
        }
    )
    (line,) = loss_summary(frame, ["group"], "document").to_dict("records")
    drawn = statistics.bootstrap_over_clusters(-frame["logprob"], targets)
    width = drawn.high - drawn.low
    assert line["interval"] == "bootstrap over documents"
    assert line["loss"] == pytest.approx(drawn.value)
    assert line["loss_low"] == pytest.approx(drawn.low, abs=0.05 * width)
    assert line["loss_high"] == pytest.approx(drawn.high, abs=0.05 * width)


def test_intervals_without_spread_or_rows_say_so() -> None:
    one = statistics.bootstrap_within_strata([3.0], [2], ["a"])
    assert (one.value, one.method) == (1.5, "none")
    assert math.isnan(one.low)
    same = statistics.bootstrap_within_strata([2.0, 4.0], [1, 2], ["a", "a"])
    assert (same.low, same.high, same.method) == (2.0, 2.0, "all equal")
    assert statistics.bootstrap_within_strata([], [], []).n == 0
    with pytest.raises(Analysis360Error, match="counts above 0"):
        statistics.bootstrap_within_strata([1.0], [0], ["a"])


def test_a_sample_of_chunks_is_resampled_by_chunks(small_series: Path, tmp_path: Path) -> None:
    result = ask(small_series, tmp_path, ckpts="3", chunks=":3", sequences=6, window=16)
    frame = result.frame()
    methods = result.summary().set_index("group")["interval"]
    assert methods["trained text"] == "bootstrap over chunks"
    assert methods["held-out text"] == "bootstrap over rows"  # all there are
    trained = frame[frame["group"] == "trained text"]
    (line,) = loss_summary(trained, ["group"], "chunk").to_dict("records")
    sums = trained.groupby("chunk", observed=True)[["logprob", "targets"]].sum()
    expected = statistics.bootstrap_over_clusters(-sums["logprob"], sums["targets"], resamples=1000)
    assert (line["loss_low"], line["loss_high"]) == (expected.low, expected.high)
    with pytest.raises(Analysis360Error, match="lacks the columns logprob"):
        loss_summary(frame.drop(columns="logprob"), ["group"], "chunk")
    with pytest.raises(SelectionError, match="summary by 'ckpt'"):
        result.summary("ckpt")  # type: ignore[arg-type]


# --- the command --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "does not say how many ids a row has: give --window"),
        ({"window": 0}, "window: expected at least 1"),
        ({"window": 129}, "the model reads 128 ids"),
        ({"window": 8, "stride": 4}, "chunks are asked about row by row"),
        ({"window": 8, "sequences": 0}, "sequences: expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(
    small_series: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(SelectionError, match=message):
        ask(small_series, tmp_path, **how)


def test_texts_that_had_one_name_are_never_one_line(readable_series: Path, tmp_path: Path) -> None:
    """A text that was changed, and one that was asked by lines: what is stored shows each under its content."""
    text = tmp_path / "book.txt"
    text.write_text("def main(name):\n    return name\n" * 2)
    how = {"text": text, "window": 16}
    first = ask(readable_series, tmp_path / "out", ckpts="0:2", **how)
    by_line = ask(readable_series, tmp_path / "out", ckpts="1", lines=True, **how)
    text.write_text("name\n" * 5)
    changed = ask(readable_series, tmp_path / "out", ckpts="1", **how)
    series = open_series(readable_series)
    [found] = stored_perplexities(series, "0:2", engine="torch", out=tmp_path / "out")
    summary = found.summary().set_index(["ckpt", "group"])["loss"]
    assert len(found.names) == 3
    assert all(name.startswith("book ") for name in found.names)
    names = sorted(found.names, key=lambda name: -summary.loc[:, name].size)
    assert summary.loc[:, names[0]].tolist() == pytest.approx(first.summary()["loss"].tolist())
    alone = [result.summary()["loss"].iloc[0] for result in (by_line, changed)]
    assert sorted(summary.loc["ckpt_001", names[1:]]) == pytest.approx(sorted(alone))
    [alone_now] = stored_perplexities(series, "0", engine="torch", out=tmp_path / "out")
    assert alone_now.names == ["book"]


def test_a_stride_beyond_the_window_is_refused(readable_series: Path, prose: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="stride: expected 1 to the window's 8, found 9"):
        ask(readable_series, tmp_path, text=prose, window=8, stride=9)


def test_the_command_prints_tables_and_figures_are_drawn(
    readable_series: Path, prose: Path, tmp_path: Path
) -> None:
    common = ["--series", str(readable_series), "--engine", "torch", "--out", str(tmp_path)]
    for more, words in (
        (["--window", "16"], ("trained text", "without EOS", "targets 1 to 16 of each row")),
        (
            ["--text", str(prose), "--window", "16", "--stride", "8"],
            ("stride 8", "prose, words", "bits per byte"),
        ),
    ):
        command = [sys.executable, "-m", "analysis360.cli", "perplexity", *common, "--quiet", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout
    command = [sys.executable, "-m", "analysis360.cli", "figures", *common, "--to", str(tmp_path / "figures")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stems = {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    assert stems == {"perplexity_chunks_16", "perplexity_text_16_8"}
