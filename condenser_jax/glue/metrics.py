"""The figures of GLUE, over a whole set of predictions at once.

A mean over batches is another number: of a correlation it can be far off, so none is taken.
"""

from collections.abc import Callable

import numpy as np

from condenser_jax.glue.tasks import Task


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions that are right."""
    return float(np.mean(predicted == labels))


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where nothing of it is right."""
    right = np.sum((predicted == 1) & (labels == 1))
    total = np.sum(predicted == 1) + np.sum(labels == 1)
    return float(2 * right / total) if total else 0.0


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Correlation of two binary variables (Matthews 1975); 0 where one of them never changes."""
    return pearson(predicted == 1, labels == 1)  # it is the same, on zeros and ones


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Linear correlation; 0 where one side never changes."""
    return _correlation("pearsonr", predicted, labels)


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Correlation of ranks, ties sharing theirs; 0 where one side never changes."""
    return _correlation("spearmanr", predicted, labels)


def _correlation(name: str, predicted: np.ndarray, labels: np.ndarray) -> float:
    from scipy import stats

    sides = [np.asarray(side, np.float64) for side in (predicted, labels)]
    if any(np.ptp(side) == 0 for side in sides):
        return 0.0
    return float(getattr(stats, name)(*sides).statistic)


FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def predictions(task: Task, logits: np.ndarray) -> np.ndarray:
    """Logits [N, C] -> classes int64 [N], or scores float [N] as they are."""
    return logits[:, 0] if task.is_regression else logits.argmax(-1)


def task_figures(task: Task, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{figure: value} of a task, and its `loss`: mean cross entropy (nats) or squared error."""
    predicted = predictions(task, logits)
    found = {name: FIGURES[name](predicted, labels) for name in task.figures}
    return found | {"loss": _loss(task, logits.astype(np.float64), labels)}


def constant_figures(task: Task, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{figure: value} of a model that always says the most frequent class of the training texts,
    or the mean of their scores: what a task asks for nothing.
    """
    usual = train_labels.mean() if task.is_regression else np.bincount(train_labels).argmax()
    predicted = np.full(len(labels), usual)
    return {name: FIGURES[name](predicted, labels) for name in task.figures}


def _loss(task: Task, logits: np.ndarray, labels: np.ndarray) -> float:
    if task.is_regression:
        return float(np.mean((logits[:, 0] - labels) ** 2))
    shifted = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[:, None], 1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(-1)) - chosen))
