"""A toy minimax objective for tests of the loop: two phases that share a forward pass and a group.

The tutor proposes targets; the student regresses on them (minimise, which also shrinks the tutor);
the tutor moves away from the student (maximise). It is the shape of Tutor-KD without a language in
it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from condenser_jax.objectives.base import Goal, Loss, Objective, Phase, Schedule
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import make_mesh
from condenser_jax.types import Mean

WIDTH = 4


def toy_objective(cycle, poison: bool = False) -> Objective:
    """`poison` turns the loss into a nan on rows that hold one."""

    def init(key, loaded):
        del loaded
        keys = dict(zip(("student", "tutor"), jax.random.split(key), strict=True))
        return {
            group: {"transform": {"kernel": jax.random.normal(k, (WIDTH, WIDTH))}}
            for group, k in keys.items()
        }

    def losses(params, frozen, batch, counts, dropout):
        del frozen, dropout
        student, tutor = (
            jnp.tanh(batch["x"] @ params[group]["transform"]["kernel"])
            for group in ("student", "tutor")
        )
        stop = jax.lax.stop_gradient
        closeness = ((student - stop(tutor)) ** 2).sum() / counts["rows"]
        distance = ((stop(student) - tutor) ** 2).sum() / counts["rows"]
        size = (tutor**2).sum() / counts["rows"]
        rows = jnp.asarray(batch["x"].shape[0], jnp.float32)
        return {
            "minimise": Loss(
                closeness + 0.1 * size, {"loss": Mean(closeness * counts["rows"], rows)}
            ),
            "maximise": Loss(-distance, {"loss": Mean(-distance * counts["rows"], rows)}),
        }

    return Objective(
        init=init,
        counts=lambda batch: {"rows": jnp.asarray(batch["x"].shape[0], jnp.float32)},
        losses=losses,
        phases=(Phase("maximise", ("tutor",)), Phase("minimise", ("student", "tutor"))),
        schedule=Schedule(cycle),
        exports=("student",),
        predict={},
    )


class ToyBatches:
    """Batch N is a function of N; step `poisoned` holds a nan."""

    batch_size = 8

    def __init__(self, poisoned: int | None = None) -> None:
        self.poisoned = poisoned

    def batch(self, step, rows=slice(None)):
        x = np.random.default_rng(step).normal(size=(self.batch_size, WIDTH)).astype(np.float32)
        if step == self.poisoned:
            x[3, 1] = np.nan
        return {"x": x[rows]}


def toy_run(cycle, steps: int, *, poisoned: int | None = None, save_every: int = 100) -> Run:
    """A run of the real loop on one device."""
    return Run(
        objective=toy_objective(cycle),
        optimizers={group: optax.adam(1e-2) for group in ("student", "tutor")},
        batches=ToyBatches(poisoned),
        mesh=make_mesh(devices=jax.devices()[:1]),
        seed=0,
        learning_rate=1.0,
        steps=steps,
        log_every=2,
        eval_every=100,
        save_every=save_every,
        evaluate=lambda params, frozen: {"heldout/loss": 1.0},
        goal=Goal("heldout/loss"),
        tokens_per_step=8,
        flops_per_token=1.0,
    )
