"""What a run would cost, found out by compiling its step and, where its devices are there, running
it a few times; nothing is written.
"""

import time
from collections.abc import Iterator

import jax
import numpy as np

from condenser_jax.training.collectives import Collective, by_kind, collectives
from condenser_jax.training.loop import Run
from condenser_jax.training.memory import device_memory, explained_if_too_large, memory_of
from condenser_jax.training.progress import duration, human
from condenser_jax.training.sharding import local_rows, to_global
from condenser_jax.types import Tree

MEASURED_STEPS = 3
LOOP = " while("  # in the compiler's text


def count_parameters(tree: Tree) -> int:
    """How many numbers a tree of arrays (or of their shapes) holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def describe_run(run: Run) -> Iterator[str]:
    """What a run is, line by line: mesh, batch, parameters per group."""
    shape = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    devices = list(run.mesh.devices.flat)
    processes = len({device.process_index for device in devices})
    yield f"mesh: {shape} ({len(devices)} x {devices[0].device_kind}, {processes} process(es))"
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


def dry_run(run: Run, steps_per_epoch: int, *, measured: bool = True) -> Iterator[str]:
    """Compiles every step function of the schedule; yields the findings line by line.

    Args:
      measured: also run each a few times; False where the devices are not there.
    """
    yield from describe_run(run)
    for active in dict.fromkeys(_phases(run)):
        began = time.perf_counter()
        step = run.compile_step(active)
        name, seconds = "+".join(active), time.perf_counter() - began
        text = step.as_text() or ""
        yield f"step {name}: compiled in {seconds:.1f} s; {_memory(run, step)}"
        yield f"step {name}: {_flops(run, step, has_loops=LOOP in text)}"
        yield f"step {name}: {describe_collectives(collectives(text))}"
        if measured:
            pace = _measure(run, step)
            yield (
                f"step {name}: {pace * 1e3:.0f} ms, {human(run.tokens_per_step / pace)} tokens/s; "
                f"{duration(pace * steps_per_epoch)} per epoch of {steps_per_epoch} steps; "
                f"{duration(pace * run.steps)} for the {run.steps} steps of this run"
            )


def _phases(run: Run) -> Iterator[tuple[str, ...]]:
    schedule = run.objective.schedule
    yield from (active for active, _ in schedule.prelude)
    yield from schedule.cycle


def _measure(run: Run, step: jax.stages.Compiled) -> float:
    """Median seconds of a few steps from the start; the first one warms up."""
    state = run.initial_state()
    rows = local_rows(run.batches.batch_size, run.mesh)
    times = []
    for number in range(MEASURED_STEPS + 1):
        batch = to_global(run.batches.batch(number, rows), run.mesh, run.batches.batch_size)
        began = time.perf_counter()
        with explained_if_too_large(run.mesh.devices.flat[0]):
            state, metrics = step(state, run.placed, batch, run.dials)
            jax.block_until_ready(metrics)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def _memory(run: Run, step: jax.stages.Compiled) -> str:
    """What a step takes of each device, and what a device has."""
    need, device = memory_of(step), run.mesh.devices.flat[0]
    return (
        f"{human(need.peak)}B of the {human(device_memory(device))}B of each device "
        f"({human(need.arguments)}B state and batch, {human(need.temporaries)}B temporaries)"
    )


def _flops(run: Run, step: jax.stages.Compiled, has_loops: bool) -> str:
    """Operations per token as counted on paper and by the compiler."""
    counted = compiled_flops(step) * run.mesh.devices.size / run.tokens_per_step
    once = ", which counts the body of a loop once" if has_loops else ""
    return (
        f"{human(run.flops_per_token)}FLOP per token on paper, {human(counted)}FLOP by the "
        f"compiler{once}"
    )


def compiled_flops(step: jax.stages.Compiled) -> float:
    """Operations of one device in a step, as the compiler counts them; 0 where it does not."""
    found = step.cost_analysis() or {}
    return found.get("flops", 0.0)


def describe_collectives(found: list[Collective]) -> str:
    """One line on what each device exchanges with others in a step."""
    if not found:
        return "nothing is exchanged between devices"
    parts = []
    for kind, total in by_kind(found).items():
        loops = f", {human(total.in_loops)}B of it in loops" if total.in_loops else ""
        unknown = "" if total.counted else ", a loop of unknown length counted as one turn"
        parts.append(f"{kind} of {human(total.bytes)}B in {total.times}{loops}{unknown}")
    return f"each device exchanges: {'; '.join(parts)}"
