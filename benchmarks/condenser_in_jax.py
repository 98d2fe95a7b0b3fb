"""Our step, lean and plain, as a contender of the benchmark; and what it compiles to."""

import functools
import resource

import flax
import jax
import jax.numpy as jnp
import numpy as np
from condenser_job import (
    CLIP_NORM,
    DROPOUT,
    HEAD_LAYERS,
    LEARNING_RATE,
    VOCABULARY,
    WEIGHT_DECAY,
    Contender,
    Job,
    make_batch,
)

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import condenser
from condenser_jax.training.optimizers import OptimizerConfig, build_optimizers
from condenser_jax.training.state import create_state
from condenser_jax.training.step import dials_of, make_step

SEED = 0
DIALS = dials_of(SEED, LEARNING_RATE)


def backbone_of(job: Job) -> BackboneConfig:
    """The encoder of a job."""
    return BackboneConfig(
        vocab_size=VOCABULARY,
        hidden_size=job.width,
        num_layers=job.layers,
        num_heads=job.heads,
        intermediate_size=job.inner,
        max_positions=max(512, job.length),
        hidden_dropout=DROPOUT,
        attention_dropout=DROPOUT,
    )


def options_of(job: Job) -> condenser.CondenserConfig:
    """The objective of a job."""
    return condenser.CondenserConfig(early_layer=job.early_layer, head_layers=HEAD_LAYERS)


def build_step(job: Job, **form):
    """The function that makes a state, and the compiled-to-be step."""
    compute = ComputeConfig(dtype=job.dtype, **form)
    objective = condenser.build(backbone_of(job), compute, options_of(job))
    config = OptimizerConfig(warmup=0.0, decay="constant", weight_decay=WEIGHT_DECAY)
    optimizers = build_optimizers(config, objective, steps=1)
    create = functools.partial(create_state, objective, optimizers, loaded={})
    step = make_step(objective, optimizers, ("train",), clip_norm=CLIP_NORM)
    return create, jax.jit(step, donate_argnums=0)


def make(job: Job, **form) -> Contender:
    """Our step in the given form (`lean`, `scan_layers`, `remat`)."""
    create, step = build_step(job, **form)
    batch = jax.tree.map(jnp.asarray, make_batch(job))
    state = jax.jit(create)(jax.random.key(SEED))

    def run(steps: int) -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, {}, batch, DIALS)
        total, count = jax.device_get(metrics["train/loss"])
        return float(total / count)

    versions = {"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__}
    return Contender(run, peak_memory, versions, jax.devices()[0].device_kind)


def compiled_flops(job: Job, **form) -> float:
    """Operations per token that the compiler counts in our step, unrolled; nothing is run."""
    create, step = build_step(job, scan_layers=False, **form)
    state = jax.eval_shape(create, jax.random.key(SEED))
    compiled = step.lower(state, {}, make_batch(job), DIALS).compile()
    return compiled.cost_analysis()["flops"] / (job.batch * job.length)


def peak_memory() -> int:
    """Bytes of the device so far; on a CPU of the process."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
