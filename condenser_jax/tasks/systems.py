"""Systems side by side: from the figures of every query to a report, whatever the task.

A figure of a system is the mean of what it is for each query (pair, triplet), so that all of them
can be kept, read back, and compared by one paired test: the first system with the second, or with
the first of an earlier evaluation.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condenser_jax.errors import UserError
from condenser_jax.retrieval.metrics import PerQuery, means
from condenser_jax.retrieval.significance import Comparison, compare
from condenser_jax.retrieval.tables import Results, as_markdown, as_text
from condenser_jax.tasks.contract import Options, Report

BM25 = "BM25"  # the name of the baseline
Systems = Mapping[str, PerQuery]  # system -> metric -> query -> value


def report_systems(task: str, systems: Systems, options: Options, what: str) -> Report:
    """Tables of all systems and the paired test of two, with files to keep.

    Args:
      task: its name, which an earlier evaluation must share.
      systems: in the order of the rows, the first of them the one in question.
      what: what they were measured on, for the heading: "1,000 queries, 50,000 passages".

    Raises UserError for an earlier evaluation that cannot be compared.
    """
    earlier = read_per_query(options.baseline, task) if options.baseline else {}
    rows = {**systems, **_renamed(earlier, systems, options.baseline)}
    first = next(iter(systems))
    others = list(rows)[len(systems) :] or list(systems)[1:]
    tests = _tests(rows[first], rows[others[0]]) if others else {}
    results = {name: means(found) for name, found in rows.items()}
    is_file = Path(options.data).expanduser().is_file()  # which has no splits
    where = options.data if is_file else f"{options.data}, {options.split}"
    heading = f"{task}: {where}: {what}"
    versus = f"{first} minus {others[0]}, paired test:" if others else ""
    kept = {"task": task, "data": options.data, "split": options.split, "systems": systems}
    figures = {
        "task": task,
        "data": options.data,
        "split": options.split,
        "systems": results,
        "compared": [first, others[0]] if others else [],
        "tests": {metric: test._asdict() for metric, test in tests.items()},
    }
    markdown = _markdown(heading, results, versus, tests)
    return Report(
        _text(heading, results, versus, tests),
        figures,
        {
            ".md": lambda path: path.write_text(markdown, encoding="utf-8"),
            ".per_query.json": lambda path: path.write_text(
                json.dumps(kept) + "\n", encoding="utf-8"
            ),
        },
    )


def read_per_query(path: str, task: str) -> dict[str, dict[str, dict[str, float]]]:
    """Reads the systems of PREFIX.per_query.json. Raises UserError for another file or task."""
    try:
        kept: Any = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        found, systems = kept["task"], kept["systems"]
    except OSError as error:
        raise UserError(f"--baseline={path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--baseline={path} holds no results of queries; name a file that "
            "launch/evaluate.py wrote: PREFIX.per_query.json"
        ) from error
    if found != task:
        raise UserError(f"--baseline={path} is of task {found}, not {task}; name one of {task}")
    return systems


def _renamed(earlier: Systems, systems: Systems, path: str) -> dict[str, PerQuery]:
    """Earlier systems under names that are not taken."""
    return {f"{n} ({path})" if n in systems else n: found for n, found in earlier.items()}


def _tests(first: PerQuery, second: PerQuery) -> dict[str, Comparison]:
    return {
        metric: compare(values, second[metric])
        for metric, values in first.items()
        if metric in second
    }


def _text(heading: str, results: Results, versus: str, tests: Mapping[str, Comparison]) -> str:
    lines = [heading, "", as_text(results)]
    if tests:
        width = max(map(len, tests))
        lines += ["", versus]
        lines += [f"  {metric:<{width}}  {test}" for metric, test in tests.items()]
    return "\n".join(lines)


def _markdown(heading: str, results: Results, versus: str, tests: Mapping[str, Comparison]) -> str:
    lines = [heading, "", as_markdown(results)]
    if tests:
        lines += ["", versus, "", *(f"- {metric}: {test}" for metric, test in tests.items())]
    return "\n".join(lines) + "\n"
