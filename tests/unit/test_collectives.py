"""What a compiled program sends between devices is read from its text, loops included."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from condenser_jax.losses.chunks import sum_over_chunks
from condenser_jax.training.collectives import by_kind, collectives
from condenser_jax.training.dry_run import count_parameters, describe_collectives
from condenser_jax.training.sharding import make_mesh
from tests.helpers import QUICK
from tests.meshes import small_run

ROWS, COLUMNS = 16, 24
WHOLE = ROWS * COLUMNS * 4  # bytes of the array that is sent
TURNS = 5


def found_in(function, out, *, axes="data", mesh=None):
    """The collectives of a function of the rows of each device."""
    mesh = mesh or make_mesh(8)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(axes), out_specs=out, check_vma=False)
    x = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32)
    return collectives(jax.jit(mapped).lower(x).compile().as_text())


def summed_in_a_loop(x):
    def turn(total, _):
        return jax.lax.psum(jnp.sin(total), "data"), None

    return jax.lax.scan(turn, x, None, length=TURNS)[0]


@pytest.mark.parametrize(
    ("kind", "function", "out", "payload"),
    [
        ("all-reduce", lambda x: jax.lax.psum(x, "data"), P(), WHOLE // 8),
        ("all-gather", lambda x: jax.lax.all_gather(x, "data", tiled=True), P(), WHOLE),
        (
            "reduce-scatter",
            lambda x: jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True),
            P("data"),
            WHOLE // 8,
        ),
        (
            "all-to-all",
            lambda x: jax.lax.all_to_all(x, "data", 1, 0, tiled=True),
            P("data"),
            WHOLE // 8,
        ),
        (
            "collective-permute",
            lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
            P("data"),
            WHOLE // 8,
        ),
    ],
)
def test_the_payload_is_what_a_collective_combines(kind, function, out, payload):
    (one,) = found_in(function, out)
    assert (one.kind, one.payload, one.times) == (kind, payload, 1)
    assert one.devices == (2 if kind == "collective-permute" else 8)


def test_only_the_devices_of_a_group_count():
    function = lambda x: jax.lax.all_gather(x, "fsdp", tiled=True)  # noqa: E731
    mesh = make_mesh(2, 4)
    (one,) = found_in(function, P("data"), axes=("data", "fsdp"), mesh=mesh)
    assert (one.devices, one.payload) == (4, WHOLE // 2)


def test_what_stands_in_a_loop_counts_as_often_as_it_turns():
    (one,) = found_in(summed_in_a_loop, P())
    assert (one.times, one.loops, one.bytes) == (TURNS, 1, TURNS * WHOLE // 8)
    total = by_kind([one])["all-reduce"]
    assert total.in_loops == total.bytes == one.bytes and total.counted


def test_one_device_sends_nothing():
    assert found_in(jnp.sin, P("data")) == []
    assert describe_collectives([]) == "nothing is exchanged between devices"


def test_a_step_in_micro_batches_exchanges_its_gradient_once_after_the_last():
    run = small_run("mlm", make_mesh(8), accumulate=2)
    found = collectives(run.lower_step(("train",)).compile(QUICK).as_text())
    gradient = 4 * count_parameters(run.loaded)
    assert by_kind(found).keys() == {"all-reduce"}
    assert by_kind(found)["all-reduce"].in_loops == 0
    assert gradient <= by_kind(found)["all-reduce"].bytes < gradient + 256  # metrics, a norm


@pytest.mark.parametrize("knows_the_mesh", [True, False])
def test_only_a_sum_that_knows_the_mesh_keeps_the_exchange_out_of_its_loop(knows_the_mesh):
    def gradient(weights, chunks):
        def run(rows):
            return jax.grad(lambda weights: jnp.sin(rows @ weights).sum())(weights)

        return sum_over_chunks(run, chunks)

    mesh = make_mesh(8)
    weights = jax.ShapeDtypeStruct((COLUMNS, 4), jnp.float32, sharding=NamedSharding(mesh, P()))
    by_rows = NamedSharding(mesh, P(None, "data"))
    chunks = jax.ShapeDtypeStruct((TURNS, ROWS, COLUMNS), jnp.float32, sharding=by_rows)
    with jax.set_mesh(mesh) if knows_the_mesh else contextlib.nullcontext():
        lowered = jax.jit(gradient, out_shardings=NamedSharding(mesh, P())).lower(weights, chunks)
    (one,) = collectives(lowered.compile().as_text())
    assert one.times == (1 if knows_the_mesh else TURNS)


# What the TPU compiler writes: groups named by axes, layouts with tiles, asynchronous pairs, pieces
# of one collective, a reduce-scatter as a fusion, and no trip count but the loop's own comparison.
TPU = """
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter.1 (p.1: f32[64,32]) -> f32[16,32] {
  %p.1 = f32[64,32]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = f32[64,32]{1,0:T(8,128)} all-reduce(%p.1), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  ROOT %slice = f32[16,32]{1,0:T(8,128)} dynamic-slice(%all-reduce.1, %p.1), dynamic_slice_sizes={16,32}
}

%async_collective_fusion.2 (p.3: bf16[8,32]) -> bf16[32,32] {
  %p.3 = bf16[8,32]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %part = bf16[32,32]{1,0:T(8,128)(2,1)} all-gather(%p.3), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

%fused_computation.5 (p.4: bf16[8,32]) -> bf16[32,32] {
  %p.4 = bf16[8,32]{1,0:T(8,128)(2,1)} parameter(0)
  %whole = bf16[32,32]{1,0:T(8,128)(2,1)} all-gather(%p.4), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  ROOT %end = bf16[32,32]{1,0:T(8,128)(2,1)} custom-call(%whole), custom_call_target="AsyncCollectiveDone"
}

%less (c.0: (s32[], f32[64,32])) -> pred[] {
  %c.0 = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(12)
  %turn = s32[]{:T(128)} get-tuple-element(%c.0), index=0
  ROOT %lt = pred[]{:T(512)} compare(%turn, %limit), direction=LT
}

%body (b.0: (s32[], f32[64,32])) -> (s32[], f32[64,32]) {
  %b.0 = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)}) parameter(0)
  %rows = f32[64,32]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%b.0), index=1
  %scattered = f32[16,32]{1,0:T(8,128)} fusion(%rows), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %next = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)}) tuple(%rows, %rows)
}

ENTRY %main (p.0: bf16[8,32], p.2: (s32[], f32[64,32])) -> bf16[32,32] {
  %p.0 = bf16[8,32]{1,0:T(8,128)(2,1)} parameter(0)
  %p.2 = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)}) parameter(1)
  %start = (bf16[8,32]{1,0:T(8,128)(2,1)}, bf16[32,32]{1,0:T(8,128)(2,1)}) all-gather-start(%p.0), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  %again = bf16[32,32]{1,0:T(8,128)(2,1)} fusion(%p.0, %start), kind=kCustom, calls=%async_collective_fusion.2
  %ended = bf16[32,32]{1,0:T(8,128)(2,1)} fusion(%p.0, %again), kind=kCustom, calls=%fused_computation.5
  %done = bf16[32,32]{1,0:T(8,128)(2,1)} all-gather-done(%start)
  %loop = (s32[]{:T(128)}, f32[64,32]{1,0:T(8,128)}) while(%p.2), condition=%less, body=%body
  ROOT %result = bf16[32,32]{1,0:T(8,128)(2,1)} copy(%done)
}
"""  # noqa: E501


TWIN = (
    "%twin = bf16[32,32]{1,0} all-gather(%p.0), channel_id=3, "
    "replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}\n"
)


def test_the_text_of_the_tpu_compiler_is_understood():
    gather, scatter = collectives(TPU)
    assert (gather.kind, gather.payload, gather.devices) == ("all-gather", 32 * 32 * 2, 4)
    assert (scatter.kind, scatter.payload, scatter.devices) == ("reduce-scatter", 64 * 32 * 4, 4)
    assert (scatter.times, scatter.loops, scatter.counted) == (12, 1, True)
    assert describe_collectives([gather, scatter]) == (
        "each device exchanges: all-gather of 2.05kB in 1; "
        "reduce-scatter of 98.3kB in 12, 98.3kB of it in loops"
    )


BY_TWO = """%count = s32[]{:T(128)} get-tuple-element(%b.0), index=0
  %two = s32[]{:T(128)} constant(2)
  %counted = s32[]{:T(128)} add(%count, %two)
  ROOT %next"""


def test_a_ring_whose_loop_counts_by_two_turns_half_as_often():
    text = TPU.replace("ROOT %next", BY_TWO).replace(
        "tuple(%rows, %rows)", "tuple(%counted, %rows)"
    )
    _, scatter = collectives(text)
    assert (scatter.times, scatter.counted) == (6, True)


def test_two_exchanges_of_one_channel_are_two():
    """The compiler cuts the sum of a tree where it is too large; the parts keep their channel."""
    found = collectives(TPU.replace("%done = bf16", TWIN + "  %done = bf16"))
    assert [one.kind for one in found].count("all-gather") == 2


def test_a_loop_that_does_not_say_how_often_it_turns_is_told():
    found = collectives(TPU.replace("constant(12)", "custom-call()"))
    assert not found[1].counted and found[1].times == 1
    assert "a loop of unknown length counted as one turn" in describe_collectives(found)
