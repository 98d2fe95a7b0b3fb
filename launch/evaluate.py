"""Evaluates: python launch/evaluate.py --task=cls_attention --model=runs/condenser --model=bert/

A model is a work directory of launch/train.py, a Hugging Face directory or a hub id. Prints a
table, and writes the figures to PREFIX.json and the picture to PREFIX.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

TASK = flags.DEFINE_string("task", "", "what to measure, e.g. cls_attention")
MODEL = flags.DEFINE_multi_string("model", [], "what to evaluate; repeat for several")
DATA = flags.DEFINE_string(
    "data",
    "",
    "source of texts for all models, e.g. text:my.txt; default: what a run held out, and "
    "docstrings: for any other model",
)
LIMIT = flags.DEFINE_integer("limit", 512, "how many texts")
MAX_LENGTH = flags.DEFINE_integer("max_length", 128, "tokens of a text, longer ones are cut")
OUTPUT = flags.DEFINE_string("output", "", "PREFIX of the files; default: the task's name")


def main() -> None:
    """Reads the models, measures them, prints the table and writes the files."""
    from condenser_jax.encoders import read_encoders
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import choose
    from condenser_jax.evaluation.contract import Options
    from condenser_jax.evaluation.tasks import TASKS
    from condenser_jax.training.workdir import write_json

    enable_compilation_cache()
    task = TASKS[choose("task", TASK.value, TASKS)]
    options = Options(DATA.value, LIMIT.value, MAX_LENGTH.value)
    report = task(read_encoders(MODEL.value), options)
    print(report.table)
    prefix = Path(OUTPUT.value or TASK.value)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    written = [prefix.with_name(f"{prefix.name}.json")]
    write_json(written[0], report.figures)
    if report.draw:
        written.append(prefix.with_name(f"{prefix.name}.png"))
        report.draw(written[1])
    print(f"\nwritten: {', '.join(map(str, written))}")


if __name__ == "__main__":
    command.run(main)
