"""Fine-tunes on GLUE: python launch/glue.py --config=configs/glue_suite.py[:smoke]
--config.run.model.init=MODEL [--config.tasks=cola,rte] [--workdir=DIR]

Every task, learning rate and seed is a run in a folder of the work directory; the same command goes
on after a kill. After each task results.json, the table and files for the test server are written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

CONFIG = command.config_flag("configs/glue_suite.py")
WORKDIR = flags.DEFINE_string("workdir", None, "where the runs live; default: runs/glue_suite")
NAME = flags.DEFINE_string(
    "name", "", "the system's name in the table; default: that of its folder"
)
BESIDE = flags.DEFINE_multi_string(
    "beside", [], "another work directory, shown beside if its protocol is the same; repeat"
)


def main() -> None:
    """Does the runs that are not done yet, and shows the table."""
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.glue.report import as_text
    from condenser_jax.glue_plan import configure_suite
    from condenser_jax.glue_suite import read_results, run_suite, write_results

    enable_compilation_cache()
    suite = configure_suite(CONFIG.value.to_dict())
    beside = [read_results(place) for place in BESIDE.value]
    root = Path(WORKDIR.value or command.default_workdir()).expanduser()
    name = NAME.value or Path(suite.run.model.init).name or "random start"
    results = run_suite(suite, root, name, lambda found: write_results(root, found, beside))
    print(f"\n{as_text([results, *beside])}\n")
    print(f"written: {root}/results.json, results.txt, results.md")


if __name__ == "__main__":
    command.run(main)
