"""One training run from configuration to finished work directory: the recipe that launch/train.py
follows.
"""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from condenser_jax import cluster
from condenser_jax.build import Built, build, versions
from condenser_jax.config import RunConfig
from condenser_jax.errors import UserError
from condenser_jax.finished import read_facts
from condenser_jax.hf.card import write_card
from condenser_jax.methods import METHODS
from condenser_jax.objectives.base import Goal
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.dry_run import describe_run, dry_run
from condenser_jax.training.health import Health
from condenser_jax.training.hooks import (
    Hook,
    MetricsFile,
    Profile,
    TensorBoard,
    WeightsAndBiases,
)
from condenser_jax.training.loop import Loop
from condenser_jax.training.progress import Progress, duration
from condenser_jax.training.signals import graceful_stop
from condenser_jax.training.state import TrainState
from condenser_jax.training.topology import topology_devices
from condenser_jax.training.workdir import (
    Workdir,
    check_workdir,
    cut_metrics,
    held,
    open_workdir,
    write_json,
)
from condenser_jax.warm_start import resumed_start

log = logging.getLogger("condenser_jax")


def print_dry_run(config: RunConfig, topology: str = "") -> None:
    """Prints what a run would cost, and stops.

    Args:
      topology: a TPU slice that is not there, such as "v5e:4x4": nothing is run; "": what is here.
    """
    built = build(config, topology_devices(topology) if topology else None)
    epoch = built.run.batches.steps_per_epoch
    for line in (*built.notes, *dry_run(built.run, epoch, measured=not topology)):
        if cluster.is_first():
            print(line, flush=True)


def train(config: RunConfig, path: str | Path, began: float) -> tuple[Workdir, dict[str, Any]]:
    """Starts or resumes the run of `path`, brings it to its end and returns what its evaluations
    found.

    Args:
      began: when the command started, seconds since the epoch.

    Raises UserError where configuration, data and work directory do not fit; RunFailed; Preempted.
    """
    stored = dataclasses.asdict(config)
    cluster.check_same("the configuration", stored, "start every process with the same command")
    check_workdir(path, stored)
    built = build(config, resumed=resumed_start(path, config))
    remedy = "all must read the same files, with the same versions of packages"
    cluster.check_same("the prepared data", built.hashes, remedy)
    with _shared_workdir(path, stored, built) as workdir:
        return workdir, _run(config, built, workdir, stored, began)


def record_run(
    config: RunConfig, built: Built, path: str | Path, state: TrainState, history: dict[str, Any]
) -> Workdir:
    """Writes the work directory of a run that was brought to its end elsewhere: its last
    checkpoint, and what evaluations found ({"first", "last": figures}). It has no metrics.jsonl.

    Raises UserError as `train` does.
    """
    history = {**history, "evaluated": config.training.steps}
    record = {"step": config.training.steps, "history": history, "metrics_offset": 0}
    with (
        _shared_workdir(path, dataclasses.asdict(config), built) as workdir,
        Checkpoints(workdir.checkpoints, keep=config.training.keep) as checkpoints,
    ):
        checkpoints.save(config.training.steps, state, record)
        checkpoints.wait()
        if cluster.is_first():
            write_json(workdir.result, history)
    return workdir


@contextlib.contextmanager
def _shared_workdir(path: str | Path, stored: dict[str, Any], built: Built) -> Iterator[Workdir]:
    """The work directory, made and held by the first process, and seen by all of them."""
    workdir = Workdir(Path(path))
    with contextlib.ExitStack() as stack:
        if cluster.is_first():
            stack.enter_context(held(workdir))  # before a word of another run's is written over
            open_workdir(path, stored, built.hashes)
            _write_companions(workdir, built)
        cluster.wait_for_all("work directory")
        holder = workdir.lock.read_text() if workdir.lock.exists() else ""
        remedy = f"put --workdir={path} on a disk that all of them share"
        cluster.check_same(f"the work directory {path}", holder, remedy)
        yield workdir


def _run(
    config: RunConfig, built: Built, workdir: Workdir, stored: dict[str, Any], began: float
) -> dict[str, Any]:
    """The run itself, in a work directory that is ours alone; returns what evaluations found."""
    for line in (*built.notes, *describe_run(built.run)):
        log.info("%s", line)
    with (
        graceful_stop() as stop,
        Checkpoints(
            workdir.checkpoints,
            keep=config.training.keep,
            lower_is_better=built.run.goal.lower_is_better,
        ) as checkpoints,
    ):
        start, state, record = _start(built, checkpoints, workdir)
        file = None
        if cluster.is_first():
            cut_metrics(workdir.metrics, record.get("metrics_offset", 0))
            file = MetricsFile(workdir.metrics)
        loop = Loop(
            built.run,
            state,
            checkpoints,
            _hooks(config, built.run.goal, workdir, file, start, stored),
            stop,
            history=record.get("history"),
            metrics_offset=lambda: file.offset if file else 0,
        )
        loop.train(start, began)
        checkpoints.wait()
    if cluster.is_first():
        write_json(workdir.result, loop.history)
    return loop.history


def _start(built: Built, checkpoints: Checkpoints, workdir: Workdir) -> tuple[int, Any, dict]:
    """(first step to run, state, record) of a fresh run or of the latest sound checkpoint."""
    restored = checkpoints.restore_latest(built.run.abstract_state())
    if restored is None:
        return 0, built.run.initial_state(), {}
    log.info("resumed %s after step %d of %d", workdir.root, restored[0], built.run.steps)
    return restored


def _hooks(
    config: RunConfig,
    goal: Goal,
    workdir: Workdir,
    file: MetricsFile | None,
    start: int,
    stored: dict[str, Any],
) -> list[Hook]:
    """What listens to the run; of several processes the first alone has a file, and writes."""
    training = config.training
    hooks: list[Hook] = []
    if training.profile:
        hooks.append(Profile(workdir.root / "profile", *training.profile))
    if file is None:
        return hooks
    hooks += [file, Progress(training.steps, start), Health(workdir.root, goal)]
    if training.tensorboard:
        hooks.append(TensorBoard(workdir.tensorboard, start))
    if training.wandb:
        hooks.append(WeightsAndBiases(training.wandb, workdir.root, stored))
    return hooks


def _write_companions(workdir: Workdir, built: Built) -> None:
    """Tokenizer and encoder card: with them the work directory explains itself."""
    if not (workdir.is_started and workdir.tokenizer.is_dir()):
        half = workdir.tokenizer.with_name("tokenizer.half")
        for old in (half, workdir.tokenizer):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(old)
        shutil.copytree(built.material.tokenizer_directory, half)
        half.rename(workdir.tokenizer)
    write_card(built.card, workdir.card)
    weights = [note for note in built.notes if note.startswith("weights: ")]
    if workdir.is_started:  # it is what the run began with, whatever lies there now
        with contextlib.suppress(UserError):
            weights = read_facts(workdir)["weights"]
    facts = {
        "backbone": dataclasses.asdict(built.backbone),
        "weights": weights,
        "data": built.material.cards,
        "versions": versions(),
        **({} if built.teacher is None else {"teacher": built.teacher}),
    }
    write_json(workdir.facts, facts)


def closing_words(
    config: RunConfig, workdir: Workdir, history: dict[str, Any], seconds: float
) -> str:
    """What a finished run tells its user: the figures before and after, and where to go next."""
    before, after = history["first"], history["last"]
    rows = [f"{'held out':<36}{'before':>10}{'after':>10}"]
    rows += [
        f"{name:<36}{before[name]:>10.3f}{value:>10.3f}"
        for name, value in after.items()
        if name in before  # which may be of an earlier version
        if "cls_entropy" not in name  # one for each layer
    ]
    rows += [
        "",
        *METHODS[config.objective.name].feed.closing(before, after),
        f"finished in {duration(seconds)}; work directory: {workdir.root}; curves: "
        f"{workdir.root}/health.png",
        f"export: python launch/export.py --workdir={quote(str(workdir.root))} "
        f"--output={quote(f'{workdir.root}-export')}",
    ]
    return "\n".join(rows)
