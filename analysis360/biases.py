"""Bias results: what continuations of BOLD's prompts say of each group, gaps between groups, the texts behind."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from analysis360.comparison import writing
from analysis360.continued import EMPTY, REPETITION, SCORED, Continued
from analysis360.errors import SelectionError, StoreError
from analysis360.scorers.norms import Norms
from analysis360.series import Checkpoint, Series
from analysis360.statistics import holm
from analysis360.summaries.biases import LEAST_TITLES, Cells, Gaps, Means, estimate
from analysis360.sweep import Report
from analysis360.tasks.bold import TASK
from analysis360.tasks.bold.measures import MEAN, Metric
from analysis360.tasks.bold.prompts import DOMAINS, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
SUMMARY = ("series", "ckpt", "tokens", "domain", "group", "metric", "measure")
ESTIMATES = ("value", "low", "high", "n", "titles", "empty", "repetition", "missing")
GAPS = ("series", "ckpt", "tokens", "domain", "metric", "measure", "a", "b")
GAP_ESTIMATES = ("gap", "low", "high", "p", "p_holm", "titles_a", "titles_b")


FORMS = ("markdown", "latex")
SCALES = "norms: valence, arousal and dominance from -1 to 1, feelings from 0 to 1; 0 is neutral"
NOTES = (
    "95 % intervals in brackets, by a bootstrap over titles; `of n` where fewer texts have a number",
    f"none where a group has fewer than {LEAST_TITLES} titles, or no title differs from another",
)


@dataclass(frozen=True)
class Told:
    """One measure of one domain."""

    metric: Metric
    measure: str
    domain: str
    cells: Cells
    means: Means
    gaps: Gaps


@dataclass(frozen=True)
class BiasResult:
    """What the selected checkpoints write about the groups of the asked domains."""

    series: Series
    continued: Continued
    """The stored continuations and what is asked of them."""
    report: Report
    notes: list[str] = field(default_factory=list)
    progress: bool = False

    def __len__(self) -> int:
        return len(self.continued.rows)

    def __repr__(self) -> str:
        how, lines = self.continued.task.how, len(self.continued.lines)
        return (
            f"BiasResult({self.series.name!r}: {len(self):,} continuations, {len(self.checkpoints)} checkpoints, "
            f"{lines:,} prompts, {self.continued.text}, {how.engine} {how.dtype})"
        )

    @property
    def checkpoints(self) -> Sequence[Checkpoint]:
        """In order."""
        return self.continued.checkpoints

    @property
    def domains(self) -> tuple[str, ...]:
        """Those that are told of."""
        there = {line.domain for line in self.continued.lines}
        return tuple(domain for domain in DOMAINS if domain in there) or tuple(sorted(there))

    @cached_property
    def _tokens(self) -> dict[str, float]:
        return {x.name: float(self.series.exposure.tokens(x.index)) for x in self.checkpoints}

    @cached_property
    def _told(self) -> list[Told]:
        """Every measure of every domain, all checkpoints at once."""
        if not len(self):
            raise StoreError("no prompts were continued; nothing to show")
        continued = self.continued
        domain_of = np.array([line.domain for line in continued.lines])
        parts = []
        for metric in (*continued.metrics, EMPTY):
            for domain in self.domains:
                lines = np.flatnonzero(continued.told_of[metric.name] & (domain_of == domain))
                if len(lines):
                    some = [continued.lines[i] for i in lines]
                    cells, cell = Cells.of([line.group for line in some], [line.title for line in some])
                    parts += [(metric, measure, domain, lines, cells, cell) for measure in metric.measures]
        shape = [(len(self.checkpoints), len(cells)) for *_, cells, _ in parts]
        sums, counts = ([np.zeros(one) for one in shape] for _ in range(2))
        quiet, began = None if self.progress else True, time.monotonic()
        before = {one.scorer.name: one.seconds for one in continued.scorers}
        with tqdm(
            total=continued.to_score, desc="texts scored", unit="", disable=quiet, leave=False, delay=2
        ) as bar:

            def tell(texts: int) -> None:
                bar.update(texts)

            for block in continued.blocks():
                numbers = continued.numbers([continued.written(k) for k in block], tell)
                for i, (metric, measure, _, lines, cells, cell) in enumerate(parts):
                    values = metric.values(measure, numbers[metric.name][:, :, lines])
                    for k, value in zip(block, values, strict=True):
                        known = ~np.isnan(value)
                        flat = np.broadcast_to(cell, value.shape)[known]
                        sums[i][k] = np.bincount(flat, value[known], len(cells))
                        counts[i][k] = np.bincount(flat, minlength=len(cells))
        found = [
            Told(metric, measure, domain, cells, *estimate(cells, s, c, share=measure != MEAN))
            for (metric, measure, domain, _, cells, _), s, c in zip(parts, sums, counts, strict=True)
        ]
        spent = {one.scorer.name: one.seconds - before[one.scorer.name] for one in continued.scorers}
        self.report.details.append(_where_time_went(spent, time.monotonic() - began, self.report))
        return found

    @cached_property
    def _repetition(self) -> dict[tuple[str, str], Floats]:
        """[checkpoints] by domain and group."""
        return self._beside(REPETITION)

    @cached_property
    def _empty(self) -> dict[tuple[str, str], Floats]:
        """[checkpoints] share of continuations that are empty, by domain and group."""
        return self._beside(EMPTY)

    def _beside(self, metric: Metric) -> dict[tuple[str, str], Floats]:
        return {
            (told.domain, group): told.means.value[i]
            for told in self._told
            if told.metric.name == metric.name
            for i, group in enumerate(told.cells.groups)
        }

    def summary(self) -> pd.DataFrame:
        """A row per (checkpoint, domain, group, metric, measure).

        measure: `mean`, or the share of texts beyond a threshold (see `tasks.bold.measures`). low, high: 95 %, by
        a bootstrap over titles, joint over groups and checkpoints; NaN below five titles. n: texts with a number;
        titles: of these. empty: the share of the group's continuations that are, and have no number but where whole
        texts are scored. repetition: the share of neighbouring pairs of ids in its continuations that were there
        before. missing: why something is NaN. scored: which text was (see `continued.TEXTS`).
        """
        rows: list[tuple[Any, ...]] = []
        for told in self._of_metrics():
            for i, group in enumerate(told.cells.groups):
                m, empty = told.means, self._empty[told.domain, group]
                repeated = self._repetition[told.domain, group]
                for k, lead in enumerate(self._leads()):
                    titles = int(m.titles[i, k])
                    found = m.value[i, k], m.low[i, k], m.high[i, k], int(m.n[i, k]), titles
                    key = told.domain, group, told.metric.name, told.measure
                    beside = empty[k], repeated[k], _why(titles, m.low[i, k])
                    rows.append((k, *lead, *key, *map(_plain, (*found, *beside))))
        # checkpoint by checkpoint; sorting keeps the order of domains, groups and measures
        table = pd.DataFrame(rows, columns=["k", *SUMMARY, *ESTIMATES]).assign(scored=self.continued.text)
        return table.sort_values("k", kind="stable", ignore_index=True).drop(columns="k")

    def empty(self, ckpt: str | None = None) -> tuple[int, int]:
        """How many continuations are empty, of how many: of one checkpoint, or of all.

        A prompt counts under each of its titles.
        """
        some = slice(None) if ckpt is None else slice(k := self._place_of(ckpt), k + 1)
        means = [told.means for told in self._told if told.metric.name == EMPTY.name]
        found = sum(int(np.nansum((m.value * m.n)[:, some]).round()) for m in means)
        return found, sum(int(m.n[:, some].sum()) for m in means)

    def gaps(self) -> pd.DataFrame:
        """A row per (checkpoint, domain, metric, measure, pair of groups): the measure of `a` less that of `b`.

        low, high: 95 %, from the same draws of titles for both. p: of no gap, two-sided; p_holm: corrected for all
        gaps of its checkpoint, domain and metric (Holm). Intervals and p are NaN where either has fewer than five
        titles.
        """
        rows: list[tuple[Any, ...]] = []
        for told in self._of_metrics():
            g, names = told.gaps, told.cells.groups
            for i, (a, b) in enumerate(g.pairs):
                for k, lead in enumerate(self._leads()):
                    found = g.gap[i, k], g.low[i, k], g.high[i, k], g.p[i, k], np.nan
                    titles = int(told.means.titles[a, k]), int(told.means.titles[b, k])
                    key = told.domain, told.metric.name, told.measure, names[a], names[b]
                    rows.append((k, *lead, *key, *map(_plain, found), *titles))
        table = pd.DataFrame(rows, columns=["k", *GAPS, *GAP_ESTIMATES]).assign(scored=self.continued.text)
        table = table.sort_values("k", kind="stable", ignore_index=True).drop(columns="k")
        family = table.groupby(["ckpt", "domain", "metric"], sort=False)["p"]
        return table.assign(p_holm=family.transform(lambda p: holm(p.to_numpy())))

    def _of_metrics(self) -> list[Told]:
        return [told for told in self._told if told.metric.name != EMPTY.name]

    def _leads(self) -> list[tuple[str, str, float]]:
        return [(self.series.name, x.name, self._tokens[x.name]) for x in self.checkpoints]

    def texts(
        self,
        ckpt: str,
        domain: str | None = None,
        group: str | None = None,
        metric: str | None = None,
        measure: str | None = None,
    ) -> pd.DataFrame:
        """The texts behind any number: a row per (prompt under a title, sample) of a checkpoint.

        prompt: as published; text: the continuation; scored: what was scored; then a column a metric. With `metric`
        those of which it says something, the greatest numbers first; with `measure` those that it counts.
        """
        k = self._place_of(ckpt)
        self._check_group(domain, group)
        continued = self.continued
        written = continued.written(k)
        numbers = {name: values[0] for name, values in continued.numbers([written]).items()}
        parts = []
        for sample in range(continued.samples):
            part = pd.DataFrame(list(continued.lines), columns=list(Line._fields)).assign(sample=sample)
            part["text"] = written.text[sample][continued.distinct]
            part["scored"] = continued.scored(written, sample)
            parts.append(part.assign(**{name: values[sample] for name, values in numbers.items()}))
        table = pd.concat(parts, ignore_index=True)
        table = table[table["text"].notna()]
        for name, wanted in (("domain", domain), ("group", group)):
            if wanted is not None:
                table = table[table[name] == wanted]
        return self._behind(table, metric, measure).reset_index(drop=True)

    def _place_of(self, ckpt: str) -> int:
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if ckpt not in names:
            raise SelectionError(f"checkpoint {ckpt}: not in this result, which has {', '.join(names)}")
        return names.index(ckpt)

    def _check_group(self, domain: str | None, group: str | None) -> None:
        groups: dict[str, list[str]] = {}
        for line in self.continued.lines:
            if line.group not in groups.setdefault(line.domain, []):
                groups[line.domain].append(line.group)
        if domain not in (None, *groups):
            raise SelectionError(f"domain {domain!r}: not in this result, which has {', '.join(groups)}")
        there = [name for one, names in groups.items() if domain in (None, one) for name in names]
        if group not in (None, *there):
            raise SelectionError(
                f"group {group!r}: not in {domain or 'this result'}, which has {', '.join(there)}"
            )

    def _behind(self, table: pd.DataFrame, metric: str | None, measure: str | None) -> pd.DataFrame:
        if metric is None:
            return table
        one = self._metric(metric, measure)
        numbers = table[metric].to_numpy(np.float64)
        counted = one.values(measure or MEAN, numbers)
        kept = ~np.isnan(numbers) if measure in (None, MEAN) else counted == 1
        found: pd.DataFrame = table[kept].sort_values(metric, ascending=False, kind="stable")
        return found

    def _metric(self, name: str, measure: str | None) -> Metric:
        metrics = self.continued.metrics
        found = next((one for one in metrics if one.name == name and measure in (None, *one.measures)), None)
        if found is None:
            known = ", ".join(f"{one.name} ({', '.join(one.measures)})" for one in metrics)
            raise SelectionError(f"metric {name!r}, measure {measure!r}: this result has {known}")
        return found

    def plot(self, metric: str | None = None, measure: str | None = None) -> tuple[Axes, ...]:
        """A small multiple a domain: its groups over checkpoints, with 95 % bands."""
        from analysis360.figures.biases import plot_groups

        return plot_groups(self._shown(self.summary(), metric, measure))

    def plot_gaps(
        self, ckpt: str | None = None, metric: str | None = None, measure: str | None = None
    ) -> Any:
        """A heat map a domain: gaps between its groups at a checkpoint, the last one if left out."""
        from analysis360.figures.biases import plot_gaps

        gaps = self.gaps()
        name = self.checkpoints[self._place_of(ckpt) if ckpt else -1].name
        return plot_gaps(self._shown(gaps[gaps["ckpt"] == name], metric, measure))

    def _shown(self, table: pd.DataFrame, metric: str | None, measure: str | None) -> pd.DataFrame:
        """One metric of each domain: the one asked, or the first that it has."""
        if metric is not None:
            self._metric(metric, measure)
        chosen = {
            domain: metric or next(m.name for m in self.continued.metrics if domain in m.domains)
            for domain in self.domains
        }
        kept = (table["metric"] == table["domain"].map(chosen)) & (table["measure"] == (measure or MEAN))
        return table[kept]

    def table(self, ckpt: str | None = None, form: str = "markdown") -> str:
        """A table a domain for papers, of one checkpoint (the last): groups by measures. `form`: or `latex`."""
        if form not in FORMS:
            raise SelectionError(f"form {form!r}: expected one of {', '.join(FORMS)}")
        name = self.checkpoints[self._place_of(ckpt) if ckpt else -1].name
        notes = [f"scored: {SCORED[self.continued.text]}, by {self._judges()}", *NOTES]
        notes += [SCALES] if any(one.scorer.name == Norms.name for one in self.continued.scorers) else []
        summary, written = self.summary(), []
        for domain in self.domains:
            header, rows = paper_table(summary[summary["domain"] == domain], name)
            told = (
                f"BOLD, {domain}"
                if self.continued.task.name == TASK
                else f"Continuations of {domain} prompts"
            )
            title = f"{told.replace('_', ' ')}: {self.series.name} at {name}"
            if form == "latex":
                written.append(writing.latex(title, header, rows, notes, [""] * len(header)))
            else:
                written.append(writing.markdown(title, header, rows, notes))
        return "\n".join(written)

    def _judges(self) -> str:
        return ", ".join(f"{one.scorer.name} ({one.scorer.source})" for one in self.continued.scorers)

    def scorers(self) -> pd.DataFrame:
        """A row per scorer: its name, the package, model or file that its numbers are from, and a digest of it."""
        rows = [(one.scorer.name, one.scorer.source, one.scorer.identity) for one in self.continued.scorers]
        return pd.DataFrame(rows, columns=["scorer", "source", "identity"])

    def provenance(self) -> pd.DataFrame:
        """A row per part read: versions, tokenizer, trailing blanks, machine, checkpoint, when it was written."""
        return pd.DataFrame(list(self.continued.rows.provenance))


def paper_table(summary: pd.DataFrame, ckpt: str) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of one domain at a checkpoint: a row a group, a column a measure with its interval."""
    here = summary[summary["ckpt"] == ckpt]
    measures = list(dict.fromkeys(zip(here["metric"], here["measure"], strict=True)))
    rows = []
    for group, some in here.groupby("group", sort=False):
        found = {(x.metric, x.measure): x for x in some.itertuples()}
        texts = int(some["n"].max())
        sizes = [f"{texts:,}", f"{int(some['titles'].max()):,}"]
        cells = [_cell(found.get(one), texts) for one in measures]
        rows.append([str(group).replace("_", " "), *sizes, *cells])
    names = [f"{metric.replace('_', ' ')}, {measure}" for metric, measure in measures]
    return ["group", "texts", "titles", *(n if n.endswith(MEAN) else f"{n} (%)" for n in names)], rows


def _cell(line: Any, texts: int) -> str:
    """A value with its interval, and the number of texts where it is not that of the row."""
    if line is None or np.isnan(line.value):
        return "–"
    scale, digits = (1, 3) if line.measure == MEAN else (100, 1)
    value, low, high = (f"{scale * x:.{digits}f}" for x in (line.value, line.low, line.high))
    value += "" if np.isnan(line.low) else f" [{low}, {high}]"
    return value if line.n in (0, texts) or line.metric == REPETITION.name else f"{value} of {line.n:,}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _where_time_went(spent: Mapping[str, float], scoring: float, report: Report) -> str:
    """How long each scorer took, as a share of the engine's work and all that follows it."""
    whole = max(report.working + scoring, 1e-9)
    told = [f"{name} {seconds:.1f} s ({seconds / whole:.0%})" for name, seconds in spent.items()]
    rest = scoring - sum(spent.values())
    told.append(f"reading and intervals {rest:.1f} s ({rest / whole:.0%})")
    return f"scored in {scoring:.1f} s of {whole:.1f} s: {', '.join(told)}"


def _why(titles: int, low: float) -> str:
    if not titles:
        return "no text with a number"
    if titles < LEAST_TITLES:
        return f"{titles} titles; {LEAST_TITLES} are needed for an interval"
    return "no title differs from another" if np.isnan(low) else ""
