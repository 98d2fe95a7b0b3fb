"""The claims of Condenser and coCondenser, measured: pre-trained with equal steps and data, fine-
tuned with few labels, small batches and wrong labels.

    python benchmarks/claims.py                          # docstrings, small encoders from scratch
    python benchmarks/claims.py --init=DIR --steps=150   # continued pre-training of a checkpoint
    python benchmarks/claims.py --arms=start,condenser --labels=500,0 --batches=32 --wrong=0
    python benchmarks/claims.py --smoke                  # minutes: to see that it works

Every arm is pre-trained for 2N steps on the same data: masked language model 2N; Condenser 2N;
Condenser N, then coCondenser N at half the rate (docs/fine-tuning.md says why). A random start
stands beside them, and BM25. Each is fine-tuned with 500, 2000 and all labels; in batches of 8, 32
and 128; with 0, 20 and 40 % of the positives replaced at random; three seeds each. Every part is
done once and found again. Writes a section of docs/results.md and appends the figures to
docs/benchmarks/claims.jsonl; in smoke size both lie below --workdir.
"""

import argparse
import functools
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from condenser_jax.environment import enable_compilation_cache, tune_process  # noqa: E402

tune_process()

from claims_arms import arms  # noqa: E402
from claims_flags import flags, seeds_of, settings  # noqa: E402
from claims_measures import (  # noqa: E402
    DEPTH,
    FIRST_RATE,
    HELDOUT,
    best_rate,
    bm25,
    check_collection,
    opened,
    search,
)
from claims_picture import draw  # noqa: E402
from claims_report import NO_LABELS, Cell, figures_of, section_lines  # noqa: E402
from results_page import publish, told_options  # noqa: E402

from condenser_jax.command import set_up_logging  # noqa: E402
from condenser_jax.encoder import Encoder, default_dtype  # noqa: E402
from condenser_jax.errors import Preempted, UserError  # noqa: E402
from condenser_jax.methods import configure  # noqa: E402
from condenser_jax.pipeline.recipe import (  # noqa: E402
    RUN,
    Results,
    changed,
    settings_of,
)
from condenser_jax.pipeline.steps import Facts, Pipeline, Result, Step  # noqa: E402
from condenser_jax.retrieval.metrics import PerQuery  # noqa: E402
from condenser_jax.run import train  # noqa: E402
from condenser_jax.whole_files import remove_whole  # noqa: E402
from configs import retrieval  # noqa: E402

STANDSTILL = 1e-30  # a rate that is lost in float32
DEV = {"queries": 500, "passages": 2000}  # of the modules held out for choices, on a sample
SECTIONS = {  # of docs/results.md: with --init or without
    False: ("claims", "Condenser and coCondenser from scratch"),
    True: ("claims-from-a-checkpoint", "Condenser and coCondenser from a checkpoint"),
}


def fine_tuning(args: argparse.Namespace, cell: Cell, start: Step | None, words: Step) -> Step:
    """Fine-tunes one cell, searches with the test queries, and keeps their figures and dev's alone.

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
        encoder = Encoder.load(str(directory / RUN), dtype=default_dtype())
        per_query = search(encoder, opened(args.collection))
        remove_whole(directory / RUN)
        return {"dev": history["last"]["heldout/mrr@10"], "per_query": per_query}

    settings = settings_of(config) | {"depth": DEPTH}
    return Step(f"cell-{cell.name}", run, settings, (start or words,))


def main() -> None:
    """Runs what is not done yet, and writes the tables."""
    args = flags(__doc__)
    set_up_logging()
    enable_compilation_cache()
    check_collection(args.collection)
    pipeline, starts = Pipeline(Path(args.workdir)), arms(args)
    words = starts["mlm"]
    assert words is not None

    def result(cell: Cell) -> Result:
        print(cell.name, flush=True)
        return pipeline.result(fine_tuning(args, cell, starts[cell.arm], words))

    found: dict[Cell, PerQuery] = {}
    for number, cell in enumerate(todo := settings(args), start=1):
        print(f"{number} of {len(todo)} settings", flush=True)
        rate = FIRST_RATE if cell.labels != NO_LABELS else 0.0
        if rate and not args.smoke:
            rate = best_rate(lambda rate, cell=cell: result(cell._replace(rate=rate)).facts["dev"])
        for seed in seeds_of(args, cell):
            chosen = cell._replace(rate=rate, seed=seed)
            found[chosen] = result(chosen).facts["per_query"]
    figures = figures_of(found, bm25(opened(args.collection)), told_options(args))
    content = section_lines(found, figures)
    picture = functools.partial(draw, found, figures)
    publish(args, "claims", SECTIONS[bool(args.init)], content, figures, picture, pipeline)


if __name__ == "__main__":
    try:
        main()
    except (UserError, Preempted) as error:
        sys.exit(str(error))
