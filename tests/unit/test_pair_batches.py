"""Two distinct spans of each document, drawn anew at every visit, on any number of hosts."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from condenser_jax.data.batches import PairBatches, _first_numbers
from condenser_jax.errors import UserError
from tests.memory_spans import (
    MAX_LENGTH,
    VOCABULARY,
    MemorySpans,
    assert_equal,
    bodies_of,
    join,
    stream_of,
)

SIZES = [4, 1, 2, 3, 0, 2, 5]  # spans of each document; two documents have fewer than two
USABLE = [0, 2, 3, 5, 6]
SPANS = MemorySpans([6] * sum(SIZES), sizes=SIZES)
SECOND = MemorySpans([5] * 6, first=500, sizes=[3, 1, 2])


def batches_of(spans=SPANS, batch_size=4, seed=0, rate=0.3):
    return PairBatches(spans, VOCABULARY, batch_size, MAX_LENGTH, rate, seed)


def spans_of(batch, store=SPANS):
    """The span of each row, told by its first token (spans here fit into a row)."""
    first = {store.span(index)[0]: index for index in range(len(store.offsets) - 1)}
    return np.array([first[body[0]] for body in bodies_of(batch)])


def documents_of(spans, store=SPANS):
    """The document of each span."""
    return np.searchsorted(store.documents, spans, side="right") - 1


def pairs_of(batch, store=SPANS):
    return spans_of(batch, store).reshape(-1, 2)


def test_a_batch_has_the_shapes_of_the_design():
    batch = batches_of().batch(0)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "input_ids": ((4, 12), "int32"),
        "attention_mask": ((4, 12), "int32"),
        "masked_positions": ((4, 3), "int32"),
        "masked_ids": ((4, 3), "int32"),
        "masked_weights": ((4, 3), "float32"),
        "document": ((4,), "int32"),
    }


def test_neighbouring_rows_are_two_distinct_spans_of_one_document():
    batch = stream_of(batches_of(), 50)
    pairs = pairs_of(batch)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_array_equal(documents_of(pairs[:, 0]), documents_of(pairs[:, 1]))
    np.testing.assert_array_equal(batch["document"], documents_of(pairs.ravel()))


def test_an_epoch_reads_every_document_of_two_spans_once_in_its_own_order():
    documents = stream_of(batches_of(batch_size=2), 15)["document"][::2].reshape(3, 5).tolist()
    assert all(sorted(epoch) == USABLE for epoch in documents)
    assert len({tuple(epoch) for epoch in documents}) == 3


def test_a_visit_draws_two_spans_anew_and_every_pair_equally_often():
    pairs = pairs_of(stream_of(batches_of(batch_size=1000), 12))
    of_three = [tuple(pair) for pair in pairs[documents_of(pairs[:, 0]) == 3]]
    counts = Counter(of_three)
    expected = len(of_three) / 6
    assert len(counts) == 6  # ordered pairs of three spans
    assert all(abs(count - expected) < 4.5 * expected**0.5 for count in counts.values())


def test_both_spans_of_a_document_are_masked_by_their_own_draws():
    batch = stream_of(batches_of(MemorySpans([10, 10], sizes=[2])), 20)
    first, second = batch["masked_positions"].reshape(-1, 2, 3).transpose(1, 0, 2)
    assert (first != second).any(1).mean() > 0.5
    assert len({tuple(row) for row in first.tolist()}) > 10


def test_a_long_span_is_cut_to_one_random_window():
    windows = bodies_of(stream_of(batches_of(MemorySpans([40, 30], sizes=[2])), 20))
    assert all(window == list(range(window[0], window[0] + MAX_LENGTH - 2)) for window in windows)
    assert len({window[0] for window in windows}) > 20


def test_documents_of_fewer_than_two_spans_are_left_out_and_counted():
    batches = batches_of()
    assert (batches.num_documents, batches.num_left_out) == (5, 2)
    assert set(stream_of(batches, 10)["document"]) == set(USABLE)


@pytest.mark.parametrize("batch_size, steps", [(2, 5), (4, 3), (10, 1), (12, 1)])
def test_steps_per_epoch_read_every_document(batch_size, steps):
    assert batches_of(batch_size=batch_size).steps_per_epoch == steps


@pytest.mark.parametrize("cuts", [[4], [3, 5], [1, 2, 3, 4, 5, 6, 7]])
def test_hosts_build_the_same_batch_also_when_a_document_is_cut(cuts):
    batches = batches_of([(SPANS, 0.7), (SECOND, 0.3)], batch_size=8)
    parts = [batches.batch(5, rows) for rows in np.split(np.arange(8), cuts)]
    assert_equal(join(parts), batches.batch(5))


def test_rows_may_be_a_slice_or_numbers_in_any_order():
    batches = batches_of(batch_size=8)
    whole = batches.batch(2)
    assert_equal(batches.batch(2, slice(1, 4)), {k: v[1:4] for k, v in whole.items()})
    assert_equal(batches.batch(2, np.array([7, 0])), {k: v[[7, 0]] for k, v in whole.items()})


def test_resuming_is_a_seek():
    batches = batches_of()
    before = [batches.batch(step) for step in range(8)]
    assert_equal(batches_of().batch(7), before[7])


def test_the_stream_does_not_depend_on_the_batch_size_but_on_the_seed():
    ours = stream_of(batches_of(batch_size=4), 6)
    assert_equal(ours, stream_of(batches_of(batch_size=6), 4))
    other = stream_of(batches_of(batch_size=4, seed=1), 6)
    assert spans_of(ours).tolist() != spans_of(other).tolist()


def test_a_mixture_interleaves_documents_by_weight_and_numbers_them_over_all_sources():
    batch = stream_of(batches_of([(SPANS, 3.0), (SECOND, 1.0)]), 20)
    documents = batch["document"].reshape(-1, 2)
    assert (documents[:, 0] == documents[:, 1]).all()
    from_second = np.array([body[0] >= 500 for body in bodies_of(batch)]).reshape(-1, 2)
    assert (from_second[:, 0] == from_second[:, 1]).all()
    assert from_second[:, 0].sum() == 10
    second = from_second.ravel()
    assert set(batch["document"][~second]) == set(USABLE)
    assert set(batch["document"][second]) == {len(SIZES), len(SIZES) + 2}


def test_an_odd_batch_size_is_refused():
    with pytest.raises(UserError, match="training.batch_size 5 is odd; expected .* use 6"):
        batches_of(batch_size=5)


def test_a_source_without_a_document_of_two_spans_is_refused_with_the_remedy():
    message = (
        "none of the 3 documents of data source 1 has two spans; expected .*smaller "
        "data.max_length, another data.recipe"
    )
    with pytest.raises(UserError, match=message):
        batches_of([(SPANS, 1.0), (MemorySpans([3, 3], sizes=[1, 0, 1]), 1.0)])


def test_a_source_without_spans_is_refused():
    with pytest.raises(UserError, match="data source 0 holds no spans"):
        batches_of(MemorySpans([]))


def test_more_documents_than_int32_can_number_are_refused():
    full, further = (
        SimpleNamespace(documents=np.broadcast_to(np.int64(0), n + 1)) for n in (2**31 - 1, 1)
    )  # that take no memory
    assert _first_numbers([full])[-1] == 2**31 - 1
    with pytest.raises(UserError, match="hold 2,147,483,648 documents; at most 2,147,483,647"):
        _first_numbers([full, further])
