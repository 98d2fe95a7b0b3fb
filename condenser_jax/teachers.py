"""The teacher of a run: an encoder with an MLM head that is read, frozen, and never saved."""

import dataclasses
import hashlib
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError
from condenser_jax.hf.load import Checkpoint, load_checkpoint
from condenser_jax.hf.names import flatten
from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.distillation import TEACHER, Teacher
from condenser_jax.training.workdir import is_workdir
from condenser_jax.types import Tree
from condenser_jax.warm_start import initial_checkpoint

GROUPS = ("backbone", "mlm_head")
WITH_HEAD = "runs/teacher-with-head"
TEACHER_FLAG = "--config.objective.teacher="
FIRST = "python launch/train.py --config=configs/mlm.py:{}"


class FoundTeacher(NamedTuple):
    """A teacher as it was found."""

    config: BackboneConfig
    weights: Tree  # {"backbone", "mlm_head"}, float32
    where: str
    hash: str  # of the weights

    def known_to(self, vocabulary: Vocabulary) -> Teacher:
        """What an objective must know of it, given its tokenizer."""
        special = vocabulary.special_ids
        tokens = np.concatenate([special, vocabulary.replaceable_ids])
        absent = np.setdiff1d(np.arange(self.config.vocab_size), tokens)
        return Teacher(self.config, tuple(special.tolist()), tuple(absent.tolist()))

    def facts(self, teacher: Teacher) -> dict[str, Any]:
        """What a work directory remembers of it."""
        return {"where": self.where, "hash": self.hash, **dataclasses.asdict(teacher)}

    def frozen(self, dtype: str) -> dict[str, Tree]:
        """The frozen group: tables and kernels in the compute dtype, the rest in float32."""
        narrow = jnp.dtype(dtype)
        cast = lambda x: x.astype(narrow) if x.ndim > 1 else x  # noqa: E731
        return {TEACHER: jax.tree.map(cast, self.weights)}


def find_teacher(where: str) -> FoundTeacher:
    """Reads a teacher: a work directory, a Hugging Face directory (also an export) or a hub id.

    Raises UserError if it is not there, or has no MLM head.
    """
    if not where:
        raise UserError(
            "objective.teacher is empty: whom should the student learn from? Train one, "
            f"{FIRST.format('teacher')}, then {TEACHER_FLAG}runs/mlm-teacher; or name "
            "a BERT with its MLM head."
        )
    if where.startswith(("runs/", ".", "/", "~")) and not Path(where).expanduser().is_dir():
        variant = "smoke" if where.endswith("-smoke") else "teacher"
        left = f"runs/mlm-{variant}"  # where that command leaves it
        what, then = ("it", "") if where == left else ("one", f", then {TEACHER_FLAG}{left}")
        raise UserError(
            f"the teacher {where} is not there; train {what} first: {FIRST.format(variant)}{then}"
        )
    checkpoint = initial_checkpoint(where) if is_workdir(where) else _load(where)
    assert checkpoint is not None
    weights = {group: checkpoint.params[group] for group in GROUPS if group in checkpoint.params}
    if "mlm_head" not in weights:
        raise UserError(
            f"the teacher {where} has no MLM head, by which it teaches; train one on it first: "
            f"python launch/train.py --config=configs/mlm.py --config.model.init={quote(where)} "
            f"--config.objective.frozen_backbone=True --workdir={WITH_HEAD}; then "
            f"{TEACHER_FLAG}{WITH_HEAD}"
        )
    for name, leaf in flatten(weights):
        if not np.isfinite(leaf).all():
            raise UserError(
                f"the teacher {where} has weights that are not finite ({name}); choose "
                "another, or copy it again"
            )
    return FoundTeacher(checkpoint.config, weights, where, hash_of(weights))


def _load(where: str) -> Checkpoint:
    try:
        return load_checkpoint(where, GROUPS)
    except UserError as error:
        if Path(where).expanduser().is_dir():
            raise
        raise UserError(f"{error}; or train a teacher here: {FIRST.format('teacher')}") from error


def hash_of(weights: Tree) -> str:
    """A hash of arrays and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, leaf in sorted(flatten(weights)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def student_of(found: FoundTeacher, layers: tuple[int, ...]) -> Checkpoint:
    """The student that chosen layers of the teacher make, counted from 1."""
    total = found.config.num_layers
    if any(not 1 <= layer <= total for layer in layers):
        raise UserError(
            f"objective.student_layers is {layers}; expected layers 1 to {total} of the teacher."
        )
    config = dataclasses.replace(found.config, num_layers=len(layers))
    backbone, own = dict(found.weights["backbone"]), found.weights["backbone"]["layers"]
    backbone["layers"] = {
        f"layer_{place}": own[f"layer_{layer - 1}"] for place, layer in enumerate(layers)
    }
    notes = [
        f"backbone: layers {', '.join(map(str, layers))} of the teacher {found.where}, whose width "
        "it has, whatever the section `model` says",
        f"mlm_head: from the teacher {found.where}",
    ]
    return Checkpoint(config, {**found.weights, "backbone": backbone}, None, notes)
