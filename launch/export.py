"""Exports: python launch/export.py --workdir=DIR --output=DIR [--step=N|best|last]

Writes a Hugging Face directory of one of a run's checkpoints, the last if none is named: AutoModel,
AutoModelForMaskedLM, AutoTokenizer and SentenceTransformer load it. Before it takes its name it is
loaded again, and must give the vectors of the run. --onnx adds a graph, --push=NAME/MODEL uploads.
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
ONNX = flags.DEFINE_boolean("onnx", False, "add encoder.onnx, from token ids to vectors")
PUSH = flags.DEFINE_string("push", "", "repository of the hub to upload to, NAME/MODEL")


def main() -> None:
    """Reads the checkpoint, writes the directory, and uploads it if asked to."""
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import UserError
    from condenser_jax.exporting import export_run
    from condenser_jax.hf.hub import check_repository, push

    if not WORKDIR.value or not OUTPUT.value:
        raise UserError(
            "--workdir and --output are both needed: --workdir=runs/condenser --output=my-encoder"
        )
    if PUSH.value:
        check_repository(PUSH.value)
    enable_compilation_cache()
    done = export_run(WORKDIR.value, OUTPUT.value, STEP.value, LICENCE.value, ONNX.value)
    for name, difference in done.differences.items():
        print(f"loaded by {name}: within {difference:.1e} of what the run computes")
    print(f"exported to {done.directory}")
    if PUSH.value:
        print(f"uploaded to {push(done.directory, PUSH.value)}")


if __name__ == "__main__":
    command.run(main)
