"""What a run would cost, found out by compiling its step and running it a few times; nothing is
written.
"""

import time
from collections.abc import Iterator

import jax
import numpy as np

from condenser_jax.training.hooks import duration, human
from condenser_jax.training.loop import Run
from condenser_jax.training.sharding import local_rows, to_global
from condenser_jax.types import Tree

MEASURED_STEPS = 3


def count_parameters(tree: Tree) -> int:
    """How many numbers a tree of arrays (or of their shapes) holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def describe_run(run: Run) -> Iterator[str]:
    """What a run is, line by line: mesh, batch, parameters per group."""
    shape = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    kind = run.mesh.devices.flat[0].device_kind
    yield f"mesh: {shape} ({run.mesh.devices.size} x {kind}, {jax.process_count()} process(es))"
    shards = run.mesh.shape["data"] * run.mesh.shape["fsdp"]
    micro = f" in {run.accumulate} micro-batches" if run.accumulate > 1 else ""
    yield (
        f"batch: {run.batches.batch_size} rows{micro}, "
        f"{run.batches.batch_size // shards} per device; "
        f"{human(run.tokens_per_step)} tokens per step; {human(run.flops_per_token)}FLOP per token"
    )
    params = run.abstract_state().params
    for group, tree in params.items():
        trained = "trained" if group in run.optimizers else "fixed"
        yield f"parameters: {group} {human(count_parameters(tree))} ({trained})"
    for group, tree in run.frozen.items():
        yield f"parameters: {group} {human(count_parameters(tree))} (frozen)"


def dry_run(run: Run, steps_per_epoch: int) -> Iterator[str]:
    """Compiles and times every step function of the schedule; yields the findings line by line."""
    yield from describe_run(run)
    state = run.initial_state()
    rows = local_rows(run.batches.batch_size, run.mesh)
    for active in dict.fromkeys(_phases(run)):
        began = time.perf_counter()
        step = run.compile_step(active)
        seconds = time.perf_counter() - began
        name = "+".join(active)
        yield f"step {name}: compiled in {seconds:.1f} s; {_memory(step)}"
        times = []
        for number in range(MEASURED_STEPS + 1):
            batch = to_global(run.batches.batch(number, rows), run.mesh, run.batches.batch_size)
            began = time.perf_counter()
            state, metrics = step(state, run.frozen, batch)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - began)
        pace = float(np.median(times[1:]))  # the first one warms up
        yield (
            f"step {name}: {pace * 1e3:.0f} ms, {human(run.tokens_per_step / pace)} tokens/s; "
            f"{duration(pace * steps_per_epoch)} per epoch of {steps_per_epoch} steps; "
            f"{duration(pace * run.steps)} for the {run.steps} steps of this run"
        )


def _phases(run: Run) -> Iterator[tuple[str, ...]]:
    schedule = run.objective.schedule
    yield from (active for active, _ in schedule.prelude)
    yield from schedule.cycle


def _memory(step: jax.stages.Compiled) -> str:
    """Bytes of a compiled step per device, as far as the backend tells them."""
    found = step.memory_analysis()
    if found is None:
        return "memory unknown on this backend"
    arguments, temporaries = found.argument_size_in_bytes, found.temp_size_in_bytes
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return (
        f"{human(arguments + temporaries + new)}B per device "
        f"({human(arguments)}B state and batch, {human(temporaries)}B temporaries)"
    )
