"""How many rows of a batch are encoded at a time: `compute.chunk_size`, checked, or found.

Gradient caching bounds the memory of a step by a chunk of the batch. `auto` takes the largest
chunk whose compiled step fits into the memory of a device.
"""

import dataclasses
import logging
import math
from collections.abc import Callable

from jax.sharding import Mesh

from condenser_jax.cluster import least_everywhere
from condenser_jax.errors import UserError
from condenser_jax.objectives.base import Objective
from condenser_jax.training.loop import Run
from condenser_jax.training.memory import DoesNotFit, device_memory, memory_of

log = logging.getLogger("condenser_jax")
USABLE = 0.9  # share of a device's memory that a step may take: the rest is the runtime's
WHOLE, AUTO = "all", "auto"


def in_chunks(run: Run, chunk_size: int | str, make: Callable[[int], Objective]) -> Run:
    """The run with its batch encoded in chunks, as `compute.chunk_size` says.

    Args:
      make: rows of the global batch -> the run's objective with chunks of so many rows.
    """
    if run.objective.accumulates:
        if chunk_size != WHOLE:
            raise UserError(
                f"compute.chunk_size is {chunk_size!r}, but this objective does not contrast "
                "within the batch; leave it at 'all' and set training.accumulate to save memory."
            )
        return run

    def chunked(rows: int) -> Run:
        objective = dataclasses.replace(run.objective, losses=make(rows).losses)
        return dataclasses.replace(run, objective=objective)

    def bytes_of_step(rows: int) -> float:
        try:
            return memory_of(chunked(rows).compile_step(run.objective.schedule.cycle[0])).peak
        except DoesNotFit:
            return math.inf

    return chunked(chunk_rows(chunk_size, run.batches.batch_size, run.mesh, bytes_of_step))


def check_chunk(chunk_size: int | str, batch_size: int, mesh: Mesh) -> None:
    """Raises UserError for a `compute.chunk_size` that is none; before anything is prepared."""
    if chunk_size != AUTO:
        chunk_rows(chunk_size, batch_size, mesh, bytes_of_step=lambda rows: 0)


def possible_chunks(batch_size: int, mesh: Mesh) -> list[int]:
    """Rows per device that may be a chunk, ascending: the divisors of a device's share of rows."""
    share = batch_size // _shards(mesh)
    return [size for size in range(1, share + 1) if share % size == 0]


def chunk_rows(
    chunk_size: int | str, batch_size: int, mesh: Mesh, bytes_of_step: Callable[[int], float]
) -> int:
    """Rows of the global batch that are encoded at a time.

    Args:
      chunk_size: rows per device as configured: a number, "all" or "auto".
      bytes_of_step: rows of the global batch -> bytes per device of the step with such chunks.

    Raises UserError for what is no such value, does not divide a device's rows, or does not fit.
    """
    possible = possible_chunks(batch_size, mesh)
    if chunk_size == AUTO:
        rows = largest_that_fits(possible, lambda size: bytes_of_step(size * _shards(mesh)), mesh)
    else:
        rows = possible[-1] if chunk_size == WHOLE else _number(chunk_size)
    if rows not in possible:
        near = min(possible, key=lambda size: abs(size - rows))
        raise UserError(
            f"compute.chunk_size {rows} does not divide the {possible[-1]} rows of each device "
            f"(training.batch_size {batch_size} over {_shards(mesh)}); use {near}, 'all' or 'auto'."
        )
    return rows * _shards(mesh)


def largest_that_fits(possible: list[int], bytes_of: Callable[[int], float], mesh: Mesh) -> int:
    """The largest of `possible` (ascending) whose bytes fit every device, by bisection.

    All processes find the same one: they compile the same steps, and the least memory counts.
    """
    limit = USABLE * least_everywhere(device_memory(mesh.devices.flat[0]))
    least, fits, beyond = bytes_of(possible[0]), 0, len(possible)
    if least > limit:
        needs = "more" if math.isinf(least) else f"{least / 1e9:.1f} GB"
        raise UserError(
            f"compute.chunk_size='auto': {limit / 1e9:.1f} GB of each device may be used, and even "
            f"a chunk of {possible[0]} needs {needs}; use a smaller batch, compute.remat=True or a "
            "larger mesh.fsdp."
        )
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if bytes_of(possible[middle]) <= limit:
            fits = middle
        else:
            beyond = middle
    log.info(
        "gradient caching: chunks of %d of %d rows per device, the largest that fits %.1f GB",
        possible[fits],
        possible[-1],
        limit / 1e9,
    )
    return possible[fits]


def _number(chunk_size: int | str) -> int:
    if isinstance(chunk_size, int) or chunk_size.isdecimal():
        return int(chunk_size)
    raise UserError(
        f"compute.chunk_size is {chunk_size!r}; expected rows per device, 'all' or 'auto'."
    )


def _shards(mesh: Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]
