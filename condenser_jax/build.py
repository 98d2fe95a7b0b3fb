"""From a configuration to a run: data, encoder, objective, optimizers, evaluations."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from condenser_jax.chunking import check_chunk, in_chunks
from condenser_jax.config import ModelConfig, RunComputeConfig, RunConfig
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.errors import UserError, choose
from condenser_jax.feeds.base import Material
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.load import Checkpoint, check_vocabulary
from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import MAX_ATTENTION_LENGTH, MAX_HEADS
from condenser_jax.objectives.base import check_accumulation
from condenser_jax.training.loop import Run
from condenser_jax.training.optimizers import build_optimizers
from condenser_jax.training.sharding import check_batch, make_mesh
from condenser_jax.warm_start import (
    check_head_layers,
    initial_checkpoint,
    initial_groups,
    start_at_unigram,
    warn_of_another_tokenizer,
    with_tokenizer,
)

log = logging.getLogger("condenser_jax")
MODEL_TYPES = ("bert", "roberta")
DTYPES = ("auto", "float32", "bfloat16")


class Built(NamedTuple):
    """A run, and what its work directory and its export need to know besides."""

    run: Run
    material: Material
    backbone: BackboneConfig
    card: EncoderCard
    notes: list[str]  # where weights came from


def build(
    config: RunConfig,
    devices: Sequence[jax.Device] | None = None,
    resumed: Checkpoint | None = None,
) -> Built:
    """Builds a run on `devices` (default: all); prepares its data if that has not been done.

    Devices of a topology that is not there will do: a run touches them when it is started or
    evaluated. Of a `resumed` run (`warm_start.resumed_start`) the weights are in its own
    checkpoint, so what it began with is not read again. Raises UserError for what does not fit.
    """
    training, method = config.training, METHODS[config.objective.name]
    feed = method.feed
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    check_batch(training.batch_size, mesh, training.accumulate)
    check_batch(config.evaluation.batch_size, mesh, name="evaluation.batch_size")
    _check_values(config)
    feed.check(config)
    check_chunk(config.compute.chunk_size, training.batch_size, mesh)
    if resumed:
        config = with_tokenizer(config, resumed)
    checkpoint = resumed or initial_checkpoint(config.model.init)
    check_objective(config, checkpoint)
    material = feed.open(config)
    backbone = backbone_config(config, material, checkpoint)
    compute = compute_config(config.compute, mesh)
    objective = method.build(backbone, compute, config.objective)
    loaded, notes = (
        ({}, resumed.notes) if resumed else initial_groups(objective, checkpoint, config)
    )
    if config.model.unigram_bias and "mlm_head" not in loaded and material.unigram is not None:
        objective = start_at_unigram(objective, material.unigram)
    run = Run(
        objective=objective,
        optimizers=build_optimizers(config.optimizer, objective, training.steps),
        batches=material.batches(),
        mesh=mesh,
        seed=config.seed,
        steps=training.steps,
        log_every=training.log_every,
        eval_every=training.eval_every,
        save_every=training.save_every,
        evaluate=material.evaluation(objective, method.goal, mesh),
        goal=method.goal,
        tokens_per_step=feed.tokens_per_step(config),
        flops_per_token=method.flops(backbone, config),
        clip_norm=config.optimizer.clip_norm,
        accumulate=training.accumulate,
        patience=training.patience,
        threads=training.threads,
        loaded=loaded,
    )
    run = in_chunks(
        run,
        config.compute.chunk_size,
        lambda rows: method.build(
            backbone, dataclasses.replace(compute, chunk_rows=rows), config.objective
        ),
    )
    card = feed.card(config, tokenizer_hash(material.tokenizer_directory))
    return Built(run, material, backbone, card, [*notes, *feed.describe(config)])


def check_objective(config: RunConfig, checkpoint: Checkpoint | None) -> None:
    """Raises UserError for what is wrong with the objective, before anything is prepared: it needs
    to know how many layers there are, and no words.
    """
    layers = checkpoint.config.num_layers if checkpoint else config.model.num_layers
    sketch = BackboneConfig(vocab_size=1, num_layers=layers)
    objective = METHODS[config.objective.name].build(sketch, ComputeConfig(), config.objective)
    check_accumulation(objective, config.training.accumulate)
    if checkpoint:
        check_head_layers(checkpoint, config)


def backbone_config(
    config: RunConfig, material: Material, checkpoint: Checkpoint | None
) -> BackboneConfig:
    """The architecture: the checkpoint's, or from scratch the configuration's."""
    model = config.model
    if checkpoint:
        check_vocabulary(checkpoint.config, material.tokenizer)
        warn_of_another_tokenizer(checkpoint, material)
        backbone = checkpoint.config
    else:
        backbone = backbone_from_scratch(model, material)
    rates = {
        name: getattr(model, name)
        for name in ("hidden_dropout", "attention_dropout")
        if getattr(model, name) is not None
    }
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise UserError(f"model.{name} is {rate}; expected a share of at least 0 and under 1.")
    longest = METHODS[config.objective.name].feed.longest(config)
    if longest > backbone.max_length:
        raise UserError(
            f"data.max_length {longest} is longer than the "
            f"{backbone.max_length} positions of the encoder; use {backbone.max_length} or less."
        )
    if backbone.num_heads > MAX_HEADS or longest > MAX_ATTENTION_LENGTH:
        raise UserError(
            f"{backbone.num_heads} heads at data.max_length {longest}: dropout "
            f"counts at most {MAX_HEADS} heads and {MAX_ATTENTION_LENGTH} positions apart."
        )
    return dataclasses.replace(backbone, **rates)


def backbone_from_scratch(model: ModelConfig, material: Material) -> BackboneConfig:
    """The architecture that the section `model` describes, with the vocabulary of its data."""
    choose("model.model_type", model.model_type, MODEL_TYPES)
    for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions"):
        if getattr(model, name) < 1:
            raise UserError(f"model.{name} is {getattr(model, name)}; expected at least 1.")
    if model.hidden_size % model.num_heads:
        raise UserError(
            f"model.hidden_size {model.hidden_size} is not divisible by model.num_heads "
            f"{model.num_heads}; choose a multiple of it."
        )
    roberta = model.model_type == "roberta"
    pad_id = material.vocabulary.pad_id
    return BackboneConfig(
        vocab_size=material.vocabulary.size,
        model_type=model.model_type,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        intermediate_size=model.intermediate_size,
        max_positions=model.max_positions + (pad_id + 1 if roberta else 0),
        type_vocab_size=1 if roberta else 2,
        layer_norm_eps=1e-5 if roberta else 1e-12,
        initializer_range=model.initializer_range,
        pad_token_id=pad_id,
    )


def compute_config(config: RunComputeConfig, mesh: Mesh) -> ComputeConfig:
    """Resolves what is `auto` for the devices at hand."""
    choose("compute.dtype", config.dtype, DTYPES)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    auto = "float32" if on_cpu else "bfloat16"
    return ComputeConfig(
        dtype=auto if config.dtype == "auto" else config.dtype,
        scan_layers=not on_cpu if config.scan_layers is None else config.scan_layers,
        remat=config.remat,
        lean=config.lean,
    )


AT_LEAST_ONE = {
    "training": "steps batch_size accumulate log_every eval_every save_every keep threads".split(),
    "evaluation": ["batch_size"],
}


def _check_values(config: RunConfig) -> None:
    for section, names in AT_LEAST_ONE.items():
        for name in names:
            value = getattr(getattr(config, section), name)
            if value < 1:
                raise UserError(f"{section}.{name} is {value}; expected at least 1.")
    if config.training.patience < 0:
        raise UserError(
            f"training.patience is {config.training.patience}; expected a number of evaluations, "
            "or 0 to train all steps."
        )
    if not config.optimizer.learning_rate > 0:
        raise UserError(
            f"optimizer.learning_rate is {config.optimizer.learning_rate}; expected above 0."
        )
    profile = config.training.profile
    if profile and (len(profile) != 2 or not 0 <= profile[0] <= profile[1]):
        raise UserError(
            f"training.profile is {profile}; expected (first, last) step, or () for no trace."
        )


def versions() -> dict[str, str]:
    """Versions and devices that a result depends on."""
    import importlib.metadata

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}
