"""The state of a run: everything that a step changes, and nothing else."""

from typing import Any

import flax.struct
import jax.numpy as jnp
import optax

from condenser_jax.objectives.base import Objective
from condenser_jax.types import Array, Params, Tree


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds. Randomness is no part of it: keys are fold_in(seed, step)."""

    step: Array  # int32 []: batches consumed; stays at the first step that was not finite
    params: dict[str, Tree]
    opt_state: dict[str, Any]
    updates: dict[str, Array]  # per group and per phase: how often it was updated
    finite: Array  # bool []: False for ever once a loss or gradient was not finite


def create_state(
    objective: Objective,
    optimizers: dict[str, optax.GradientTransformation],
    key: Array,
    loaded: Params,
) -> TrainState:
    """The state before the first step."""
    params = dict(objective.init(key, loaded))
    counters = [phase.name for phase in objective.phases] + list(optimizers)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={group: tx.init(params[group]) for group, tx in optimizers.items()},
        updates={name: jnp.zeros((), jnp.int32) for name in counters},
        finite=jnp.ones((), bool),
    )
