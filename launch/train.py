"""Trains: python launch/train.py --config=configs/condenser.py[:variant] [--workdir=DIR]
[--config.key=value]

Started again with the same work directory, a run resumes where it was. `--dry_run` tells what it
would cost, and stops.
"""

import sys
import time
from pathlib import Path

BEGAN = time.time()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

CONFIG = command.config_flag()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where the run lives; default: runs/<configuration>[-<variant>]"
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, where SLURM or a TPU pod do not say it"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes train together")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this one is, from 0")
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", None, "silence after which a process counts as lost; default: 60"
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print what the run would cost, and stop")
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "a TPU slice that is not there, e.g. v5e:4x4, for --dry_run to compile for"
)


def main() -> None:
    """Reads the configuration, then trains or tells what training would cost."""
    command.join_group(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, HEARTBEAT.value)
    from condenser_jax import run
    from condenser_jax.cluster import is_first
    from condenser_jax.environment import enable_compilation_cache
    from condenser_jax.errors import UserError
    from condenser_jax.methods import configure

    enable_compilation_cache()
    config = configure(CONFIG.value.to_dict())
    if DRY_RUN.value:
        run.print_dry_run(config, TOPOLOGY.value)
        return
    if TOPOLOGY.value:
        raise UserError(f"--topology={TOPOLOGY.value} can only be compiled for; add --dry_run")
    workdir, history = run.train(config, WORKDIR.value or command.default_workdir(), BEGAN)
    if is_first():
        print(run.closing_words(config, workdir, history, time.time() - BEGAN))


if __name__ == "__main__":
    command.run(main)
