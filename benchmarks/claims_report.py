"""The tables of benchmarks/claims.py: means and standard deviations over seeds, and paired tests
over queries.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from condenser_jax.retrieval.significance import compare

METRIC, OTHER = "MRR@10", "Recall@100"
PAIRS = (("condenser", "mlm"), ("cocondenser", "condenser"), ("cocondenser", "mlm"))
PerQuery = Mapping[str, Mapping[str, float]]  # metric -> query -> value


class Cell(NamedTuple):
    """One fine-tuning."""

    arm: str
    seed: int
    labels: int = 0  # 0: all
    batch: int = 32
    wrong: float = 0.0  # share of positives replaced at random

    @property
    def name(self) -> str:
        """As part of a directory's name."""
        arm = self.arm.replace(", ", "-").replace(" ", "-")
        labels = self.labels or "all"
        return f"{arm}-labels-{labels}-batch-{self.batch}-wrong-{self.wrong:g}-seed-{self.seed}"

    @property
    def setting(self) -> tuple[int, int, float]:
        """What arms are compared at."""
        return self.labels, self.batch, self.wrong


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is kept as JSON."""

    options: dict[str, Any]
    queries: int
    bm25: float
    means: dict[str, dict[str, list[float]]]  # arm -> setting -> [mean, sd over seeds] of METRIC
    tests: dict[str, dict[str, list[float]]]  # "a - b" -> setting -> [difference, p]


def figures_of(found: Mapping[Cell, PerQuery], bm25: PerQuery, options: dict[str, Any]) -> Figures:
    """What was found, over seeds."""
    groups: dict[tuple[str, tuple], list[PerQuery]] = {}
    for cell, per_query in found.items():
        groups.setdefault((cell.arm, cell.setting), []).append(per_query)
    means: dict[str, dict[str, list[float]]] = {}
    for (arm, setting), seeds in groups.items():
        values = [_mean(per_query) for per_query in seeds]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        means.setdefault(arm, {})[_words(setting)] = [statistics.mean(values), spread]
    tests: dict[str, dict[str, list[float]]] = {}
    for first, second in PAIRS:
        for arm, setting in groups:
            if arm == first and (second, setting) in groups:
                pair = (_over_seeds(groups[name, setting]) for name in (first, second))
                test = compare(*pair)
                tests.setdefault(f"{first} - {second}", {})[_words(setting)] = [
                    test.difference,
                    test.p,
                ]
    return Figures(options, len(bm25[METRIC]), _mean(bm25), means, tests)


def _mean(per_query: PerQuery, metric: str = METRIC) -> float:
    return statistics.mean(per_query[metric].values())


def _over_seeds(seeds: list[PerQuery]) -> dict[str, float]:
    """Each query's mean over seeds."""
    return {query: statistics.mean(s[METRIC][query] for s in seeds) for query in seeds[0][METRIC]}


def _words(setting: tuple[int, int, float]) -> str:
    labels, batch, wrong = setting
    return f"{labels or 'all'} labels, batch {batch}, {wrong:.0%} wrong"


def section_lines(found: Mapping[Cell, PerQuery], figures: Figures) -> Iterator[str]:
    """What the section of docs/results.md says."""
    settings = list(dict.fromkeys(cell.setting for cell in found))
    recalls: dict[tuple[str, tuple], list[float]] = {}
    for cell, per_query in found.items():
        recalls.setdefault((cell.arm, cell.setting), []).append(_mean(per_query, OTHER))
    yield (
        f"{METRIC} of {figures.queries:,} test queries, mean and standard deviation over seeds; in "
        f"brackets {OTHER}. Every arm was pre-trained with the same number of steps on the same "
        f"data. BM25, which needs no labels: **{figures.bm25:.3f}**."
    )
    yield ""
    yield f"| fine-tuned with | {' | '.join(figures.means)} |"
    yield f"|---|{'---|' * len(figures.means)}"
    for setting in settings:
        row = []
        for arm in figures.means:
            cell = figures.means[arm].get(_words(setting))
            recall = recalls.get((arm, setting))
            row.append(
                f"{cell[0]:.3f} ± {cell[1]:.3f} ({statistics.mean(recall):.2f})"
                if cell and recall
                else "-"
            )
        yield f"| {_words(setting)} | {' | '.join(row)} |"
    yield ""
    yield "Paired tests over queries, each query's mean over seeds (difference, p):"
    yield ""
    yield f"| fine-tuned with | {' | '.join(figures.tests)} |"
    yield f"|---|{'---|' * len(figures.tests)}"
    for setting in settings:
        cells = [found.get(_words(setting)) for found in figures.tests.values()]
        if any(cells):
            texts = [f"{c[0]:+.4f}, {c[1]:.2g}" if c else "-" for c in cells]
            yield f"| {_words(setting)} | {' | '.join(texts)} |"
