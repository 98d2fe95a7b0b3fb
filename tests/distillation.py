"""A tiny teacher, a tiny student and a batch for them, tiny runs: what tests of distillation
share.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.build import build
from condenser_jax.config import RunConfig
from condenser_jax.methods import METHODS, configure
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.mlm import MlmConfig
from condenser_jax.objectives.mlm import build as build_mlm
from condenser_jax.run import _write_companions
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.workdir import open_workdir
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


def documents(root: Path, words: Sequence[str]) -> Path:
    """200 documents of random words; the folder in which they and what is prepared of them lie."""
    rng = np.random.default_rng(0)
    lines = (" ".join(rng.choice(words, 12)) + f" {i}." for i in range(200))
    (root / "documents.txt").write_text("\n".join(lines))
    return root


def small_run(root: Path, method: str, **sections: dict[str, Any]) -> RunConfig:
    """A small run on the documents in `root`, with overrides of sections."""
    values: dict[str, Any] = {
        "data": {
            "source": f"text:{root}/documents.txt",
            "directory": str(root / "prepared"),
            "recipe": "paragraphs",
            "vocab_size": 110,
            "max_length": 14,
            "heldout_share": 0.2,
            "workers": 1,
        },
        "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32},
        "objective": {"name": method},
        "training": {"steps": 4, "batch_size": 8},
        "evaluation": {"spans": 16, "batch_size": 8},
    }
    for name, changes in sections.items():
        values.setdefault(name, {}).update(changes)
    return configure(values)


def saved(config: RunConfig, path: Path) -> Path:
    """The work directory of a run, with the weights that it starts from."""
    built = build(config)
    workdir = open_workdir(path, dataclasses.asdict(config), built.hashes)
    _write_companions(workdir, built)
    with Checkpoints(workdir.checkpoints) as checkpoints:
        checkpoints.save(2, built.run.initial_state(), {"step": 2})
    return path
