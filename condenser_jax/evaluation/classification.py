"""The figures of a classification task on whole sets of labelled texts, over the whole mesh."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.glue.metrics import task_figures
from condenser_jax.glue.tasks import Task
from condenser_jax.types import Batch, Frozen, Params


class Part(NamedTuple):
    """A split that is measured by itself."""

    suffix: str  # of its figures' names, where there are several
    batches: Sequence[Mapping[str, np.ndarray]]  # the last one may be filled up
    labels: np.ndarray  # [N]
    constant: Mapping[str, float] = {}  # the task's figures of one answer for all texts


class Predictor:
    """Logits of texts; compiled once for all batches of one shape.

    Args:
      logits: (params, frozen, batch) -> [B, C].
    """

    def __init__(self, logits: Callable, mesh: Mesh) -> None:
        self._compiled = over_mesh(logits, mesh)
        self._mesh = mesh

    def place(self, batches: Sequence[Mapping[str, np.ndarray]]) -> list[Batch]:
        """Batches on the devices."""
        return [place(batch, self._mesh) for batch in batches]

    def __call__(
        self, params: Params, frozen: Frozen, placed: Sequence[Batch], total: int
    ) -> np.ndarray:
        """Logits float32 [total, C] of the texts that stand first."""
        found = [np.asarray(self._compiled(params, frozen, batch)) for batch in placed]
        return np.concatenate(found)[:total].astype(np.float32)


def classification_evaluator(
    logits: Callable, parts: Sequence[Part], task: Task, mesh: Mesh
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation: (params, frozen) -> heldout/<figure><suffix> of each part, its loss,
    and heldout/score, the mean of the task's figures; the same of a constant answer, where it is
    told: heldout/constant_<figure><suffix>, heldout/constant_score.
    """
    predict = Predictor(logits, mesh)
    placed = [predict.place(part.batches) for part in parts]

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        figures: dict[str, float] = {}
        scores, constants = list[float](), list[float]()
        for part, batches in zip(parts, placed, strict=True):
            found = predict(params, frozen, batches, len(part.labels))
            values = task_figures(task, found, part.labels)
            figures |= {f"heldout/{name}{part.suffix}": v for name, v in values.items()}
            constant = part.constant.items()
            figures |= {f"heldout/constant_{name}{part.suffix}": v for name, v in constant}
            constants += part.constant.values()
            scores += [values[name] for name in task.figures]
        means = {"score": scores, "constant_score": constants}
        return figures | {f"heldout/{name}": float(np.mean(v)) for name, v in means.items() if v}

    return evaluate
