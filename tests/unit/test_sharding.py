"""Every parameter has a place, the batch is cut over the mesh, and misfits are named."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from condenser_jax.errors import UserError
from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.minilm import MiniLmV2Config
from condenser_jax.training import sharding
from condenser_jax.training.state import create_state
from tests.distillation import build_any


def layer(width, wide):
    def dense(rows, columns):
        return {"kernel": jnp.zeros((rows, columns)), "bias": jnp.zeros(columns)}

    norm = {"scale": jnp.zeros(width), "bias": jnp.zeros(width)}
    names = ("query", "key", "value", "output")
    return {
        "attention": {**{name: dense(width, width) for name in names}, "layer_norm": norm},
        "feed_forward": {
            "intermediate": dense(width, wide),
            "output": dense(wide, width),
            "layer_norm": norm,
        },
    }


def parameters(width=16, wide=32, vocabulary=128):
    def table(rows):
        return {"embedding": jnp.zeros((rows, width))}

    norm = {"scale": jnp.zeros(width), "bias": jnp.zeros(width)}
    embeddings = {"word": table(vocabulary), "position": table(8), "token_type": table(2)}
    transform = {"kernel": jnp.zeros((width, width)), "bias": jnp.zeros(width)}
    return {
        "backbone": {
            "embeddings": {**embeddings, "layer_norm": norm},
            "layers": {"layer_0": layer(width, wide)},
        },
        "mlm_head": {"transform": transform, "layer_norm": norm, "bias": jnp.zeros(vocabulary)},
        "condenser_head": {"layer_0": layer(width, wide)},
    }


def specs(tree, mesh):
    shardings = sharding.parameter_shardings(tree, mesh)
    return {
        jax.tree_util.keystr(path): sharding.spec
        for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)
    }


def test_minus_one_takes_the_devices_that_are_left():
    mesh = sharding.make_mesh(data=-1, fsdp=2, tensor=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_a_mesh_may_use_some_of_the_devices():
    assert sharding.make_mesh(devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize("axes", [{"fsdp": 3}, {"data": 4}, {"data": 16}])
def test_a_mesh_that_does_not_fit_is_refused(axes):
    with pytest.raises(UserError, match=r"does not fit 8 devices; set mesh.data=-1"):
        sharding.make_mesh(**axes)


@pytest.mark.parametrize("axes", [{"fsdp": -1}, {"tensor": 0}])
def test_an_impossible_axis_is_refused(axes):
    with pytest.raises(UserError, match="every axis must be positive; at most one may be -1"):
        sharding.make_mesh(**axes)


def test_the_rules_cut_kernels_and_the_vocabulary():
    found = specs(parameters(), sharding.make_mesh(fsdp=2, tensor=2))
    attention = "['backbone']['layers']['layer_0']['attention']"
    assert found[f"{attention}['query']['kernel']"] == P("fsdp", "tensor")
    assert found[f"{attention}['query']['bias']"] == P("tensor")
    assert found[f"{attention}['output']['kernel']"] == P("tensor", "fsdp")
    words = found["['backbone']['embeddings']['word']['embedding']"]
    assert words == P(("tensor", "fsdp"), None)
    assert found["['mlm_head']['bias']"] == P(("tensor", "fsdp"))
    head = "['condenser_head']['layer_0']['feed_forward']['intermediate']['kernel']"
    assert found[head] == P("fsdp", "tensor")


def test_optimizer_moments_lie_where_their_parameters_lie():
    mesh = sharding.make_mesh(fsdp=2, tensor=2)
    params = parameters()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state = {group: optimizer.init(tree) for group, tree in params.items()}
    placed = sharding.parameter_shardings(params, mesh)
    moments = sharding.parameter_shardings(state, mesh)
    for group in params:
        assert jax.tree.leaves(moments[group][1][0].mu) == jax.tree.leaves(placed[group])


def test_scalars_are_replicated():
    found = specs({"step": jnp.zeros(()), "finite": jnp.ones((), bool)}, sharding.make_mesh())
    assert set(found.values()) == {P()}


def test_a_dimension_that_does_not_divide_is_replicated():
    found = specs(parameters(vocabulary=126), sharding.make_mesh(fsdp=2, tensor=2))
    assert found["['backbone']['embeddings']['word']['embedding']"] == P(None, None)
    assert found["['mlm_head']['bias']"] == P(None)
    attention = "['backbone']['layers']['layer_0']['attention']"
    assert found[f"{attention}['key']['kernel']"] == P("fsdp", "tensor")


def test_a_parameter_without_a_rule_is_our_mistake():
    with pytest.raises(AssertionError, match="no sharding rule for parameter 'backbone/gate'"):
        sharding.parameter_shardings({"backbone": {"gate": jnp.zeros(4)}}, sharding.make_mesh())


def test_a_name_must_match_as_a_whole():
    with pytest.raises(AssertionError):
        sharding.rule_for("backbone/monkey/kernel")


@pytest.mark.parametrize(
    "axes", [{}, {"fsdp": 4}, {"tensor": 2}, {"data": 2, "fsdp": 2, "tensor": 2}]
)
def test_rows_go_to_devices_and_come_back_in_order(axes):
    mesh = sharding.make_mesh(**axes)
    rows = sharding.local_rows(16, mesh)
    np.testing.assert_array_equal(rows, np.arange(16))
    ids = np.arange(48, dtype=np.int32).reshape(16, 3)
    batch = sharding.to_global({"input_ids": ids[rows]}, mesh, 16)
    assert batch["input_ids"].sharding.spec == P(("data", "fsdp"))
    assert batch["input_ids"].addressable_data(0).shape == (16 * mesh.shape["tensor"] // 8, 3)
    np.testing.assert_array_equal(batch["input_ids"], ids)


@pytest.mark.parametrize(
    ("axes", "batch_size", "accumulate", "text"),
    [
        ({}, 100, 1, "training.batch_size 100 is not divisible by 8 devices; use 96 or 104."),
        ({}, 4, 1, "training.batch_size 4 is not divisible by 8 devices; use 8."),
        ({}, 0, 1, "training.batch_size 0 is not divisible by 8 devices; use 8."),
        (
            {},
            40,
            2,
            "training.batch_size 40 is not divisible by 8 devices x 2 micro-batches; use 32 or 48.",
        ),
        (
            {"tensor": 2},
            6,
            1,
            "training.batch_size 6 is not divisible by 4 groups of 2 devices; use 4 or 8.",
        ),
    ],
)
def test_a_batch_that_the_mesh_cannot_divide_is_refused(axes, batch_size, accumulate, text):
    with pytest.raises(UserError) as error:
        sharding.check_batch(batch_size, sharding.make_mesh(**axes), accumulate)
    assert str(error.value) == text


def test_a_batch_that_fits_is_accepted():
    sharding.check_batch(96, sharding.make_mesh(), accumulate=3)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_of_every_method_has_a_rule(name):
    backbone = BackboneConfig(
        vocab_size=100, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32
    )
    options = MiniLmV2Config(relation_heads=4) if name == "minilmv2" else None
    objective, frozen = build_any(name, backbone, ComputeConfig(), options)
    params = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))
    for tree in (params, frozen):
        shardings = sharding.parameter_shardings(tree, sharding.make_mesh(fsdp=2, tensor=2))
        assert jax.tree.structure(shardings) == jax.tree.structure(tree)


def bytes_of_bert_base(mesh):
    """Bytes of each leaf of the train state, whole and on one device; nothing is allocated."""
    method = METHODS["condenser"]
    objective = method.build(BackboneConfig(30522), ComputeConfig(), method.options())
    optimizers = {group: optax.adamw(1e-4) for group in objective.exports}
    create = functools.partial(create_state, objective, optimizers, loaded={})
    shapes = jax.eval_shape(create, jax.random.key(0))
    placed = sharding.parameter_shardings(shapes, mesh)

    def sizes(leaf, place):
        width = leaf.dtype.itemsize
        return math.prod(leaf.shape) * width, math.prod(place.shard_shape(leaf.shape)) * width

    return np.array(jax.tree.leaves(jax.tree.map(sizes, shapes, placed))).reshape(-1, 2)


def test_fsdp_leaves_an_eighth_of_bert_base_s_state_on_a_device():
    whole, own = bytes_of_bert_base(sharding.make_mesh(fsdp=8)).T
    assert own.sum() < 1.05 * whole.sum() / 8
    assert own.max() == whole.max() / 8  # the word table and its moments
    assert own[own == whole].max() < 0.02 * whole.max()  # what is whole everywhere is small
    whole, own = bytes_of_bert_base(sharding.make_mesh(data=8)).T
    assert (own == whole).all()
