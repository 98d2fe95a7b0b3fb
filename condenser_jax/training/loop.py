"""The loop, for every method: batches in, steps, logs, evaluations and checkpoints out.

It knows phases and their schedule, nothing of what they mean. Order of one round: step, log,
evaluate, save, stop if asked to. A save is always preceded by a log, so that a resumed run averages
its metrics over the same windows as one never interrupted.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from condenser_jax.data.batches import Batches, load_batches
from condenser_jax.errors import Preempted, RunFailed
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.hooks import Hook
from condenser_jax.training.memory import explained_if_too_large
from condenser_jax.training.metrics import Clock, Means, model_flops_utilisation
from condenser_jax.training.sharding import (
    batch_sharding,
    local_rows,
    parameter_shardings,
    replicated,
    to_global,
)
from condenser_jax.training.signals import StopRequest
from condenser_jax.training.state import TrainState, create_state
from condenser_jax.training.step import Dials, Step, dials_of, make_step
from condenser_jax.types import Frozen, Params, Tree

log = logging.getLogger("condenser_jax")
IN_FLIGHT = 2  # steps that the host may be ahead of the device: a stop request is seen soon


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a run is, built from its configuration; the state is made or restored from
    it.
    """

    objective: Objective
    optimizers: dict[str, optax.GradientTransformation]
    batches: Batches
    mesh: Mesh
    seed: int
    learning_rate: float  # that the optimizers' updates are scaled by
    steps: int
    log_every: int
    eval_every: int
    save_every: int
    evaluate: Callable[[Params, Frozen], dict[str, float]]  # {"heldout/name": value}
    goal: Goal  # the figure that names the best checkpoint
    tokens_per_step: int
    flops_per_token: float  # that the step needs, forward and backward
    clip_norm: float | None = None
    accumulate: int = 1
    patience: int = 0  # evaluations without a better figure after which the run ends; 0: never
    threads: int = 1
    loaded: Params = dataclasses.field(default_factory=dict)  # groups that start from a checkpoint
    frozen: Frozen = dataclasses.field(default_factory=dict)  # as host arrays

    @functools.cached_property
    def placed(self) -> Frozen:
        """The frozen groups on the devices of the mesh: never donated, never saved."""
        places = parameter_shardings(self.frozen, self.mesh)
        return jax.tree.map(jax.device_put, self.frozen, places)

    @functools.cached_property
    def dials(self) -> Dials:
        """Seed and learning rate, on the devices of the mesh."""
        return jax.device_put(jax.device_get(self.make_dials()), replicated(self.mesh))

    def make_dials(self) -> Dials:
        """Seed and learning rate, as the step is told them."""
        return dials_of(self.seed, self.learning_rate)

    def places(self, tree: Tree) -> Tree:
        """Where the leaves of a train state live."""
        return parameter_shardings(tree, self.mesh)

    def create(self, key: jax.Array, loaded: Params) -> TrainState:
        """The state before the first step, as a function to be compiled."""
        return create_state(self.objective, self.optimizers, key, loaded)

    def abstract_state(self) -> TrainState:
        """The state's shapes, dtypes and shardings; nothing is allocated."""
        shapes = jax.eval_shape(self.create, jax.random.key(self.seed), self.loaded)
        return jax.tree.map(
            lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
            shapes,
            self.places(shapes),
        )

    def initial_state(self) -> TrainState:
        """The state before the first step; weights are born sharded."""
        shardings = jax.tree.map(lambda s: s.sharding, self.abstract_state())
        loaded = {
            group: jax.tree.map(jax.device_put, tree, shardings.params[group])
            for group, tree in self.loaded.items()
        }
        return jax.jit(self.create, out_shardings=shardings)(jax.random.key(self.seed), loaded)

    def compile_step(self, active: tuple[str, ...]) -> jax.stages.Compiled:
        """The step of a set of active phases, compiled for this run's mesh and batch."""
        with explained_if_too_large(self.mesh.devices.flat[0]):
            return self.lower_step(active).compile()

    def step_of(self, active: tuple[str, ...]) -> Step:
        """The step of a set of active phases, as a function to be compiled."""
        return make_step(
            self.objective,
            self.optimizers,
            active,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate,
        )

    def lower_step(self, active: tuple[str, ...]) -> jax.stages.Lowered:
        """The step of a set of active phases, traced for this run's mesh and batch."""
        state = self.abstract_state()
        out = (jax.tree.map(lambda s: s.sharding, state), replicated(self.mesh))
        frozen = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            self.frozen,
            parameter_shardings(self.frozen, self.mesh),
        )
        jitted = jax.jit(self.step_of(active), donate_argnums=0, out_shardings=out)
        with jax.set_mesh(self.mesh):  # sums over chunks ask for it
            return jitted.lower(state, frozen, self.abstract_batch(), self.abstract_dials())

    def abstract_dials(self) -> Dials:
        """Shapes of the dials, the same on every device."""
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=replicated(self.mesh)),
            jax.eval_shape(self.make_dials),
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch, sharded over the mesh."""
        one_row = self.batches.batch(0, slice(0, 1))
        size, place = self.batches.batch_size, batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((size, *row.shape[1:]), row.dtype, sharding=place)
            for name, row in one_row.items()
        }


class Loop:
    """One run in progress. `history`, what evaluations found, travels in the checkpoint."""

    def __init__(
        self,
        run: Run,
        state: TrainState,
        checkpoints: Checkpoints,
        hooks: Sequence[Hook],
        stop: StopRequest,
        *,
        history: dict[str, Any] | None = None,
        metrics_offset: Callable[[], int] = lambda: 0,
    ) -> None:
        self.run, self.state, self.checkpoints = run, state, checkpoints
        self.hooks, self.stop, self.metrics_offset = hooks, stop, metrics_offset
        self.history = history or {}
        self._steps: dict[tuple[str, ...], jax.stages.Compiled] = {}
        self._means, self._clock, self._flying = Means(), Clock(), list[Any]()

    def train(self, start: int, began: float) -> None:
        """Runs steps start..run.steps - 1. `began` is when the command started (time.time()).

        Raises Preempted once the state is saved after a stop request, RunFailed where a loss or
        gradient is not finite.
        """
        run = self.run
        if start % run.eval_every == 0 and self.history.get("evaluated") != start:
            self._evaluate(start)  # also where a stop request left no time for it
            if start and self.history.get("best", {}).get("step") == start:
                self.checkpoints.measured(start, self.history["best"]["value"])
        stop = start if self._is_exhausted else run.steps
        rows = local_rows(run.batches.batch_size, run.mesh)
        loader = load_batches(run.batches, rows, start, stop, threads=run.threads)
        try:
            with contextlib.closing(loader):
                for step, batch in loader:
                    with explained_if_too_large(run.mesh.devices.flat[0]):
                        self._step(step, batch)
                    if step == start:
                        log.info("first step done %.1f s after the start", time.time() - began)
                        self._clock.read()
                    self._after(step + 1)
                    if self._is_exhausted:
                        break
        finally:
            for hook in self.hooks:
                hook.on_end()

    def _step(self, step: int, batch: dict[str, np.ndarray]) -> None:
        for hook in self.hooks:
            hook.on_step(step)
        active = self.run.objective.schedule.active(step)
        is_new = active not in self._steps
        if is_new:
            with self._clock.paused():
                began = time.time()
                self._steps[active] = self.run.compile_step(active)
                log.info("compiled the step of %s in %.1f s", "+".join(active), time.time() - began)
        placed = to_global(batch, self.run.mesh, self.run.batches.batch_size)
        self.state, metrics = self._steps[active](
            self.state, self.run.placed, placed, self.run.dials
        )
        if is_new:
            jax.block_until_ready(self.state.step)  # else want of memory may be told later on
        self._means.add(metrics)
        self._clock.count(self.run.tokens_per_step)
        self._flying.append(next(iter(metrics.values())))
        if len(self._flying) > IN_FLIGHT:
            jax.block_until_ready(self._flying.pop(0))

    def _after(self, done: int) -> None:
        """Logs, evaluates and saves where it is time to, and leaves if asked to."""
        run, last = self.run, done == self.run.steps
        stopping = self.stop.agreed(done)
        evaluates = last or (done % run.eval_every == 0 and not stopping)
        saves = last or stopping or done % run.save_every == 0
        if saves or evaluates or done % run.log_every == 0:
            self._log(done)
        with self._clock.paused():
            if evaluates:
                self._evaluate(done)
            is_best = evaluates and self.history.get("best", {}).get("step") == done
            if saves or is_best or self._is_exhausted:
                self._save(done)
        if stopping and not last:
            self.checkpoints.wait()
            raise Preempted(
                f"stopped as asked after step {done}; the run is saved and can be resumed"
            )

    def _log(self, done: int) -> None:
        metrics = self._means.read()
        self._check_finite()
        pace = self._clock.read()
        if "tokens_per_second" in pace:
            devices = self.run.mesh.devices
            mfu = model_flops_utilisation(
                pace["tokens_per_second"],
                self.run.flops_per_token,
                devices.size,
                devices.flat[0].device_kind,
            )
            pace |= {} if mfu is None else {"mfu": mfu}
        for hook in self.hooks:
            hook.on_log(done, metrics | pace)

    def _evaluate(self, done: int) -> None:
        told = "the evaluation", "lower evaluation.batch_size"
        with explained_if_too_large(self.run.mesh.devices.flat[0], *told):
            figures = self.run.evaluate(self.state.params, self.run.placed)
        self.history.setdefault("first", figures)
        self.history["last"] = figures
        goal, value = self.run.goal, figures[self.run.goal.figure]
        best = self.history.get("best")
        is_better = best is None or goal.is_better(value, best["value"])
        if done and is_better:
            self.history["best"] = {"step": done, "value": value}
        self.history["evaluated"] = done
        self.history["without_gain"] = 0 if is_better else self.history.get("without_gain", 0) + 1
        if self._is_exhausted:
            log.info(
                "after step %d: %s has not improved for %d evaluations (training.patience); the "
                "run ends here",
                done,
                self.run.goal.figure,
                self.run.patience,
            )
        for hook in self.hooks:
            hook.on_eval(done, figures)

    @property
    def _is_exhausted(self) -> bool:
        """Whether evaluations stood still for as long as the run has patience."""
        return 0 < self.run.patience <= self.history.get("without_gain", 0)

    def _save(self, done: int) -> None:
        self._check_finite()
        record = {
            "step": done,
            "history": self.history,
            "metrics_offset": self.metrics_offset(),
        }
        fresh = self.history.get("evaluated") == done
        metric = self.history["last"][self.run.goal.figure] if fresh else None
        self.checkpoints.save(done, self.state, record, metric)

    def _check_finite(self) -> None:
        if not bool(self.state.finite.all()):  # of several runs side by side, each has its own
            self.checkpoints.wait()
            last = self.checkpoints.latest_step
            kept = (
                "there is no checkpoint yet"
                if last is None
                else f"the last good checkpoint is step {last}"
            )
            raise RunFailed(
                f"the loss or a gradient was not finite at step {int(self.state.step.min())}; no "
                f"update was applied since; {kept}. Lower optimizer.learning_rate, lengthen "
                "optimizer.warmup, or look at that step's batch."
            )
