"""One step of a small run of any method, on any mesh: what the tests of meshes share."""

from typing import Any

import jax
import numpy as np
import optax

from condenser_jax.methods import METHODS
from condenser_jax.models.config import ComputeConfig
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import to_global
from tests.distillation import build_any
from tests.helpers import QUICK, random_params, tiny_backbone
from tests.text_batches import batch_of

ROWS, LENGTH = 16, 24
SMALL = {"early_layer": 0, "head_layers": 1}  # of the methods with a Condenser head
SETTINGS: dict[str, dict[str, Any]] = {
    "condenser": SMALL,
    "cocondenser": SMALL,
    "retriever": {"distillation": "kl"},
    "classifier": {"task": "rte"},
    "tutor_kd": {"schedule": "joint"},
    "minilmv2": {"relation_heads": 4},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> a method with other options
    "untied retriever": ("retriever", {"tied": False, "negatives": 8}),
}
BACKBONE = tiny_backbone(num_layers=1)


class OneBatch:
    """Every step has the same batch; rows differ in length and number of masked tokens."""

    batch_size = ROWS

    def __init__(self, method: str) -> None:
        self.full = batch_of(method, BACKBONE, ROWS, LENGTH)

    def batch(self, step: int, rows: Any = slice(None)) -> dict[str, np.ndarray]:
        """The rows of batch `step`."""
        return {name: values[rows] for name, values in self.full.items()}


def small_run(
    name: str,
    mesh: jax.sharding.Mesh,
    *,
    chunk_rows: int = 0,
    accumulate: int = 1,
    seed: int = 0,
    learning_rate: float = 1.0,
    dtype: str = "float32",
    optimizer: optax.GradientTransformation | None = None,
) -> Run:
    """A run of a method or one of VARIANTS: a tiny model from random parameters of `dtype`, dropout
    on; default: AdamW.
    """
    method, changes = VARIANTS.get(name, (name, SETTINGS.get(name, {})))
    options = METHODS[method].options(**changes)
    compute = ComputeConfig(dtype=dtype, chunk_rows=chunk_rows)
    objective, frozen = build_any(method, BACKBONE, compute, options)
    trained = {group for phase in objective.phases for group in phase.trains}
    return Run(
        objective=objective,
        optimizers={group: optimizer or optax.adamw(1e-2) for group in trained},
        batches=OneBatch(method),
        mesh=mesh,
        seed=seed,
        learning_rate=learning_rate,
        steps=1,
        log_every=1,
        eval_every=1,
        save_every=1,
        evaluate=lambda params, frozen: {},
        goal=METHODS[method].goal,
        tokens_per_step=ROWS * LENGTH,
        flops_per_token=1.0,
        clip_norm=None,
        accumulate=accumulate,
        loaded=random_params(objective, dtype),
        frozen=frozen,
    )


def gradient_of(run: Run) -> tuple[dict[str, float], Any]:
    """Training metrics and gradient of the first step of a run whose optimizer is sgd(1.0)."""
    step = run.lower_step(run.objective.schedule.cycle[0]).compile(QUICK)
    batch = to_global(run.batches.batch(0), run.mesh, ROWS)
    state, metrics = step(run.initial_state(), run.placed, batch, run.dials)
    gradient = jax.tree.map(
        lambda old, new: np.asarray(old) - np.asarray(new), run.loaded, dict(state.params)
    )
    return {name: float(mean.total / mean.count) for name, mean in metrics.items()}, gradient
