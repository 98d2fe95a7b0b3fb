"""From text to a searching encoder: python launch/pipeline.py --config=configs/pipeline.py[:smoke]
[--workdir=DIR] [--config.first.training.steps=2000]

Every step is done once: the same command goes on after a kill, and does anew what a changed setting
concerns. Ends with a report and an encoder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

CONFIG = command.config_flag("configs/pipeline.py")
WORKDIR = flags.DEFINE_string("workdir", None, "where the steps live; default: runs/pipeline")


def main() -> None:
    """Does what is not done yet, and says what came of it."""
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.pipeline.config import configure_pipeline
    from condenser_jax.pipeline.recipe import run_pipeline
    from condenser_jax.pipeline.report import conclude

    enable_compilation_cache()
    config = configure_pipeline(CONFIG.value.to_dict())
    root = Path(WORKDIR.value or command.default_workdir()).expanduser()
    print(conclude(run_pipeline(config, root), root))


if __name__ == "__main__":
    command.run(main)
