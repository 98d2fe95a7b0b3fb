"""A tiny teacher, a tiny student and a batch for them: what tests of distillation share."""

from typing import Any

import numpy as np

from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.mlm import MlmConfig
from condenser_jax.objectives.mlm import build as build_mlm
from tests.helpers import SPECIALS, masked_batch, random_params, tiny_backbone

RATES = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
TEACHER = Teacher(tiny_backbone(num_layers=2, hidden_size=12), tuple(range(SPECIALS)))
STUDENT = tiny_backbone(num_layers=1, **RATES)
ROWS = 4


def frozen_teacher(teacher: Teacher = TEACHER, dtype: str = "float32") -> dict[str, Any]:
    """The frozen group of a teacher with random weights."""
    objective = build_mlm(teacher.config, ComputeConfig(), MlmConfig())
    return {"teacher": random_params(objective, dtype, seed=1)}


def small_batch(config: BackboneConfig = STUDENT) -> dict[str, np.ndarray]:
    """Rows of which odd ones are padded; the [CLS] of each is id 2, as no other token."""
    batch = masked_batch(config, ROWS, length=10)
    batch["input_ids"][:, 0] = 2
    return batch


def dropout_of(rows: int = ROWS, key: tuple[int, int] = (1, 2)) -> Dropout:
    """The randomness of a step."""
    return Dropout(np.array(key, np.uint32), np.arange(rows, dtype=np.int32))


def build_any(
    method: str, backbone: BackboneConfig, compute: ComputeConfig, options: Any = None
) -> tuple[Objective, dict[str, Any]]:
    """The objective of any method, and what is frozen: a teacher as large as `backbone`, if the
    method has one.
    """
    row = METHODS[method]
    options = row.options() if options is None else options
    if not row.taught:
        return row.build(backbone, compute, options), {}
    teacher = Teacher(backbone, tuple(range(SPECIALS)))
    return row.build(backbone, compute, options, teacher), frozen_teacher(teacher, compute.dtype)
