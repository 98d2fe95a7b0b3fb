"""The checkpoints of a run, read back: every array is held against what the record says of it.

A checkpoint is a directory named by its step, with three orbax items, so that an export need not
read the optimizer: `params` (the parameters), `rest` (every other field of the train state) and
`record` (JSON, see records.py). Nothing here writes, so it may look into a run that goes on.
"""

import dataclasses
import errno
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from condenser_jax.errors import UserError
from condenser_jax.training.checksums import (
    Described,
    describe,
    describe_with_checksums,
    named_leaves,
)
from condenser_jax.training.records import Record, Unsigned, from_json
from condenser_jax.training.system_errors import causes, system_error
from condenser_jax.types import Params, Tree

ITEMS = ("params", "rest", "record")
# Errors of the system that tell of the files themselves; any other, such as a lack of permission,
# of memory or of the network, says nothing against the checkpoint.
OF_THE_FILES = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
SPECIFICATION = " [tensorstore_spec"  # pages of it follow the words of an error

T = TypeVar("T")


class Damaged(UserError):
    """A checkpoint that cannot be read as it was written. `reason` says what was found."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"checkpoint {path} is damaged ({reason}); name another step, or start its run again, "
            "which goes on from the checkpoint before"
        )


class Saved:
    """The checkpoints below one directory.

    Args:
      directory: where the checkpoints lie, one directory per step.
      lower_is_better: whether the best checkpoint has the lowest metric.
    """

    def __init__(self, directory: str | Path, *, lower_is_better: bool = True) -> None:
        self.directory = Path(directory).absolute()
        if not self.directory.is_dir():
            raise UserError(f"no checkpoint found in {self.directory}: there is no such directory")
        self._sign = 1.0 if lower_is_better else -1.0

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order: one takes its name when it is whole."""
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    @property
    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint; None if there is none."""
        return max(self.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """The step with the best metric; the latest one if none was saved with a metric."""
        return best(self.metrics(), self._sign) or self.latest_step

    def metrics(self) -> dict[int, float]:
        """{step: metric} of the checkpoints that have one and can be read. That of a checkpoint
        which was saved before it was measured stands in the history of a later one.
        """
        records = {step: self._readable(step) for step in self.steps}
        found: dict[int, float] = {}
        for record in filter(None, records.values()):
            known = record.loop.get("history", {}).get("best")
            if known and known["step"] in records:
                found[known["step"]] = known["value"]
        own = {step: record.metric for step, record in records.items() if record}
        return found | {step: metric for step, metric in own.items() if metric is not None}

    def restore(self, step: int, abstract_state: Tree) -> tuple[Tree, dict[str, Any]]:
        """Returns (state, record) of `step`, placed as `abstract_state` (ShapeDtypeStructs) says.

        All processes must call it, and all get a state or none. Raises Damaged; UserError if there
        is no such checkpoint, or another structure in it.
        """
        path, wanted = self._path(step), items_of(abstract_state)
        record = _in_all_processes(path, lambda: self._read(step))
        _check_structure(path, record.arrays, describe(wanted))
        found = _in_all_processes(
            path, lambda: {item: _read_arrays(path, item, wanted[item]) for item in wanted}
        )
        _check_bits(path, record.arrays, found)
        state = dataclasses.replace(abstract_state, params=found["params"], **found["rest"])
        return state, record.loop

    def restore_params(self, step: int, abstract: Params) -> Params:
        """Returns the groups of parameters in `abstract`, all or some; reads nothing else."""
        path, wanted = self._path(step), {"params": dict(abstract)}
        arrays = self._read(step).arrays
        groups = {f"params/{group}" for group in abstract}
        asked = {name: arrays[name] for name in arrays if _first_two(name) in groups}
        _check_structure(path, asked, describe(wanted))
        found = {"params": _read_arrays(path, "params", wanted["params"])}
        _check_bits(path, asked, found)
        return found["params"]

    def read_record(self, step: int) -> dict[str, Any]:
        """Returns the record of `step`, as it was given to `save`."""
        return self._read(step).loop

    def _read(self, step: int) -> Record:
        path = self._path(step)
        missing = [item for item in ITEMS if not (path / item).is_dir()]
        if missing:
            raise Damaged(path, f"it lacks {', '.join(missing)}")
        with _reading(path, "record"):
            return from_json(ocp.JsonCheckpointHandler().restore(path / "record"))

    def _readable(self, step: int) -> Record | None:
        try:
            return self._read(step)
        except UserError:
            return None  # damaged, or removed meanwhile by the run

    def _path(self, step: int) -> Path:
        path = self.directory / str(step)
        if not path.is_dir():
            steps = ", ".join(map(str, self.steps)) or "none"
            raise UserError(f"no checkpoint found at {path}; steps there: {steps}")
        return path


def items_of(state: Tree) -> dict[str, Tree]:
    """A train state, or its shapes, as the items that are stored apart."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {"params": fields.pop("params"), "rest": fields}


def best(metrics: Mapping[int, float], sign: float) -> int | None:
    """The step with the lowest metric, the earliest of equals; highest with a sign of -1."""
    return min(metrics, key=lambda step: (sign * metrics[step], step), default=None)


def _read_arrays(path: Path, item: str, abstract: Tree) -> Tree:
    """One item, or some groups of it. Each process reads what it holds, and waits for none."""
    arguments = ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
    )
    with _reading(path, item):
        found = ocp.PyTreeCheckpointHandler().restore(path / item, args=arguments)
        for name, leaf in named_leaves(found):
            if not isinstance(leaf, jax.Array):  # orbax leaves what it does not find as it is
                raise ValueError(f"{name} is not among the arrays")
    return found


def _check_structure(
    path: Path, saved: Mapping[str, Described], wanted: Mapping[str, Described]
) -> None:
    """Raises UserError naming the first array that is missing, left over or misshapen."""
    for name in sorted(saved.keys() | wanted.keys()):
        there, here = (_in_words(arrays.get(name)) for arrays in (saved, wanted))
        if there != here:
            raise UserError(
                f"checkpoint {path} does not fit this configuration: {name} is {there} there and "
                f"{here} here; use the configuration that it was trained with"
            )


def _check_bits(path: Path, saved: Mapping[str, Described], found: Tree) -> None:
    """Raises Damaged, in all processes, naming the first array that is not what was saved."""
    for name, described in describe_with_checksums(found).items():
        if described != saved[name]:
            raise Damaged(path, f"{name} does not have its checksum")


@contextmanager
def _reading(path: Path, item: str) -> Iterator[None]:
    """Tells damage from what the reader lacks: permission, memory, a file handle."""
    silence_abandoned()  # before: others may fail while the first error is on its way
    try:
        yield
    except Unsigned as error:
        raise UserError(
            f"checkpoint {path} is of an earlier version of condenser_jax; train anew in another "
            "--workdir"
        ) from error
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # tensorstore's, that orbax passes on, have no class of their own
        words = str(list(causes(error))[-1]).strip() or repr(error)
        reason = f"{item}: {words.splitlines()[0].split(SPECIFICATION)[0]}"
        if system_error(error) in OF_THE_FILES:
            raise Damaged(path, reason) from error
        raise UserError(f"checkpoint {path} cannot be read ({reason})") from error


@functools.cache
def silence_abandoned() -> None:
    """Once a read or a write has failed nobody waits for the others: Python would print pages of
    that. Holds for the rest of the process.
    """
    former = sys.unraisablehook

    def report(dropped: Any) -> None:
        closed = "Event loop is closed" in str(dropped.exc_value)
        if not closed and not inspect.iscoroutine(dropped.object):
            former(dropped)

    sys.unraisablehook = report
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _in_all_processes(path: Path, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, if it succeeds in every process; else raises Damaged in all."""
    outcome: T | Damaged
    try:
        outcome = attempt()
    except Damaged as error:
        outcome = error
    failed = multihost_utils.process_allgather(np.array([isinstance(outcome, Damaged)])).ravel()
    if isinstance(outcome, Damaged):
        raise outcome
    if failed.any():
        raise Damaged(path, f"process {failed.argmax()} could not read its part")
    return outcome


def _first_two(name: str) -> str:
    return "/".join(name.split("/")[:2])


def _in_words(described: Described | None) -> str:
    return "absent" if described is None else f"{described.dtype} of shape {list(described.shape)}"
