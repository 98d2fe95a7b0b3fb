"""Tasks of GLUE by one command: every task, learning rate and seed is a run in a directory of its
own; what is finished is read back, what is not goes on.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from condenser_jax import run as runs
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.evaluation.classification import Predictor
from condenser_jax.feeds.glue import GLUE, hash_examples, hashes_of, read_splits
from condenser_jax.finished import read_facts, read_run
from condenser_jax.glue.records import BrokenTest, Examples, read_split
from condenser_jax.glue.report import SCORE, Cell, Results, as_markdown, as_text, chosen
from condenser_jax.glue.submission import submission, write_submission
from condenser_jax.glue.tasks import Task, find_task
from condenser_jax.glue_plan import DROPOUT, Suite, cell_config, protocol_of, with_sections
from condenser_jax.training.sharding import make_mesh, replicated
from condenser_jax.training.workdir import Workdir, check_config, write_json
from condenser_jax.warm_start import weights_identity
from condenser_jax.whole_files import written_whole

log = logging.getLogger("condenser_jax")
KEPT = {"data": "data", "init": "weights to start from", "tests": "test splits"}
CELL, RESULTS, SUBMISSION = "cell.json", "results.json", "submission"


class Splits(NamedTuple):
    """A task's data, as far as the suite itself needs it."""

    rows: int  # trained on
    hashes: dict[str, str]
    tests: dict[str, Examples]  # by the server's name of the file; {} where the source has none
    test_hashes: dict[str, str]  # by file too


def run_suite(
    suite: Suite,
    root: Path,
    system: str,
    after_task: Callable[[Results], object] = lambda results: None,
) -> Results:
    """Does what is not done yet, task by task, and returns everything that was found; `after_task`
    is given what was found so far.

    Raises UserError or Preempted as a run does: the same command goes on. RunFailed, if a run
    fails, after all the others: its task has no line in the table.
    """
    results, failed = Results(system, protocol_of(suite), {}, {}), list[str]()
    all_splits = {name: read_task(suite, name) for name in suite.grid.names}  # before any run
    for name, splits in all_splits.items():
        cells: dict[Path, Cell] = {}
        before = len(failed)
        for rate in suite.grid.learning_rates:
            for seed in range(suite.run.seed, suite.run.seed + suite.grid.seeds):
                place = root / name / f"lr{rate:g}-seed{seed}"
                try:
                    cells[place] = finish_cell(suite, place, name, rate, seed, splits)
                except RunFailed as error:
                    failed.append(f"{name}, learning rate {rate:g}, seed {seed}")
                    log.warning("%s: failed: %s", failed[-1], error)
        if len(failed) > before:
            continue
        results = results._replace(protocol=protocol_of(suite) | dropout_of(next(iter(cells))))
        results = results.with_task(name, list(cells.values()), splits.hashes)
        _hand_in(root, cells)
        after_task(results)
    if failed:
        raise RunFailed(
            f"failed: {'; '.join(failed)} (why is said above). Their tasks have no line in the "
            "table. Leave the rate out of --config.learning_rates, or clip gradients, with another "
            "--workdir: --config.run.optimizer.clip_norm=1.0. Runs that are finished stay."
        )
    return results


def read_task(suite: Suite, name: str) -> Splits:
    """Reads the splits of a task; test splits that are not there are said, and left out."""
    task = find_task(name)
    config = with_sections(suite.run, objective={"task": name})
    train, dev = read_splits(config)
    tests = {}
    for test in task.tests:
        try:
            tests[test.file] = read_split(
                config.data.source,
                task,
                test.split,
                config.data.bad_share,
                name=test.name,
                has_labels=False,
            )
        except BrokenTest:
            raise
        except UserError as error:
            log.info("no %s.tsv for the test server: %s", test.file, error)
    test_hashes = {file: hash_examples(examples) for file, examples in tests.items()}
    return Splits(len(train), hashes_of(train, dev), tests, test_hashes)


def finish_cell(
    suite: Suite, place: Path, name: str, rate: float, seed: int, splits: Splits
) -> Cell:
    """Reads a finished run back, or brings it to its end.

    Raises UserError where the directory holds a run of another configuration or of other data.
    """
    config = cell_config(suite, name, rate, seed, splits.rows)
    workdir = Workdir(place)
    start = weights_identity(config.model.init)
    kept = {"data": splits.hashes, "init": start, "tests": splits.test_hashes}
    said = f"{name}, learning rate {rate:g}, seed {seed}"
    if (place / CELL).is_file():
        check_config(workdir, json.loads(json.dumps(dataclasses.asdict(config))))
        cell = _read_back(place, name, kept)
        log.info("%s: finished before", said)
        if suite.grid.keep and not workdir.checkpoints.is_dir():
            log.warning(
                "%s: finished before without keep=True, so its checkpoints are gone; name another "
                "--workdir to train and keep it",
                said,
            )
        return cell
    log.info("%s: begins", said)
    runs.train(config, place, time.time())
    cell = Cell(rate, seed, epochs_of(workdir))
    _predict(place, splits.tests, find_task(name))
    write_json(place / CELL, {"cell": cell._asdict(), **kept})
    if not suite.grid.keep:
        shutil.rmtree(workdir.checkpoints)
    log.info("%s: score %.4f", said, cell.last[SCORE])
    return cell


def _read_back(place: Path, name: str, kept: Mapping[str, Any]) -> Cell:
    """A finished run; raises UserError if what lay under it is not what there is now (`kept`).

    Predictions on a test split that is gone stand. Old files do not tell the hashes of test splits:
    those that they have predictions of are taken for the same.
    """
    found = json.loads((place / CELL).read_text(encoding="utf-8"))
    written = {file.stem for file in (place / SUBMISSION).glob("*.tsv")}
    tests = {file: now for file, now in kept["tests"].items() if file in written}
    before = found.setdefault("tests", tests)
    for file in sorted(kept["tests"].keys() - before.keys()):
        log.warning(
            "%s: finished before there were texts for %s.tsv, and has no predictions on them; name "
            "another --workdir to make some",
            place,
            file,
        )
    kept = {**kept, "tests": {file: kept["tests"].get(file, before[file]) for file in before}}
    for what, now in kept.items():
        if found[what] != now:
            raise UserError(
                f"the {KEPT[what]} of {name} have changed since {place} was finished; restore "
                "what was there or name another --workdir"
            )
    return Cell(**found["cell"])


def epochs_of(workdir: Workdir) -> list[dict[str, float]]:
    """The figures of each evaluation after a step, in their order, from metrics.jsonl."""
    found = {}
    for text in workdir.metrics.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["step"] and f"heldout/{SCORE}" in line:
            figures = {n.removeprefix("heldout/"): v for n, v in line.items() if "heldout/" in n}
            found[line["step"]] = figures
    return [found[step] for step in sorted(found)]


def _predict(place: Path, tests: Mapping[str, Examples], task: Task) -> None:
    """Writes what the model of the last step predicts on the test splits."""
    if not tests:
        return
    run = read_run(place)
    material = GLUE.open(run.config)
    mesh = make_mesh()
    predict = Predictor(run.objective.predict["logits"], mesh)
    params = jax.device_put(run.params, replicated(mesh))  # once, not with every batch
    for file, examples in tests.items():
        placed = predict.place(material.rows(examples, file))
        logits = predict(params, {}, placed, len(examples))
        write_submission(place / SUBMISSION, file, submission(task, logits))


def _hand_in(root: Path, cells: Mapping[Path, Cell]) -> None:
    """Copies the files of the run that is best on dev, among those of the chosen rate."""
    wanted = chosen(list(cells.values()))
    best = max((p for p in cells if cells[p] in wanted), key=lambda p: cells[p].last[SCORE])
    for file in sorted((best / SUBMISSION).glob("*.tsv")):
        write_submission(root / SUBMISSION, file.stem, file.read_text(encoding="utf-8"))


def dropout_of(place: Path) -> dict[str, float]:
    """{key of the protocol: rate} that the encoder of a run has, whoever chose it."""
    backbone = read_facts(Workdir(place))["backbone"]
    return {key: backbone[key.removeprefix("model.")] for key in DROPOUT}


def write_results(root: Path, results: Results, beside: list[Results]) -> None:
    """Writes results.json, .txt and .md."""
    write_json(root / RESULTS, results.to_json())
    shown = [results, *beside]
    for name, text in (("results.txt", as_text(shown) + "\n"), ("results.md", as_markdown(shown))):
        with written_whole(root / name) as half:
            half.write_text(text, encoding="utf-8")


def read_results(root: str | Path) -> Results:
    """The results of another work directory; raises UserError if there are none.

    Old ones leave out a dropout that was the checkpoint's: it is like no other rate, nor theirs.
    """
    path = Path(root).expanduser() / RESULTS
    try:
        found = Results.from_json(json.loads(path.read_text(encoding="utf-8")))
        unknown = {key for key in DROPOUT if found.protocol.get(key, 0.0) is None}
        untold = dict.fromkeys(unknown, f"not told by {path}")
        return found._replace(protocol={**found.protocol, **untold})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as the results of launch/glue.py ({error}); name a --workdir "
            "of it that is finished"
        ) from error
