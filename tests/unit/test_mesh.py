"""Every method trains on any mesh of eight devices as on one: float64, dropout on, within 1e-9."""

import functools
import itertools

import jax
import optax
import pytest

from condenser_jax.training.sharding import make_mesh
from tests.helpers import assert_close, worst_difference
from tests.meshes import ROWS, gradient_of, small_run

METHODS = ["mlm", "condenser", "cocondenser", "tutor_kd"]
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 2, 1)]
PARTS = {
    "mlm": {"accumulate": 2},
    "cocondenser": {"chunk_rows": ROWS // 2},
    "tutor_kd": {"accumulate": 2},
}


def unless(fast, cases):
    """The cases as parameters of a test, slow but for those that `fast` accepts."""
    return [pytest.param(*case, marks=() if fast(*case) else pytest.mark.slow) for case in cases]


def one_device() -> jax.sharding.Mesh:
    return make_mesh(devices=jax.devices()[:1])


def found_on(method, mesh, **form):
    """Metrics and gradient of the first step."""
    with jax.enable_x64(True):
        run = small_run(method, mesh, dtype="float64", optimizer=optax.sgd(1.0), **form)
        return gradient_of(run)


@functools.cache
def reference(method):
    """On one device, the batch as a whole."""
    return found_on(method, one_device())


def assert_equal(found, expected):
    metrics, gradient = found
    assert_close(gradient, expected[1], 1e-9)
    assert metrics.keys() == expected[0].keys()
    assert_close(metrics, expected[0], 1e-9)


@pytest.mark.parametrize(
    ("method", "axes"),
    unless(
        lambda method, axes: (
            method == "cocondenser" or (method == "tutor_kd" and axes == (2, 2, 2))
        ),
        itertools.product(METHODS, MESHES[:3]),
    ),
)
def test_eight_devices_find_the_loss_and_the_gradient_of_one(method, axes):
    assert_equal(found_on(method, make_mesh(*axes)), reference(method))


@pytest.mark.parametrize(
    ("method", "axes"),
    unless(lambda method, axes: axes == (4, 2, 1), itertools.product(PARTS, MESHES)),
)
def test_parts_of_a_batch_on_eight_devices_add_up_to_the_whole_on_one(method, axes):
    assert_equal(found_on(method, make_mesh(*axes), **PARTS[method]), reference(method))


def test_another_seed_drops_other_numbers():
    _, gradient = found_on("mlm", one_device(), seed=1)
    assert worst_difference(gradient, reference("mlm")[1])[0] > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_fsdp_leaves_an_eighth_of_every_kernel_and_of_its_moments_on_a_device(method):
    state = small_run(method, make_mesh(1, 8, 1)).initial_state()
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.opt_state)):
        name = jax.tree_util.keystr(path)
        if "kernel" in name or "word" in name:
            assert {8 * shard.data.nbytes for shard in leaf.addressable_shards} == {leaf.nbytes}, (
                name
            )
            kernels += 1
    assert kernels >= 3 * 8
