"""Rows stay where they are: what travels along fsdp are weights; a table's gradient is cut as the
table is.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from condenser_jax.axes import divided_by_rows, divided_by_vocabulary
from condenser_jax.models import bert
from condenser_jax.models.config import ComputeConfig
from condenser_jax.training.collectives import collectives
from condenser_jax.training.sharding import batch_sharding, make_mesh, parameter_shardings
from tests.helpers import QUICK, tiny_backbone

ROWS, LENGTH = 32, 24


def constraints_of(function, x, mesh):
    """The shardings that a function holds arrays to."""
    with jax.set_mesh(mesh):
        text = str(jax.make_jaxpr(function)(x))
    return text.count("sharding_constraint"), text


@pytest.mark.parametrize(("axes", "rows"), [((8, 1, 1), "'data'"), ((2, 2, 2), "('data', 'fsdp')")])
def test_rows_are_divided_over_data_and_fsdp(axes, rows):
    count, text = constraints_of(divided_by_rows, jnp.zeros((16, 3, 5)), make_mesh(*axes))
    assert count == 1 and f"spec=P({rows}, UNCONSTRAINED, UNCONSTRAINED)" in text


def test_the_vocabulary_is_divided_over_tensor_and_fsdp():
    count, text = constraints_of(divided_by_vocabulary, jnp.zeros((128, 4)), make_mesh(2, 2, 2))
    assert count == 1 and "spec=P(('tensor', 'fsdp'), UNCONSTRAINED)" in text


def test_within_a_shard_map_over_data_the_rest_is_divided_over_fsdp():
    mapped = jax.shard_map(
        divided_by_rows, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}
    )
    count, text = constraints_of(mapped, jnp.zeros((16, 3)), make_mesh(4, 2, 1))
    assert count == 1 and "spec=P('fsdp', UNCONSTRAINED)" in text


def test_one_device_rows_that_do_not_divide_and_code_without_a_mesh_are_left_alone():
    one = make_mesh(devices=jax.devices()[:1])
    assert constraints_of(divided_by_rows, jnp.zeros((16, 3)), one)[0] == 0
    assert constraints_of(divided_by_rows, jnp.zeros((1, 3)), make_mesh(1, 8, 1))[0] == 0
    assert "sharding_constraint" not in str(jax.make_jaxpr(divided_by_rows)(jnp.zeros((16, 3))))


def largest_payload_and_weight():
    """Bytes: the most that one collective of a backward pass carries under fsdp, and the largest
    weight. Layers are scanned: the state that goes around has no sharding of its own.
    """
    config, mesh = tiny_backbone(num_layers=2), make_mesh(1, 8, 1)
    backbone = bert.Backbone(config, ComputeConfig(scan_layers=True))
    ids = jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32, sharding=batch_sharding(mesh))
    shapes = jax.eval_shape(backbone.init, jax.random.key(0), ids, ids)["params"]
    places = parameter_shardings({"backbone": shapes}, mesh)["backbone"]
    params = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places
    )

    def total(params, ids):
        return (backbone.apply({"params": params}, ids, jnp.ones_like(ids))[0] ** 2).sum()

    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(total), out_shardings=places).lower(params, ids).compile(QUICK)
    sent = collectives(compiled.as_text())
    return max(one.payload for one in sent), max(4 * s.size for s in jax.tree.leaves(shapes))


def test_along_fsdp_weights_travel_and_activations_stay():
    payload, weight = largest_payload_and_weight()
    assert payload <= 2 * weight  # one exchange may carry both layers' gradients


def test_without_the_constraint_activations_of_all_rows_travel(monkeypatch):
    monkeypatch.setattr(bert, "divided_by_rows", lambda x: x)
    payload, weight = largest_payload_and_weight()
    assert payload > 4 * weight
