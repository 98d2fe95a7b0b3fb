"""What runs of a suite found: per task the median and the spread over seeds, as text, Markdown and
JSON. Results of different protocols never share a table.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from condenser_jax.glue.tasks import TASKS

SCORE = "score"  # mean of a task's figures
Figures = Mapping[str, float]


class Cell(NamedTuple):
    """A finished run."""

    learning_rate: float
    seed: int
    epochs: Sequence[Figures]  # what was measured after each

    @property
    def last(self) -> Figures:
        """At the last step: what a protocol without a look at dev reports."""
        return self.epochs[-1]

    @property
    def best(self) -> Figures:
        """After the epoch that was best on dev, which is what most papers print."""
        return max(self.epochs, key=lambda figures: figures[SCORE])


class Results(NamedTuple):
    """The runs of one system under one protocol."""

    system: str
    protocol: Mapping[str, Any]  # everything but the system that moves the figures
    data: Mapping[str, Mapping[str, str]]  # of each task the hashes of its splits
    tasks: Mapping[str, Sequence[Cell]]

    def with_task(self, task: str, cells: Sequence[Cell], hashes: Mapping[str, str]) -> "Results":
        """These, and the runs of one more task."""
        data, tasks = {**self.data, task: hashes}, {**self.tasks, task: cells}
        return self._replace(data=data, tasks=tasks)

    def to_json(self) -> dict[str, Any]:
        """Every figure of every run, and what the table says of them."""
        return {
            "system": self.system,
            "protocol": dict(self.protocol),
            "data": {task: dict(hashes) for task, hashes in self.data.items()},
            "tasks": {
                task: {
                    "chosen_learning_rate": chosen_rate(cells),
                    "summary": {figure: summary(cells, figure) for figure in cells[0].last},
                    "runs": [cell._asdict() for cell in cells],
                }
                for task, cells in self.tasks.items()
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Results":
        """Reads what `to_json` made."""
        tasks = {
            task: [Cell(**run) for run in found["runs"]] for task, found in content["tasks"].items()
        }
        return cls(content["system"], content["protocol"], content["data"], tasks)


def chosen_rate(cells: Sequence[Cell]) -> float:
    """The learning rate whose runs have the highest median score at their last step, on dev."""
    rates = dict.fromkeys(cell.learning_rate for cell in cells)

    def median(rate: float) -> float:
        return statistics.median(c.last[SCORE] for c in cells if c.learning_rate == rate)

    return max(rates, key=median)


def chosen(cells: Sequence[Cell]) -> list[Cell]:
    """The runs of the chosen rate."""
    rate = chosen_rate(cells)
    return [cell for cell in cells if cell.learning_rate == rate]


def summary(cells: Sequence[Cell], figure: str) -> dict[str, dict[str, float | None]]:
    """{"last" and "best": {"median", "sd"}} over the seeds of the chosen rate; the deviation is the
    sample's (n - 1), None of a single run.
    """
    found = chosen(cells)
    values = {
        "last": [cell.last[figure] for cell in found],
        "best": [cell.best[figure] for cell in found],
    }
    return {
        name: {
            "median": statistics.median(numbers),
            "sd": statistics.stdev(numbers) if len(numbers) > 1 else None,
        }
        for name, numbers in values.items()
    }


def groups(results: Iterable[Results]) -> list[list[Results]]:
    """Results put together where protocol and data are the same."""
    found: list[list[Results]] = []
    for one in results:
        for group in found:
            if all(_is_comparable(one, other) for other in group):
                group.append(one)
                break
        else:
            found.append([one])
    return found


def _is_comparable(a: Results, b: Results) -> bool:
    same_data = all(a.data[task] == b.data[task] for task in a.data.keys() & b.data.keys())
    return same_data and dict(a.protocol) == dict(b.protocol)


def as_text(results: Iterable[Results]) -> str:
    """Tables for a terminal, one for each protocol."""
    return "\n\n".join(f"{_heading(g)}\n\n{_aligned(_rows(g))}" for g in groups(results))


def as_markdown(results: Iterable[Results]) -> str:
    """The same in Markdown."""
    parts = []
    for group in groups(results):
        header, *rows = _rows(group)
        rule = ["---", "---", *("---:" for _ in header[2:])]
        lines = [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
        parts.append(f"{_heading(group)}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _heading(group: Sequence[Results]) -> str:
    """What is in the table, and under which protocol."""
    protocol = group[0].protocol
    epochs = "1 epoch" if protocol["epochs"] == 1 else f"{protocol['epochs']} epochs"
    rates = [f"{rate:g}" for rate in protocol["learning_rates"]]
    rate = f"learning rate {rates[0]}"
    if len(rates) > 1:
        rate = f"learning rate chosen on the dev set among {', '.join(rates)}, for each task"
    others = {
        name: value
        for name, value in protocol.items()
        if name not in ("epochs", "seeds", "learning_rates")
    }
    shared = json.dumps(others, sort_keys=True)[1:-1].replace('"', "")
    return (
        f"Dev set, x 100: median over {protocol['seeds']} seeds +- standard deviation (n - 1), at "
        f"the last step and after the epoch that is best on dev; constant: always the most "
        f"frequent class of the training texts, or their mean score. {epochs}, {rate}. {shared}."
    )


def _rows(group: Sequence[Results]) -> list[list[str]]:
    """The header, a row for each figure of each task, and the mean of the tasks' scores."""
    header = ["task", "figure", "constant"]
    for one in group:
        header += [f"{one.system}: last step", "best epoch", "rate"]
    tasks = list(dict.fromkeys(task for one in group for task in one.tasks))
    rows = [header]
    for task in tasks:
        names = dict.fromkeys(n for one in group if task in one.tasks for n in _figures(one, task))
        for figure in names:
            cells = [_cells(one.tasks.get(task), figure) for one in group]
            constant = _percent(_constant(group, task, figure))
            rows.append([task, figure, constant, *(cell for part in cells for cell in part)])
    if len(tasks) > 1:
        means = [_mean(one, tasks) for one in group]
        constants = [_constant(group, task, SCORE) for task in tasks]
        known = [score for score in constants if score is not None]
        constant = _percent(statistics.fmean(known) if len(known) == len(tasks) else None)
        rows.append(["mean", SCORE, constant, *(cell for part in means for cell in part)])
    return rows


def _constant(group: Sequence[Results], task: str, figure: str) -> float | None:
    """What one answer for all texts has; None where old results do not tell it."""
    cells = (one.tasks[task][0] for one in group if task in one.tasks)
    told = (cell.last.get(f"constant_{figure}") for cell in cells)
    return next((value for value in told if value is not None), None)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _figures(one: Results, task: str) -> list[str]:
    known = TASKS[task].figures
    return [name for name in one.tasks[task][0].last if name.startswith(known)]


def _cells(cells: Sequence[Cell] | None, figure: str) -> list[str]:
    if cells is None:
        return ["-", "-", "-"]
    found = summary(cells, figure)
    return [_number(found["last"]), _number(found["best"]), f"{chosen_rate(cells):g}"]


def _mean(one: Results, tasks: Sequence[str]) -> list[str]:
    """Over the tasks, where the system has them all."""
    if any(task not in one.tasks for task in tasks):
        return ["-", "-", "-"]
    found = [summary(one.tasks[task], SCORE) for task in tasks]
    means = [statistics.fmean(s[name]["median"] or 0.0 for s in found) for name in ("last", "best")]
    return [*map(_percent, means), ""]


def _number(found: Mapping[str, float | None]) -> str:
    median, deviation = found["median"], found["sd"]
    assert median is not None
    text = _percent(median)
    return text if deviation is None else f"{text} +- {_percent(deviation)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
