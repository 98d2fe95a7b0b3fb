"""Where every array lives: one mesh, one table of rules, first match wins.

The mesh has three axes: `data` and `fsdp` divide the batch, `fsdp` and `tensor` the parameters. A
parameter is known by the names on its path (docs/design.md section 4). Optimizer moments lie under
the same names, so one table serves parameters and the whole train state.
"""

import math
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from condenser_jax.axes import AXES, ROWS, VOCABULARY
from condenser_jax.errors import UserError
from condenser_jax.types import Batch, Tree

P = PartitionSpec
BATCH = P(ROWS)

# A product D -> wide cut by columns is followed by one wide -> D cut by rows, so attention and
# feed-forward each exchange once over `tensor`. The word table is cut along the vocabulary: cut
# along D, XLA would gather it whole before every look-up.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(word|decoder)/embedding", P(VOCABULARY, None)),
    (r"embeddings/(position|token_type)/embedding", P()),
    (r"layer_norm/(scale|bias)", P()),
    (r"(query|key|value|intermediate)/kernel", P("fsdp", "tensor")),
    (r"(query|key|value|intermediate)/bias", P("tensor")),
    (r"output/kernel", P("tensor", "fsdp")),
    (r"output/bias", P()),
    (r"(transform|projection|logit)/kernel", P("fsdp", None)),
    (r"(transform|projection|logit)/bias", P()),
    (r"(mlm_head|tutor)/bias", P(VOCABULARY)),
)


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns the mesh (data, fsdp, tensor) over `devices` (default: all); -1 means what is left.

    Raises UserError when the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    text = " x ".join(f"{axis}={size}" for axis, size in shape.items())
    free = [axis for axis, size in shape.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in shape.values()):
        raise UserError(
            f"mesh {text}: every axis must be positive; at most one may be -1 (the rest)"
        )
    fixed = math.prod(size for size in shape.values() if size != -1)
    if len(devices) % fixed or (not free and fixed != len(devices)):
        raise UserError(
            f"mesh {text} does not fit {len(devices)} devices; set mesh.data=-1 and choose "
            f"mesh.fsdp x mesh.tensor among the divisors of {len(devices)}"
        )
    sizes = tuple(len(devices) // fixed if size == -1 else size for size in shape.values())
    # The default of jax.make_mesh is explicit axes, which put shardings into our arrays' types.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _names(path: jax.tree_util.KeyPath) -> str:
    """The dictionary keys of a path: a parameter's name, without the optimizer's own levels."""
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def rule_for(name: str) -> PartitionSpec:
    """The first rule that matches the tail of a parameter's name; every parameter must have one."""
    for pattern, spec in RULES:
        if re.search(rf"(^|/){pattern}$", name):
            return spec
    raise AssertionError(f"no sharding rule for parameter {name!r}; add one to RULES")


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Replicates every dimension that its mesh axes do not divide."""
    fitted = []
    for size, axes in zip(shape, spec, strict=False):
        names = (axes,) if isinstance(axes, str) else (axes or ())
        pieces = math.prod(mesh.shape[name] for name in names)
        fitted.append(axes if size % pieces == 0 else None)
    return P(*fitted)


def parameter_shardings(tree: Tree, mesh: Mesh) -> Tree:
    """Returns a NamedSharding per leaf of an (abstract) tree of parameters or a whole train state.

    Scalars (counters, flags) are replicated. Raises AssertionError for a parameter without a rule.
    """

    def leaf_sharding(path, leaf):
        spec = P() if leaf.ndim == 0 else _fit(rule_for(_names(path)), leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis of a batch is divided over data and fsdp, and repeated over tensor."""
    return NamedSharding(mesh, BATCH)


def check_batch(
    batch_size: int, mesh: Mesh, accumulate: int = 1, name: str = "training.batch_size"
) -> None:
    """Raises UserError, under the key's `name`, unless each micro-batch divides over the mesh."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    multiple = shards * accumulate
    if batch_size > 0 and batch_size % multiple == 0:
        return
    what = f"{shards} devices"
    if mesh.shape["tensor"] > 1:
        what = f"{shards} groups of {mesh.shape['tensor']} devices"
    if accumulate > 1:
        what += f" x {accumulate} micro-batches"
    below = max(batch_size, 0) // multiple * multiple
    advice = f"{below} or {below + multiple}" if below else f"{multiple}"
    raise UserError(f"{name} {batch_size} is not divisible by {what}; use {advice}.")


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the rows of the global batch that this process must build, ascending."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def to_global(batch: Mapping[str, np.ndarray], mesh: Mesh, batch_size: int) -> Batch:
    """Makes global arrays [B, ...] of this process's rows, in the order of `local_rows`."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))
        for name, rows in batch.items()
    }
