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

import functools
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from condenser_jax.environment import enable_compilation_cache, tune_process  # noqa: E402

tune_process()

from claims_arms import arms  # noqa: E402
from claims_cells import measure  # noqa: E402
from claims_flags import flags, settings  # noqa: E402
from claims_measures import bm25, check_collection, opened  # noqa: E402
from claims_picture import draw  # noqa: E402
from claims_report import Cell, figures_of, section_lines, section_of  # noqa: E402
from results_page import publish, told_options  # noqa: E402

from condenser_jax.command import finish, set_up_logging  # noqa: E402
from condenser_jax.pipeline.steps import Pipeline  # noqa: E402
from condenser_jax.retrieval.metrics import PerQuery  # noqa: E402


def main() -> None:
    """Runs what is not done yet, and writes the tables."""
    args = flags(__doc__)
    set_up_logging()
    enable_compilation_cache()
    check_collection(args.collection)
    pipeline, starts = Pipeline(args.workdir), arms(args)
    words = starts["mlm"]
    assert words is not None
    found: dict[Cell, PerQuery] = {}
    for number, cell in enumerate(todo := settings(args), start=1):
        print(f"{number} of {len(todo)} settings", flush=True)
        found |= measure(args, pipeline, cell, starts[cell.arm], words)
    figures = figures_of(found, bm25(opened(args.collection)), told_options(args))
    content = section_lines(found, figures)
    picture = functools.partial(draw, found, figures)
    publish(args, "claims", section_of(args), content, figures, picture, pipeline)


if __name__ == "__main__":
    finish(main)
