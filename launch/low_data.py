"""Trains on few labels: python launch/low_data.py --config=configs/sts.py:paper
--config.data.train=my/stsb --limits=500,1000,0 --seeds=5 --epochs=4 [--test=my/stsb]

Every size with every seed is one run, done once: the same command goes on after a kill. Prints mean
and standard deviation over the seeds, and writes them to WORKDIR/low_data.json and .md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

CONFIG = command.config_flag()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where the runs live; default: runs/<configuration>[-<variant>]-low-data"
)
LIMITS = flags.DEFINE_list("limits", ["500", "1000", "0"], "training rows of each size; 0: all")
SEEDS = flags.DEFINE_integer("seeds", 5, "runs of each size")
EPOCHS = flags.DEFINE_integer("epochs", 0, "of each run; 0: training.steps, whatever the size")
TEST = flags.DEFINE_string(
    "test", "", "what finished runs are measured on, as --data of launch/evaluate.py"
)
TEST_SPLIT = flags.DEFINE_string("test_split", "test", "of --test")


def main() -> None:
    """Does the runs that are not done yet, and prints the table."""
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.methods import configure
    from condenser_jax.pipeline.low_data import Plan, read_limits, run_plan
    from condenser_jax.retrieval.tables import as_markdown, as_text
    from condenser_jax.tasks.contract import Report
    from condenser_jax.tasks.table import write_files

    enable_compilation_cache()
    plan = Plan(read_limits(LIMITS.value), SEEDS.value, EPOCHS.value, TEST.value, TEST_SPLIT.value)
    default = command.default_workdir()
    given = WORKDIR.value or default.with_name(f"{default.name}-low-data")
    root = Path(given).expanduser()
    results = run_plan(configure(CONFIG.value.to_dict()), plan, root)
    markdown = as_markdown(results) + "\n"
    files = {".md": lambda path: path.write_text(markdown, encoding="utf-8")}
    report = Report(as_text(results), dict(results), files)
    print(report.table)
    print(f"\nwritten: {', '.join(map(str, write_files(report, root / 'low_data')))}")


if __name__ == "__main__":
    command.run(main)
