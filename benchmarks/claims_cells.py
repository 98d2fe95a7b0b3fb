"""The cells of benchmarks/claims.py: each setting is fine-tuned, dev chooses its rate, and the test
queries are asked of what was chosen, and of nothing else.
"""

import argparse
import time
from pathlib import Path

from claims_flags import seeds_of
from claims_measures import (
    CHECKPOINT_FIRST,
    DEPTH,
    FIRST_RATE,
    HELDOUT,
    best_rate,
    opened,
    search,
)
from claims_report import NO_LABELS, Cell

from condenser_jax.encoder import Encoder, default_dtype
from condenser_jax.methods import configure
from condenser_jax.pipeline.recipe import RUN, Results, changed, settings_of
from condenser_jax.pipeline.steps import Facts, Pipeline, Step
from condenser_jax.retrieval.metrics import PerQuery
from condenser_jax.run import train
from condenser_jax.whole_files import remove_whole
from configs import retrieval

STANDSTILL = 1e-30  # a rate that is lost in float32
DEV = {"queries": 500, "passages": 2000}  # of the modules held out for choices, on a sample


def fine_tuning(args: argparse.Namespace, cell: Cell, start: Step | None, words: Step) -> Step:
    """Fine-tunes one cell; its fact is what dev says of it.

    A random start has the tokenizer of the arm `words`: it differs in its weights alone. Without
    labels a run has one step at a rate at which no weight moves.
    """
    values = retrieval.get_config("smoke" if args.smoke else "")
    values.seed = cell.seed
    values.data.update({"train": args.collection, "heldout_share": HELDOUT})
    values.data.update({"train_limit": max(cell.labels, 0), "wrong_positives": cell.wrong})
    values.optimizer.learning_rate = cell.rate or STANDSTILL
    steps = args.examples // cell.batch if cell.rate else 1
    values.training.update({"batch_size": cell.batch, "steps": steps, "tensorboard": False})
    values.training.update({"log_every": steps, "eval_every": steps, "save_every": steps})
    if not args.smoke:
        values.evaluation.update(DEV)
    values.model.init = args.init
    config = configure(values.to_dict())

    def run(directory: Path, earlier: Results) -> Facts:
        (before,) = earlier.values()
        if start is not None:
            used = changed(config, "model", init=str(before.directory / RUN))
        elif args.init:
            used = config
        else:
            used = changed(config, "data", tokenizer=str(before.directory / RUN / "tokenizer"))
        _, history = train(used, directory / RUN, time.time())
        return {"dev": history["last"]["heldout/mrr@10"]}

    return Step(f"cell-{cell.name}", run, settings_of(config), (start or words,))


def searching(args: argparse.Namespace, tuned: Step) -> Step:
    """Searches with what a cell became; its facts are the figures of every test query."""

    def run(directory: Path, earlier: Results) -> Facts:
        weights = earlier[tuned.name].directory / RUN
        encoder = Encoder.load(str(weights), dtype=default_dtype())
        return {"per_query": search(encoder, opened(args.collection))}

    return Step(f"test-of-{tuned.name}", run, {"depth": DEPTH}, (tuned,))


def measure(
    args: argparse.Namespace, pipeline: Pipeline, cell: Cell, start: Step | None, words: Step
) -> dict[Cell, PerQuery]:
    """The test queries' figures of one setting, of each seed. Weights are kept until then: a
    setting that is done leaves nothing but figures.
    """
    tuned: dict[Cell, Step] = {}

    def step(cell: Cell) -> Step:
        print(cell.name, flush=True)
        return tuned.setdefault(cell, fine_tuning(args, cell, start, words))

    rate = FIRST_RATE if cell.labels != NO_LABELS else 0.0
    if rate and not args.smoke:

        def dev(rate: float) -> float:
            return pipeline.result(step(cell._replace(rate=rate))).facts["dev"]

        rate = best_rate(dev, CHECKPOINT_FIRST if args.init else FIRST_RATE)
    found = {}
    for seed in seeds_of(args, cell):
        chosen = cell._replace(rate=rate, seed=seed)
        found[chosen] = pipeline.result(searching(args, step(chosen))).facts["per_query"]
    for weights in (pipeline.directory(done) / RUN for done in tuned.values()):
        if weights.exists():
            remove_whole(weights)
    return found
