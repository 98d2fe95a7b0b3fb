"""AdamW with weight decay by role, warm-up and decay of the learning rate, clipping by player."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from condenser_jax.errors import UserError, choose
from condenser_jax.objectives.base import Objective, updates_of
from condenser_jax.types import Array, Tree

DECAYED = (
    "kernel",
    "embedding",
)  # the roles that weight decay shrinks; biases and layer norms are spared
DECAYS = ("linear", "cosine", "constant", "trapezoid")
COOLDOWN = 0.2  # share of the updates in which a trapezoid falls (Zhai et al. 2022)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019) as BERT uses it."""

    learning_rate: float = 1e-4  # by which the step scales the updates of `build_optimizers`
    warmup: float = 0.1  # share of a group's updates in which the rate rises from 0
    decay: str = (
        "linear"  # after warm-up: linear, cosine, constant, or trapezoid (falls at the end)
    )
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = 1.0  # largest gradient norm of a player; None: no clipping
    layer_decay: float = 1.0  # rate of a backbone's layer beside that of the layer above it


def check_rate(name: str, rate: float) -> None:
    """Raises UserError for a learning rate that is no finite number above 0; it calls it `name`."""
    if not isinstance(rate, int | float) or rate is True or not 0 < rate < math.inf:
        raise UserError(f"{name} is {rate!r}; expected above 0, a number such as 5e-5.")


def schedule_of_rate(config: OptimizerConfig, updates: int) -> optax.Schedule:
    """Share of the rate at update 0, 1, ...: warm-up to 1, then decay to 0 at `updates`."""
    choose("optimizer.decay", config.decay, DECAYS)
    if not 0.0 <= config.warmup <= 1.0:
        raise UserError(
            f"optimizer.warmup is {config.warmup}; expected a share of the steps, 0 to 1."
        )
    warmup = round(config.warmup * updates)
    rest = max(updates - warmup, 1)
    falling = min(max(round(COOLDOWN * updates), 1), rest)
    decayed = {
        "linear": lambda: optax.linear_schedule(1.0, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest),
        "constant": lambda: optax.constant_schedule(1.0),
        "trapezoid": lambda: optax.linear_schedule(
            1.0, 0.0, falling, transition_begin=rest - falling
        ),
    }[config.decay]()
    if warmup == 0:
        return decayed
    rising = optax.linear_schedule(0.0, 1.0, warmup)
    # update t uses share t + 1 of the warm-up: no update is wasted at 0
    return optax.join_schedules([lambda t: rising(t + 1), decayed], [warmup])


def decay_mask(params: Tree) -> Tree:
    """True where weight decay applies: by the role that the parameter's name states, never by its
    rank.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED, params)


def build_optimizers(
    config: OptimizerConfig, objective: Objective, steps: int
) -> dict[str, optax.GradientTransformation]:
    """One AdamW per trained group, its schedule counted in the group's own updates. Its updates are
    those of a learning rate of 1: the step scales them by the run's (`Dials`).
    """
    if not 0 < config.layer_decay <= 1:
        raise UserError(
            f"optimizer.layer_decay is {config.layer_decay}; expected a factor above 0, at most 1."
        )
    optimizers = {
        group: optax.adamw(
            schedule_of_rate(config, updates),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        )
        for group, updates in updates_of(objective, steps).items()
    }
    if config.layer_decay == 1:
        return optimizers
    return {group: optax.chain(o, by_depth(config.layer_decay)) for group, o in optimizers.items()}


def by_depth(layer_decay: float) -> optax.GradientTransformation:
    """Scales updates by layer_decay ** (layers above): the last of N layers by one factor, the
    embeddings by N + 1, what has no layers (heads) by none (Clark et al. 2020, appendix B).
    """

    def scale(updates: Tree, params: Tree = None) -> Tree:
        del params
        layers = len(updates.get("layers", ()))

        def factor(path: tuple) -> float:
            names = [str(part.key) for part in path]
            if not layers or names[0] not in ("embeddings", "layers"):
                return 1.0
            below = 0 if names[0] == "embeddings" else 1 + int(names[1].removeprefix("layer_"))
            return layer_decay ** (layers + 1 - below)

        return jax.tree_util.tree_map_with_path(lambda path, x: x * factor(path), updates)

    return optax.stateless(scale)


def clip_by_player(
    grads: Mapping[str, Tree], players: tuple[tuple[str, ...], ...], clip_norm: float | None
) -> tuple[dict[str, Tree], Array]:
    """Scales each player's gradients down to `clip_norm`; also returns the norm of all gradients
    before.
    """
    squares = {group: optax.tree.norm(tree, squared=True) for group, tree in grads.items()}
    clipped: dict[str, Tree] = {}
    for player in players:
        norm = jnp.sqrt(sum(squares[group] for group in player))
        limit = math.inf if clip_norm is None else clip_norm
        scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
        for group in player:
            clipped[group] = jax.tree.map(lambda g, scale=scale: g * scale, grads[group])
    return clipped, jnp.sqrt(sum(squares.values()))
