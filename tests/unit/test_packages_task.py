"""The task `packages`: which package a held-out paragraph comes from, by a frozen encoder."""

from pathlib import Path

import numpy as np
import pytest

from condenser_jax.data.cutting import is_heldout
from condenser_jax.encoder_source import Usage
from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DocstringPair
from condenser_jax.tasks import packages
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.table import TASKS
from tests.encoders import export_tiny
from tests.hf_models import WORDS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A directory whose card says mean pooling."""
    return str(export_tiny(tmp_path_factory.mktemp("model"), pooling="mean"))


def test_a_logistic_regression_is_where_its_gradient_ends_and_tells_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    vectors = rng.standard_normal((90, 5)) + 2 * np.eye(3, 5)[labels]
    weights = packages.logistic_regression(vectors, labels, 1.0)
    inputs = np.append(vectors, np.ones((90, 1)), 1)
    scores = np.exp(inputs @ weights)
    p = scores / scores.sum(1, keepdims=True)
    assert np.abs(inputs.T @ (p - np.eye(3)[labels]) + weights).max() < 1e-2
    assert (p.argmax(1) == labels).mean() > 0.9


def test_packages_are_told_from_held_out_paragraphs(model, monkeypatch):
    rng = np.random.default_rng(0)
    pairs = [
        DocstringPair("", "\n".join(" ".join(rng.choice(WORDS[k : k + 3], 9)) for _ in range(4)), g)
        for k, package in ((0, "alpha"), (6, "beta"))
        for g in (f"{package}.module{i}" for i in range(12))
    ]
    monkeypatch.setattr(packages, "read_pairs", lambda *_: iter(pairs))
    options = Options((model,), data="docstrings:")
    name = Path(model).name
    figures = TASKS["packages"].report(options).figures["systems"]
    assert figures.keys() == {name, "random weights", "majority"}
    assert figures[name]["accuracy"] > 0.9 > figures["majority"]["accuracy"]


@pytest.mark.parametrize("split_seed", [0, 1])
def test_half_of_the_held_out_modules_teach_whatever_the_split(monkeypatch, split_seed):
    """A hash that held them out cannot also halve them: it is low for all."""
    reading = CollectionOptions(split_seed=split_seed)
    modules = (f"{package}.module{i}" for package in ("alpha", "beta") for i in range(400))
    pairs = [DocstringPair("", " ".join(WORDS[:9]), module) for module in modules]

    def read(rest, split, reading):
        share, seed = reading.heldout_share, reading.split_seed
        return (pair for pair in pairs if is_heldout(pair.group, share, seed))

    monkeypatch.setattr(packages, "read_pairs", read)
    found = packages.read_paragraphs("", "test", reading)
    assert 60 < len(found.texts) < 100
    assert 0.3 < found.taught / len(found.texts) < 0.7


def test_a_probe_pools_as_asked_whatever_the_model_says(model):
    texts = ["the mean of an array along an axis", "opens a file"]
    asked, own = (packages._open_pooled(model, Usage(), pooling) for pooling in ("cls", None))
    assert (asked.card.pooling, own.card.pooling) == ("cls", "mean")
    assert np.abs(asked.encode(texts) - own.encode(texts)).max() > 1e-3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text:my.txt", "--data=text:my.txt has no packages; name docstrings:, or some of them"),
        ("docstrings:nothing", "docstrings:nothing has too few held-out paragraphs for a probe"),
    ],
)
def test_a_probe_without_packages_is_refused(data, message, monkeypatch):
    monkeypatch.setattr(packages, "read_pairs", lambda *_: iter(()))
    with pytest.raises(UserError, match=message):
        TASKS["packages"].report(Options(("somewhere",), data=data))
