"""From a configuration to a run: data, encoder, objective, optimizers, evaluations."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from condenser_jax.objectives.base import Objective, check_accumulation, check_steps
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.tutor_kd import tutor_from
from condenser_jax.teachers import FoundTeacher, find_teacher, student_of
from condenser_jax.training.loop import Run
from condenser_jax.training.optimizers import build_optimizers, check_rate
from condenser_jax.training.sharding import check_batch, make_mesh
from condenser_jax.warm_start import (
    check_head_layers,
    check_words,
    initial_checkpoint,
    initial_groups,
    start_at_unigram,
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
    teacher: dict[str, Any] | None = None  # what the work directory remembers of it

    @property
    def hashes(self) -> dict[str, str]:
        """{name: hash} of what must not change while a run lasts: its data, its teacher."""
        return self.material.hashes | ({"teacher": self.teacher["hash"]} if self.teacher else {})


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
    _check_form(config)
    feed.check(config)
    check_chunk(config.compute.chunk_size, training.batch_size, mesh)
    found = find_teacher(config.objective.teacher) if method.taught else None
    if resumed:
        config = with_tokenizer(config, resumed)
    start = resumed or start_of_student(config, found)
    checkpoint = start or initial_checkpoint(config.model.init, method.reads)
    check_objective(config, checkpoint, found)
    material = feed.open(config)
    taught = () if found is None else (found.known_to(material.vocabulary),)
    backbone = backbone_config(config, material, checkpoint, *taught)
    compute = compute_config(config.compute, mesh)
    objective = method.build(backbone, compute, config.objective, *taught)
    loaded, notes = (
        ({}, resumed.notes) if resumed else loaded_groups(objective, checkpoint, config, found)
    )
    has_fresh_head = "mlm_head" in objective.exports and "mlm_head" not in loaded
    if config.model.unigram_bias and has_fresh_head and material.unigram is not None:
        objective = start_at_unigram(objective, material.unigram)
    run = Run(
        objective=objective,
        optimizers=build_optimizers(config.optimizer, objective, training.steps),
        batches=material.batches(),
        mesh=mesh,
        seed=config.seed,
        learning_rate=config.optimizer.learning_rate,
        steps=training.steps,
        log_every=training.log_every,
        eval_every=training.eval_every,
        save_every=training.save_every,
        evaluate=material.evaluation(objective, method.goal, mesh),
        goal=method.goal,
        tokens_per_step=feed.tokens_per_step(config),
        flops_per_token=method.flops(backbone, config, *taught),
        clip_norm=config.optimizer.clip_norm,
        accumulate=training.accumulate,
        patience=training.patience,
        threads=training.threads,
        loaded=loaded,
        frozen={} if found is None else found.frozen(compute.dtype),
    )
    run = in_chunks(
        run,
        config.compute.chunk_size,
        lambda rows: method.build(
            backbone, dataclasses.replace(compute, chunk_rows=rows), config.objective, *taught
        ),
    )
    card = feed.card(config, tokenizer_hash(material.tokenizer_directory))
    notes += [*feed.describe(config)]
    if found is None:
        return Built(run, material, backbone, card, notes)
    notes.append(f"teacher: {found.where}, {found.config.num_layers} layers, frozen")
    return Built(run, material, backbone, card, notes, found.facts(*taught))


def start_of_student(config: RunConfig, found: FoundTeacher | None) -> Checkpoint | None:
    """The layers of the teacher that a student starts from; None if it starts elsewhere."""
    layers = getattr(config.objective, "student_layers", ())
    if found is None or not layers:
        return None
    if config.model.init:
        raise UserError(
            f"objective.student_layers is {layers} and model.init {config.model.init!r}: a student "
            "starts from one of them; leave the other empty."
        )
    return student_of(found, layers)


def start_of_tutor(options: Any, found: FoundTeacher) -> dict[str, Any]:
    """{"tutor": the teacher's MLM head} if the tutor starts from it."""
    from_teacher = getattr(options, "tutor_init", "random") == "teacher"
    return {"tutor": tutor_from(found.weights)} if from_teacher else {}


def loaded_groups(
    objective: Objective,
    checkpoint: Checkpoint | None,
    config: RunConfig,
    found: FoundTeacher | None,
) -> tuple[dict[str, Any], list[str]]:
    """{group: parameters} that do not start at random, and where each group comes from."""
    loaded, notes = initial_groups(objective, checkpoint, config)
    if found is None or not (tutor := start_of_tutor(config.objective, found)):
        return loaded, notes
    notes = [note for note in notes if not note.startswith("weights: tutor ")]
    notes.append(f"weights: tutor: the MLM head of the teacher {found.where}")
    return loaded | tutor, notes


def check_objective(
    config: RunConfig, checkpoint: Checkpoint | None, found: FoundTeacher | None = None
) -> None:
    """Raises UserError for what is wrong with the objective, before anything is prepared: it needs
    to know sizes, and no words.
    """
    method, model = METHODS[config.objective.name], config.model
    if checkpoint is None:
        _check_sizes(model)
    names = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    sizes = {name: getattr(model, name) for name in names}
    words = 1 if found is None else found.config.vocab_size
    sketch = checkpoint.config if checkpoint else BackboneConfig(vocab_size=words, **sizes)
    taught = () if found is None else (Teacher(found.config),)
    objective = method.build(sketch, ComputeConfig(), config.objective, *taught)
    check_accumulation(objective, config.training.accumulate)
    check_steps(objective, config.training.steps)
    if checkpoint:
        check_head_layers(checkpoint, config)


def backbone_config(
    config: RunConfig,
    material: Material,
    checkpoint: Checkpoint | None,
    teacher: Teacher | None = None,
) -> BackboneConfig:
    """The architecture: the checkpoint's, or from scratch the configuration's.

    A student has as many words as its teacher, which may have more than the tokenizer.
    """
    model = config.model
    if teacher is not None:
        check_vocabulary(teacher.config, material.tokenizer)
    if checkpoint:
        check_vocabulary(checkpoint.config, material.tokenizer)
        taught, given = teacher is not None, config.data.tokenizer
        check_words(checkpoint, material, is_taught=taught, given=given)
        backbone = checkpoint.config
    else:
        backbone = backbone_from_scratch(model, material)
        if teacher is not None:
            backbone = dataclasses.replace(backbone, vocab_size=teacher.config.vocab_size)
    rates = {
        name: getattr(model, name)
        for name in ("hidden_dropout", "attention_dropout")
        if getattr(model, name) is not None
    }
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise UserError(f"model.{name} is {rate}; expected a share of at least 0 and under 1.")
    longest = METHODS[config.objective.name].feed.longest(config)
    readers = {"encoder": backbone} | ({"teacher": teacher.config} if teacher else {})
    for name, reader in readers.items():
        if longest > reader.max_length:
            raise UserError(
                f"data.max_length {longest} is longer than the {reader.max_length} positions of "
                f"the {name}; use {reader.max_length} or less."
            )
    if backbone.num_heads > MAX_HEADS or longest > MAX_ATTENTION_LENGTH:
        raise UserError(
            f"{backbone.num_heads} heads at data.max_length {longest}: dropout "
            f"counts at most {MAX_HEADS} heads and {MAX_ATTENTION_LENGTH} positions apart."
        )
    return dataclasses.replace(backbone, **rates)


def backbone_from_scratch(model: ModelConfig, material: Material) -> BackboneConfig:
    """The architecture that the section `model` describes, with the vocabulary of its data."""
    _check_sizes(model)
    narrow = model.hidden_size if model.embedding_size is None else model.embedding_size
    is_factorised = narrow != model.hidden_size
    roberta = model.model_type == "roberta"
    pad_id = material.vocabulary.pad_id
    return BackboneConfig(
        vocab_size=material.vocabulary.size,
        model_type="electra" if is_factorised else model.model_type,
        embedding_size=narrow if is_factorised else None,
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


def _check_sizes(model: ModelConfig) -> None:
    """Raises UserError for an architecture that cannot be."""
    choose("model.model_type", model.model_type, MODEL_TYPES)
    for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions"):
        if getattr(model, name) < 1:
            raise UserError(f"model.{name} is {getattr(model, name)}; expected at least 1.")
    if model.hidden_size % model.num_heads:
        raise UserError(
            f"model.hidden_size {model.hidden_size} is not divisible by model.num_heads "
            f"{model.num_heads}; choose a multiple of it."
        )
    narrow = model.hidden_size if model.embedding_size is None else model.embedding_size
    if narrow != model.hidden_size and (model.model_type != "bert" or narrow < 1):
        raise UserError(
            f"model.embedding_size is {model.embedding_size} with model.model_type "
            f"{model.model_type!r}; expected at least 1, and 'bert': factorised embeddings are "
            "those of an ELECTRA, which is a BERT otherwise."
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
    check_rate("optimizer.learning_rate", config.optimizer.learning_rate)
    clip = config.optimizer.clip_norm
    if clip is not None and not clip > 0:
        raise UserError(f"optimizer.clip_norm is {clip}; expected above 0, or None not to clip.")
    for name in ("b1", "b2"):
        value = getattr(config.optimizer, name)
        if not 0 <= value < 1:
            raise UserError(f"optimizer.{name} is {value}; expected at least 0 and under 1.")
    for name in ("weight_decay", "eps"):
        value = getattr(config.optimizer, name)
        if not value >= 0:
            raise UserError(f"optimizer.{name} is {value}; expected at least 0.")
    share = getattr(config.data, "bad_share", 0.0)
    if not 0 <= share <= 1:
        raise UserError(f"data.bad_share is {share}; expected a share, 0 to 1.")
    profile = config.training.profile
    if profile and (len(profile) != 2 or not 0 <= profile[0] <= profile[1]):
        raise UserError(
            f"training.profile is {profile}; expected (first, last) step, or () for no trace."
        )


def _check_form(config: RunConfig) -> None:
    if config.compute.lean or METHODS[config.objective.name].has_plain_form:
        return
    known = ", ".join(name for name, method in METHODS.items() if method.has_plain_form)
    raise UserError(
        f"compute.lean is False, but {config.objective.name} has no plain form; leave it at True "
        f"({known} have one)."
    )


def versions() -> dict[str, str]:
    """Versions and devices that a result depends on."""
    import importlib.metadata

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}
