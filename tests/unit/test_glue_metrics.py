"""The figures of GLUE by hand, over all predictions at once."""

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.glue.metrics import (
    accuracy,
    constant_figures,
    f1,
    matthews,
    pearson,
    spearman,
    task_figures,
)
from condenser_jax.glue.tasks import NINE, TASKS, find_task

# 4 true positives, 3 true negatives, 1 false positive, 2 false negatives
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 1, 1])
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 0])


def test_classes_by_hand():
    assert accuracy(PREDICTED, LABELS) == 0.7
    assert f1(PREDICTED, LABELS) == pytest.approx(2 * 4 / (2 * 4 + 1 + 2))
    by_hand = (4 * 3 - 1 * 2) / np.sqrt((4 + 1) * (4 + 2) * (3 + 1) * (3 + 2))
    assert matthews(PREDICTED, LABELS) == pytest.approx(by_hand)


def test_f1_is_of_class_1_and_not_of_class_0():
    assert f1(1 - PREDICTED, 1 - LABELS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))


def test_what_never_changes_correlates_with_nothing():
    ones = np.ones(10, int)
    assert matthews(ones, LABELS) == pearson(ones, LABELS) == spearman(LABELS, ones) == 0.0
    assert f1(np.zeros(10), np.zeros(10)) == 0.0


def test_correlations_by_hand():
    scores, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert pearson(predicted, scores) == pytest.approx(0.8)
    assert spearman(predicted, scores) == pytest.approx(0.8)
    assert spearman(np.exp(predicted), scores) == pytest.approx(0.8)
    assert pearson(np.exp(predicted), scores) != pytest.approx(0.8, abs=0.01)


def test_a_mean_over_batches_is_another_correlation():
    """What the public Tutor-KD code reports: Spearman of shuffled batches, averaged."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=320)
    predicted = scores + rng.normal(size=320) * 2
    parts = [spearman(predicted[i::80], scores[i::80]) for i in range(80)]
    assert abs(np.mean(parts) - spearman(predicted, scores)) > 0.01


def test_the_loss_is_that_of_training():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    found = task_figures(TASKS["mnli"], logits, np.array([0, 2]))
    assert found["loss"] == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
    scores = task_figures(TASKS["stsb"], np.array([[1.0], [4.0]]), np.array([2.0, 4.0]))
    assert scores["loss"] == 0.5


def test_one_answer_for_all_texts_is_the_most_frequent_class_of_training_or_the_mean_score():
    train, mrpc = np.array([1, 1, 0]), constant_figures(TASKS["mrpc"], np.array([1, 1, 0]), LABELS)
    assert mrpc["accuracy"] == 0.6 and mrpc["f1"] == pytest.approx(2 * 6 / (2 * 6 + 4))
    assert constant_figures(TASKS["mrpc"], 1 - train, LABELS) == {"f1": 0.0, "accuracy": 0.4}
    assert constant_figures(TASKS["cola"], train, LABELS) == {"matthews": 0.0}
    scores = constant_figures(TASKS["stsb"], np.array([1.5, 3.0]), np.arange(5.0))
    assert scores == {"pearson": 0.0, "spearman": 0.0}


def test_every_task_has_the_figures_of_the_paper():
    figures = {name: task.figures for name, task in NINE.items()}
    assert figures == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("f1", "accuracy"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("f1", "accuracy"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }
    assert [name for name, task in NINE.items() if task.is_regression] == ["stsb"]
    assert TASKS["mnli"].dev == ("validation_matched", "validation_mismatched")


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match="^unknown GLUE task 'coal'; did you mean 'cola'"):
        find_task("coal")
