"""From a configuration to a run: corpus, encoder, objective, optimizers, evaluations."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from condenser_jax.chunking import check_chunk, in_chunks
from condenser_jax.config import ModelConfig, RunComputeConfig, RunConfig
from condenser_jax.corpus import Corpus, prepare_corpus, tokenizer_of, train_batches
from condenser_jax.data.batches import check_even
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.errors import UserError, choose
from condenser_jax.heldout import heldout_evaluation
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.load import Checkpoint, check_vocabulary
from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import MAX_ATTENTION_LENGTH, MAX_HEADS
from condenser_jax.objectives.base import check_accumulation
from condenser_jax.training.flops import train_flops_per_token
from condenser_jax.training.loop import Run
from condenser_jax.training.optimizers import build_optimizers
from condenser_jax.training.sharding import check_batch, make_mesh
from condenser_jax.warm_start import (
    initial_checkpoint,
    initial_groups,
    start_at_unigram,
    warn_of_another_tokenizer,
)

log = logging.getLogger("condenser_jax")
MODEL_TYPES = ("bert", "roberta")
DTYPES = ("auto", "float32", "bfloat16")


class Built(NamedTuple):
    """A run, and what its work directory and its export need to know besides."""

    run: Run
    corpus: Corpus
    backbone: BackboneConfig
    card: EncoderCard
    notes: list[str]  # where weights came from


def build(config: RunConfig, devices: Sequence[jax.Device] | None = None) -> Built:
    """Builds a run on `devices` (default: all); prepares its data if that has not been done.

    Devices of a topology that is not there will do: a run touches them when it is started or
    evaluated. Raises UserError for what does not fit.
    """
    training = config.training
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    check_batch(training.batch_size, mesh, training.accumulate)
    check_batch(config.evaluation.batch_size, mesh, name="evaluation.batch_size")
    _check_values(config)
    method = METHODS[config.objective.name]
    check_chunk(config.compute.chunk_size, training.batch_size, mesh)
    if method.pairs:
        check_even(training.batch_size)
    checkpoint = initial_checkpoint(config.model.init)
    corpus = prepare_corpus(config.data, config.seed, tokenizer_of(config))
    backbone = backbone_config(config, corpus, checkpoint)
    compute = compute_config(config.compute, mesh)
    objective = method.build(backbone, compute, config.objective)
    check_accumulation(objective, training.accumulate)
    loaded, notes = initial_groups(objective, checkpoint, config)
    if "mlm_head" not in loaded and config.model.unigram_bias:
        objective = start_at_unigram(objective, corpus.unigram)
    batches = train_batches(corpus, config.data, training.batch_size, config.seed, method.pairs)
    run = Run(
        objective=objective,
        optimizers=build_optimizers(config.optimizer, objective, training.steps),
        batches=batches,
        mesh=mesh,
        seed=config.seed,
        steps=training.steps,
        log_every=training.log_every,
        eval_every=training.eval_every,
        save_every=training.save_every,
        evaluate=heldout_evaluation(
            corpus, objective, method.goal, mesh, config.data, config.evaluation, config.seed
        ),
        goal=method.goal,
        tokens_per_step=training.batch_size * config.data.max_length,
        flops_per_token=train_flops_per_token(
            backbone, config.objective, config.data.max_length, config.data.mask_rate
        ),
        clip_norm=config.optimizer.clip_norm,
        accumulate=training.accumulate,
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
    if method.pairs:
        negatives = training.batch_size - 2
        notes.append(f"contrast: {negatives:,} negatives of each span, from the whole batch")
    return Built(run, corpus, backbone, encoder_card(config, corpus), notes)


def backbone_config(
    config: RunConfig, corpus: Corpus, checkpoint: Checkpoint | None
) -> BackboneConfig:
    """The architecture: the checkpoint's, or from scratch the configuration's."""
    model = config.model
    if checkpoint:
        check_vocabulary(checkpoint.config, corpus.tokenizer)
        warn_of_another_tokenizer(checkpoint, corpus)
        backbone = checkpoint.config
    else:
        backbone = backbone_from_scratch(model, corpus)
    rates = {
        name: getattr(model, name)
        for name in ("hidden_dropout", "attention_dropout")
        if getattr(model, name) is not None
    }
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise UserError(f"model.{name} is {rate}; expected a share of at least 0 and under 1.")
    if config.data.max_length > backbone.max_length:
        raise UserError(
            f"data.max_length {config.data.max_length} is longer than the "
            f"{backbone.max_length} positions of the encoder; use {backbone.max_length} or less."
        )
    if backbone.num_heads > MAX_HEADS or config.data.max_length > MAX_ATTENTION_LENGTH:
        raise UserError(
            f"{backbone.num_heads} heads at data.max_length {config.data.max_length}: dropout "
            f"counts at most {MAX_HEADS} heads and {MAX_ATTENTION_LENGTH} positions apart."
        )
    return dataclasses.replace(backbone, **rates)


def backbone_from_scratch(model: ModelConfig, corpus: Corpus) -> BackboneConfig:
    """The architecture that the section `model` describes, with the corpus' vocabulary."""
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
    pad_id = corpus.vocabulary.pad_id
    return BackboneConfig(
        vocab_size=corpus.vocabulary.size,
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


def encoder_card(config: RunConfig, corpus: Corpus) -> EncoderCard:
    """How texts become vectors with this encoder: the late CLS, of unit length if cosines of it
    were contrasted.
    """
    return EncoderCard(
        normalize=getattr(config.objective, "similarity", "dot") == "cosine",
        query_max_length=config.data.max_length,
        passage_max_length=config.data.max_length,
        tokenizer_hash=tokenizer_hash(corpus.tokenizer_directory),
        has_trained_mlm_head=getattr(config.objective, "late_mlm", True),
    )


AT_LEAST_ONE = {
    "training": "steps batch_size accumulate log_every eval_every save_every keep threads".split(),
    "evaluation": "spans documents batch_size".split(),
}


def _check_values(config: RunConfig) -> None:
    for section, names in AT_LEAST_ONE.items():
        for name in names:
            value = getattr(getattr(config, section), name)
            if value < 1:
                raise UserError(f"{section}.{name} is {value}; expected at least 1.")
    if METHODS[config.objective.name].pairs and config.evaluation.documents < 2:
        raise UserError(
            f"evaluation.documents is {config.evaluation.documents}; expected at least 2, among "
            "which a span's other span is searched."
        )
    if not 0 < config.data.mask_rate < 1:
        raise UserError(
            f"data.mask_rate is {config.data.mask_rate}; expected a share between 0 and 1."
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
