"""A joint step of Tutor-KD: its operations against the count on paper, its time against PyTorch.

    python benchmarks/tutor_kd.py --size=base --flops    operations, nothing is run
    python benchmarks/tutor_kd.py --size=base            seconds of a step, ours and PyTorch's

(Where condenser_jax is not installed: PYTHONPATH=. python ...) The count on paper is of the passes
that the method cannot do without, each once: the teacher on masked and on new text, the student on
the new text, the tutor; vocabulary products at the masked tokens alone. Contenders take turns in
one run, each in a process of its own; the median over rounds counts. "cpu s" is the processor time
of a step, which other work on the machine moves little.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import record
from flag_types import count
from taking_turns import measure, median, work
from tutor_job import SIZES, Job

from condenser_jax.environment import tune_process

OUTPUT = record.FOLDER / "tutor_kd.jsonl"
CONTENDERS = {  # name: (file, function, arguments)
    "ours": ("tutor_in_jax", "make", {}),
    "torch": ("tutor_in_torch", "make", {}),
    "torch_compiled": ("tutor_in_torch", "make", {"compiled": True}),
}
GOAL = 1.05  # operations of the compiled step by those on paper


def count_flops(job: Job) -> dict[str, dict[str, float]]:
    """Operations of the joint step, and of one step of each phase, on paper and as compiled."""
    from tutor_in_jax import JOINT, compiled_flops, needed_flops

    figures = {}
    for active in (JOINT, JOINT[:1], JOINT[1:]):
        paper, compiled = needed_flops(job, active), compiled_flops(job, active)
        ratio, name = compiled / paper, "+".join(active)
        print(f"{name:20} paper {paper / 1e9:8.3f}  compiled {compiled / 1e9:8.3f} GFLOP", end="")
        print(f"  ratio {ratio:.3f}")
        figures[name] = {"paper": paper, "compiled": compiled, "ratio": round(ratio, 4)}
    joint, *apart = (figures[name]["compiled"] for name in figures)
    figures["separate_by_joint"] = {"ratio": round(sum(apart) / joint, 4)}
    print(f"a step of each phase in turn costs {sum(apart) / joint:.2f} times the joint step")
    return figures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=count, help="rows; by default what the size says")
    parser.add_argument("--length", type=count, default=128)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--steps", type=count, default=1, help="per round and contender")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=["ours", "torch"])
    parser.add_argument("--flops", action="store_true", help="count operations, run nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    tune_process()
    arguments = parse()
    if arguments.worker:
        return work(CONTENDERS, Job, *arguments.worker)
    *shape, batch, vocabulary = SIZES[arguments.size]
    batch = arguments.batch or batch
    job = Job(*shape, batch, vocabulary, arguments.length, arguments.dtype)
    found: dict = {"job": {"size": arguments.size, **asdict(job)}}
    if arguments.flops:
        found["flops"] = count_flops(job)
        if found["flops"]["maximise+minimise"]["ratio"] > GOAL:
            sys.exit(f"the joint step costs more than {GOAL} of the count on paper")
    else:
        results = measure(__file__, arguments.only, job, arguments.rounds, arguments.steps)
        if not results:
            sys.exit("no contender could run")
        found["versions"], found["device"] = {}, next(iter(results.values()))[-1]["device"]
        for rounds in results.values():
            found["versions"] |= rounds[-1]["versions"]
        found["figures"] = figures = {
            name: {key: median(rounds, key) for key in ("seconds", "cpu_seconds", "loss")}
            for name, rounds in results.items()
        }
        print(f"{'':16}{'s/step':>10}{'cpu s':>10}{'loss':>10}{'x torch':>10}{'cpu x torch':>13}")
        for name, row in figures.items():
            theirs = figures.get("torch")
            wall, cpu = (
                f"{theirs[key] / row[key]:.2f}" if theirs else "-"
                for key in ("seconds", "cpu_seconds")
            )
            print(
                f"{name:16}{row['seconds']:10.3f}{row['cpu_seconds']:10.3f}{row['loss']:10.2f}"
                f"{wall:>10}{cpu:>13}"
            )
    record.append(arguments.output, found)


if __name__ == "__main__":
    main()
