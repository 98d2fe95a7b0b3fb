"""What must be set before the process starts, and where compiled programs are kept.

The C library reads its tunables when a process starts, so `tune_process` starts the same command
again, once. Nothing that the user has set is changed.
"""

import glob
import logging
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

MARKER = (
    "CONDENSER_JAX_TUNED"  # in the environment: this process and its children are tuned already
)
# XLA frees its temporaries after every step, and the kernel would fault them in again 4 kB at a
# time. With huge pages for malloc a small step on CPU takes two thirds of the time.
MALLOC_TUNABLE = "glibc.malloc.hugetlb"
DEFAULTS = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA: errors and warnings that matter
    "TOKENIZERS_PARALLELISM": "false",  # we parallelise by processes, over documents
    "TRANSFORMERS_VERBOSITY": "error",  # no advice to install another framework
}
# For the TPU compiler (the extra `tpu`) where there is no TPU: else it asks the network what this
# machine is, and tells at length that nobody answered.
WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_LOG_DIR": "disabled",  # else files in /tmp
}
PCI_VENDORS = "/sys/bus/pci/devices/*/vendor"  # where jax, too, looks for TPUs
GOOGLE = "0x1ae0"
GROUP_VARIABLES = {  # of a process among several, for the flags of launch/train.py
    "coordinator": "CONDENSER_JAX_COORDINATOR",
    "num_processes": "CONDENSER_JAX_NUM_PROCESSES",
    "process_id": "CONDENSER_JAX_PROCESS_ID",
    "heartbeat_seconds": "CONDENSER_JAX_HEARTBEAT_SECONDS",
}
CACHE_VARIABLE = "CONDENSER_JAX_CACHE"
DEFAULT_CACHE = "~/.cache/condenser_jax"
LEAST_COMPILE_SECONDS = 0.3  # programs that compile faster are not worth a file


def tuned(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns `environment` with our defaults where the user has set nothing."""
    ours = DEFAULTS if has_tpu() else DEFAULTS | WITHOUT_TPU
    result = {**ours, **environment, MARKER: "1"}
    tunables = environment.get("GLIBC_TUNABLES", "")
    if MALLOC_TUNABLE not in tunables:
        result["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{MALLOC_TUNABLE}=1"]))
    return result


def has_tpu() -> bool:
    """Whether a TPU is attached to this machine."""
    return any(Path(path).read_text().strip() == GOOGLE for path in glob.glob(PCI_VENDORS))


def tune_process() -> None:
    """Gives this process its environment; on Linux, by starting the same command again, once.

    Call it first in a command: what was imported before is imported again. Does not return when it
    starts the command again; the process keeps its id, its terminal and its open files.
    """
    if MARKER in os.environ:
        return
    environment = tuned(os.environ)
    if platform.libc_ver()[0] != "glibc":
        os.environ.update(environment)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def cache_directory() -> Path:
    """Returns $CONDENSER_JAX_CACHE, else ~/.cache/condenser_jax: for whatever can be made again."""
    return Path(os.environ.get(CACHE_VARIABLE, DEFAULT_CACHE)).expanduser()


def enable_compilation_cache(directory: str | Path | None = None) -> None:
    """Keeps compiled programs from run to run in `directory` (default: xla in the cache).

    Does nothing if the user has named a directory to jax, or if this one cannot be written.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return
    path = cache_directory() / "xla" if directory is None else Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILE_SECONDS)
