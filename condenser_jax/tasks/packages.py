"""The task `packages`: from the vector of a paragraph of documentation to the package that it comes
from, by logistic regression on a frozen encoder. An in-domain probe that needs no labels: it tells
a trained encoder from a random one, and places a student between that and its teacher.

Paragraphs are those of held-out docstrings; half of their modules teach the regression, the other
half is asked. A row `majority` has the share of the most frequent package, a row `random weights`
an encoder of the first model's architecture that was never trained.
"""

import dataclasses
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.data.cutting import heldout_rank
from condenser_jax.data.progress import Progress
from condenser_jax.encoder import Encoder, default_dtype
from condenser_jax.encoder_source import Usage, untold
from condenser_jax.errors import UserError
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DOCSTRINGS, read_pairs
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.models import name_models, open_encoder, usage_of
from condenser_jax.tasks.sentences import numbered
from condenser_jax.tasks.systems import report_systems

PACKAGES = 12  # the most frequent ones
TAUGHT = 2000  # paragraphs at most that teach the regression
MIN_WORDS = 8  # shorter paragraphs say too little
DECAY = 1.0  # of the weights, by half their squares


class Paragraphs(NamedTuple):
    """Texts with their packages as numbers, those that teach first."""

    texts: list[str]
    packages: np.ndarray
    taught: int


def report_packages(options: Options) -> Report:
    """The share of paragraphs whose package is found, for each model."""
    if not options.data.startswith(DOCSTRINGS):
        raise UserError(
            f"--data={options.data} has no packages; name {DOCSTRINGS}, or some of them: "
            f"{DOCSTRINGS}jax,numpy"
        )
    found = read_paragraphs(options.data.removeprefix(DOCSTRINGS), options.split, options.reading)
    asked = found.packages[found.taught :]
    models = name_models(options.models, taken=("majority", "random weights"))
    usages = usage_of(list(models.values()), options.usage._replace(pooling=None))
    encoders = {
        name: _open_pooled(path, usages[path], options.pooling) for name, path in models.items()
    }
    encoders["random weights"] = _untrained(next(iter(encoders.values())))
    guesses = {name: guess_packages(encoder, found) for name, encoder in encoders.items()}
    most = Counter(found.packages[: found.taught].tolist()).most_common(1)[0][0]
    guesses["majority"] = np.full_like(asked, most)
    systems = {
        name: {"accuracy": {str(i): float(hit) for i, hit in enumerate(guess == asked, start=1)}}
        for name, guess in guesses.items()
    }
    what = f"{found.taught:,} paragraphs teach, {len(asked):,} are asked, {PACKAGES} packages"
    return report_systems("packages", systems.items(), numbered(asked), options, what, found.texts)


def read_paragraphs(rest: str, split: str, reading: CollectionOptions) -> Paragraphs:
    """The paragraphs of a split of docstrings, in the most frequent packages; those of `test` are
    what a run of the same seed and share does not train on.
    """
    paragraphs = [
        (text, pair.group)
        for pair in read_pairs(rest, split, reading)
        for text in pair.body.split("\n")
        if len(text.split()) >= MIN_WORDS
    ]
    sizes = Counter(group.partition(".")[0] for _, group in paragraphs)
    names = [name for name, _ in sizes.most_common(PACKAGES)]
    halves: tuple[list, list] = ([], [])
    seed = reading.split_seed + 1  # by the split's own hash all that is held out is one half
    for text, group in paragraphs:
        if (package := group.partition(".")[0]) in names:
            side = heldout_rank(group, seed) < 0.5
            halves[side].append((text, names.index(package)))
    taught = halves[0][:: -(-len(halves[0]) // TAUGHT) or 1]
    if len(names) < 2 or not taught or not halves[1]:
        raise UserError(
            f"{DOCSTRINGS}{rest} has too few held-out paragraphs for a probe; name more packages, "
            "or leave them all."
        )
    rows = [*taught, *halves[1]]
    return Paragraphs([t for t, _ in rows], np.array([p for _, p in rows]), len(taught))


def logistic_regression(vectors: np.ndarray, labels: np.ndarray, decay: float) -> np.ndarray:
    """Weights [D + 1, C], the last row being the bias, that minimise the cross entropy of vectors
    [n, D] plus decay / 2 times their squares.
    """
    from scipy.optimize import minimize

    inputs = np.append(vectors, np.ones((len(vectors), 1)), 1)
    truth = np.eye(labels.max() + 1)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(inputs.shape[1], -1)
        scores = inputs @ weights
        scores -= scores.max(1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        gradient = inputs.T @ (np.exp(log_p) - truth) + decay * weights
        return decay / 2 * (weights**2).sum() - (truth * log_p).sum(), gradient.ravel()

    start = np.zeros(inputs.shape[1] * truth.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return found.x.reshape(inputs.shape[1], -1)


def guess_packages(encoder: Encoder, found: Paragraphs) -> np.ndarray:
    """Packages of the paragraphs that are asked, as numbers, by a regression on the others."""
    with Progress("encode", True, len(found.texts)) as bar:
        vectors = encoder.encode(found.texts, advance=bar.advance).astype(np.float64)
    taught = vectors[: found.taught]
    vectors = (vectors - taught.mean(0)) / np.maximum(taught.std(0), 1e-9)
    labels = found.packages[: found.taught]
    weights = logistic_regression(vectors[: found.taught], labels, DECAY)
    asked = vectors[found.taught :]
    return (asked @ weights[:-1] + weights[-1]).argmax(-1)


def _open_pooled(path: str, usage: Usage, pooling: str | None) -> Encoder:
    """A model that pools as asked, whatever it says itself: a probe reads states, and those of a
    masked language model lie in its tokens.
    """
    needed = pooling if "pooling" in untold(path) else None
    encoder = open_encoder(path, usage._replace(pooling=needed))
    card = encoder.card if pooling is None else dataclasses.replace(encoder.card, pooling=pooling)
    return Encoder(encoder.source, card, default_dtype())


def _untrained(encoder: Encoder) -> Encoder:
    """The same architecture and tokenizer with fresh weights."""
    ids = jnp.zeros((1, 1), jnp.int32)
    backbone = Backbone(encoder.source.config, ComputeConfig())
    fresh = jax.tree.map(np.asarray, backbone.init(jax.random.key(0), ids, ids)["params"])
    return Encoder(encoder.source._replace(params={"backbone": fresh}), encoder.card)
