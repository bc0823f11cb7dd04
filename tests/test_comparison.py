"""Tables 4 and 5: the rows that ship are the paper's, averages are those of plain arithmetic, texts read back."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.comparison import LAYOUTS, compare, published, read_v03
from analysis360.comparison.harness import SUBJECTS
from analysis360.comparison.layouts import layout_of
from analysis360.comparison.writing import escaped, latex, markdown
from analysis360.errors import Analysis360Error, SelectionError, StoreError

PAPER = Path(__file__).resolve().parents[2] / "shared/paper/llm360.txt"
LANGUAGE = ["ARC", "HellaSwag", "MMLU", "TruthfulQA"]
COLUMNS = ["model", "benchmark", "value", "stderr", "n", "source"]
OURS = "this run: torch, float32"
quick = settings(deadline=None, database=None, max_examples=50)


def scores(*rows: tuple[Any, ...], source: str = OURS) -> pd.DataFrame:
    """Rows of (model, benchmark, value[, stderr[, n]])."""
    return pd.DataFrame([(*row, *(np.nan,) * (5 - len(row)), source) for row in rows], columns=COLUMNS)


def whole(model: str = "mine", value: float = 0.5, stderr: float = 0.01) -> pd.DataFrame:
    return scores(*((model, name, value, stderr, 100) for name in [*LANGUAGE, "HumanEval", "MBPP"]))


# The rows that ship


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not beside this checkout")
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_those_of_the_paper_in_its_order(name: str) -> None:
    layout = layout_of(name)
    text = PAPER.read_text(encoding="utf-8").split(f"\nTable {name[-1]}:")[0]
    lines = text[text.rindex("\nThe LLMs") :].splitlines()
    found = [line.strip().split("\t") for line in lines if re.match(r"\S+.*\t[\d.–]+$", line.strip())]
    assert [row[0] for row in found] == list(layout.models)
    read = np.array([[math.nan if cell == "–" else float(cell) for cell in row[1:]] for row in found])
    np.testing.assert_array_equal(layout.printed, read)


def test_printed_averages_are_right_but_for_two_slips_and_what_follows_from_them() -> None:
    wrong = {}
    for name in LAYOUTS:
        layout = layout_of(name)
        for model, row in zip(layout.models, layout.printed, strict=True):
            cells = dict(zip(layout.names, row, strict=True))
            for column, right in by_hand(cells).items():
                if column in cells and not abs(right - cells[column]) <= 0.01 and not math.isnan(right):
                    wrong[name, model, column] = (round(right, 4), cells[column])
    assert wrong == {
        ("table5", "Mistral-7B", "Language avg."): (62.4, 63.4),
        ("table5", "Mistral-7B", "Avg."): (48.175, 48.68),
        ("table5", "OpenLLaMA-v2-7B", "Code avg."): (14.005, 28.01),
        ("table5", "OpenLLaMA-v2-7B", "Avg."): (31.0925, 38.1),
    }


def by_hand(cells: dict[str, float]) -> dict[str, float]:
    """Averages from the benchmarks of a row, as the paper's captions define them."""
    language = sum(cells[name] for name in LANGUAGE) / 4
    if "HumanEval" not in cells:
        return {"Avg.": language}
    code = (cells["HumanEval"] + cells["MBPP"]) / 2
    return {"Language avg.": language, "Code avg.": code, "Avg.": (language + code) / 2}


def test_slips_are_noted_beside_their_rows_only() -> None:
    notes = compare(whole(), "table5").notes
    assert (
        "LLM360, Table 5 misprints Mistral-7B: Language avg. 62.40 (printed 63.40), Avg. 48.18 (printed 48.68)."
        in notes
    )
    assert (
        "LLM360, Table 5 misprints OpenLLaMA-v2-7B: Code avg. 14.01 (printed 28.01), Avg. 31.09 (printed 38.10)."
        in notes
    )
    for other in (compare(whole(), "table4"), compare(whole(), "table5", paper="none")):
        assert not [note for note in other.notes if "misprints" in note]


def test_what_tables_4_and_5_share_agrees() -> None:
    four, five = (published(name).set_index(["model", "benchmark"])["value"] for name in LAYOUTS)
    both = four.index.intersection(five.index)
    assert set(both.get_level_values(0)) == {"LLaMA2-7B", "LLaMA-7B", "Falcon-7B"}
    pd.testing.assert_series_equal(four[both], five[both])


# Averages and margins


@quick
@given(
    st.lists(st.none() | st.integers(0, 10_000), min_size=6, max_size=6),
    st.lists(st.none() | st.integers(1, 500), min_size=6, max_size=6),
)
def test_averages_and_margins_are_those_of_plain_arithmetic(
    values: list[int | None], errors: list[int | None]
) -> None:
    names = [*LANGUAGE, "HumanEval", "MBPP"]
    rows = [
        ("m", name, math.nan if v is None else v / 10_000, math.nan if e is None else e / 10_000)
        for name, v, e in zip(names, values, errors, strict=True)
    ]
    made = compare(scores(*rows, ("n", "ARC", 0.5)), "table5", paper="none")
    value, error = (dict(zip(names, given_, strict=True)) for given_ in (values, errors))
    percent, margin = made.frame().loc["m"], made.margins().loc["m"]
    weights = {
        "Language avg.": dict.fromkeys(LANGUAGE, Fraction(1, 4)),
        "Code avg.": dict.fromkeys(names[4:], Fraction(1, 2)),
        "Avg.": {**dict.fromkeys(LANGUAGE, Fraction(1, 8)), **dict.fromkeys(names[4:], Fraction(1, 4))},
        **{name: {name: Fraction(1)} for name in names},
    }
    for column, parts in weights.items():
        exact = exactly(parts, value)
        spread = None if exact is None else exactly({n: w * w for n, w in parts.items()}, square(error))
        assert percent[column] == pytest.approx(
            math.nan if exact is None else float(exact) / 100, nan_ok=True
        )
        expected = math.nan if spread is None else 1.96 * math.sqrt(spread) / 100
        assert margin[column] == pytest.approx(expected, nan_ok=True)


def exactly(weights: dict[str, Fraction], value: dict[str, int | None]) -> Fraction | None:
    """The weighted sum, None where a part is missing."""
    parts = [value[name] for name in weights]
    known = [part for part in parts if part is not None]
    return (
        sum((w * p for w, p in zip(weights.values(), known, strict=False)), Fraction(0))
        if len(known) == len(parts)
        else None
    )


def square(value: dict[str, int | None]) -> dict[str, int | None]:
    return {name: None if v is None else v * v for name, v in value.items()}


def test_answers_that_are_all_alike_are_no_certainty() -> None:
    mine = whole("m").assign(value=lambda rows: rows["value"].where(rows["benchmark"] != "ARC", 0.0))
    made = compare(mine.assign(stderr=mine["stderr"].where(mine["value"] > 0, 0.0)), paper="none")
    assert made.margins().loc["m", ["ARC", "Avg."]].isna().all()
    assert made.margins().loc["m", "MMLU"] == pytest.approx(1.96)
    assert "| 0.00 |" in re.sub(" +", " ", made.markdown())


# Order, sources and notes


def test_order_is_as_given_with_the_papers_rows_where_asked() -> None:
    mine = pd.concat(
        [whole("b"), whole("a"), published("table4").query("model == 'AMBER'").assign(source=OURS)]
    )
    paper = list(layout_of("table4").models)
    for place, order in {
        "first": [*paper, "b", "a", "AMBER"],
        "last": ["b", "a", "AMBER", *paper],
        "none": ["b", "a", "AMBER"],
    }.items():
        made = compare(mine, paper=place)
        assert list(made.frame().index) == order


def test_a_model_measured_twice_has_two_rows_and_a_note_that_claims_no_parity() -> None:
    made = compare(pd.concat([whole("AMBER"), whole("AMBER", 0.4).assign(source="elsewhere")]))
    frame = made.frame().loc["AMBER"]
    assert frame["source"].tolist() == ["LLM360, Table 4", OURS, "elsewhere"]
    assert frame["ARC"].tolist() == pytest.approx([41.89, 50, 40])
    assert any("no parity is claimed" in note for note in made.notes)
    assert made.notes[1] == f"[2] {OURS}; ARC, HellaSwag, MMLU, TruthfulQA: n = 100"
    assert [row[-1] for row in grid_of(made.markdown())[1:]][-2:] == ["[2]", "[3]"]
    assert not any("parity" in note for note in compare(whole(), paper="none").notes)


def test_reasons_and_benchmarks_left_out_are_told() -> None:
    mine = pd.concat([whole(), scores(("mine", "BOLD", 0.1))]).assign(reason="", protocol="5-shot")
    mine.loc[mine["benchmark"] == "MMLU", ["value", "reason"]] = [np.nan, "nobody asked"]
    made = compare(mine)
    assert "mine, MMLU is missing: nobody asked" in made.notes
    assert "Not in this layout: HumanEval, MBPP, BOLD." in made.notes
    assert np.isnan(made.frame().loc["mine", ["MMLU", "Avg."]].to_numpy(float)).all()
    assert np.isnan(made.margins().loc["mine", ["MMLU", "Avg."]].to_numpy(float)).all()


def test_scores_that_cannot_be_compared_are_refused_by_name() -> None:
    good = whole()
    refused = {
        "lack the columns stderr, n": good.drop(columns=["stderr", "n"]),
        r"mine, ARC .*twice": pd.concat([good, good]),
        r"mine, ARC .*expected a fraction in \[0, 1\], found value 41.9": good.assign(value=41.9),
        r"mine, ARC .*found stderr -0.1": good.assign(stderr=-0.1),
        "numbers in column 'value'": good.assign(value="a lot"),
        "no score of ARC": scores(("m", "BOLD", 0.5)),
    }
    for message, frame in refused.items():
        with pytest.raises(Analysis360Error, match=message):
            compare(frame, paper="none")
    with pytest.raises(Analysis360Error, match="no score of ARC"):
        compare(scores(("m", "BOLD", 0.5)))
    with pytest.raises(Analysis360Error, match=r"LLaMA2-7B-chat, ARC .*twice.*paper=\"none\""):
        compare(published("table4"))
    with pytest.raises(SelectionError, match="table4, table5"):
        compare(good, "table6")
    with pytest.raises(SelectionError, match="first, last, none"):
        compare(good, paper="middle")


# Markdown, LaTeX and CSV


def grid_of(text: str) -> list[list[str]]:
    """Cells of a Markdown table, by the rules of GitHub's: a pipe is a border unless escaped."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    cells = [re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\([\\|])", r"\1", cell.strip()) for cell in row] for row in cells]


def test_numbers_in_all_forms_are_those_of_the_frame() -> None:
    made = compare(whole("ckpt_035", 0.123456, 0.0125), "table5")
    row = grid_of(made.markdown())[-1]
    assert row[0] == "ckpt_035"
    assert row[1:-1] == ["12.35 ± 2.45"] * 4 + [
        "12.35 ± 1.23",
        *["12.35 ± 2.45"] * 2,
        "12.35 ± 1.73",
        "12.35 ± 1.06",
    ]
    assert r"ckpt\_035 & 12.35 $\pm$ 2.45 & " in made.latex()
    read = pd.read_csv(io.StringIO(made.csv()), index_col="model")
    for frame, name in ((made.frame(), "{} (%)"), (made.margins(), "{} ± (%)")):
        for column in made.layout.names:
            np.testing.assert_allclose(
                read[name.format(column)].to_numpy(float), frame[column].to_numpy(float), atol=1e-6
            )
    assert list(read["source"]) == list(made.frame()["source"])


def test_halves_are_rounded_up_as_the_paper_does() -> None:
    rows = {row[0]: row for row in grid_of(compare(whole(), "table5").markdown())}
    assert rows["StarCoder-15B"][8] == "38.46"  # of 33.63 and 43.28, printed so
    assert rows["LLaMA-7B"][8] == "13.83"
    assert rows["StarCoder-15B"][1] == "–"


texts = (
    st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1)
    .map(str.strip)
    .filter(bool)
)


@quick
@given(st.lists(st.lists(texts, min_size=3, max_size=3), min_size=1, max_size=4), texts)
def test_markdown_reads_back_whatever_names_hold(rows: list[list[str]], note: str) -> None:
    one_line = [[" ".join(cell.split()) for cell in row] for row in rows]
    found = grid_of(markdown("t", ["a", "b", "c"], rows, [note]))
    assert found == [["a", "b", "c"], *one_line]


@quick
@given(st.text())
def test_latex_reads_back_whatever_names_hold(text: str) -> None:
    written = escaped(text)
    assert "\n" not in written
    assert unescaped(written) == " ".join(text.split()).replace("–", "--")
    table = latex("t", ["model", "b"], [[text, "1"]], [], ["", ""])
    [row] = [line for line in table.splitlines() if line.endswith(r" & 1 \\")]
    assert not row.startswith(("[", "*"))  # after \midrule or \\ these would be options


def unescaped(text: str) -> str:
    """What TeX prints of an escaped text; fails on any special character that is left bare."""
    named = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<"}
    named |= {"textgreater": ">", "textbar": "|"}
    tokens = r"\\(text\w+)\{\}|\\([&%$#_{}])|(\$\\pm\$)|([^\\&%$#_{}~^<>|])"
    read = []
    position = 0
    while position < len(text):
        match = re.compile(tokens, re.S).match(text, position)
        assert match, text[position:]
        name, sign, plus_minus, plain = match.groups()
        read.append(named[name] if name else sign or ("±" if plus_minus else plain))
        position = match.end()
    return "".join(read)


def test_a_latex_table_has_as_many_columns_in_every_row() -> None:
    for name in LAYOUTS:
        lines = compare(whole(), name).latex().splitlines()
        columns = len(layout_of(name).names) + 2
        assert rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}" in lines
        for line in lines:
            if line.endswith(r"\\"):
                wide = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(wide) - len(wide) == columns
    assert r"\cmidrule(lr){2-6}\cmidrule(lr){7-9}" in lines


# Results files of lm-eval 0.3


def v03(subjects: Any = SUBJECTS, **more: Any) -> dict[str, Any]:
    """A results file's contents with planted numbers."""
    results: dict[str, Any] = {
        "arc_challenge": {"acc": 0.1, "acc_stderr": 0.2, "acc_norm": 0.41, "acc_norm_stderr": 0.0144},
        "hellaswag": {"acc": 0.1, "acc_norm": 0.74, "acc_norm_stderr": None},
        "truthfulqa_mc": {"mc1": 0.2, "mc1_stderr": 0.01, "mc2": 0.34, "mc2_stderr": 0.013},
    }
    for i, subject in enumerate(sorted(subjects)):
        results[f"hendrycksTest-{subject}"] = {
            "acc": i / 100,
            "acc_stderr": 0.03,
            "acc_norm": 0.9,
            "acc_norm_stderr": 0.1,
        }
    config = {"model_args": "pretrained=org/name,revision=ckpt_100", "num_fewshot": 5, **more}
    return {"results": results, "versions": {}, "config": config}


def test_a_results_file_becomes_scores() -> None:
    frame = read_v03(v03()).set_index("benchmark")
    assert set(frame["model"]) == {"org/name@ckpt_100"}
    assert frame["value"].to_dict() == pytest.approx(
        {"ARC": 0.41, "HellaSwag": 0.74, "TruthfulQA": 0.34, "MMLU": sum(range(57)) / 5700}
    )
    assert frame["stderr"].to_dict() == pytest.approx(
        {"ARC": 0.0144, "HellaSwag": math.nan, "TruthfulQA": 0.013, "MMLU": 0.03 / math.sqrt(57)}, nan_ok=True
    )
    assert frame.loc["ARC", "protocol"] == "5-shot acc_norm"
    assert frame["n"].isna().all()
    assert (frame["reason"] == "").all()
    assert compare(frame.reset_index()).frame().loc["org/name@ckpt_100", "ARC"] == pytest.approx(41)


def test_a_folder_of_results_is_one_row_of_the_table(tmp_path: Path) -> None:
    every = v03()
    for name, part in split(every["results"]):
        (tmp_path / f"eval_{name}.json").write_text(json.dumps({**every, "results": part}))
    made = compare(read_v03(tmp_path, model="ckpt_100"), paper="none")
    assert len(made.rows) == 1
    assert not made.frame().isna().any(axis=None)
    (tmp_path / "eval_again.json").write_text(json.dumps(every))
    with pytest.raises(StoreError, match=r"eval_arc.json: 'arc_challenge' is in .*eval_again.json"):
        read_v03(tmp_path)


def split(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, begin in (("arc", "arc"), ("hellaswag", "hella"), ("mmlu", "hendr"), ("truthfulqa", "truth")):
        yield name, {task: numbers for task, numbers in results.items() if task.startswith(begin)}


@quick
@given(st.sets(st.sampled_from(sorted(SUBJECTS)), min_size=1, max_size=56))
def test_subjects_that_are_missing_leave_no_mean(there: set[str]) -> None:
    frame = read_v03(v03(there)).set_index("benchmark")
    assert frame[["value", "stderr"]].loc["MMLU"].isna().all()
    reason = frame.loc["MMLU", "reason"]
    missing = sorted(SUBJECTS - there)
    assert reason.startswith(f"{len(missing)} of its 57 subjects are not in the file: {missing[0]}")
    assert f"org/name@ckpt_100, MMLU is missing: {reason}" in compare(frame.reset_index()).notes


def test_no_mmlu_is_no_row() -> None:
    assert "MMLU" not in set(read_v03(v03(()))["benchmark"])


@pytest.mark.parametrize("found", [41.0, -0.1, True, None, "0.4", [0.4], math.nan, math.inf, 10**400])
def test_numbers_that_are_no_fractions_are_refused(found: Any) -> None:
    for task, key in (("arc_challenge", "acc_norm"), ("hendrycksTest-virology", "acc")):
        results = v03()
        results["results"][task][key] = found
        with pytest.raises(
            StoreError, match=rf"results: {task}: {key}: expected a fraction in \[0, 1\], found"
        ) as told:
            read_v03(results)
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"results": ' + "9" * 5000 + "}", "expected JSON"),
        ("\xff", "expected JSON"),
        ("[]", "an object with an object `results`"),
        ('{"results": []}', "an object with an object `results`"),
        (
            '{"results": {"arc_challenge": 1}, "config": 3}',
            "results of 'arc_challenge': expected an object, found 1",
        ),
        ('{"results": {"winogrande": {}}}', "no model is named"),
        ('{"results": {"winogrande": {}}, "config": {"model_args": "x"}}', "holds none of arc_challenge"),
        (
            '{"results": {"hendrycksTest-magic": {"acc": 0.1}}, "config": {"model_args": "x"}}',
            "'hendrycksTest-magic' is none of MMLU's 57 subjects",
        ),
    ],
)
def test_malformed_files_are_one_line_that_names_them(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "eval.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(StoreError, match=re.escape(message)) as told:
        read_v03(file)
    assert "\n" not in str(told.value)
    assert str(file) in str(told.value)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.json: cannot be read: No such file"):
        read_v03(tmp_path / "none.json")
    with pytest.raises(StoreError, match=r"files eval_\*\.json, found none"):
        read_v03(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
tasks = (
    st.text(max_size=3)
    | st.text().map("hendrycksTest-{}".format)
    | st.sampled_from(["arc_challenge", "hellaswag", "truthfulqa_mc", "hendrycksTest-virology"])
)
measures = st.sampled_from(["acc", "acc_norm", "acc_norm_stderr", "mc2", "mc2_stderr", "acc_stderr"])


@quick
@given(
    json_values
    | st.fixed_dictionaries(
        {
            "results": st.dictionaries(
                tasks, st.dictionaries(measures, st.floats(0, 1) | json_values) | json_values
            ),
            "config": st.fixed_dictionaries({"model_args": st.text()}) | json_values,
        }
    )
)
def test_any_content_is_read_or_refused_in_one_line(content: Any) -> None:
    if not isinstance(content, dict):
        content = {"results": content}
    try:
        frame = read_v03(content)
    except StoreError as error:
        told = str(error)
    else:
        told = ""
        compare(frame)
        assert frame["value"].dropna().between(0, 1).all()
        assert ((frame["reason"] != "") == frame["value"].isna()).all()
    assert "\n" not in told


def test_csv_quotes_names_that_need_it() -> None:
    made = compare(whole('a "b", c\n'), paper="none")
    [row] = list(csv.DictReader(io.StringIO(made.csv())))
    assert row["model"] == 'a "b", c\n'
