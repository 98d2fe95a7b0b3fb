"""Checkpoints of a run: asynchronous, atomic, the last few and the best one are kept.

A thin wrapper on orbax. A checkpoint has three items, so that an export need not read the
optimizer: `params` (the parameters), `rest` (every other field of the train state) and `record`
(JSON). A save that is killed leaves a temporary directory, which the next start removes.
"""

import dataclasses
import errno
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from condenser_jax.errors import UserError
from condenser_jax.types import Params, Tree

ITEMS = ("params", "rest", "record")


class Checkpoints:
    """The checkpoints below one directory. Use as a context manager, or call `close` at the end.

    Args:
      directory: where the checkpoints lie, one directory per step.
      keep: how many of the latest are kept, besides the best.
      asynchronous: `save` returns once the arrays are copied; the rest is written meanwhile.
      lower_is_better: whether the best checkpoint has the lowest metric.
      read_only: for other commands: removes nothing, so it may look into a run that goes on.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 2,
        asynchronous: bool = True,
        lower_is_better: bool = True,
        read_only: bool = False,
    ) -> None:
        self.directory = Path(directory).absolute()
        if read_only and not self.directory.is_dir():
            raise UserError(f"no checkpoint found in {self.directory}: there is no such directory")
        best = policies.BestN(
            get_metric_fn=_metric,
            n=1,
            reverse=lower_is_better,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            best_fn=_metric,
            best_mode="min" if lower_is_better else "max",
            enable_async_checkpointing=asynchronous,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        with self._writing():
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step with the best metric; the latest one if none was saved with a metric."""
        return self._manager.best_step() or self.latest_step

    def save(
        self, step: int, state: Tree, record: Mapping[str, Any], metric: float | None = None
    ) -> None:
        """Saves `state` and the JSON `record`; returns once `state` may be donated.

        `state` is a flax.struct dataclass with a field `params` of dictionaries. `metric` decides
        which checkpoint is the best; without one, this never is. Raises UserError on a full disk,
        at this save or in the background of the one before.
        """
        fields = _fields(state)
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(fields.pop("params")),
            rest=ocp.args.StandardSave(fields),
            record=ocp.args.JsonSave(dict(record)),
        )
        metrics = None
        if metric is not None and math.isfinite(metric):
            metrics = {"metric": float(metric)}
        with self._writing():
            accepted = self._manager.save(step, args=items, metrics=metrics)
        assert accepted, f"step {step} was not saved: step {self.latest_step} is there already"

    def restore(self, step: int, abstract_state: Tree) -> tuple[Tree, dict[str, Any]]:
        """Returns (state, record) of `step`, placed as `abstract_state` (ShapeDtypeStructs) says.

        Raises UserError if there is no such checkpoint, or another structure in it.
        """
        fields = _fields(abstract_state)
        params = fields.pop("params")
        self._check_structure(step, "params", params)
        self._check_structure(step, "rest", fields)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params),
            rest=ocp.args.StandardRestore(fields),
            record=ocp.args.JsonRestore(),
        )
        with self._reading(step):
            restored = self._manager.restore(step, args=items)
        state = dataclasses.replace(abstract_state, params=restored.params, **restored.rest)
        return state, restored.record

    def restore_params(self, step: int, abstract: Params) -> Params:
        """Returns the groups of parameters in `abstract`, all or some; reads nothing else."""
        self._check_structure(step, "params", abstract, only=abstract)
        arguments = ocp.args.PyTreeRestore(
            dict(abstract),
            restore_args=ocp.checkpoint_utils.construct_restore_args(dict(abstract)),
            partial_restore=True,
        )
        with self._reading(step), ocp.PyTreeCheckpointer() as reader:
            return reader.restore(self._item(step, "params"), args=arguments)

    def read_record(self, step: int) -> dict[str, Any]:
        """Returns the JSON record of `step`."""
        self._item(step, "record")
        arguments = ocp.args.Composite(record=ocp.args.JsonRestore())
        with self._reading(step):
            return self._manager.restore(step, args=arguments).record

    def wait(self) -> None:
        """Waits until everything saved is on disk; raises UserError if the disk is full."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends the background threads; the object cannot be used afterwards."""
        with self._writing():
            self._manager.close()

    def _item(self, step: int, name: str) -> Path:
        """The directory of one item; raises UserError when it is not there."""
        checkpoint = self.directory / str(step)
        if not checkpoint.is_dir():
            steps = ", ".join(map(str, self._manager.all_steps())) or "none"
            raise UserError(f"no checkpoint found at {checkpoint}; steps there: {steps}")
        if not all((checkpoint / item).is_dir() for item in ITEMS):
            raise UserError(
                f"{checkpoint} is not a checkpoint of condenser_jax: it must hold the items "
                f"{', '.join(ITEMS)}; name the work directory of a run of launch/train.py"
            )
        return checkpoint / name

    def _check_structure(
        self, step: int, item: str, abstract: Tree, only: Params | None = None
    ) -> None:
        """Raises UserError naming the first array that is missing, left over or misshapen."""
        path = self._item(step, item)
        with self._reading(step), ocp.StandardCheckpointer() as reader:
            saved = _shapes(reader.metadata(path).item_metadata.tree)
        wanted = _shapes(abstract)
        for name in sorted(saved.keys() | wanted.keys()):
            asked = only is None or name.split("/")[0] in only
            if asked and saved.get(name) != wanted.get(name):
                raise UserError(
                    f"checkpoint {path.parent} does not fit this configuration: {name} is "
                    f"{_describe(saved.get(name))} there and {_describe(wanted.get(name))} here; "
                    "use the configuration that it was trained with"
                )

    @contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be read ({reason}); "
                "remove it to go on from an earlier one"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_disk_full(error):
                raise UserError(self._disk_full()) from error
            raise

    def _disk_full(self) -> str:
        """Removes what the failed save left, and says what still stands."""
        for half in self.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(half, ignore_errors=True)
        self._manager.reload()
        last = "there is no good checkpoint yet"
        if self.latest_step is not None:
            last = f"the last good checkpoint is step {self.latest_step}"
        return (
            f"disk full while saving in {self.directory}; {last}; free some space and start again"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the disk or the quota was exhausted, told by errno or by the words of tensorstore."""
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if isinstance(error, OSError) and error.errno in full:
            return True
        if any(f"os_error_code='{code}'" in str(error) for code in full):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fields(state: Tree) -> dict[str, Tree]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _metric(metrics: Mapping[str, float]) -> float:
    return metrics["metric"]


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """{path: shape}; a tuple's index and a field's name are written as orbax stores them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(_key, path)): tuple(leaf.shape) for path, leaf in leaves}


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


def _describe(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {list(shape)}"
