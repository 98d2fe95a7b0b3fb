"""The devices of a TPU pod that is not there: its compiler runs on any x86-64 Linux machine.

A step can be compiled for such devices. They hold no array and run no program.
"""

import importlib.util
import os

import jax

from condenser_jax.environment import WITHOUT_TPU
from condenser_jax.errors import UserError

EXAMPLES = "v4:2x2x4, v5e:4x4, v5p:2x2x2, v6e:4x4"
INVALID = "INVALID_ARGUMENT: "  # how the compiler's answer to a wrong name begins
# What is compiled for such devices is looked at, never run: the least effort takes a fifth of the
# time. Seen for BERT-base on v5e:4x4: the same collectives, and a peak that is 1 % higher.
EFFORT = -1.0
# A TPU takes one process at a time, its compiler many.
ENVIRONMENT = WITHOUT_TPU | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a TPU slice such as "v5e:4x4", in the order of its network.

    This process computes on the CPU from now on: call it before jax has looked for devices. Raises
    UserError where the TPU compiler is not installed, or knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            f"--topology={name} needs the TPU compiler, which is not installed; "
            'run: pip install -e ".[tpu]"'
        )
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_exec_time_optimization_effort", EFFORT)
    from jax.experimental import topologies

    # On a pod of this generation a chip is one device; the compiler's default is one per core.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if not reason.startswith(INVALID):
            raise
        raise UserError(
            f"unknown topology {name!r}; expected generation:shape, for example {EXAMPLES} "
            f"(the TPU compiler says: {reason.removeprefix(INVALID)})"
        ) from error
