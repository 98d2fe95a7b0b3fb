"""Exports: python launch/export.py --workdir=DIR --output=DIR [--step=N|best|last]

Writes a Hugging Face directory of one of a run's checkpoints, the last if none is named: AutoModel,
AutoModelForMaskedLM, AutoTokenizer and SentenceTransformer load it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

WORKDIR = flags.DEFINE_string("workdir", None, "work directory of a run of launch/train.py")
OUTPUT = flags.DEFINE_string("output", None, "directory to write")
STEP = flags.DEFINE_string("step", "last", "which checkpoint: last, best or the number of its step")
LICENCE = flags.DEFINE_string("licence", "", "SPDX name for the model card")


def main() -> None:
    """Reads the checkpoint and writes the directory."""
    from condenser_jax.errors import UserError
    from condenser_jax.finished import export_run

    if not WORKDIR.value or not OUTPUT.value:
        raise UserError(
            "--workdir and --output are both needed: --workdir=runs/condenser --output=my-encoder"
        )
    print(f"exported to {export_run(WORKDIR.value, OUTPUT.value, STEP.value, LICENCE.value)}")


if __name__ == "__main__":
    command.run(main)
