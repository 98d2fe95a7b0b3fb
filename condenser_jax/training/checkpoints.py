"""Checkpoints of a run, written: asynchronous, atomic, the last few and the best one are kept.

A thin wrapper on orbax. A save that is killed leaves a temporary directory, which the next start
removes. A checkpoint that turns out damaged is set aside, never removed.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from condenser_jax.errors import UserError
from condenser_jax.training.checksums import describe_with_checksums
from condenser_jax.training.records import to_json
from condenser_jax.training.saved import Damaged, Saved, best, items_of, silence_abandoned
from condenser_jax.training.system_errors import NOT_WRITABLE, explain, system_error
from condenser_jax.types import Tree

log = logging.getLogger("condenser_jax")


class Checkpoints(Saved):
    """The checkpoints of a run that goes on. A context manager, or call `close` at the end.

    Args:
      directory: where the checkpoints lie, one directory per step; made if missing.
      keep: how many of the latest are kept, besides the best.
      asynchronous: `save` returns once the arrays are copied; the rest is written meanwhile.
      lower_is_better: whether the best checkpoint has the lowest metric.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 2,
        asynchronous: bool = True,
        lower_is_better: bool = True,
    ) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        super().__init__(directory, lower_is_better=lower_is_better)
        self._metrics = self.metrics()
        kept = [policies.LatestN(keep), _Best(self._metrics, self._sign)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            enable_async_checkpointing=asynchronous,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self, step: int, state: Tree, record: Mapping[str, Any], metric: float | None = None
    ) -> None:
        """Saves `state` and the JSON `record`; returns once `state` may be donated.

        `state` is a flax.struct dataclass with a field `params` of dictionaries. `metric` decides
        which checkpoint is the best; without one, this never is. Raises UserError on a full disk
        or one that cannot be written, at this save or in the background of the one before.
        """
        items = items_of(state)
        stored = to_json(record, metric, describe_with_checksums(items))
        if stored["metric"] is not None:
            self._metrics[step] = stored["metric"]
        arguments = ocp.args.Composite(
            params=ocp.args.StandardSave(items["params"]),
            rest=ocp.args.StandardSave(items["rest"]),
            record=ocp.args.JsonSave(stored),
        )
        with self._writing():
            accepted = self._manager.save(step, args=arguments)
        assert accepted, f"step {step} was not saved: step {self.latest_step} is there already"

    def measured(self, step: int, metric: float) -> None:
        """Tells the metric of a checkpoint that was saved before it was known."""
        self._metrics[step] = metric

    def restore_latest(self, abstract_state: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """Returns (step, state, record) of the latest checkpoint that is not damaged; None if there
        is no checkpoint at all.

        All processes must call it, and all restore the same step. Damaged ones are said in a
        warning each and set aside, once an earlier one is restored. Raises UserError if all are
        damaged, and changes nothing then; or where the structure is another (`Saved.restore`).
        """
        damaged: dict[int, str] = {}
        while (step := self._agreed_step_before(min(damaged, default=None))) is not None:
            try:
                state, record = self.restore(step, abstract_state)
            except Damaged as error:
                damaged[step] = error.reason  # the error holds what was read, so let it go
                continue
            self._set_aside(damaged, step)
            return step, state, record
        if damaged:
            raise UserError(
                f"no checkpoint in {self.directory} can be read: "
                + "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
                + f"; restore one from a copy, or remove {self.directory} to start the run anew"
            )
        return None

    def wait(self) -> None:
        """Waits until everything saved is on disk; raises UserError as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then ends the background threads; the object cannot be used afterwards."""
        with self._writing():
            self._manager.close()

    def _agreed_step_before(self, bound: int | None) -> int | None:
        """The last step below `bound` that the first process sees: a shared disk may lag."""
        steps = [step for step in self.steps if bound is None or step < bound]
        last = np.array(max(steps, default=-1), np.int32)
        agreed = int(multihost_utils.broadcast_one_to_all(last))
        return None if agreed < 0 else agreed

    def _set_aside(self, damaged: Mapping[int, str], good: int) -> None:
        """Gives damaged checkpoints another name: their steps will be saved anew."""
        if not damaged:
            return
        if jax.process_index() == 0:
            for step, reason in damaged.items():
                aside = _free_name(self.directory / f"{step}.corrupt")
                (self.directory / str(step)).rename(aside)
                log.warning(
                    "checkpoint %s is damaged (%s): it is kept as %s, and the run goes on from "
                    "the one before, step %d",
                    self.directory / str(step),
                    reason,
                    aside.name,
                    good,
                )
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        for step in damaged:
            self._metrics.pop(step, None)
        self._manager.reload()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        silence_abandoned()
        try:
            yield
        except Exception as error:
            if (number := system_error(error)) in NOT_WRITABLE:
                raise UserError(self._not_written(number)) from error
            raise

    def _not_written(self, number: int) -> str:
        """Removes what the failed save left, and says what still stands."""
        for half in self.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(half, ignore_errors=True)
        self._manager.reload()
        last = "there is no good checkpoint yet"
        if self.latest_step is not None:
            last = f"the last good checkpoint is step {self.latest_step}"
        what, remedy = explain(number)
        return f"{what} while saving in {self.directory}; {last}; {remedy} and start again"


class _Best(policies.PreservationPolicy):
    """Keeps the checkpoint with the best metric; `metrics` grows as checkpoints are saved."""

    def __init__(self, metrics: Mapping[int, float], sign: float) -> None:
        self._metrics, self._sign = metrics, sign

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: Any
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        metrics = {step: self._metrics[step] for step in steps if step in self._metrics}
        kept = best(metrics, self._sign)
        return [step == kept for step in steps]


def _free_name(path: Path) -> Path:
    """`path`, or with a number after it."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())
