"""Systems side by side: from the figures of every query to a report, whatever the task.

A figure of a system is the mean of what it is for each query (pair, triplet), so that all of them
can be kept, read back, and compared by one paired test: the first system with the second, or with
the first of an earlier evaluation.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from condenser_jax.errors import UserError
from condenser_jax.feeds.same_split import warn_of_another_split
from condenser_jax.feeds.tokens import hash_texts
from condenser_jax.retrieval.docstring_pairs import DOCSTRINGS
from condenser_jax.retrieval.metrics import PerQuery, means
from condenser_jax.retrieval.significance import Comparison, compare
from condenser_jax.retrieval.tables import Results, as_markdown, as_text
from condenser_jax.tasks.contract import Options, Report

BM25 = "BM25"  # the name of the baseline
Systems = Mapping[str, PerQuery]  # system -> metric -> query -> value


def report_systems(
    task: str,
    found: Iterable[tuple[str, PerQuery]],
    queries: Sequence[str],
    options: Options,
    what: str,
    texts: Iterable[str],
) -> Report:
    """Tables of all systems and the paired test of two, with files to keep.

    Args:
      task: its name, which an earlier evaluation must share.
      found: the systems in the order of the rows, the first of them the one in question; they are
        asked for when all that can be refused was.
      queries: names of what every system is asked: queries, pairs, triplets.
      what: what they were measured on, for the heading: "1,000 queries, 50,000 passages".
      texts: what the names stand for, the same in an earlier evaluation.

    Warns of a model that has read what is asked of the docstrings. Raises UserError for an earlier
    evaluation that cannot be compared.
    """
    if options.split == "test":
        for model in options.models:
            warn_of_another_split(model, options.data, options.reading)
    asked = {"task": task, "data": options.data, "split": options.split, **_division(options)}
    asked["texts_hash"] = hash_texts(texts)
    told = {name: value for name, value in options.usage._asdict().items() if value is not None}
    earlier = read_per_query(options.baseline, asked, queries) if options.baseline else {}
    systems = dict(found)
    rows = {**systems, **_renamed(earlier, systems, options.baseline)}
    first = next(iter(systems))
    others = list(rows)[len(systems) :] or list(systems)[1:]
    tests = _tests(rows[first], rows[others[0]]) if others else {}
    results = {name: means(found) for name, found in rows.items()}
    heading = f"{task}: {_where(options)}: {what}"
    versus = f"{first} minus {others[0]}, paired test:" if others else ""
    kept = {**asked, **told, "systems": systems}
    figures = {
        **asked,
        **told,
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


def _where(options: Options) -> str:
    """What was read, for people."""
    if Path(options.data).expanduser().is_file():  # which has no splits
        return options.data
    division = ", ".join(f"{name} {value:g}" for name, value in _division(options).items())
    return f"{options.data}, {options.split}" + (f" ({division})" if division else "")


def _division(options: Options) -> dict[str, float]:
    """Which modules of docstrings are asked; nothing for other data."""
    if not options.data.startswith(DOCSTRINGS):
        return {}
    reading = options.reading
    return {"heldout_share": reading.heldout_share, "split_seed": reading.split_seed}


def read_per_query(
    path: str, asked: Mapping[str, Any], queries: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Reads the systems of PREFIX.per_query.json. Raises UserError for another file, another task
    than that of what is `asked` now, docstrings of another split, and other queries.
    """
    task = asked["task"]
    try:
        kept: Any = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        found, systems = kept["task"], kept["systems"]
        theirs = [values.keys() for figures in systems.values() for values in figures.values()]
    except OSError as error:
        raise UserError(f"--baseline={path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--baseline={path} holds no results of queries; name a file that "
            "launch/evaluate.py wrote: PREFIX.per_query.json"
        ) from error
    if found != task:
        raise UserError(f"--baseline={path} is of task {found}, not {task}; name one of {task}")
    for name in ("heldout_share", "split_seed"):
        if name in asked and kept.get(name, asked[name]) != asked[name]:
            raise UserError(
                f"--baseline={path} asked docstrings of {name} {kept[name]:g}, not "
                f"{asked[name]:g}; use --{name}={kept[name]:g}, or evaluate it anew"
            )
    ours = set(queries)
    for names in theirs:
        if names != ours:
            raise UserError(
                f"--baseline={path} asked other queries: {len(names ^ ours):,} are in one of the "
                f"two alone ({len(names):,} then, {len(ours):,} now); evaluate it anew"
            )
    if kept.get("texts_hash", asked["texts_hash"]) != asked["texts_hash"]:
        raise UserError(
            f"--baseline={path} asked other texts, of {kept['data']}; name results of the same "
            "texts, or evaluate it anew"
        )
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
