"""A record comes back as it was stored, or not at all."""

import json

import pytest

from condenser_jax.training.checksums import Described
from condenser_jax.training.records import Record, Unsigned, from_json, to_json

LOOP = {"step": 7, "history": {"last": {"heldout/loss": 0.1}}, "metrics_offset": 1234}
ARRAYS = {"params/mlm_head/bias": Described("float32", (16,), 99)}


def stored():
    return json.loads(json.dumps(to_json(LOOP, 2.5, ARRAYS)))


def test_a_record_comes_back():
    assert from_json(stored()) == Record(LOOP, 2.5, ARRAYS)


@pytest.mark.parametrize("metric", [None, float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_none(metric):
    assert to_json(LOOP, metric, ARRAYS)["metric"] is None


def test_any_digit_that_changed_is_noticed():
    text = json.dumps(stored())
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    for place in digits:
        other = text[:place] + str(9 - int(text[place])) + text[place + 1 :]
        with pytest.raises(ValueError, match="its record does not have its checksum|delimiter"):
            from_json(json.loads(other))


def test_a_record_without_a_checksum_is_told_apart():
    with pytest.raises(Unsigned):
        from_json(LOOP)
