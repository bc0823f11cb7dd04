"""BOLD end to end: planted gaps are found exactly; what is drawn depends on nothing but itself; all is scored again."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import HfApi, constants
from planted_bold import KIND, UNKIND, compound, names, save_tokenizer, sentences, train, write_prompts
from planted_bold import prompts as planted_prompts
from small_classifier import save_classifier

import analysis360 as a360
from analysis360 import HubOptions
from analysis360.biases import BiasResult
from analysis360.cli import main
from analysis360.continuing import Scoring, bold
from analysis360.engines.torch_engine import TorchEngine
from analysis360.errors import DataError, EngineError, NotStoredError, SelectionError
from analysis360.gallery import draw_biases
from analysis360.loopback import Loopback
from analysis360.scorers.toxicity import JIGSAW
from analysis360.statistics import holm
from analysis360.tasks.bold import Settings
from analysis360.tasks.bold.measures import METRICS
from analysis360.text import Text

HOW: dict[str, Any] = {"engine": "torch", "progress": False}


def said(result: BiasResult, ckpt: str) -> dict[tuple[str, int], str]:
    """What follows each prompt, by prompt and sample."""
    table = result.texts(ckpt)
    return {(x.prompt, x.sample): x.text for x in table.itertuples()}


def of(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


@pytest.fixture(scope="module")
def greedy(series: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BiasResult, Path]:
    out = tmp_path_factory.mktemp("greedy")
    return bold(series, prompts=prompts, greedy=True, out=out, **HOW), out


@pytest.fixture(scope="module")
def drawn(series: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> BiasResult:
    out = tmp_path_factory.mktemp("drawn")
    return bold(series, "0", prompts=prompts, samples=3, new_tokens=6, out=out, **HOW)


@pytest.mark.parametrize("k", [1, 2])
def test_planted_means_and_shares_are_found_exactly(greedy: tuple[BiasResult, Path], k: int) -> None:
    summary = of(greedy[0].summary(), ckpt=f"ckpt_{k:03d}", metric="sentiment")
    for group in (KIND, UNKIND):
        repeats = [3 if name == "Ann Abel" else 2 for name in names(group)]
        scores = np.repeat(compound([sentences(k)[name] for name in names(group)]), repeats)
        found = of(summary, group=group).set_index("measure")
        assert found.loc["mean", "value"] == pytest.approx(scores.mean(), abs=1e-12)
        assert found.loc["positive", "value"] == pytest.approx((scores >= 0.5).mean(), abs=1e-12)
        assert found.loc["negative", "value"] == pytest.approx((scores <= -0.5).mean(), abs=1e-12)
        assert (found["n"] == len(scores)).all()
        assert (found["titles"] == 6).all()
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()


def test_a_planted_gap_is_found_and_no_other(greedy: tuple[BiasResult, Path]) -> None:
    gaps = of(greedy[0].gaps(), metric="sentiment", measure="mean").set_index("ckpt")
    kind, unkind = (
        np.repeat(compound([sentences(2)[name] for name in names(group)]), repeats).mean()
        for group, repeats in ((KIND, [3, 2, 2, 2, 2, 2]), (UNKIND, 2))
    )
    last = gaps.loc["ckpt_002"]
    assert (last["a"], last["b"]) == (KIND, UNKIND)
    assert last["gap"] == pytest.approx(kind - unkind, abs=1e-12)
    assert 0 < last["low"] < last["gap"] < last["high"]
    assert last["p_holm"] < 0.001
    family = of(greedy[0].gaps(), ckpt="ckpt_002", metric="sentiment")
    assert len(family) == 3  # mean, positive and negative are corrected together
    assert family["p_holm"].tolist() == pytest.approx(holm(family["p"]).tolist())
    kind_to_all = gaps.loc["ckpt_001"]
    assert kind_to_all["low"] < 0 < kind_to_all["high"]
    assert kind_to_all["p_holm"] > 0.5


def test_what_goes_round_in_circles_is_told_beside_every_metric(greedy: tuple[BiasResult, Path]) -> None:
    summary = greedy[0].summary()
    assert (of(summary, ckpt="ckpt_000")["repetition"] > 0.3).all()
    assert (of(summary, ckpt="ckpt_002")["repetition"] == 0).all()


def test_sentences_end_at_eos_and_begin_with_the_blank(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    table = result.texts("ckpt_002")
    expected = [sentences(2)[title.replace("_", " ")] for title in table["title"]]
    assert table["text"].tolist() == expected
    rows = result.continued.rows.table(["ids", "ended", "prompt"])
    assert sum(rows["ended"].to_pylist()) >= 48
    assert all(
        ids[-1] == 0 for ids, ended in zip(*map(pa_list, (rows["ids"], rows["ended"])), strict=True) if ended
    )
    assert not any(prompt.endswith(" ") for prompt in rows["prompt"].to_pylist())


def pa_list(column: Any) -> list[Any]:
    found: list[Any] = column.to_pylist()
    return found


def test_a_prompt_that_stands_twice_is_continued_once(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    assert result.report.computed == len(result) == 3 * 24
    assert (result.texts("ckpt_000")["prompt"] == "Ann Abel was a ").sum() == 2


def test_draws_depend_on_their_prompt_and_number_alone(
    drawn: BiasResult, series: Path, tmp_path: Path
) -> None:
    known = said(drawn, "ckpt_000")
    assert len({known["Ann Abel was a ", sample] for sample in range(3)}) == 3
    turned = {
        group: dict(reversed([(t, p[::-1]) for t, p in titles.items()][: 4 if group == KIND else 6]))
        for group, titles in reversed(planted_prompts().items())
    }
    write_prompts(tmp_path / "p", turned)
    write_prompts(tmp_path / "p", {"Asian_Americans": {"Bea_Bond": ["Bea Bond was a ", "Bea the "]}}, "race")
    other = bold(series, "0", prompts=tmp_path / "p", samples=2, new_tokens=6, out=tmp_path / "out", **HOW)
    found = said(other, "ckpt_000")
    shared = known.keys() & found.keys()
    assert len(shared) == 2 * 20
    assert all(known[key] == found[key] for key in shared)
    reseeded = bold(series, "0", prompts=tmp_path / "p", seed=1, new_tokens=6, out=tmp_path / "out", **HOW)
    assert said(reseeded, "ckpt_000") != {k: v for k, v in found.items() if k[1] == 0}


def test_more_samples_and_prompts_keep_what_is_stored(series: Path, prompts: Path, tmp_path: Path) -> None:
    how = {**HOW, "prompts": prompts, "new_tokens": 4, "out": tmp_path}
    first = bold(series, "2", limit=3, **how)
    assert first.report.computed == 6
    assert first.summary()["n"].max() == 3
    more = bold(series, "2", **how)
    assert (more.report.computed, more.report.stored) == (18, 6)
    twice = bold(series, "2", samples=2, **how)
    assert (twice.report.computed, twice.report.stored) == (24, 24)
    assert bold(series, "2", samples=2, **how).report.computed == 0
    kept = {key: text for key, text in said(twice, "ckpt_002").items() if key[1] == 0}
    assert kept == said(more, "ckpt_002")
    assert {k: v for k, v in kept.items() if k in said(first, "ckpt_002")} == said(first, "ckpt_002")


def test_stored_continuations_are_scored_without_a_model(
    greedy: tuple[BiasResult, Path], series: Path
) -> None:
    result, out = greedy
    scored = result.summary()
    again = bold(series, greedy=True, out=out, compute=False, **HOW)
    pd.testing.assert_frame_equal(again.summary(), scored)
    assert [cached.scored for cached in again.continued.scorers] == [0]
    assert again.report.computed == 0


def test_both_texts_are_what_they_say(greedy: tuple[BiasResult, Path], series: Path) -> None:
    _, out = greedy
    paper = bold(series, "2", greedy=True, out=out, compute=False, scoring=Scoring(text="paper"), **HOW)
    table = paper.texts("ckpt_002")
    assert table["scored"].tolist() == [
        f"Person{prompt.removeprefix(title.replace('_', ' ')).rstrip()}{text}"
        for prompt, title, text in zip(table["prompt"], table["title"], table["text"], strict=True)
    ]
    plain = bold(series, "2", greedy=True, out=out, compute=False, **HOW).texts("ckpt_002")
    assert plain["scored"].tolist() == plain["text"].tolist()


def test_compat_scores_prompt_and_response_beyond_a_twentieth(
    greedy: tuple[BiasResult, Path], series: Path
) -> None:
    result, out = greedy
    compat = bold(
        series, "2", greedy=True, out=out, compute=False, scoring=Scoring(compat="analysis360"), **HOW
    )
    found = of(compat.summary(), metric="sentiment").set_index(["group", "measure"])["value"]
    for group in (KIND, UNKIND):
        lines = [
            (p, sentences(2)[t.replace("_", " ")]) for t, ps in planted_prompts()[group].items() for p in ps
        ]
        scores = compound([prompt.rstrip() + sentence for prompt, sentence in lines])
        assert found[group, "mean"] == pytest.approx(scores.mean())
        assert found[group, "positive"] == (scores >= 0.05).mean()
        assert found[group, "negative"] == (scores <= -0.05).mean()
    ours = of(result.summary(), ckpt="ckpt_002", metric="sentiment", group=KIND, measure="positive")["value"]
    assert found[KIND, "positive"] > ours.iloc[0]


def test_a_continuation_without_words_has_no_number_and_is_counted(
    series: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted: of one group four people of six are met with silence."""
    root = Path(shutil.copytree(series, tmp_path / "series"))
    silent = set(names(UNKIND)[:4])
    said = {name: "" if name in silent else sentence for name, sentence in sentences(2).items()}
    shutil.rmtree(root / "checkpoints/ckpt_002")
    train(root / "checkpoints/ckpt_002", said, save_tokenizer(root / "checkpoints/ckpt_002"), 120)
    how = {**HOW, "ckpts": "2", "prompts": prompts, "greedy": True, "out": tmp_path / "out"}
    for scoring in (Scoring(toxicity="profanity-filter"), Scoring(text="paper")):
        result = bold(root, scoring=scoring, **how)
        table = result.texts("ckpt_002")
        assert (table["text"] == [said[title.replace("_", " ")] for title in table["title"]]).all()
        summary = of(result.summary(), measure="mean").set_index(["group", "metric"])
        for metric in {name for _, name in summary.index} - {"repetition"}:
            assert summary.loc[(UNKIND, metric), ["n", "titles"]].tolist() == [4, 2]
            assert summary.loc[(KIND, metric), "n"] == 13
            assert table[metric].isna().sum() == 8
        assert summary.loc[UNKIND, "empty"].tolist() == pytest.approx([8 / 12] * (len(summary) // 2))
        assert (summary.loc[KIND, "empty"] == 0).all()
        assert result.empty() == (8, 25)
    assert summary.loc[(KIND, "sentiment"), "value"] > 0
    compat = bold(
        root, scoring=Scoring(compat="analysis360"), **how
    )  # the published code scores the prompt then
    assert sorted(of(compat.summary(), metric="sentiment")["n"]) == [12] * 3 + [13] * 3
    assert compat.empty() == compat.empty("ckpt_002") == (8, 25)
    command = ["bold", "--series", root, "--ckpts", "2", "--engine", "torch", "--greedy", "--out", how["out"]]
    assert main([*map(str, command), "--rescore", "--quiet"]) == 0
    assert "8 of 25 continuations are empty and have no number" in capsys.readouterr().out
    assert main([*map(str, command), "--rescore", "--quiet", "--compat", "analysis360"]) == 0
    assert "8 of 25 continuations are empty and count with their prompts alone" in capsys.readouterr().out


def test_what_is_not_there_is_named_beside_what_is(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    asked: list[tuple[Any, str]] = [
        (
            lambda: result.texts("ckpt_002", "gender", "islam"),
            "group 'islam': not in gender, which has American",
        ),
        (
            lambda: result.texts("ckpt_002", group="islam"),
            "group 'islam': not in this result, which has American",
        ),
        (lambda: result.texts("ckpt_002", "race"), "domain 'race': not in this result, which has gender"),
        (lambda: result.table("ckpt_9"), "checkpoint ckpt_9: not in this result, which has ckpt_000"),
        (lambda: result.table(form="html"), "form 'html': expected one of markdown, latex"),
        (lambda: result.plot_gaps("ckpt_9"), "checkpoint ckpt_9: not in this result"),
        (
            lambda: result.plot("toxicity"),
            r"metric 'toxicity', measure None: this result has sentiment \(mean",
        ),
        (lambda: result.plot_gaps(metric="sentiment", measure="toxic"), "measure 'toxic': this result has"),
    ]
    for wrong, words in asked:
        with pytest.raises(SelectionError, match=words):
            wrong()


def test_numbers_tell_what_made_them(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    scorers = result.scorers().set_index("scorer")["source"]
    assert scorers.to_dict() == {"sentiment": f"vaderSentiment {version('vaderSentiment')}"}
    assert f"scored: the continuation, by sentiment ({scorers['sentiment']})" in result.table()
    assert set(result.summary()["scored"]) == set(result.gaps()["scored"]) == {"continuation"}
    [spent] = [line for line in result.report.details if line.startswith("scored in ")]
    assert "sentiment" in spent


def test_a_prompt_is_cut_into_ids_once_a_sweep(
    series: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, texts = Text.encode, []

    def counted(self: Text, some: Any, **how: Any) -> Any:
        texts.extend(one for one in some if one.startswith(("Ann", "Lee")))
        return encode(self, some, **how)

    monkeypatch.setattr(Text, "encode", counted)
    bold(series, prompts=prompts, samples=2, new_tokens=2, out=tmp_path, **HOW)
    assert sorted(texts) == ["Ann Abel is the", "Ann Abel was a", "Lee Ford is the", "Lee Ford was a"]


def test_parts_of_a_run_and_one_that_was_killed_are_the_whole(
    drawn: BiasResult, series: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards, another size of batch, and a run that ends in the middle: the same texts and numbers."""
    monkeypatch.setattr("analysis360.tasks.bold.SLICE", 5)
    monkeypatch.setattr("analysis360.sweep.TOGETHER", 1)
    complete, calls = TorchEngine.complete, 0

    def interrupted(self: TorchEngine, asked: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return complete(self, asked)

    how = {**HOW, "prompts": prompts, "samples": 3, "new_tokens": 6, "out": tmp_path}
    monkeypatch.setattr(TorchEngine, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bold(series, "0", **how)
    monkeypatch.setattr(TorchEngine, "complete", complete)
    rest = bold(series, "0", **how)
    assert rest.report.stored > 0
    assert rest.report.computed > 0
    assert said(rest, "ckpt_000") == said(drawn, "ckpt_000")
    for shard in ("0/2", "1/2"):
        bold(series, shard=shard, **how)
    whole = bold(series, compute=False, **how)
    alone = bold(series, **{**how, "out": tmp_path / "alone"})
    pd.testing.assert_frame_equal(whole.summary(), alone.summary())


def test_figures_are_drawn_where_a_scorer_is_not_installed(
    series: Path,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is written about groups is not, all else is; and who never asked for it hears nothing of it."""
    short = {"prompt_tokens": 1, "continuation_tokens": 2, "sequences": 1}
    a360.memorization(series, out=tmp_path, **short, **HOW)  # type: ignore[arg-type]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in short.items()]
    command = [
        "figures",
        "--series",
        series,
        "--engine",
        "torch",
        "--out",
        tmp_path,
        "--to",
        tmp_path / "f",
        *words,
    ]

    def told() -> str:
        assert main([*map(str, command)]) == 0
        return capsys.readouterr().out

    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    assert "written about groups" not in told()
    monkeypatch.undo()
    bold(series, prompts=prompts, new_tokens=20, out=tmp_path, **HOW)
    assert "bold_groups.png" in told()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    assert "not drawn: what is written about groups: sentiment needs vaderSentiment" in told()
    with pytest.raises(EngineError, match=r"pip install 'analysis360\[bold\]'"):
        bold(series, prompts=prompts, out=tmp_path / "other", **HOW)
    assert not list((tmp_path / "other").glob("*/bold"))  # told before anything is asked of a model
    [kept] = (tmp_path / "planted/prompts").glob("bold-*.json")
    kept.write_text("{")
    assert main([*map(str, command)]) == 1
    assert "holds no prompts" in capsys.readouterr().err


def test_the_texts_behind_a_number_are_those_it_counts(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    summary = of(result.summary(), ckpt="ckpt_002", group=UNKIND, metric="sentiment").set_index("measure")
    for measure in ("positive", "negative", "mean"):
        behind = result.texts("ckpt_002", "gender", UNKIND, "sentiment", measure)
        counted = summary.loc[measure, "n"] if measure == "mean" else summary.loc[measure, "value"] * 12
        assert len(behind) == round(counted)
    assert behind["sentiment"].is_monotonic_decreasing
    with pytest.raises(SelectionError, match="metric 'joy', measure None: this result has sentiment"):
        result.texts("ckpt_002", metric="joy")
    with pytest.raises(SelectionError, match="checkpoint ckpt_9: not in this result"):
        result.texts("ckpt_9")


def test_metrics_tell_of_the_domains_of_the_paper(series: Path, tmp_path: Path) -> None:
    groups = {
        "profession": "nursing_specialties",
        "race": "Asian_Americans",
        "religious_ideology": "atheism",
        "political_ideology": "fascism",
    }
    for domain, group in groups.items():
        write_prompts(tmp_path / "p", {group: {"Eve_Egan": ["Eve Egan was a "]}}, domain)
    lexicon = tmp_path / "norms.csv"
    lexicon.write_text("word,valence,joy\nfriend,9,5\n")
    scoring = Scoring(toxicity="profanity-filter", norms=lexicon)
    result = bold(series, "1", prompts=tmp_path / "p", greedy=True, out=tmp_path, scoring=scoring, **HOW)
    told = result.summary().groupby("domain")["metric"].agg(lambda names: sorted(set(names)))
    about = ["joy", "profanity", "repetition", "sentiment", "valence"]
    assert told.to_dict() == {**dict.fromkeys(groups, about), "profession": ["gender_words", "repetition"]}
    one = of(result.summary(), domain="religious_ideology", metric="sentiment", measure="mean").iloc[0]
    assert np.isnan([one["low"], one["high"]]).all()
    assert one["missing"] == "1 titles; 5 are needed for an interval"


def test_metrics_tell_of_the_groups_of_the_paper() -> None:
    [regard] = [metric for metric in METRICS if metric.name == "regard"]
    races = ("Asian_Americans", "African_Americans", "European_Americans", "Hispanic_and_Latino_Americans")
    assert [regard.tells_of("race", group) for group in races] == [False, True, True, False]
    assert regard.tells_of("gender", KIND)
    assert not regard.tells_of("religious_ideology", "islam")
    numbers = np.array([0.5, 0.4999, -0.5, np.nan])
    np.testing.assert_equal(METRICS[0].values("positive", numbers), [1, 0, 0, np.nan])
    np.testing.assert_equal(METRICS[0].values("negative", numbers), [0, 0, 1, np.nan])


def test_figures_and_tables_are_drawn(greedy: tuple[BiasResult, Path], tmp_path: Path) -> None:
    lines = list(draw_biases(greedy[0], tmp_path))
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {
        "bold_groups.png",
        "bold_groups.pdf",
        "bold_gaps.png",
        "bold_gaps.pdf",
        "bold.md",
        "bold.tex",
    }
    assert len(lines) == 3
    assert "| American actors" in (tmp_path / "bold.md").read_text()
    assert r"\caption{BOLD, gender: planted at ckpt\_002}" in (tmp_path / "bold.tex").read_text()


def test_prompts_of_a_hub(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(
        f'{{"domain": "gender", "name": "{title}", "category": "{group}", "prompts": {some!r}}}\n'.replace(
            "'", '"'
        )
        for group, titles in planted_prompts().items()
        for title, some in titles.items()
    )
    (tmp_path / "store").mkdir()
    with Loopback(tmp_path / "store") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        api = HfApi(endpoint=server.endpoint)
        api.create_repo("AmazonScience/bold", repo_type="dataset")
        api.upload_file(
            path_or_fileobj=rows.encode(),
            path_in_repo="gender_prompt_wiki.json",
            repo_id="AmazonScience/bold",
            repo_type="dataset",
        )
        hub = HubOptions(cache=tmp_path / "cache", endpoint=server.endpoint)
        result = bold(series, "2", greedy=True, out=tmp_path / "out", hub=hub, **HOW)
    assert len(result) == 24
    assert "AmazonScience/bold@main" in result.provenance()["prompts"].iloc[0]


def test_toxicity_and_regard_by_models_of_a_hub(
    greedy: tuple[BiasResult, Path], series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = greedy
    words = ("killer", "liar", "good", "bad", "friend")
    several, one = "multi_label_classification", "single_label_classification"
    save_classifier(tmp_path / "toxic", JIGSAW, {"threat": "killer", "insult": "liar"}, several, words)
    feelings = ("negative", "positive", "neutral"), {"negative": "bad", "positive": "good"}
    save_classifier(tmp_path / "regard", *feelings, one, words)
    (tmp_path / "store").mkdir()
    with Loopback(tmp_path / "store") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server does not speak it
        api = HfApi(endpoint=server.endpoint)
        for name in ("toxic", "regard"):
            api.create_repo(f"lab/{name}")
            api.upload_folder(folder_path=tmp_path / name, repo_id=f"lab/{name}")
        hub = HubOptions(cache=tmp_path / "cache", endpoint=server.endpoint)
        scoring = Scoring(toxicity="lab/toxic", regard="lab/regard")
        result = bold(series, "2", greedy=True, out=out, compute=False, scoring=scoring, hub=hub, **HOW)
        found = result.summary().set_index(["group", "metric", "measure"])["value"]
    assert found[KIND, "toxicity", "toxic"] == 0
    assert found[UNKIND, "toxicity", "toxic"] == pytest.approx(4 / 12)  # a killer and a liar, twice each
    assert found[KIND, "regard", "positive"] == pytest.approx(2 / 13)  # a good person
    assert found[UNKIND, "regard", "negative"] == pytest.approx(2 / 12)  # a bad person
    assert found[UNKIND, "regard", "mean"] == pytest.approx(-2 / 12)
    with pytest.raises(SelectionError, match="expected a folder, or org/name on the Hub"):
        bold(series, out=out, compute=False, scoring=Scoring(regard="nosuch"), **HOW)


def test_the_command(series: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        common = ("--series", series, "--out", tmp_path, "--engine", "torch")
        code = main([*map(str, (arguments[0], *common, *arguments[1:]))])
        return code, *capsys.readouterr()

    code, told, errors = run("bold", "--prompts", prompts, "--greedy", "--to", tmp_path / "f")
    assert code == 0, errors
    for words in (
        "American actresses",
        "sentiment, negative (%)",
        "1 of 4 gaps hold",
        "gender, sentiment, mean: American_actors less American_actresses: +1.468",
        "the blank that a prompt ends with is left to the continuation",
        "72 continuations scored",
    ):
        assert words in told, told
    told = run("bold", "--greedy", "--rescore", "--text", "paper")[1]
    assert "scored: prompt and continuation without names" in told
    assert "72 continuations were stored already; nothing to compute" in told
    code, _, errors = run("bold", "--rescore")
    assert code == 1
    assert "no continuations of these settings in" in errors
    code, _, errors = run("bold", "--prompts", prompts, "--greedy", "--samples", "2")
    assert code == 2
    assert "greedy: 2 samples of a prompt would be equal" in errors
    assert run("bold", "--prompts", prompts, "--ckpts", "2", "--new-tokens", "20", "--quiet")[0] == 0
    code, told, errors = run("figures", "--ckpts", "2", "--to", tmp_path / "g")
    assert code == 0, errors
    assert "bold_groups.png" in told


def test_wrong_arguments_are_named(series: Path, prompts: Path, tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit: expected at least 1, found 0"),
        ({"samples": 0}, "samples: expected at least 1, found 0"),
        ({"new_tokens": 0}, "new tokens: expected at least 1, found 0"),
        ({"new_tokens": 200}, "and 200 new ones; the model reads 64"),
        ({"domains": "race"}, "no prompts of race"),
        ({"prompts": "nosuch"}, "nosuch: expected a folder, or org/name on the Hub"),
    ]
    for more, words in asked:
        with pytest.raises(SelectionError, match=words):
            bold(series, **{**HOW, "prompts": prompts, "out": tmp_path, **more})
    with pytest.raises(NotStoredError, match="no prompts in"):
        bold(series, out=tmp_path / "empty", compute=False, **HOW)
    with pytest.raises(SelectionError, match="text 'both': expected one of continuation, paper"):
        Scoring(text="both")
    with pytest.raises(SelectionError, match="compat analysis360 scores the sentiment"):
        Scoring(text="paper", compat="analysis360")
    with pytest.raises(DataError, match="no prompts of BOLD"):
        bold(series, prompts=tmp_path, out=tmp_path, **HOW)
    assert Settings.greedy().sampling("a", 0) == Settings.greedy(seed=4).sampling("b", 0)


def test_every_draw_has_a_seed_of_its_own() -> None:
    asked = [(seed, prompt, n) for seed in (0, 1) for prompt in ("Ann is ", "Bea is ") for n in (0, 1)]
    assert len({Settings(seed=seed).sampling(prompt, n).seed for seed, prompt, n in asked}) == 8
    assert Settings(seed=1).sampling("Ann is ", 1) == Settings(seed=1).sampling("Ann is ", 1)


def test_other_prompts_under_the_same_names_are_other_prompts(
    series: Path, prompts: Path, tmp_path: Path
) -> None:
    how = {**HOW, "greedy": True, "out": tmp_path / "out"}
    assert len(bold(series, "2", prompts=prompts, **how)) == 24
    turned = {KIND: planted_prompts()[UNKIND], UNKIND: planted_prompts()[KIND]}
    other = bold(series, "2", prompts=write_prompts(tmp_path / "p", turned), **how)
    assert other.report.computed == 24
    table = other.texts("ckpt_002")
    assert table["text"].tolist() == [sentences(2)[title.replace("_", " ")] for title in table["title"]]
