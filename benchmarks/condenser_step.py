"""One training step of a Condenser: ours, its plain form, and PyTorch's, measured side by side.

    python benchmarks/condenser_step.py --size=base
    python benchmarks/condenser_step.py --size=base --flops    operations of lean and plain form

(Where condenser_jax is not installed: PYTHONPATH=. python ...; grain and datasets are not needed.)
Every contender lives in a process of its own, and they take turns: in each round each runs a few
steps, after one that is not timed, so that other work on the machine slows all of them. The median
over rounds counts. All processes have tuned malloc (`condenser_jax.environment`). MFU is that of
the operations needed, so it is comparable between contenders. "cpu s" is the processor time of a
step, which other work on the machine moves little. A contender that is not installed, or fails, is
skipped with one line.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import record
from condenser_job import HEAD_LAYERS, SIZES, Job
from flag_types import count
from taking_turns import measure, median, work

from condenser_jax.environment import tune_process

OUTPUT = record.FOLDER / "condenser_step.jsonl"
CONTENDERS = {  # name: (file, function, arguments)
    "ours": ("condenser_in_jax", "make", {}),
    "ours_scanned": ("condenser_in_jax", "make", {"scan_layers": True}),
    "ours_plain": ("condenser_in_jax", "make", {"lean": False}),
    "torch": ("condenser_in_torch", "make", {}),
    "torch_compiled": ("condenser_in_torch", "make", {"compiled": True}),
    "torch_masked": ("condenser_in_torch", "make", {"only_masked": True}),
    "torch_masked_compiled": (
        "condenser_in_torch",
        "make",
        {"only_masked": True, "compiled": True},
    ),
    "pretense": ("condenser_in_torch", "make_pretense", {}),
}
REFERENCE = "torch"  # as shipped, eager: what ratios are against


def needed_flops(name: str, job: Job) -> float:
    """Operations per token of a contender's matrix products, forward and backward."""
    from condenser_in_jax import backbone_of, options_of

    from condenser_jax.training.flops import (
        FORWARD_PASSES,
        layer_flops,
        train_flops_per_token,
        vocabulary_flops,
    )

    backbone = backbone_of(job)
    if name.startswith("torch_masked"):
        layers = (job.layers + HEAD_LAYERS) * layer_flops(backbone, job.length, job.length)
        vocabulary = 2 * vocabulary_flops(backbone, job.masked)
        return FORWARD_PASSES * (layers + vocabulary) / job.length
    is_lean = name in ("ours", "ours_scanned")
    return train_flops_per_token(backbone, options_of(job), job.length, lean=is_lean)


def summarise(results: dict[str, list[dict]], job: Job) -> dict[str, dict]:
    """{contender: its figures}."""
    from condenser_jax.training.metrics import model_flops_utilisation

    figures = {}
    for name, rounds in results.items():
        seconds, reference = median(rounds, "seconds"), results.get(REFERENCE)
        pace, device = job.batch * job.length / seconds, rounds[-1]["device"]
        mfu = model_flops_utilisation(pace, needed_flops("ours", job), 1, device)
        figures[name] = {
            "seconds": round(seconds, 4),
            "fastest": round(min(answer["seconds"] for answer in rounds), 4),
            "cpu_seconds": round(median(rounds, "cpu_seconds"), 4),
            "tokens_per_second": round(pace),
            "times_torch": reference and round(median(reference, "seconds") / seconds, 3),
            "peak_memory": rounds[-1]["peak_memory"],
            "flops_per_token": needed_flops(name, job),
            "mfu": mfu and round(mfu, 4),
            "loss": round(rounds[-1]["loss"], 3),
        }
    return figures


def print_table(figures: dict[str, dict]) -> None:
    names = ("s/step", "fastest", "cpu s", "tokens/s", "x torch", "GB", "MFLOP/tok", "MFU", "loss")
    print(f"{'':22}" + "".join(f"{name:>10}" for name in names))
    for name, row in figures.items():
        ratio = "-" if row["times_torch"] is None else f"{row['times_torch']:.2f}"
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
        print(
            f"{name:22}{row['seconds']:10.3f}{row['fastest']:10.3f}{row['cpu_seconds']:10.3f}"
            f"{row['tokens_per_second']:10,}{ratio:>10}{row['peak_memory'] / 1e9:10.2f}"
            f"{row['flops_per_token'] / 1e6:10.0f}{mfu:>10}{row['loss']:10.3f}"
        )


def count_flops(job: Job) -> dict[str, dict]:
    """Operations per token of lean and plain form, on paper and as compiled."""
    from condenser_in_jax import compiled_flops

    figures = {}
    for name, is_lean in {"ours": True, "ours_plain": False}.items():
        compiled = compiled_flops(job, lean=is_lean)
        figures[name] = {"analytic": needed_flops(name, job), "compiled": compiled}
    for kind in ("analytic", "compiled"):
        lean, plain = (figures[name][kind] for name in ("ours", "ours_plain"))
        print(
            f"{kind}: lean {lean / 1e6:.1f}, plain {plain / 1e6:.1f} MFLOP per token, "
            f"ratio {lean / plain:.3f}"
        )
    return figures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=count, help="rows; by default what the size says")
    parser.add_argument("--length", type=count, default=128)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--steps", type=count, default=1, help="per round and contender")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--flops", action="store_true", help="count operations, run nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    tune_process()
    arguments = parse()
    if arguments.worker:
        return work(CONTENDERS, Job, *arguments.worker)
    *shape, batch = SIZES[arguments.size]
    job = Job(*shape, arguments.batch or batch, arguments.length, arguments.dtype)
    found: dict = {"job": {"size": arguments.size, **asdict(job)}}
    if arguments.flops:
        found["flops_per_token"] = count_flops(job)
    else:
        results = measure(__file__, arguments.only, job, arguments.rounds, arguments.steps)
        if not results:
            sys.exit("no contender could run")
        found["versions"], found["device"] = {}, next(iter(results.values()))[-1]["device"]
        for rounds in results.values():
            found["versions"] |= rounds[-1]["versions"]
        found["figures"] = summarise(results, job)
        print_table(found["figures"])
    record.append(arguments.output, found)


if __name__ == "__main__":
    main()
