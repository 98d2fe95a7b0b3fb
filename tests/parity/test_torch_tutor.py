"""The round of Tutor-KD in PyTorch that benchmarks/tutor_kd.py times is the mathematics of ours.

Reference: benchmarks/tutor_in_torch.py, transformers' own layers with our weights and our samples,
full rows, no dropout, float32. Both losses within 1e-5, every gradient of their sum within 1e-4 of
its largest element. Negative control: the original tokens in place of the samples.
"""

import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.objectives import tutor_kd  # noqa: E402
from condenser_jax.objectives.distillation import Teacher  # noqa: E402
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig  # noqa: E402
from tests.distillation import dropout_of, frozen_teacher  # noqa: E402
from tests.helpers import (  # noqa: E402
    assert_close,
    benchmark_module,
    compile_quickly,
    random_params,
)
from tests.parity.torch_reference import as_theirs  # noqa: E402

HEADS = {  # names of a head in the benchmark: ours
    "transform.weight": ("transform", "kernel"),
    "transform.bias": ("transform", "bias"),
    "norm.weight": ("layer_norm", "scale"),
    "norm.bias": ("layer_norm", "bias"),
}
OUTPUTS = {
    "ratio_head": {"out.weight": ("logit", "kernel"), "out.bias": ("logit", "bias")} | HEADS,
    "tutor": {"out.weight": ("decoder", "embedding"), "out.bias": ("bias",)} | HEADS,
    "fit": {"weight": ("projection", "kernel"), "bias": ("projection", "bias")},
}


@pytest.fixture(scope="module")
def job():
    return benchmark_module("tutor_job").Job(4, 24, 2, 16, 2, 3, 1100, 12, "float32")


@pytest.fixture(scope="module")
def ours(job):
    """(weights under the names of the benchmark, losses, gradients of their sum, samples)."""
    teacher, student = benchmark_module("tutor_in_jax").backbones_of(job)
    student = dataclasses.replace(student, hidden_dropout=0.0, attention_dropout=0.0)
    options, known = TutorKdConfig(schedule="joint"), Teacher(teacher)
    model = tutor_kd.TutorKd(student, ComputeConfig(), options, known)
    objective = tutor_kd.build(student, ComputeConfig(), options, known)
    params, frozen = random_params(objective), frozen_teacher(known)
    batch = benchmark_module("tutor_job").make_batch(job)
    dropout = dropout_of(job.batch)

    def both(params):
        def total(params):
            losses = objective.losses(params, frozen, batch, objective.counts(batch), dropout)
            values = [losses[phase].value for phase in ("minimise", "maximise")]
            return sum(values), values

        (_, values), gradients = jax.value_and_grad(total, has_aux=True)(params)
        slots = batch["masked_positions"]
        numbers = tutor_kd.uniforms(dropout, tutor_kd.SAMPLING_SITE, slots)
        return values, gradients, model.play(params, frozen, batch, numbers).replaced

    values, gradients, replaced = jax.device_get(compile_quickly(both, params)(params))
    weights = named(student, params) | {
        f"teacher.{name}": x for name, x in as_theirs(teacher, frozen["teacher"]).items()
    }
    return weights, values, named(student, gradients), replaced


def named(config, groups):
    """What a student and the heads beside it are called in the benchmark."""
    found = {
        name.replace("bert.", "student.", 1): x
        for name, x in as_theirs(config, {"backbone": groups["backbone"]}).items()
    }
    for group, names in OUTPUTS.items():
        for name, path in names.items():
            leaf = groups[group]
            for part in path:
                leaf = leaf[part]
            rows = config.vocab_size if group == "tutor" and name.startswith("out") else None
            found[f"{group}.{name}"] = leaf.T if path[-1] == "kernel" else leaf[:rows]
    return found


def theirs(job, weights, replaced):
    """(losses, gradients of their sum) of the benchmark's round with these weights and samples."""
    bench = benchmark_module("tutor_in_torch")
    losses = bench.Round(job, dropout=0.0, draw=lambda log_pi: torch.tensor(replaced).long())
    own = dict(losses.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, x in weights.items():
            own[name].copy_(torch.tensor(np.asarray(x)))
    assert {name for name, x in own.items() if x.requires_grad} <= set(weights)
    batch = bench.placed(benchmark_module("tutor_job").make_batch(job), torch.device("cpu"))
    values = losses(batch)
    sum(values).backward()
    gradients = {name: x.grad.numpy() for name, x in own.items() if x.requires_grad}
    return [value.item() for value in values], gradients


def test_the_round_in_torch_has_our_losses_and_gradients(job, ours):
    weights, values, gradients, replaced = ours
    found, pulled = theirs(job, weights, replaced)
    np.testing.assert_allclose(found, values, rtol=1e-5)
    assert_close(pulled, gradients, 1e-4)


def test_other_samples_have_other_losses(job, ours):
    weights, values, *_ = ours
    originals = benchmark_module("tutor_job").make_batch(job)["masked_ids"]
    for found, value in zip(theirs(job, weights, originals)[0], values, strict=True):
        assert abs(found - value) > 1e-3 * abs(value)


def test_a_job_in_bfloat16_multiplies_all_that_is_trained_in_it(job):
    narrow = dataclasses.replace(job, dtype="bfloat16")
    bench, dtypes = benchmark_module("tutor_in_torch"), {}
    model = bench.Round(narrow)

    def remember(module, inputs, output):
        dtypes[module] = output.dtype

    for name in ("tutor.out", "ratio_head.out", "fit", "student.encoder.layer.0.output.dense"):
        model.get_submodule(name).register_forward_hook(remember)
    model(bench.placed(benchmark_module("tutor_job").make_batch(narrow), torch.device("cpu")))
    assert set(dtypes.values()) == {torch.bfloat16} and len(dtypes) == 4
