"""Our joint step of Tutor-KD as a contender of the benchmark, and what it compiles to."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
from tutor_job import LEARNING_RATE, WEIGHT_DECAY, Contender, Job, make_batch

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import mlm, tutor_kd
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig
from condenser_jax.training.optimizers import OptimizerConfig, build_optimizers
from condenser_jax.training.state import create_state
from condenser_jax.training.step import dials_of, make_step

SEED, OPTIONS = 0, TutorKdConfig(schedule="joint")
DIALS = dials_of(SEED, LEARNING_RATE)
JOINT = ("maximise", "minimise")


def backbones_of(job: Job) -> tuple[BackboneConfig, BackboneConfig]:
    """Teacher and student of a job."""

    def backbone(layers: int, width: int) -> BackboneConfig:
        return BackboneConfig(
            vocab_size=job.vocabulary,
            hidden_size=width,
            num_layers=layers,
            num_heads=job.heads,
            intermediate_size=4 * width,
            max_positions=max(512, job.length),
        )

    return (
        backbone(job.teacher_layers, job.teacher_width),
        backbone(job.student_layers, job.student_width),
    )


def build_step(job: Job, active: tuple[str, ...], **form):
    """(function that makes a state, function that makes the teacher, the step to be compiled)."""
    compute = ComputeConfig(dtype=job.dtype, **form)
    teacher, student = backbones_of(job)
    objective = tutor_kd.build(student, compute, OPTIONS, Teacher(teacher))
    config = OptimizerConfig(warmup=0.0, decay="constant", weight_decay=WEIGHT_DECAY)
    optimizers = build_optimizers(config, objective, steps=1)
    create = functools.partial(create_state, objective, optimizers, loaded={})
    read = mlm.build(teacher, compute, mlm.MlmConfig())

    def freeze(key: jax.Array) -> dict:
        cast = lambda x: x.astype(job.dtype) if x.ndim > 1 else x  # noqa: E731
        return {"teacher": jax.tree.map(cast, read.init(key, {}))}

    return (
        create,
        freeze,
        jax.jit(make_step(objective, optimizers, active), donate_argnums=0),
    )


def make(job: Job, **form) -> Contender:
    """Our step in the given form (`scan_layers`, `remat`)."""
    create, freeze, step = build_step(job, JOINT, **form)
    batch = jax.tree.map(jnp.asarray, make_batch(job))
    state, frozen = (jax.jit(f)(jax.random.key(seed)) for seed, f in enumerate((create, freeze)))

    def run(steps: int) -> float:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, frozen, batch, DIALS)
        total, count = jax.device_get(metrics["minimise/loss"])
        return float(total / count)

    versions = {"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__}
    return Contender(run, versions, jax.devices()[0].device_kind)


def compiled_flops(job: Job, active: tuple[str, ...] = JOINT) -> float:
    """Operations of a step that the compiler counts, layers unrolled; nothing is run."""
    create, freeze, step = build_step(job, active, scan_layers=False)
    state, frozen = (jax.eval_shape(f, jax.random.key(SEED)) for f in (create, freeze))
    return step.lower(state, frozen, make_batch(job), DIALS).compile().cost_analysis()["flops"]


def needed_flops(job: Job, active: tuple[str, ...] = JOINT) -> float:
    """Operations of a step on paper, as `tutor_kd_flops` counts them: every pass once."""
    from condenser_jax.training.distillation_flops import tutor_kd_flops

    teacher, student = backbones_of(job)
    how = OPTIONS, job.length, job.slots, active
    return job.batch * tutor_kd_flops(student, teacher, *how)
