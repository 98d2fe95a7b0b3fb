"""One training step: the only code that takes gradients.

A step is compiled once per distinct set of active phases, and serves all runs that differ in their
dials alone: the seeds and rates of a grid share one program. It sums the active losses,
differentiates by the groups that they train, clips per player, and updates each group once.
Gradient accumulation is a scan over micro-batches whose losses are weighted sums over the counts of
the uncut batch, so the sum of their gradients is the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from condenser_jax.losses.chunks import split_rows, sum_over_chunks
from condenser_jax.models.dropout import dropout_of_step, key_of_run
from condenser_jax.objectives.base import Objective
from condenser_jax.training.optimizers import clip_by_player
from condenser_jax.training.state import TrainState
from condenser_jax.types import Array, Batch, Counts, Frozen, Mean, Params

Metrics = dict[str, Mean]


class Dials(NamedTuple):
    """What a compiled step is told of its run."""

    key: Array  # uint32 [2]
    learning_rate: Array  # float32 []: the optimizers' updates are scaled by it


Step = Callable[[TrainState, Frozen, Batch, Dials], tuple[TrainState, Metrics]]


def dials_of(seed: int, learning_rate: float = 1.0) -> Dials:
    """The dials of a run."""
    return Dials(key_of_run(seed), jnp.float32(learning_rate))


def make_step(
    objective: Objective,
    optimizers: dict[str, optax.GradientTransformation],
    active: tuple[str, ...],
    *,
    clip_norm: float | None = None,
    accumulate: int = 1,
) -> Step:
    """The step function (to be compiled) of the given active phases.

    Returns:
      (state, frozen, batch, dials) -> (state, metrics "phase/name"). Once a loss or a gradient norm
      is not finite, `finite` turns False, no update is applied any more, and `step` stays at the
      step that failed.
    """
    groups = objective.groups_of(active)

    def gradients(state: TrainState, frozen: Frozen, batch: Batch, counts: Counts, key: Array):
        params = state.params

        def total(trained: Params):
            dropout = dropout_of_step(key, state.step, batch["row"])
            losses = objective.losses({**params, **trained}, frozen, batch, counts, dropout)
            metrics = {
                f"{name}/{key}": mean
                for name in active
                for key, mean in losses[name].metrics.items()
            }
            return sum(losses[name].value for name in active), metrics

        trained = {group: params[group] for group in groups}
        (value, metrics), grads = jax.value_and_grad(total, has_aux=True)(trained)
        return value, metrics, grads

    def step(
        state: TrainState, frozen: Frozen, batch: Batch, dials: Dials
    ) -> tuple[TrainState, Metrics]:
        rows = next(iter(batch.values())).shape[0]
        batch = {**batch, "row": jnp.arange(rows, dtype=jnp.int32)}
        counts = objective.counts(batch)
        run = lambda part: gradients(state, frozen, part, counts, dials.key)  # noqa: E731
        value, metrics, grads = (
            run(batch) if accumulate == 1 else sum_over_chunks(run, split_rows(batch, accumulate))
        )
        grads, norm = clip_by_player(grads, objective.players(active), clip_norm)
        finite = state.finite & jnp.isfinite(value) & jnp.isfinite(norm)
        new = _update(state, grads, optimizers, active, finite, dials.learning_rate)
        metrics[f"{'+'.join(active)}/gradient_norm"] = Mean(norm, jnp.ones_like(norm))
        return new, metrics

    return step


def _update(state, grads, optimizers, active, finite, rate) -> TrainState:
    """The next state. Groups without gradients keep parameters and moments; so does everything if
    not finite.
    """

    def keep(new, old):
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    params, opt_state, updates = dict(state.params), dict(state.opt_state), dict(state.updates)
    for group, gradient in grads.items():
        change, moments = optimizers[group].update(gradient, state.opt_state[group], params[group])
        change = jax.tree.map(lambda x: x * rate.astype(x.dtype), change)
        params[group] = keep(optax.apply_updates(params[group], change), params[group])
        opt_state[group] = keep(moments, state.opt_state[group])
    for name in (*active, *grads):
        updates[name] = updates[name] + finite
    return state.replace(
        step=state.step + finite, params=params, opt_state=opt_state, updates=updates, finite=finite
    )
