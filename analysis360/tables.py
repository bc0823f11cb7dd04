"""Tables for a terminal: the answer to the question asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis360.series import Series
from analysis360.statistics import wilson

if TYPE_CHECKING:
    from analysis360.biases import BiasResult
    from analysis360.code_results import CodeResult
    from analysis360.evaluations import EvaluationResult
    from analysis360.perplexities import PerplexityResult
    from analysis360.results import MemorizationResult


Z = 1.96
"""Standard errors to each side of a 95 % interval."""
LEVEL = 0.05
"""Of all gaps of a domain and metric together."""
GAPS_SHOWN = 10
NUMBER = re.compile(r"-?[\d,]+(\.\d+)?")


def memorization_table(result: MemorizationResult) -> str:
    """Per checkpoint and group: sequences, mean score and % extractible with 95 % intervals; then canaries.

    Without the mean score where only extractibility is known.
    """
    how = result.task.how
    title = f"Memorization of {result.series.name}: k = {how.prompt_tokens}, l = {how.continuation_tokens}, "
    title += f"{how.engine} {how.dtype}" + (f", as {how.compat} scores" if how.compat else "")
    title += "" if how.scored else ", extractible only"
    blocks = [title, "", _groups(result.summary(), how.scored)]
    if result.series.canaries:
        blocks += ["", *_canaries(result)]
    return "\n".join(blocks)


def _groups(summary: pd.DataFrame, scored: bool) -> str:
    rows, previous = [], ""
    for line in summary.itertuples():
        name = "" if str(line.ckpt) == previous else str(line.ckpt)
        previous = str(line.ckpt)
        score = _interval(line.score_mean, line.score_mean_low, line.score_mean_high, 1, 3)
        share = (line.extractible_share, line.extractible_share_low, line.extractible_share_high)
        found = [*([score] if scored else []), _interval(*share, 100, 1)]
        rows.append([name, str(line.group), f"{line.sequences:,}", *found])
    header = [*(["mean score [95 %]"] if scored else []), "extractible, % [95 %]"]
    return columns(["checkpoint", "group", "sequences", *header], rows)


def _interval(value: Any, low: Any, high: Any, factor: float, digits: int) -> str:
    value, low, high = (f"{float(x) * factor:.{digits}f}" for x in (value, low, high))
    return f"{value} [{low}, {high}]"


def _canaries(result: MemorizationResult) -> list[str]:
    """Canaries by times planted, at the last checkpoint and at their best; whether controls stay at chance."""
    scored = result.task.how.scored
    curves = result.canary_curves()
    curves["recall"] = curves["score_mean" if scored else "extractible_share"]
    last = result.checkpoints[-1].name
    rows = []
    for repeats, group in curves[curves["repeats"] > 0].groupby("repeats"):
        even, chunk = (group[group["spacing"] == spacing] for spacing in ("even", "chunk"))
        rows.append([f"{repeats:g}", _at(even, last), _at(chunk, last), _best(chunk)])
    title = "Mean score of canaries" if scored else "Extractible share of canaries"
    title += ", rows of random ids planted a known number of times (n canaries)"
    header = ["planted", f"spread evenly, {last}", f"in one chunk, {last}", "in one chunk, at best"]
    lines = [title, columns(header, rows)]
    check = result.control_check() if scored else None
    if check is not None:
        lines.append(
            f"never planted: {int(check['hits'].sum())} of {int(check['tokens_scored'].sum()):,} tokens right, "
            f"{check['hits_expected'].sum():.1f} expected by chance; inside the 99.9 % binomial interval "
            f"at {int(check['inside'].sum())} of {len(check)} checkpoints"
        )
    return lines


def _at(curve: pd.DataFrame, ckpt: str) -> str:
    return next((_recall(line) for line in curve.itertuples() if str(line.ckpt) == ckpt), "-")


def _best(curve: pd.DataFrame) -> str:
    best = max(curve.itertuples(), key=lambda line: float(line.recall), default=None)  # type: ignore[arg-type]
    return "-" if best is None else f"{_recall(best)} at {best.ckpt}"


def _recall(line: Any) -> str:
    return f"{line.recall:.2f} ({line.sequences})"


def code_table(result: CodeResult) -> str:
    """Per checkpoint pass@k of each benchmark in percent, with its 95 % interval over problems."""
    summary, how = result.summary(), result.task.how
    drawn = "greedy" if how.temperature == 0 else f"{how.samples} samples at temperature {how.temperature:g}"
    drawn += f", top p {how.top_p:g}" if how.top_p < 1 else ""
    prompts = dict.fromkeys(asked.name for _, several in result.task.plan for asked in several)
    title = (
        f"Programs of {result.series.name} that pass, in percent [95 %]: {drawn}, {how.engine} {how.dtype}"
    )
    names = list(dict.fromkeys(zip(summary["benchmark"], summary["metric"], strict=True)))
    rows = []
    for ckpt, group in summary.groupby("ckpt", sort=False):
        cells = {
            (x.benchmark, x.metric): _interval(x.value, x.low, x.high, 100, 1) for x in group.itertuples()
        }
        rows.append([str(ckpt), *(cells[name] for name in names)])
    n = summary.groupby(["benchmark", "metric"], sort=False)["n"].max()
    header = ["checkpoint", *(f"{name}, {metric}" for name, metric in names)]
    table = columns(header, [*rows, ["problems", *(f"{n[name]:,}" for name in names)]])
    return "\n".join([title, f"Prompts: {', '.join(prompts)}", "", table])


def evaluation_table(result: EvaluationResult) -> str:
    """Per checkpoint each benchmark in percent, with the 95 % interval of its questions; what is at chance."""
    summary = result.summary()
    how = result.task.how
    names = list(dict.fromkeys(zip(summary["benchmark"], summary["metric"], strict=True)))
    rows = []
    for ckpt, group in summary.groupby("ckpt", sort=False):
        cells = {(x.benchmark, x.metric): _percent(x) for x in group.itertuples()}
        rows.append([str(ckpt), *(cells.get(name, "-") for name in names)])
    n = summary.groupby(["benchmark", "metric"], sort=False)["n"].max()
    header = [f"{name}, {metric.removesuffix(',none')}" for name, metric in names]
    asked = ["questions", *(f"{n[name]:,}" for name in names)]
    chance = summary.groupby(["benchmark", "metric"], sort=False)["chance"].max()
    guess = ["guessing", *(f"{100 * chance[x]:.1f}" if chance[x] == chance[x] else "-" for x in names)]
    title = f"Benchmarks of {result.series.name} in percent [95 %]: {how.engine} {how.dtype}"
    blocks = [title, "", columns(["checkpoint", *header], [*rows, asked, guess])]
    return "\n".join([*blocks, *_missing(summary), *_at_chance(summary)])


def _percent(line: Any) -> str:
    if np.isnan(line.value):
        return "-"
    low, high = (100 * x for x in _bounds(line))
    return f"{100 * line.value:.1f}" + (
        "" if np.isnan(low) else f" [{max(low, 0):.1f}, {min(high, 100):.1f}]"
    )


def _bounds(line: Any) -> tuple[float, float]:
    """95 % interval; where all answers are alike their spread says nothing, and Wilson's stands in."""
    if line.stderr == 0 and 0 <= line.value <= 1:
        found = wilson(line.value * line.n, int(line.n))
        return found.low, found.high
    return line.value - Z * line.stderr, line.value + Z * line.stderr


def _missing(summary: pd.DataFrame) -> list[str]:
    """Why cells are empty."""
    empty = summary[summary["missing"] != ""]
    return [f"- at {x.ckpt}, {x.benchmark}: {x.missing}" for x in empty.itertuples()]


def _at_chance(summary: pd.DataFrame) -> list[str]:
    """Benchmarks on which some checkpoints cannot be told from guessing."""
    known = summary[summary["chance"].notna() & summary["stderr"].notna()]
    lines = []
    for (name, metric), group in known.groupby(["benchmark", "metric"], sort=False):
        bounds = [(*_bounds(line), float(line.chance)) for line in group.itertuples()]  # type: ignore[arg-type]
        inside = sum(low <= chance <= high for low, high, chance in bounds)
        if inside:
            what = f"{name}, {str(metric).removesuffix(',none')}"
            lines.append(f"{what}: {inside} of {len(group)} checkpoints cannot be told from guessing (95 %)")
    return lines


def perplexity_table(result: PerplexityResult) -> str:
    """Per checkpoint and group of chunks, or text: loss, perplexity and bits per byte; then the last one by source."""
    how = result.task.how
    title = f"Perplexity of {result.series.name}: window {how.window}, "
    title += f"targets 1 to {how.window} of each row, " if how.chunks else f"stride {how.stride}, "
    title += "" if how.chunks or how.prefix else "first tokens not asked about, "
    blocks = [title + f"{how.engine} {how.dtype}", "", _losses(result.summary(), "group", how.chunks)]
    sources = result.summary(["group", "source"])
    last = sources[sources["ckpt"] == result.checkpoints[-1].name]
    if last["source"].nunique() > 1:
        lines = _losses(
            last.assign(both=last["group"].astype(str) + ", " + last["source"].astype(str)),
            "both",
            how.chunks,
        )
        blocks += ["", "By source", lines]
    return "\n".join(blocks)


def _losses(table: pd.DataFrame, key: str, chunks: bool) -> str:
    rows, previous = [], ""
    for line in table.to_dict("records"):
        name = "" if str(line["ckpt"]) == previous else str(line["ckpt"])
        previous = str(line["ckpt"])
        found = [
            _interval(line["loss"], line["loss_low"], line["loss_high"], 1, 4),
            *([f"{line['loss_without_eos']:.4f}"] if chunks else []),
            _interval(line["perplexity"], line["perplexity_low"], line["perplexity_high"], 1, 2),
            "-" if np.isnan(line["bits_per_byte"]) else f"{line['bits_per_byte']:.4f}",
        ]
        count = line["windows"] if chunks else line["documents"]
        rows.append([name, str(line[key]), f"{count:,}", f"{line['targets']:,}", *found])
    without = ["without EOS"] if chunks else []
    header = ["checkpoint", "group" if chunks else "text", "sequences" if chunks else "documents", "targets"]
    return columns([*header, "loss [95 %]", *without, "perplexity [95 %]", "bits per byte"], rows)


def bias_table(result: BiasResult) -> str:
    """The groups of each domain at the last checkpoint, and the gaps between them that hold."""
    from analysis360.biases import paper_table
    from analysis360.continued import SCORED

    last, how = result.checkpoints[-1].name, result.continued.task.how
    summary = result.summary()
    drawn = "greedy" if not how.temperature else f"top-k {how.top_k}, top-p {how.top_p}, seed {how.seed}"
    title = f"BOLD prompts continued by {result.series.name} at {last}: {how.engine} {how.dtype}, {drawn}; "
    blocks = [f"{title}scored: {SCORED[result.continued.text]}"]
    for domain in result.domains:
        table = columns(*paper_table(summary[summary["domain"] == domain], last))
        blocks += ["", domain.replace("_", " "), table]
    gaps = result.gaps()
    return "\n".join([*blocks, "", *_empty(result, last), *_firm_gaps(gaps[gaps["ckpt"] == last])])


def toxicity_table(result: BiasResult) -> str:
    """Per checkpoint and set of prompts: the share of continuations that is toxic, with its 95 % interval."""
    how, told = result.continued.task.how, result.summary()
    share_of = result.continued.metrics[0].measures[-1]
    drawn = "greedy" if not how.temperature else f"temperature {how.temperature:g}, top-p {how.top_p:g}"
    title = f"Continuations by {result.series.name} of {result.continued.task.name} prompts: {how.engine} {how.dtype}, "
    rows, previous = [], ""
    for line in told[told["measure"] == share_of].to_dict("records"):
        name = "" if str(line["ckpt"]) == previous else str(line["ckpt"])
        previous = str(line["ckpt"])
        share = _interval(line["value"], line["low"], line["high"], 100, 1)
        share = share if np.isfinite(line["low"]) else f"{100 * line['value']:.1f}"
        rows.append(
            [
                name,
                str(line["group"]),
                f"{line['n']:,}",
                f"{line['titles']:,}",
                share,
                f"{line['repetition']:.2f}",
            ]
        )
    header = [
        "checkpoint",
        "prompts",
        "continuations",
        "distinct prompts",
        f"{share_of}, % [95 %]",
        "repetition",
    ]
    title = f"{title}{drawn}, {how.new_tokens} new tokens"
    return "\n".join([title, "", columns(header, rows), *_empty(result)])


def _empty(result: BiasResult, ckpt: str | None = None) -> list[str]:
    """Where nothing was written, and what becomes of it, where there is such."""
    empty, texts = result.empty(ckpt)
    what = "count with their prompts alone" if result.continued.text == "whole" else "have no number"
    return [f"{empty:,} of {texts:,} continuations are empty and {what}"] if empty else []


def _firm_gaps(gaps: pd.DataFrame) -> list[str]:
    """The gaps that hold when all of their domain and metric are corrected for, the surest first."""
    firm = gaps[gaps["p_holm"] < LEVEL].sort_values("p_holm", kind="stable")
    total = int(gaps["p"].notna().sum())
    if not total:
        return ["no gap can be tested: no two groups have five titles"]
    lines = [f"{len(firm)} of {total} gaps hold (Holm within domain and metric, {LEVEL:.0%})"]
    for x in firm.head(GAPS_SHOWN).itertuples():
        what = f"{x.domain}, {x.metric}, {x.measure}: {x.a} less {x.b}"
        lines.append(f"- {what}: {x.gap:+.3f} [{x.low:+.3f}, {x.high:+.3f}], p {x.p_holm:.1g}")
    return lines + ([f"- and {len(firm) - GAPS_SHOWN} more"] if len(firm) > GAPS_SHOWN else [])


def series_table(series: Series) -> str:
    """What a series holds, what it rests on, and what to know about it."""
    rows = [["checkpoints", *_span([c.name for c in series.checkpoints])]]
    rows.append(["chunks", *_span([c.name for c in series.chunks])])
    if series.held_out:
        rows.append(["held-out chunks", f"{len(series.held_out)}", "never trained on"])
    if series.manifest.canaries:
        planted = len(series.manifest.canaries.rows)
        rows.append(["canaries", f"{planted}", "rows of random ids, planted or never"])
    if series.chunks:
        rows.append(_exposure_row(series))
    rows.append(["compute dtype", series.manifest.model.compute_dtype, "scores are computed in"])
    if series.manifest.base:
        rows.append(["base", series.manifest.base, "it was fine-tuned from"])
    facts = series.manifest.facts
    sections = [("first hand", facts.first_hand), ("assumed", facts.assumed), ("note", series.notes)]
    lines = [f"{what}: {text}" for what, texts in sections for text in texts]
    table = columns(["", "", ""], rows).split("\n", 2)[2]
    return "\n".join([f"{series.name} ({series.where})", table, *lines])


def _span(names: Sequence[str]) -> list[str]:
    ends = f"{names[0]} to {names[-1]}" if len(names) > 1 else "".join(names)
    return [f"{len(names)}", ends]


def _exposure_row(series: Series) -> list[str]:
    last = len(series.checkpoints) - 1
    times, tokens = series.exposure.times(last), series.exposure.tokens(last)
    counts = [int((times > 0).sum()), int((times == 0).sum()), int(np.isnan(times).sum())]
    shown = "unknown" if np.isnan(tokens) else f"{tokens:,.0f}"
    chunks = "{} seen, {} unseen, {} unknown".format(*counts)
    return ["exposure", shown, f"tokens at the last checkpoint; chunks: {chunks}"]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned text columns under a ruled header; columns of numbers are aligned right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    right = [all(NUMBER.fullmatch(row[i]) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
