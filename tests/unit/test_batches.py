"""A batch is a function of the step: any host, any batch size, resumed or not."""

import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condenser_jax.data.batches import SpanBatches, load_batches
from condenser_jax.data.fixed_batches import fixed_batches
from condenser_jax.data.store import Spans
from condenser_jax.data.walk import _interleave, _nested_shares
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

SPANS = MemorySpans([3, 10, 25, 1, 7, 12, 40, 5, 9, 11, 30])


def batches_of(spans=SPANS, batch_size=4, seed=0, rate=0.3, max_length=MAX_LENGTH):
    return SpanBatches(spans, VOCABULARY, batch_size, max_length, rate, seed)


def test_a_batch_has_the_shapes_of_the_design():
    batch = batches_of().batch(0)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "input_ids": ((4, 12), "int32"),
        "attention_mask": ((4, 12), "int32"),
        "masked_positions": ((4, 3), "int32"),
        "masked_ids": ((4, 3), "int32"),
        "masked_weights": ((4, 3), "float32"),
    }


def test_rows_are_cls_body_sep_padding():
    batch = stream_of(batches_of(), 3)
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        length = mask.sum()
        assert ids[0] == VOCABULARY.cls_id and ids[length - 1] == VOCABULARY.sep_id
        assert mask[:length].all() and not ids[length:].any()
        assert not {VOCABULARY.cls_id, VOCABULARY.sep_id} & set(ids[1 : length - 1].tolist())


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_build_the_same_global_batch(hosts):
    batches = batches_of(batch_size=8)
    parts = [batches.batch(5, rows) for rows in np.array_split(np.arange(8), hosts)]
    assert_equal(join(parts), batches.batch(5))


def test_rows_may_be_a_slice_or_numbers_in_any_order():
    batches = batches_of(batch_size=8)
    whole = batches.batch(2)
    assert_equal(batches.batch(2, slice(2, 6)), {k: v[2:6] for k, v in whole.items()})
    assert_equal(batches.batch(2, np.array([7, 0])), {k: v[[7, 0]] for k, v in whole.items()})


def test_resuming_is_a_seek():
    batches = batches_of()
    before = [batches.batch(step) for step in range(8)]
    assert_equal(batches_of().batch(7), before[7])


def test_the_stream_does_not_depend_on_the_batch_size():
    assert_equal(stream_of(batches_of(batch_size=4), 6), stream_of(batches_of(batch_size=6), 4))


def test_the_stream_depends_on_the_seed():
    assert bodies_of(batches_of(seed=0).batch(0)) != bodies_of(batches_of(seed=1).batch(0))


def test_an_epoch_reads_every_span_once_in_its_own_order():
    """Bodies are told apart by their first token; every span here is of one window."""
    spans = MemorySpans(np.arange(20) % 10 + 1)
    bodies = bodies_of(stream_of(batches_of(spans), 10))
    everything = sorted(spans.span(index) for index in range(20))
    assert sorted(bodies[:20]) == everything and sorted(bodies[20:]) == everything
    assert bodies[:20] != bodies[20:] and bodies[:20] != everything


def test_a_span_is_masked_anew_in_every_epoch():
    batch = stream_of(batches_of(MemorySpans([10])), 16)
    assert len({tuple(row) for row in batch["masked_positions"].tolist()}) > 16


def test_a_long_span_is_masked_on_the_window_that_is_read():
    """The reference draws the window twice and masks one window with the mask of the other.

    Ids here count upwards, so a window is told by its first id: originals out of another window
    would break the run. Windows differ from draw to draw, so a second draw would be seen.
    """
    batch = stream_of(batches_of(MemorySpans([40])), 30)
    windows = bodies_of(batch)
    for window in windows:
        assert window == list(range(window[0], window[0] + MAX_LENGTH - 2))
    assert (batch["masked_weights"].sum(1) > 0).all()
    assert len({window[0] for window in windows}) > 10


def test_every_window_of_a_long_span_is_read_equally_often():
    batch = batches_of(MemorySpans([14]), batch_size=5000).batch(0)
    starts = np.bincount([body[0] - 5 for body in bodies_of(batch)], minlength=5)
    assert len(starts) == 5 and abs(starts - 1000).max() < 4.5 * 1000**0.5


@pytest.mark.parametrize("batch_size, steps", [(4, 3), (11, 1), (12, 1)])
def test_steps_per_epoch_read_every_span(batch_size, steps):
    batches = batches_of(batch_size=batch_size)
    assert (batches.num_spans, batches.steps_per_epoch) == (11, steps)


SECOND = MemorySpans([4, 2, 8], first=500)


def test_a_mixture_reads_its_sources_by_their_weights():
    bodies = bodies_of(stream_of(batches_of([(SPANS, 3.0), (SECOND, 1.0)]), 11))
    from_second = [body[0] >= 500 for body in bodies]
    assert sum(from_second) == 11
    assert all(abs(sum(from_second[:n]) - n / 4) <= 1 for n in range(45))


def test_each_source_of_a_mixture_walks_its_own_epochs():
    bodies = bodies_of(stream_of(batches_of([(SPANS, 1.0), (SECOND, 1.0)]), 3))
    second = [body for body in bodies if body[0] >= 500]
    everything = [SECOND.span(index) for index in range(3)]
    assert sorted(second[:3]) == everything and sorted(second[3:]) == everything


def test_hosts_build_the_same_batch_of_a_mixture():
    batches = batches_of([(SPANS, 0.7), (SECOND, 0.2), (SPANS, 0.1)], batch_size=8)
    parts = [batches.batch(9, slice(0, 3)), batches.batch(9, slice(3, 8))]
    assert_equal(join(parts), batches.batch(9))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(0, 2**40))
@settings(deadline=None)
def test_a_mixture_visits_every_position_of_each_source_in_order(weights, start):
    shares = _nested_shares(weights)
    which, position = _interleave(start + np.arange(500), shares)
    for number, weight in enumerate(weights):
        own = position[which == number]
        assert (np.diff(own) == 1).all()
        assert abs(len(own) - 500 * weight / sum(weights)) <= len(weights) + 0.01
    first, _ = _interleave(np.arange(500), shares)
    assert set(first) <= set(range(len(weights)))


def fixed(batch_size, indices=range(11), seed=0):
    return fixed_batches(SPANS, np.array(indices), VOCABULARY, batch_size, MAX_LENGTH, 0.3, seed)


def test_fixed_batches_are_masked_alike_each_time_and_for_every_batch_size():
    ours, again, larger = fixed(4), fixed(4), fixed(6)
    assert [len(batch["input_ids"]) for batch in ours] == [4, 4, 4]
    assert_equal(join(ours), join(again))
    assert_equal(*({k: v[:11] for k, v in join(some).items()} for some in (ours, larger)))
    assert join(fixed(4, seed=1))["masked_ids"].tolist() != join(ours)["masked_ids"].tolist()


def test_fixed_batches_read_the_named_spans_in_their_order():
    bodies = bodies_of(fixed(2, indices=[4, 0])[0])
    assert bodies == [SPANS.span(4), SPANS.span(0)]


def test_the_last_fixed_batch_is_filled_with_rows_of_no_weight():
    filler = {name: value[3:] for name, value in fixed(4)[-1].items()}
    assert not filler["masked_weights"].any()
    assert filler["attention_mask"][0].tolist() == [1] + [0] * (MAX_LENGTH - 1)
    assert filler["input_ids"][0, 0] == VOCABULARY.cls_id and not filler["input_ids"][0, 1:].any()


def test_loading_yields_this_hosts_rows_from_the_first_step_to_the_last():
    batches = batches_of()
    loaded = list(load_batches(batches, slice(1, 3), 5, 9, threads=2, prefetch=2))
    assert [step for step, _ in loaded] == [5, 6, 7, 8]
    for step, batch in loaded:
        assert_equal(batch, batches.batch(step, slice(1, 3)))


def test_loading_nothing_ends_at_once():
    assert list(load_batches(batches_of(), slice(None), 5, 5)) == []


def test_closing_the_loader_stops_its_threads():
    before = set(threading.enumerate())  # of which one or the other may end meanwhile
    with closing(load_batches(batches_of(), slice(None), 0, 1000, threads=2)) as loader:
        next(loader)
        assert set(threading.enumerate()) - before
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_an_error_while_loading_reaches_the_caller():
    class Broken(MemorySpans):
        def gather(self, indices, starts, length):
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        next(load_batches(batches_of(Broken([3])), slice(None), 0, 2))


def test_prepared_spans_are_read_like_those_in_memory(tmp_path):
    SPANS.ids.tofile(tmp_path / "ids.bin")
    SPANS.offsets.tofile(tmp_path / "offsets.bin")
    prepared = Spans(tmp_path, np.uint16, VOCABULARY.pad_id)
    assert_equal(stream_of(batches_of(prepared), 5), stream_of(batches_of(SPANS), 5))


def test_a_source_without_spans_is_refused():
    with pytest.raises(UserError, match="data source 1 holds no spans; expected at least one"):
        batches_of([(SPANS, 1.0), (MemorySpans([]), 1.0)])


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_a_mixture_weight_must_be_positive(weight):
    with pytest.raises(UserError, match="mixture weight .* is not a positive number; remove"):
        batches_of([(SPANS, 1.0), (SECOND, weight)])


def test_a_length_without_room_for_text_is_refused():
    with pytest.raises(UserError, match="max_length 2 leaves no room.*use 3 or more"):
        batches_of(max_length=2)


def test_batches_are_built_without_jax():
    program = "import sys, condenser_jax.data.batches; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
