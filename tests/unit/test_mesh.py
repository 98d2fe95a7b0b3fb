"""Training gives the same losses on one device and on any mesh of eight."""

import jax
import numpy as np
import optax
import pytest

from condenser_jax.data.masking import slots_of
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import condenser
from condenser_jax.objectives.base import Goal
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import make_mesh, to_global

LENGTH, STEPS = 16, 5


class RandomBatches:
    """Random tokens; rows differ in length and in their number of masked tokens."""

    batch_size = 16

    def batch(self, step, rows=slice(None)):
        rng = np.random.default_rng(step)
        slots = slots_of(0.15, LENGTH)
        lengths = rng.integers(6, LENGTH + 1, self.batch_size)
        masked = rng.integers(1, slots + 1, self.batch_size)
        weights = (np.arange(slots) < masked[:, None]).astype(np.float32)
        positions = np.stack([1 + rng.permutation(4)[:slots] for _ in range(self.batch_size)])
        full = {
            "input_ids": rng.integers(5, 90, (self.batch_size, LENGTH)).astype(np.int32),
            "attention_mask": (np.arange(LENGTH) < lengths[:, None]).astype(np.int32),
            "masked_positions": np.where(weights > 0, positions, 0).astype(np.int32),
            "masked_ids": rng.integers(5, 90, (self.batch_size, slots)).astype(np.int32),
            "masked_weights": weights,
        }
        return {name: values[rows] for name, values in full.items()}


def losses_on(mesh, accumulate: int = 1, seed: int = 0) -> list[float]:
    """The training losses of the first steps."""
    backbone = BackboneConfig(
        vocab_size=100,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=32,
        max_positions=16,
    )
    objective = condenser.build(backbone, ComputeConfig(), condenser.CondenserConfig())
    run = Run(
        objective=objective,
        optimizers={group: optax.adamw(1e-2) for group in objective.exports},
        batches=RandomBatches(),
        mesh=mesh,
        seed=seed,
        steps=STEPS,
        log_every=1,
        eval_every=1,
        save_every=1,
        evaluate=lambda params, frozen: {},
        goal=Goal(""),
        tokens_per_step=1,
        flops_per_token=1.0,
        clip_norm=1.0,
        accumulate=accumulate,
    )
    step, state, found = run.compile_step(("train",)), run.initial_state(), []
    for number in range(STEPS):
        batch = to_global(run.batches.batch(number), mesh, run.batches.batch_size)
        state, metrics = step(state, {}, batch)
        found.append(float(metrics["train/loss"].total / metrics["train/loss"].count))
    return found


@pytest.fixture(scope="module")
def reference() -> list[float]:
    return losses_on(make_mesh(devices=jax.devices()[:1]))


@pytest.mark.parametrize(
    "data, fsdp, tensor, accumulate", [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 2, 1), (4, 2, 1, 2)]
)
def test_eight_devices_train_as_one(data, fsdp, tensor, accumulate, reference):
    found = losses_on(make_mesh(data, fsdp, tensor), accumulate)
    np.testing.assert_allclose(found, reference, rtol=1e-5)


def test_another_seed_trains_otherwise(reference):
    other = losses_on(make_mesh(devices=jax.devices()[:1]), seed=1)
    assert not np.allclose(other, reference, rtol=1e-3)
