"""Compiles the papers' steps for TPU slices that are not there; checks what they would exchange.

    pip install -e ".[tpu]"
    python benchmarks/topologies.py
    python benchmarks/topologies.py --slices v5e:4x4 --methods condenser --layouts data

BERT-base as `configs/condenser.py:paper` and `configs/cocondenser.py:paper` have it, shapes only:
no data, no weights, no network. Each compilation takes minutes; a line goes to
docs/benchmarks/topologies.jsonl, and docs/benchmarks/topologies.md shows the last line of each. A
step that does not fit, or exchanges what its sharding does not need, ends the command with 1.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import jax  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402

from condenser_jax.build import compute_config  # noqa: E402
from condenser_jax.config import RunConfig  # noqa: E402
from condenser_jax.data.masking import slots_of  # noqa: E402
from condenser_jax.feeds.spans import PAIRS  # noqa: E402
from condenser_jax.methods import METHODS, configure  # noqa: E402
from condenser_jax.models.config import BackboneConfig  # noqa: E402
from condenser_jax.training.collectives import by_kind, collectives  # noqa: E402
from condenser_jax.training.dry_run import compiled_flops, count_parameters  # noqa: E402
from condenser_jax.training.flops import train_flops_per_token  # noqa: E402
from condenser_jax.training.loop import Run  # noqa: E402
from condenser_jax.training.memory import DoesNotFit, device_memory, memory_of  # noqa: E402
from condenser_jax.training.optimizers import build_optimizers  # noqa: E402
from condenser_jax.training.sharding import make_mesh  # noqa: E402
from condenser_jax.training.topology import EFFORT, topology_devices  # noqa: E402
from configs import cocondenser, condenser  # noqa: E402

CONFIGS = {"condenser": condenser, "cocondenser": cocondenser}
SLICES = ("v4:2x2x4", "v5e:4x4", "v5p:2x2x2", "v6e:4x4")
LAYOUTS = {"data": {"data": -1, "fsdp": 1}, "fsdp": {"data": 1, "fsdp": -1}}
CHUNK = 64  # rows per device encoded at a time, where the method caches gradients
VOCABULARY = 30522  # of bert-base-uncased
SMALL = 2**20  # bytes: metrics, norms and what a compiler keeps in step with
MODEL = (
    "hidden_size num_layers num_heads intermediate_size initializer_range hidden_dropout "
    "attention_dropout"
).split()


class Job(NamedTuple):
    """One compilation."""

    method: str
    slice: str
    layout: str  # of LAYOUTS


@dataclasses.dataclass(frozen=True)
class Shapes:
    """A run's batches, of which only shapes are asked."""

    batch_size: int
    length: int
    slots: int
    pairs: bool

    def batch(self, step: int, rows: slice) -> dict[str, np.ndarray]:
        """One empty row."""
        del step, rows
        text, masked = np.zeros((1, self.length), np.int32), np.zeros((1, self.slots), np.int32)
        row = {
            "input_ids": text,
            "attention_mask": text,
            "masked_positions": masked,
            "masked_ids": masked,
            "masked_weights": masked.astype(np.float32),
        }
        return row | ({"document": np.zeros(1, np.int32)} if self.pairs else {})


def run_of(job: Job) -> tuple[Run, int]:
    """The run of a job, and in how many chunks its batch is encoded."""
    config = configure(CONFIGS[job.method].get_config("paper").to_dict())
    mesh = make_mesh(**LAYOUTS[job.layout], devices=topology_devices(job.slice))
    backbone = BackboneConfig(VOCABULARY, **{name: getattr(config.model, name) for name in MODEL})
    method, rows = METHODS[job.method], config.training.batch_size
    pairs = method.feed is PAIRS
    per_chunk = CHUNK * mesh.size if pairs else rows
    compute = dataclasses.replace(compute_config(config.compute, mesh), chunk_rows=per_chunk)
    objective = method.build(backbone, compute, config.objective)
    length, rate = config.data.max_length, config.data.mask_rate
    run = Run(
        objective=objective,
        optimizers=build_optimizers(config.optimizer, objective, config.training.steps),
        batches=Shapes(rows, length, slots_of(rate, length), pairs),
        mesh=mesh,
        evaluate=lambda params, frozen: {},
        goal=method.goal,
        tokens_per_step=rows * length,
        flops_per_token=train_flops_per_token(backbone, config.objective, length, rate),
        **_rhythm(config),
    )
    return run, rows // per_chunk


def _rhythm(config: RunConfig) -> dict[str, Any]:
    names = ("steps", "log_every", "eval_every", "save_every")
    return {name: getattr(config.training, name) for name in names} | {
        "seed": config.seed,
        "learning_rate": config.optimizer.learning_rate,
        "clip_norm": config.optimizer.clip_norm,
    }


def needed(job: Job, run: Run, chunks: int) -> dict[str, float]:
    """The most bytes of each kind of collective that the sharding needs in a step.

    data: the gradient is summed over devices once, in float32 (the word table's twice where it is
    not summed in chunks: once for the look-up, once for the vocabulary product). fsdp: every pass
    over the layers gathers the weights, every backward pass scatters their gradient, partly piece
    by piece beside a product, around a ring of collective-permutes; there weights are bfloat16.
    For the contrast each device needs the vectors of all, and gives back what it says of them.
    """
    shapes = run.abstract_state().params
    weights = 4 * count_parameters(shapes)
    table = 4 * shapes["backbone"]["embeddings"]["word"]["embedding"].size
    width = BackboneConfig(VOCABULARY).hidden_size
    vectors = 4 * run.batches.batch_size * width if METHODS[job.method].feed is PAIRS else 0
    passes = 2 if chunks == 1 else 3 * chunks  # over the layers: cached ones encode twice
    if job.layout == "data":
        return {
            "all-reduce": weights + table * (chunks == 1) + 2 * vectors + SMALL,
            "all-gather": 2 * vectors + SMALL,
        }
    return {
        "all-gather": passes * weights + 2 * vectors + SMALL,
        "reduce-scatter": chunks * (weights + table) + 2 * vectors + SMALL,
        "collective-permute": passes * weights / 2 + chunks * (weights + table) + 2 * vectors,
        # of what is whole everywhere, and of the looked-up table, whose gradient is cut afterwards
        "all-reduce": chunks * (weights / 50 + table) + 2 * vectors + SMALL,
    }


def measure(job: Job) -> tuple[dict[str, Any], list[str]]:
    """Compiles a job; returns what its step would take, and what is wrong with it."""
    run, chunks = run_of(job)
    device = run.mesh.devices.flat[0]
    figures: dict[str, Any] = job._asdict() | {
        "device": f"{run.mesh.size} x {device.device_kind}",
        "jax": jax.__version__,
        "effort": EFFORT,
        "rows": run.batches.batch_size,
        "chunks": chunks,
    }
    began = time.perf_counter()
    try:
        step = run.compile_step(run.objective.schedule.cycle[0])
    except DoesNotFit as error:
        return figures | {"fits": False}, [str(error)]
    memory, limit = memory_of(step).peak, needed(job, run, chunks)
    sent = by_kind(collectives(step.as_text() or ""))
    wrong = [
        f"{kind} of {total.bytes:,} bytes; the sharding needs {limit.get(kind, 0):,.0f}"
        for kind, total in sent.items()
        if total.bytes > limit.get(kind, SMALL) or not total.counted
    ]
    if memory > device_memory(device):
        wrong.append(f"{memory:,} bytes do not fit the {device_memory(device):,.0f} of a device")
    return figures | {
        "seconds": round(time.perf_counter() - began, 1),
        "fits": memory <= device_memory(device),
        "peak_bytes": memory,
        "device_bytes": int(device_memory(device)),
        "flops_per_token": run.flops_per_token,
        "flops_per_token_compiled": compiled_flops(step) * run.mesh.size / run.tokens_per_step,
        "collectives": {kind: total._asdict() for kind, total in sent.items()},
        "unneeded": wrong,
    }, wrong


HEADER = """# The papers' steps, compiled for TPU slices that are not there

By `python benchmarks/topologies.py`; figures of the last lines of `topologies.jsonl`. BERT-base in bfloat16, layers scanned; coCondenser with
gradient caching, {chunk} rows of each chip at a time. Compiled with the least effort (`training/topology.py`). Bytes are per chip and step: what a
collective combines, in loops as often as they turn. MFLOP per token on paper, and as the compiler counts them: the body of a loop once. What a
sharding needs is written down in `needed`, and checked.

| step | slice | layout | peak per chip | of | MFLOP per token | compiler | all-reduce | all-gather | reduce-scatter | other |
|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def write_table(lines: Path) -> None:
    """Writes the last line of every job as a row."""
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    last = {Job(row["method"], row["slice"], row["layout"]): row for row in rows}
    text = HEADER.format(chunk=CHUNK) + "".join(f"{_row(last[job])}\n" for job in sorted(last))
    lines.with_suffix(".md").write_text(text, encoding="utf-8")


def _row(row: dict[str, Any]) -> str:
    batch = f"{row['method']}, {row['rows']} x 128"
    cells = [batch, f"{row['slice']}, {row['device']}", row["layout"]]
    if not row["fits"]:
        return f"| {' | '.join(cells)} | does not fit |" + " |" * 7
    sent = dict(row["collectives"])
    parts = [_sent(sent.pop(kind, None)) for kind in ("all-reduce", "all-gather", "reduce-scatter")]
    other = "; ".join(f"{kind} {_sent(total)}" for kind, total in sent.items()) or "-"
    cells += [
        f"{row['peak_bytes'] / 1e9:.1f} GB",
        f"{row['device_bytes'] / 1e9:.0f} GB",
        f"{row['flops_per_token'] / 1e6:.0f}",
        f"{row['flops_per_token_compiled'] / 1e6:.0f}",
    ]
    return f"| {' | '.join([*cells, *parts, other])} |"


def _sent(total: dict[str, Any] | None) -> str:
    return f"{total['bytes'] / 1e6:,.0f} MB in {total['times']}" if total else "-"


def jobs_of(flags: argparse.Namespace) -> Iterator[Job]:
    """Every combination that was asked for."""
    for method in flags.methods:
        for slice_name in flags.slices:
            for layout in flags.layouts:
                yield Job(method, slice_name, layout)


def main() -> int:
    """Compiles, records and checks one job after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--slices", nargs="+", default=list(SLICES), help="such as v5e:4x4")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--output", type=Path, default=record.FOLDER / "topologies.jsonl")
    flags = parser.parse_args()
    status = 0
    for job in jobs_of(flags):
        figures, wrong = measure(job)
        record.append(flags.output, figures)
        write_table(flags.output)
        print(json.dumps(figures), flush=True)
        for line in wrong:
            print(f"{' '.join(job)}: {line}", file=sys.stderr, flush=True)
        status = max(status, int(bool(wrong)))
    return status


if __name__ == "__main__":
    sys.exit(main())
