"""The compiler never has to gather an array whole because two shardings do not go together.

Where it has to, it warns on stderr from within: so each compilation is a process of its own.
"""

import subprocess
import sys

import pytest

from tests.end_to_end.launching import ROOT, environment

pytestmark = pytest.mark.slow
WARNING = "Involuntary full rematerialization"
COMPILE = """
from jax.sharding import PartitionSpec as P
from condenser_jax.training import sharding
from tests.helpers import QUICK
from tests.meshes import small_run
sharding.RULES = {first} + sharding.RULES
for method, form in {runs}:
    run = small_run(method, sharding.make_mesh(*{axes}), **form)
    run.lower_step(("train",)).compile(QUICK)
"""
RUNS = [("mlm", {"accumulate": 2}), ("cocondenser", {})]
RUNS += [("cocondenser", {"chunk_rows": 8})]  # whose step holds all that Condenser's does


def warnings_of(cache, axes, *, runs=RUNS, first="()"):
    """What the compiler writes to stderr for small runs on eight devices."""
    code = COMPILE.format(first=first, runs=runs, axes=axes)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(cache, devices=8) | {"TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2)])
def test_no_array_is_gathered_whole_for_want_of_a_way_between_shardings(cache, axes):
    assert WARNING not in warnings_of(cache, axes)


def test_a_word_table_that_is_cut_along_the_width_would_be(cache):
    first = '((r"embeddings/word/embedding", P(None, ("tensor", "fsdp"))),)'
    assert WARNING in warnings_of(cache, (2, 2, 2), runs=RUNS[1:2], first=first)
