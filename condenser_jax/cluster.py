"""The group of processes that trains one model: how it is joined, and how it agrees.

What the user says comes first (flags, then the environment), then what jax finds out by itself
(SLURM, TPU pods, Open MPI, Kubernetes with its package); without either there is one process.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from condenser_jax.environment import GROUP_VARIABLES
from condenser_jax.errors import EXIT_FAILURE, EXIT_INTERRUPTED, RunFailed, UserError

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 60  # without a sign of life, a process counts as lost, and the others end
JOIN_SECONDS = 300  # for all processes to meet: machines do not start at the same time
PLACE = ("coordinator", "num_processes", "process_id")
PORTS = range(1, 2**16)


def join(flags: Mapping[str, str | int | None]) -> None:
    """Joins the group that this process is one of, if any; must come before any use of a device.

    Args:
      flags: coordinator (host:port of process 0), num_processes, process_id and heartbeat_seconds;
        for what is None the environment is asked (`environment.GROUP_VARIABLES`).

    Raises UserError for settings that are incomplete or do not fit, RunFailed where jax cannot
    start. A group that does not meet in time ends the process, with one line.
    """
    settings = {name: _setting(name, value) for name, value in flags.items()}
    timing = _timing(settings.get("heartbeat_seconds"))
    if settings["num_processes"] == 1:
        return
    if any(settings[name] is not None for name in PLACE):
        _initialize(_named(settings), timing)
    elif not _is_slurm_shell():
        _initialize({}, timing)
    if jax.distributed.is_initialized():
        here, everywhere = jax.local_device_count(), jax.device_count()
        place = f"process {jax.process_index()} of {jax.process_count()}"
        log.info("%s: %d of %d devices", place, here, everywhere)


def is_first() -> bool:
    """Whether this process writes what is written once: files, lines of the log."""
    return jax.process_index() == 0


def wait_for_all(place: str) -> None:
    """Returns when every process has come to `place`, a name that all give alike."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def least_everywhere(value: float) -> float:
    """The least `value` of all processes; all must ask, and all get the same answer."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.asarray(value, np.float32)).min())


def check_same(what: str, value: Any, remedy: str) -> None:
    """Raises UserError, in every process, unless all of them have the same `value` (JSON)."""
    if jax.process_count() == 1:
        return
    text = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.blake2b(text, digest_size=16).digest()
    found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [str(number) for number, one in enumerate(found) if (one != found[0]).any()]
    if others:
        raise UserError(f"{what} of process {', '.join(others)} is not that of process 0; {remedy}")


def _setting(name: str, flag: str | int | None) -> str | int | None:
    """The flag, else the variable of the environment; a number but for the coordinator."""
    value = os.environ.get(GROUP_VARIABLES[name]) or None if flag is None else flag
    if value is None or name == "coordinator":
        return value
    if not str(value).isdecimal():
        raise UserError(f"{_called(name)} is {value!r}; expected a whole number")
    return int(value)


def _called(name: str) -> str:
    return f"--{name} (or {GROUP_VARIABLES[name]})"


def _timing(heartbeat: Any) -> dict[str, Any]:
    """How long to wait for the sign of life of another process, also at the end."""
    if heartbeat == 0:
        raise UserError(f"{_called('heartbeat_seconds')} is 0; expected at least 1 second")
    seconds = heartbeat or HEARTBEAT_SECONDS
    return {"heartbeat_timeout_seconds": seconds, "shutdown_timeout_seconds": seconds}


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of jax.distributed.initialize for a place that the user names."""
    missing = [_called(name) for name in PLACE if settings[name] is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing; a group needs --coordinator, --num_processes and "
            "--process_id, and --num_processes=1 is a process alone"
        )
    address, number, total = (settings[key] for key in ("coordinator", "process_id", PLACE[1]))
    if not re.fullmatch(r"[^:\s]+:\d+|\[[\da-fA-F:]+\]:\d+", address):
        raise UserError(f"--coordinator is {address!r}; expected host:port, e.g. 10.0.0.1:1234")
    if int(address.rpartition(":")[2]) not in PORTS:
        raise UserError(f"--coordinator is {address!r}; expected a port of 1 to {PORTS[-1]}")
    if total < 1:
        raise UserError(f"--num_processes is {total}; expected at least 1")
    if number >= total:
        raise UserError(
            f"--process_id is {number}; expected 0 to {total - 1}, as --num_processes is {total}"
        )
    arguments = {"coordinator_address": address, "num_processes": total, "process_id": number}
    if address.startswith(("127.", "localhost:")):  # jax would listen on every interface
        arguments["coordinator_bind_address"] = address
    return arguments | {"cluster_detection_method": "deactivate"}  # all devices are ours


def _is_slurm_shell() -> bool:
    """Whether SLURM started this process alone: the shell of an allocation of several tasks looks
    to jax like the first of them.
    """
    return os.environ.get("SLURM_STEP_NUM_TASKS") == "1"


def _initialize(arguments: dict[str, Any], timing: dict[str, Any]) -> None:
    """Starts jax.distributed; without `arguments` it finds them itself, or stays one process."""
    # jaxlib ends the process with a stack of C++ when its own time is up; ours comes first.
    watch = threading.Timer(JOIN_SECONDS, _give_up, [arguments])
    watch.daemon = True
    watch.start()
    try:
        timeout = JOIN_SECONDS + HEARTBEAT_SECONDS
        _hearing_signals(
            lambda: jax.distributed.initialize(
                **arguments, **timing, initialization_timeout=timeout
            )
        )
    except Exception as error:  # of any class, where jax reads what a cluster says of itself
        if not arguments and "coordinator_address should be defined" in str(error):
            return  # no cluster was detected
        raise RunFailed(_not_joined(arguments, error)) from error
    finally:
        watch.cancel()


def _hearing_signals(wait: Callable[[], None]) -> None:
    """Calls `wait`, which waits in C++ for other processes, in a thread of its own: Python hears
    SIGTERM and Ctrl-C in the main thread alone, and only between its own instructions.
    """
    ended: Future[None] = Future()

    def call() -> None:
        try:
            wait()
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        ended.result()
    except KeyboardInterrupt:
        os.write(2, b"interrupted\n")
        os._exit(EXIT_INTERRUPTED)  # an ordinary exit would ask jax for a group that is half joined


def _not_joined(arguments: Mapping[str, Any], error: Exception) -> str:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    if arguments:
        return f"{arguments['coordinator_address']} cannot be joined ({reason}); is the port free?"
    return (
        f"the cluster that jax detected cannot be joined ({reason}); name the group by "
        "--coordinator, --num_processes and --process_id, or a process alone by --num_processes=1"
    )


def _give_up(arguments: Mapping[str, Any]) -> None:
    where = arguments.get("coordinator_address", "the coordinator that jax detected")
    total = arguments.get("num_processes", "the")
    os.write(
        2,
        f"error: {total} processes did not meet at {where} within {JOIN_SECONDS} s; start every "
        "one of them with the same --coordinator, and see that its port is open\n".encode(),
    )
    os._exit(EXIT_FAILURE)
