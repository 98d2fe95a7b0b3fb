"""What gradient caching saves and costs: coCondenser steps with and without, at equal batches.

    python benchmarks/gradient_cache.py                 # memory against batch, operations, time
    python benchmarks/gradient_cache.py --step=4096     # one real step of 4096 spans in chunks

6 layers x 384 (BERT's vocabulary, dropout 0.1), spans of 64 tokens, float32 on CPU. Memory is what
the compiler plans for the step (state, batch and temporaries); --step runs it, and tells the peak
of the device, on a CPU of the process. Appends JSON to docs/benchmarks/gradient_cache.jsonl.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
from pathlib import Path
from time import perf_counter

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from condenser_jax.environment import tune_process  # noqa: E402

tune_process()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
from condenser_in_jax import (  # noqa: E402
    CLIP_NORM,
    DIALS,
    SEED,
    WEIGHT_DECAY,
    backbone_of,
    peak_memory,
)
from condenser_job import HEAD_LAYERS, SIZES, Job, make_batch  # noqa: E402
from flag_types import count, limit  # noqa: E402

from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.models.dropout import dropout_of_step, key_of_run  # noqa: E402
from condenser_jax.objectives import cocondenser  # noqa: E402
from condenser_jax.objectives.language_model import slots_of  # noqa: E402
from condenser_jax.training.memory import memory_of  # noqa: E402
from condenser_jax.training.optimizers import OptimizerConfig, build_optimizers  # noqa: E402
from condenser_jax.training.state import create_state  # noqa: E402
from condenser_jax.training.step import make_step  # noqa: E402

LENGTH, CHUNK = 64, 32
BATCHES = (256, 512, 1024, 2048, 4096)
TIMED_BATCH, TIMED_CHUNK = 256, 64
OUTPUT = record.FOLDER / "gradient_cache.jsonl"


def job_of(batch: int) -> Job:
    """The job of so many spans."""
    layers, width, heads, inner, _ = SIZES["small"]
    return Job(layers, width, heads, inner, batch, LENGTH, "float32")


def pairs_of(job: Job) -> dict[str, np.ndarray]:
    """The job's batch, as pairs of spans."""
    return make_batch(job) | {"document": np.arange(job.batch, dtype=np.int32) // 2}


def options_of(job: Job) -> cocondenser.CoCondenserConfig:
    """The objective of a job."""
    return cocondenser.CoCondenserConfig(early_layer=job.early_layer, head_layers=HEAD_LAYERS)


def build(job: Job, chunk: int):
    """The function that makes a state, and the step in chunks of so many spans (0: none)."""
    compute = ComputeConfig(dtype=job.dtype, chunk_rows=chunk)
    objective = cocondenser.build(backbone_of(job), compute, options_of(job))
    config = OptimizerConfig(warmup=0.0, decay="constant", weight_decay=WEIGHT_DECAY)
    optimizers = build_optimizers(config, objective, steps=1)
    create = functools.partial(create_state, objective, optimizers, loaded={})
    step = make_step(objective, optimizers, ("train",), clip_norm=CLIP_NORM)
    return create, jax.jit(step, donate_argnums=0)


def compiled(job: Job, chunk: int) -> jax.stages.Compiled:
    """The compiled step; nothing is allocated."""
    create, step = build(job, chunk)
    return step.lower(
        jax.eval_shape(create, jax.random.key(SEED)), {}, pairs_of(job), DIALS
    ).compile()


def memory() -> list[dict]:
    """Planned bytes of the step against the batch, in chunks and whole."""
    print(f"{'spans':>8}{f'chunks of {CHUNK}':>16}{'whole':>12}   planned GB of a step")
    rows = []
    for batch in BATCHES:
        row = {"batch": batch}
        for name, chunk in (("cached", CHUNK), ("whole", 0)):
            row[name] = memory_of(compiled(job_of(batch), chunk)).peak
        print(f"{batch:>8}{row['cached'] / 1e9:>16.2f}{row['whole'] / 1e9:>12.2f}", flush=True)
        rows.append(row)
    return rows


def operations() -> dict[str, float]:
    """Compiled operations of a chunk's two passes over those of its gradient alone.

    `cost_analysis` counts the body of a loop once, so the parts of the loop are compiled alone.
    """
    job = job_of(TIMED_CHUNK)
    model = cocondenser.CoCondenser(backbone_of(job), ComputeConfig(), options_of(job))
    counts = cocondenser.count_spans(pairs_of(job))
    params = jax.eval_shape(lambda key: model.init(key, {}), jax.random.key(SEED))

    def encode(params, batch, rows):
        return model.model.late_cls(params, batch, dropout_of_step(key_of_run(SEED), 0, rows))

    def loss(params, batch, rows):
        slots, dropout = slots_of(batch, lean=True), dropout_of_step(key_of_run(SEED), 0, rows)
        head, late, cls = model.states(params, batch, slots, dropout)
        return model.masked_lm_loss(params, head, late, slots, counts).value + cls.sum()

    def count(function) -> float:
        rows = jnp.arange(job.batch)
        lowered = jax.jit(function).lower(params, pairs_of(job), rows)
        return lowered.compile().cost_analysis()["flops"]

    first, second = count(encode), count(jax.value_and_grad(loss))
    ratio = (first + second) / second
    print(
        f"operations: {ratio:.3f} times those of the plain step (first pass {first / 1e9:.1f}, "
        f"second {second / 1e9:.1f} GFLOP for {job.batch} spans)"
    )
    return {"first_pass": first, "second_pass": second, "ratio": round(ratio, 4)}


class Steps:
    """A training step that is ready to be timed."""

    def __init__(self, job: Job, chunk: int) -> None:
        create, self.step = build(job, chunk)
        self.state = jax.jit(create)(jax.random.key(SEED))
        self.batch = jax.tree.map(jnp.asarray, pairs_of(job))

    def run(self) -> tuple[float, float]:
        """(seconds, loss) of one step."""
        began = perf_counter()
        self.state, metrics = self.step(self.state, {}, self.batch, DIALS)
        total, count = jax.device_get(metrics["train/loss"])
        return perf_counter() - began, float(total / count)


def times(rounds: int) -> dict[str, float]:
    """Seconds of a step, in chunks and whole, in turns."""
    job = job_of(TIMED_BATCH)
    contenders = {"cached": Steps(job, TIMED_CHUNK), "whole": Steps(job, 0)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, steps in contenders.items():
            took, loss = steps.run()
            if number:  # the first one compiles
                seconds[name].append(took)
            print(f"  {name:8}{took:8.2f} s   loss {loss:.4f}", flush=True)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    ratio = statistics.median(ratios)
    print(f"time: {ratio:.2f} times the plain step, {TIMED_BATCH} spans in chunks of {TIMED_CHUNK}")
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    return {"batch": TIMED_BATCH, "chunk": TIMED_CHUNK, **medians, "ratio": round(ratio, 3)}


def real_step(batch: int, chunk: int) -> dict[str, float]:
    """One step that is really run: seconds (compilation among them), loss, peak of the device."""
    seconds, loss = Steps(job_of(batch), chunk).run()
    peak = peak_memory()
    print(
        f"{batch} spans of {LENGTH} tokens in chunks of {chunk}: {seconds:.1f} s with compilation, "
        f"loss {loss:.4f}, peak {peak / 1e9:.2f} GB"
    )
    return {
        "batch": batch,
        "chunk": chunk,
        "seconds_with_compilation": round(seconds, 2),
        "loss": round(loss, 4),
        "peak_memory": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=count, help="run one step of so many spans, nothing else")
    parser.add_argument("--chunk", type=limit, default=CHUNK, help="spans of a chunk of --step")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    found: dict = {
        "model": dataclasses.asdict(job_of(0)) | {"batch": None},
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    if arguments.step:
        found["step"] = real_step(arguments.step, arguments.chunk)
    else:
        found["operations"] = operations()
        found["memory"] = {"chunk": CHUNK, "planned_bytes": memory()}
        found["time"] = times(arguments.rounds)
    record.append(arguments.output, found)


if __name__ == "__main__":
    main()
