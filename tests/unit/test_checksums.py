"""The checksum of an array depends on every bit and its place, and on nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.training import sharding
from condenser_jax.training.checksums import Described, describe, describe_with_checksums

DTYPES = ("float32", "bfloat16", "int32", "uint8", "bool")


def checksum(array):
    (described,) = describe_with_checksums([array]).values()
    return described.checksum


def draw(shape, dtype="float32", seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) > 0.3).astype(dtype)


def test_arrays_are_described_by_path():
    tree = {"params": {"mlm_head": {"bias": jnp.zeros(3)}}, "opt": (jnp.int32(1),)}
    assert describe(tree) == {
        "params/mlm_head/bias": Described("float32", (3,)),
        "opt/0": Described("int32", ()),
    }
    assert describe(jax.eval_shape(lambda: tree)) == describe(tree)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4)])
def test_any_one_element_that_differs_is_noticed(dtype, shape):
    array = draw(shape, dtype)
    expected = checksum(array)
    assert checksum(jnp.array(array)) == expected
    flat = np.array(array).reshape(-1)
    for place in range(flat.size):
        other = flat.copy()
        other[place] = 1 - other[place]
        assert checksum(jnp.asarray(other.reshape(shape))) != expected


def test_the_sign_of_zero_and_the_last_bit_are_noticed():
    assert checksum(jnp.float32(0.0)) != checksum(jnp.float32(-0.0))
    assert checksum(jnp.float32(1.0)) != checksum(jnp.float32(np.nextafter(np.float32(1), 2)))


def test_elements_that_changed_places_are_noticed():
    array = jnp.arange(12.0).reshape(3, 4)
    sums = {checksum(array), checksum(array.T), checksum(array[::-1]), checksum(array[:, ::-1])}
    assert len(sums) == 4


def test_how_an_array_is_sharded_does_not_matter():
    array = draw((16, 8)) * jnp.arange(8.0)
    mesh = sharding.make_mesh(fsdp=4, tensor=2)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
    assert checksum(jax.device_put(array, place)) == checksum(array)
