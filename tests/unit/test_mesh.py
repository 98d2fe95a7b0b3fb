"""Every method of the table trains on any mesh of eight devices as on one: float64, dropout on,
within 1e-9.

Some gradients are 0 in exact arithmetic, and what is computed is rounding: of the bias at the end
of the passages' own encoder, which adds the same to all scores of a query, and of the bias at the
end of the encoder of sections, which cancels in each distance. So a tensor whose elements are under
a ten-thousandth of the largest of the whole gradient is held to 1e-13 of that largest.
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import optax
import pytest

from condenser_jax.methods import METHODS
from condenser_jax.training.sharding import make_mesh
from tests.helpers import assert_close, worst_difference
from tests.meshes import ROWS, VARIANTS, gradient_of, small_run

NAMES = [*METHODS, *VARIANTS]  # a new method is tested fast until it stands in WITHIN
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 2, 1)]
WITHIN = {  # slow: most of its step is in that of another one, which is fast
    "mlm": "condenser",
    "condenser": "cocondenser",
    "retriever": "untied retriever",
    "sections": "similarity",
    "kd": "distilbert",
    "minilm": "minilmv2",
}
IN_PARTS = ("cocondenser", "untied retriever", "similarity")  # fast in parts alone, which is more
FLOOR = 1e-4  # see above
CANCELS = {  # gradients that are 0 in exact arithmetic
    "untied retriever": "['backbone']['layers']['layer_0']['feed_forward']['layer_norm']['bias']",
    "sections": "['backbone']['layers']['layer_0']['feed_forward']['layer_norm']['bias']",
}


def unless(fast, cases):
    """The cases as parameters of a test, slow but for those that `fast` accepts."""
    return [pytest.param(*case, marks=() if fast(*case) else pytest.mark.slow) for case in cases]


def one_device() -> jax.sharding.Mesh:
    return make_mesh(devices=jax.devices()[:1])


def found_on(name, mesh, **form):
    """Metrics and gradient of the first step."""
    with jax.enable_x64(True):
        run = small_run(name, mesh, dtype="float64", optimizer=optax.sgd(1.0), **form)
        return gradient_of(run)


@functools.cache
def reference(name):
    """On one device, the batch as a whole."""
    return found_on(name, one_device())


def assert_as_on_one_device(name, axes, **form):
    """Two programs, which are compiled side by side."""
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(reference, name)
        metrics, gradient = found_on(name, make_mesh(*axes), **form)
        expected = whole.result()
    assert_close(gradient, expected[1], 1e-9, FLOOR)
    assert metrics.keys() == expected[0].keys()
    assert_close(metrics, expected[0], 1e-9)


def parts_of(name) -> dict[str, int]:
    """Half of the batch at a time: accumulated, or where it is contrasted as a whole in chunks."""
    run = small_run(name, one_device())
    return {"accumulate": 2} if run.objective.accumulates else {"chunk_rows": ROWS // 2}


@pytest.mark.parametrize(
    ("name", "axes"),
    unless(
        lambda name, axes: axes == (2, 2, 2) and name not in (*WITHIN, *IN_PARTS),
        itertools.product(NAMES, MESHES[:3]),
    ),
)
def test_eight_devices_find_the_loss_and_the_gradient_of_one(name, axes):
    assert_as_on_one_device(name, axes)


@pytest.mark.parametrize(
    ("name", "axes"),
    unless(
        lambda name, axes: axes == (2, 2, 2) and name in IN_PARTS,
        [
            *itertools.product(NAMES, MESHES[2:]),
            *itertools.product(("mlm", "cocondenser", "tutor_kd"), MESHES[:2]),
        ],
    ),
)
def test_parts_of_a_batch_on_eight_devices_add_up_to_the_whole_on_one(name, axes):
    assert_as_on_one_device(name, axes, **parts_of(name))


@pytest.mark.parametrize(
    "name", unless(lambda name: name not in WITHIN, [(name,) for name in CANCELS])
)
def test_the_gradient_that_cancels_is_rounding_and_no_other_one_is_small(name):
    flat, _ = jax.tree_util.tree_flatten_with_path(reference(name)[1])
    sizes = {jax.tree_util.keystr(path): np.abs(leaf).max() for path, leaf in flat}
    sizes = {path: size / max(sizes.values()) for path, size in sizes.items()}
    assert sizes[CANCELS[name]] < 1e-13
    small = {path for path, size in sizes.items() if size < FLOOR and "['key']['bias']" not in path}
    assert small == {CANCELS[name]}


def test_another_seed_drops_other_numbers():
    _, gradient = found_on("similarity", one_device(), seed=1)
    assert worst_difference(gradient, reference("similarity")[1], FLOOR)[0] > 1e-2


def test_another_rate_scales_the_update():
    _, change = found_on("similarity", one_device(), learning_rate=0.25)
    assert_close(change, jax.tree.map(lambda x: 0.25 * x, reference("similarity")[1]), 1e-9, FLOOR)


def test_runs_that_differ_in_seed_and_rate_share_a_program():
    def program(**form):
        return small_run("similarity", one_device(), **form).lower_step(("train",)).as_text()

    assert program(seed=1, learning_rate=0.25) == program()
    assert program(accumulate=2) != program()


@pytest.mark.parametrize("name", METHODS)
def test_fsdp_leaves_an_eighth_of_every_kernel_and_of_its_moments_on_a_device(name):
    state = small_run(name, make_mesh(1, 8, 1)).initial_state()
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.opt_state)):
        path = jax.tree_util.keystr(path)
        is_of_classes = "['classifier']" in path  # which are two, and not divided by eight
        if ("kernel" in path or "word" in path) and not is_of_classes:
            assert {8 * shard.data.nbytes for shard in leaf.addressable_shards} == {leaf.nbytes}, (
                path
            )
            kernels += 1
    assert kernels >= 3 * 7
