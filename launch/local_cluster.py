"""Does on one machine what a pod does:

    python launch/local_cluster.py -n 2 --devices 4 -- python launch/train.py --config=...

Starts the command in n processes that train together, shows their lines with their numbers, ends
all of them when one fails, and starts them again. SIGTERM and Ctrl-C are passed on; a second one
kills.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

PROCESSES = flags.DEFINE_integer("processes", 2, "how many processes", 1, short_name="n")
DEVICES = flags.DEFINE_integer(
    "devices", None, "virtual CPU devices of each process; default: what the machine has", 1
)
RETRIES = flags.DEFINE_integer("retries", 3, "how often in a row a group is started again", 0)
BACKOFF = flags.DEFINE_float(
    "backoff", 1.0, "seconds before the first retry; doubled for each further one", 0.0
)


def main() -> None:
    """Runs what stands behind `--`."""
    from condenser_jax.errors import UserError
    from condenser_jax.supervisor import Group, supervise

    if not COMMAND:
        raise UserError("what is to be run stands behind --, e.g. -- python launch/train.py")
    supervise(Group(tuple(COMMAND), PROCESSES.value, DEVICES.value), RETRIES.value, BACKOFF.value)


if __name__ == "__main__":
    COMMAND = command.split_off_command()
    command.run(main)
