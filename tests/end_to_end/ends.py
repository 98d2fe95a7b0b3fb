"""How two runs ended, compared."""

import json
from pathlib import Path

import jax
import numpy as np

from condenser_jax.finished import read_run
from condenser_jax.training.saved import Saved
from tests.end_to_end.launching import learned


def assert_same_parameters(one: Path, other: Path) -> None:
    """Bit-identical parameters, read as an export reads them."""
    left, right = read_run(one).params, read_run(other).params
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_same_end(one: Path, other: Path) -> None:
    """Bit-identical parameters and optimizer state, and the same figures on the way."""
    assert_same_parameters(one, other)
    left, right = last_record(one), last_record(other)
    assert left["arrays"] == right["arrays"]  # checksums of every array of the state
    assert left["loop"]["history"] == right["loop"]["history"]
    assert learned(one) == learned(other)


def last_record(workdir: Path) -> dict:
    """The JSON of the last checkpoint."""
    saved = Saved(workdir / "checkpoints")
    return json.loads((saved.directory / str(saved.latest_step) / "record/metadata").read_text())
