"""The tables of benchmarks/claims.py: means and standard deviations over seeds, and paired tests
over queries.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from results_page import section_on

from condenser_jax.retrieval.metrics import PerQuery
from condenser_jax.retrieval.significance import compare

METRIC, OTHER = "MRR@10", "Recall@100"
START = "start"  # the arm without pre-training: random, or the checkpoint as it is
TITLES = {
    "condenser-early-layer-0": "condenser, early layer 0",
    "condenser-no-late-MLM": "condenser, no late MLM",
}
SECTIONS = {  # of docs/results.md: with --init or without
    False: ("claims", "Condenser and coCondenser from scratch"),
    True: ("claims-from-a-checkpoint", "Condenser and coCondenser from a checkpoint"),
}
NO_LABELS, ALL = -1, 0
PAIRS = (
    ("mlm", START),
    ("condenser", "mlm"),
    ("cocondenser", "condenser"),
    ("cocondenser", "mlm"),
    ("cocondenser", START),
)
Setting = tuple[int, int, float]  # labels, batch, share of wrong ones
Spread = tuple[float, float | None]  # mean, standard deviation; None of one value


class Cell(NamedTuple):
    """One fine-tuning."""

    arm: str
    seed: int = 0
    rate: float = 0.0  # learning rate of fine-tuning
    labels: int = ALL
    batch: int = 32
    wrong: float = 0.0  # share of positives replaced at random

    @property
    def name(self) -> str:
        """As part of a directory's name."""
        if self.labels == NO_LABELS:
            return f"{self.arm}-no-labels-seed-{self.seed}"
        setting = f"labels-{self.labels or 'all'}-batch-{self.batch}-wrong-{self.wrong:g}"
        return f"{self.arm}-{setting}-rate-{self.rate:g}-seed-{self.seed}"

    @property
    def setting(self) -> Setting:
        """What arms are compared at."""
        return self.labels, self.batch, self.wrong


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is kept as JSON."""

    options: dict[str, Any]
    queries: int
    bm25: float
    means: dict[str, dict[str, Spread]]  # arm -> setting -> mean and sd of METRIC over seeds
    rates: dict[str, dict[str, float]]  # arm -> setting -> that was chosen
    tests: dict[str, dict[str, list[float]]]  # "a - b" -> setting -> [difference, p]


def section_of(args: argparse.Namespace) -> tuple[str, str]:
    """Name and title of the section."""
    return section_on(SECTIONS[bool(args.init)], args.collection)


def figures_of(found: Mapping[Cell, PerQuery], bm25: PerQuery, options: dict[str, Any]) -> Figures:
    """What was found, over seeds."""
    groups: dict[tuple[str, Setting], list[PerQuery]] = {}
    for cell, per_query in found.items():
        groups.setdefault((cell.arm, cell.setting), []).append(per_query)
    means: dict[str, dict[str, Spread]] = {}
    for (arm, setting), seeds in groups.items():
        values = [_mean(per_query) for per_query in seeds]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        means.setdefault(arm, {})[words(setting)] = statistics.mean(values), deviation
    tests: dict[str, dict[str, list[float]]] = {}
    for first, second in PAIRS:
        for arm, setting in groups:
            if arm == first and (second, setting) in groups:
                pair = (_over_seeds(groups[name, setting]) for name in (first, second))
                test = compare(*pair)
                tests.setdefault(f"{first} - {second}", {})[words(setting)] = [
                    test.difference,
                    test.p,
                ]
    rates: dict[str, dict[str, float]] = {}
    for cell in found:
        rates.setdefault(cell.arm, {})[words(cell.setting)] = cell.rate
    return Figures(options, len(bm25[METRIC]), _mean(bm25), means, rates, tests)


def _mean(per_query: PerQuery, metric: str = METRIC) -> float:
    return statistics.mean(per_query[metric].values())


def _over_seeds(seeds: list[PerQuery]) -> dict[str, float]:
    """Each query's mean over seeds."""
    return {query: statistics.mean(s[METRIC][query] for s in seeds) for query in seeds[0][METRIC]}


def words(setting: Setting) -> str:
    """A setting, as rows of the tables name it."""
    labels, batch, wrong = setting
    if labels == NO_LABELS:
        return "nothing: no labels"
    return f"{labels or 'all'} labels, batch {batch}, {wrong:.0%} wrong"


def titles_of(figures: Figures) -> dict[str, str]:
    """What people call the arms whose names do not say it."""
    start = "the checkpoint as it is" if figures.options["init"] else "random start"
    return {START: start, **TITLES}


def section_lines(found: Mapping[Cell, PerQuery], figures: Figures) -> Iterator[str]:
    """What the section of docs/results.md says."""
    settings = list(dict.fromkeys(words(cell.setting) for cell in found))
    recalls: dict[tuple[str, str], list[float]] = {}
    for cell, per_query in found.items():
        key = cell.arm, words(cell.setting)
        recalls.setdefault(key, []).append(_mean(per_query, OTHER))
    seeds = 1 + max(cell.seed for cell in found)
    titles = titles_of(figures)
    yield (
        f"{METRIC} of {figures.queries:,} test queries, mean ± standard deviation over {seeds} "
        f"seeds of fine-tuning; in brackets {OTHER}. Every arm was pre-trained once, with the same "
        "number of steps on the same data: what another seed of pre-training would change is in "
        "neither the deviations nor the tests. BM25, which needs no labels: "
        f"**{figures.bm25:.3f}**."
    )
    yield ""

    def mean(arm: str, setting: str, cell: Spread) -> str:
        deviation = "" if cell[1] is None else f" ± {cell[1]:.3f}"
        return f"{cell[0]:.3f}{deviation} ({statistics.mean(recalls[arm, setting]):.2f})"

    yield from _table(figures.means, settings, mean, titles)
    yield ""
    yield (
        "Paired tests over queries, each query's mean over seeds (difference, p; not corrected for "
        "their number):"
    )
    yield ""
    yield from _table(figures.tests, settings, lambda *of, cell: f"{cell[0]:+.4f}, {cell[1]:.2g}")
    yield ""
    yield "Learning rates of fine-tuning, chosen on dev queries with the first seed:"
    yield ""
    rated = [setting for setting in settings if any(r.get(setting) for r in figures.rates.values())]
    yield from _table(figures.rates, rated, lambda *of, cell: f"{cell:g}", titles)


def _table(
    columns: Mapping[str, Mapping[str, Any]],
    settings: list[str],
    said: Callable[..., str],
    titles: Mapping[str, str] = {},
) -> Iterator[str]:
    """A row for each setting; `said(column, setting, cell=...)` are the words of a cell."""
    yield f"| fine-tuned with | {' | '.join(titles.get(name, name) for name in columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for setting in settings:
        cells = (
            said(name, setting, cell=column[setting]) if setting in column else "-"
            for name, column in columns.items()
        )
        yield f"| {setting} | {' | '.join(cells)} |"
