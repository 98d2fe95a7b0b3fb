"""coCondenser's loss and gradients equal the papers' formula, however the batch is cut to chunks.

Reference: the formula written out (METHODS' sum over spans, means over masked tokens), on hidden
states of the plain form at every position. Float64, dropout on, rows with padding, rows that are no
spans, and chunks with different numbers of masked tokens. Tolerance: 1e-9.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.chunking import chunk_rows, largest_that_fits, possible_chunks
from condenser_jax.errors import UserError
from condenser_jax.losses.chunks import join_rows, split_rows
from condenser_jax.losses.contrastive import FILLER
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import cocondenser, condenser
from condenser_jax.objectives.cocondenser import CoCondenserConfig
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.training.sharding import make_mesh
from tests.helpers import (
    assert_close,
    compile_quickly,
    masked_batch,
    random_params,
    tiny_backbone,
    worst_difference,
)

ROWS = 16
BACKBONE = tiny_backbone(num_layers=2)
OPTIONS = CoCondenserConfig(head_layers=1, early_layer=1, temperature=2.0)


def _batch() -> dict[str, np.ndarray]:
    """Eight pairs: one document twice, and a pair that only fills up the batch."""
    batch = masked_batch(BACKBONE, ROWS, length=24)
    batch["document"][10:12] = batch["document"][2]
    batch["document"][14:] = FILLER
    batch["attention_mask"][14:, 1:] = 0
    batch["masked_weights"][14:] = 0
    per_chunk = split_rows(batch["masked_weights"], 2).sum((1, 2))
    assert per_chunk[0] != per_chunk[1]
    return batch


def _dropout() -> Dropout:
    return Dropout(np.array([7, 3], np.uint32), np.arange(ROWS, dtype=np.int32))


def _loss(rows_at_a_time: int):
    compute = ComputeConfig(dtype="float64", chunk_rows=rows_at_a_time)
    objective = cocondenser.build(BACKBONE, compute, OPTIONS)

    def loss(params, batch, dropout):
        return objective.losses(params, {}, batch, objective.counts(batch), dropout)["train"].value

    return loss


def _differentiated(loss):
    """Value and gradients of a loss at random parameters."""
    params = random_params(_objective(), "float64")
    arguments = (params, _batch(), _dropout())
    return jax.device_get(compile_quickly(jax.value_and_grad(loss), *arguments)(*arguments))


def _objective():
    return cocondenser.build(BACKBONE, ComputeConfig(dtype="float64"), OPTIONS)


@functools.cache
def _plain():
    return _differentiated(_loss(ROWS))


def _formula(params, batch, dropout, *, own_document_counts: bool = False):
    """The loss as the papers print it, from Condenser's plain form and a loop over spans."""
    compute = ComputeConfig(dtype="float64", lean=False)
    options = CondenserConfig(head_layers=1, early_layer=1)
    plain = condenser.build(BACKBONE, compute, options)
    masked = plain.losses(params, {}, batch, plain.counts(batch), dropout)["train"].value
    model = condenser.Condenser(BACKBONE, compute, options)
    slots = condenser.slots_of(batch, lean=False)
    h = model.states(params, batch, slots, dropout)[2]
    documents = _batch()["document"]
    total, spans = 0.0, np.flatnonzero(documents != FILLER)
    for i in spans:
        partner = i + 1 if i % 2 == 0 else i - 1
        others = [k for k in spans if documents[k] != documents[i]]
        if own_document_counts:
            others += [k for k in spans if documents[k] == documents[i] and k not in (i, partner)]
        terms = {k: jnp.exp(h[i] @ h[k] / OPTIONS.temperature) for k in [partner, *others]}
        total -= jnp.log(terms[partner] / sum(terms.values()))
    return masked + total / len(spans)


def test_loss_and_gradients_are_the_formula_s():
    with jax.enable_x64(True):
        assert_close(_plain(), _differentiated(_formula), 1e-9)


def test_a_document_as_its_own_negative_would_be_seen():
    with jax.enable_x64(True):
        wrong = functools.partial(_formula, own_document_counts=True)
        assert worst_difference(_differentiated(wrong), _plain())[0] > 1e-3


@pytest.mark.parametrize("rows_at_a_time", [1, 8])
def test_chunks_give_the_loss_and_the_gradient_of_the_whole_batch(rows_at_a_time):
    with jax.enable_x64(True):
        assert_close(_differentiated(_loss(rows_at_a_time)), _plain(), 1e-9)


def test_metrics_of_chunks_are_those_of_the_whole_batch():
    with jax.enable_x64(True):
        params, batch = random_params(_objective(), "float64"), _batch()

        def metrics(params, batch, dropout, rows_at_a_time):
            compute = ComputeConfig(dtype="float64", chunk_rows=rows_at_a_time)
            objective = cocondenser.build(BACKBONE, compute, OPTIONS)
            counts = objective.counts(batch)
            found = objective.losses(params, {}, batch, counts, dropout)["train"].metrics
            return {name: mean.total / mean.count for name, mean in found.items()}

        whole, cut = (
            compile_quickly(functools.partial(metrics, rows_at_a_time=n), params, batch, _dropout())
            for n in (ROWS, 4)
        )
        arguments = (params, batch, _dropout())
        assert_close(cut(*arguments), whole(*arguments), 1e-9)
        assert {"loss", "head_loss", "late_loss", "contrast_loss"} <= whole(*arguments).keys()


def test_chunks_with_counts_of_their_own_would_be_seen():
    """The public code's mistake: a mean over chunks of means over their masked tokens."""
    with jax.enable_x64(True):
        objective = _objective()

        def mean_of_means(params, batch, dropout):
            def one(part):
                rows, numbers = part
                counts = objective.counts(batch) | {"masked": rows["masked_weights"].sum()}
                own = dropout._replace(rows=numbers)
                return objective.losses(params, {}, rows, counts, own)["train"].metrics["head_loss"]

            halves = split_rows((batch, dropout.rows), 2)
            parts = [jax.tree.map(lambda x, i=i: x[i], halves) for i in range(2)]
            return sum(mean.total / mean.count for mean in map(one, parts)) / 2

        def head_loss(params, batch, dropout):
            counts = objective.counts(batch)
            mean = objective.losses(params, {}, batch, counts, dropout)["train"].metrics[
                "head_loss"
            ]
            return mean.total / mean.count

        wrong, right = _differentiated(mean_of_means), _differentiated(head_loss)
        assert worst_difference(wrong, right)[0] > 1e-2


def test_rows_that_are_split_come_back_in_order():
    rows = np.arange(24).reshape(12, 2)
    assert np.array_equal(split_rows(rows, 4)[1], rows[[1, 5, 9]])
    assert np.array_equal(join_rows(split_rows(rows, 4)), rows)


def _never(rows: int) -> int:
    raise AssertionError("nothing needs to be compiled")


def test_a_chunk_is_rows_per_device():
    mesh = make_mesh(4, 2, 1)
    assert possible_chunks(96, mesh) == [1, 2, 3, 4, 6, 12]
    assert chunk_rows("all", 96, mesh, _never) == 96
    assert chunk_rows(3, 96, mesh, _never) == chunk_rows("3", 96, mesh, _never) == 24


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5, "compute.chunk_size 5 does not divide the 12 rows of each device .* use 4, 'all' or"),
        (0, "compute.chunk_size 0 does not divide"),
        ("many", "compute.chunk_size is 'many'; expected rows per device, 'all' or 'auto'"),
    ],
)
def test_a_chunk_that_does_not_divide_is_refused(size, message):
    with pytest.raises(UserError, match=message):
        chunk_rows(size, 96, make_mesh(4, 2, 1), _never)


def test_auto_is_the_largest_chunk_that_fits(monkeypatch):
    monkeypatch.setattr("condenser_jax.chunking.device_memory", lambda mesh: 1000.0)
    mesh, asked = make_mesh(8), []

    def bytes_of(size: int) -> int:
        asked.append(size)
        return 100 + 50 * size

    possible = [1, 2, 4, 8, 16, 32, 64]
    assert largest_that_fits(possible, bytes_of, mesh) == 16  # 900 bytes, and 900 may be used
    assert len(asked) <= 4
    with pytest.raises(UserError, match="even a chunk of 1 needs 0.0 GB; use a smaller batch"):
        largest_that_fits(possible, lambda size: 901, mesh)
