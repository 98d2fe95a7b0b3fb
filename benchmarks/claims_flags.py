"""Which arms benchmarks/claims.py compares, and what each is fine-tuned with: by its flags."""

import argparse
from typing import Any

from claims_report import ALL, NO_LABELS, START, Cell
from flag_types import count, folder, limit, listed, share

LABELS, BATCHES, WRONG = (500, 2000, ALL), (8, 32, 128), (0.0, 0.2, 0.4)
SCRATCH_RATE, CHECKPOINT_RATE = 2e-3, 1e-4  # of pre-training
BATCH = 32
SMOKE = {  # what is not said otherwise
    "source": "docstrings:jax",
    "collection": "docstrings:jax",
    "steps": 10,
    "examples": 320,
    "seeds": 1,
    "labels": (50, ALL),
}
MAIN = (START, "mlm", "condenser", "cocondenser")
ABLATIONS: dict[str, dict[str, Any]] = {
    "condenser-early-layer-0": {"early_layer": 0},
    "condenser-no-late-MLM": {"late_mlm": False},
}


def flags(description: str) -> argparse.Namespace:
    """What benchmarks/claims.py is asked for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=folder, default="runs/claims", help="where every part is kept"
    )
    parser.add_argument("--source", default="docstrings:", help="what is pre-trained on")
    parser.add_argument("--collection", default="docstrings:", help="what is searched")
    parser.add_argument("--init", default="", help="a checkpoint to go on from; default: none")
    parser.add_argument("--steps", type=count, default=1800, help="N: each arm is trained 2N steps")
    parser.add_argument(
        "--learning_rate",
        type=float,
        default=0.0,
        help=f"of pre-training; default: {SCRATCH_RATE:g}, from a checkpoint {CHECKPOINT_RATE:g}",
    )
    parser.add_argument("--examples", type=count, default=9600, help="queries seen in fine-tuning")
    parser.add_argument("--seeds", type=count, default=3, help="of each cell")
    names = (*MAIN, *ABLATIONS)
    parser.add_argument("--arms", type=listed(str, names), default=names, help="default: all")
    parser.add_argument("--labels", type=listed(limit), default=LABELS, help="how many; 0: all")
    parser.add_argument("--batches", type=listed(count), default=BATCHES, help="sizes")
    parser.add_argument("--wrong", type=listed(share), default=WRONG, help="shares of positives")
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes")
    parser.add_argument("--output", type=folder, help="the page; default: docs/results.md")
    args = parser.parse_args()
    if args.smoke:
        parser.set_defaults(**SMOKE)
        args = parser.parse_args()
    if max(args.batches) > args.examples:
        parser.error(f"--examples={args.examples} is less than a batch of {max(args.batches)}")
    args.learning_rate = args.learning_rate or (CHECKPOINT_RATE if args.init else SCRATCH_RATE)
    return args


def settings(args: argparse.Namespace) -> list[Cell]:
    """What is fine-tuned, of the first seed: ablations with few labels alone."""
    found = []
    for arm in args.arms:
        found += [Cell(arm, labels=n) for n in (NO_LABELS, *args.labels)]
        if arm in MAIN:
            found += [Cell(arm, batch=size) for size in args.batches if size != BATCH]
            found += [Cell(arm, wrong=share) for share in args.wrong if share]
    return found


def seeds_of(args: argparse.Namespace, cell: Cell) -> range:
    """Of a cell: without labels nothing but a random start depends on it."""
    given = cell.labels == NO_LABELS and (args.init or cell.arm != START)
    return range(1 if given else args.seeds)
