"""How a process finds its group: explicit settings first, then what jax detects, else it is alone.

`jax.distributed.initialize` is recorded here; tests/end_to_end/test_cluster.py really joins.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from condenser_jax import cluster
from condenser_jax.environment import GROUP_VARIABLES
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.supervisor import free_port

ROOT = Path(__file__).parents[2]
NOBODY = dict.fromkeys(GROUP_VARIABLES)
SECOND = {"coordinator": "10.0.0.1:1234", "num_processes": 4, "process_id": 1}
SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
GKE_TPU = {"TPU_WORKER_HOSTNAMES": "host-a,host-b", "TPU_WORKER_ID": "1"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for name in (*GROUP_VARIABLES.values(), *SLURM, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(monkeypatch):
    """What jax.distributed.initialize was asked for, one dictionary per call."""
    found = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **given: found.append(given))
    return found


@pytest.fixture
def places(monkeypatch):
    """The places in a group that jax's own detection came to."""
    from jax._src import distributed

    found = []

    def connect(coordinator_address, process_id, **_):
        found.append((coordinator_address, process_id))
        raise RuntimeError("there is no group here")

    monkeypatch.setattr(distributed._jax, "get_distributed_runtime_client", connect)
    monkeypatch.setattr(distributed, "global_state", distributed.State())
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    return found


def test_flags_name_a_place_in_a_group(calls):
    cluster.join({**NOBODY, **SECOND})
    (given,) = calls
    assert (
        given.items()
        >= {
            "coordinator_address": "10.0.0.1:1234",
            "num_processes": 4,
            "process_id": 1,
            "heartbeat_timeout_seconds": 60,
            "cluster_detection_method": "deactivate",  # in SLURM jax would see one device alone
        }.items()
    )
    assert "coordinator_bind_address" not in given


def test_the_environment_names_a_place_and_flags_go_before_it(calls, monkeypatch):
    values = ("127.0.0.1:99", "2", "1", "7")
    for variable, value in zip(GROUP_VARIABLES.values(), values, strict=True):
        monkeypatch.setenv(variable, value)
    cluster.join({**NOBODY, "process_id": 0})
    (given,) = calls
    assert (given["num_processes"], given["process_id"]) == (2, 0)
    assert given["heartbeat_timeout_seconds"] == 7
    assert given["coordinator_bind_address"] == "127.0.0.1:99"  # and on no other interface


def test_one_process_joins_nothing(calls, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    cluster.join({**NOBODY, "num_processes": 1})
    assert calls == []


def test_where_nothing_is_said_and_nothing_detected_there_is_one_process(places):
    cluster.join(NOBODY)
    assert places == [] and not jax.distributed.is_initialized()


def test_slurm_is_detected(places, monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailed, match="the cluster that jax detected cannot be joined"):
        cluster.join(NOBODY)
    assert places == [(f"node07:{65535 - 2**12 + 1 + 4100 % 2**12}", 1)]


def test_a_cluster_that_does_not_explain_itself_is_one_line(places, monkeypatch):
    for name, value in (SLURM | {"SLURM_PROCID": "?"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFailed) as error:
        cluster.join(NOBODY)
    assert str(error.value) == (
        "the cluster that jax detected cannot be joined (invalid literal for int() with base 10: "
        "'?'); name the group by --coordinator, --num_processes and --process_id, or a process "
        "alone by --num_processes=1"
    )


def test_a_port_that_is_taken_is_one_line(places):
    with pytest.raises(
        RunFailed, match=r"127.0.0.1:9 cannot be joined \(there is no .*port free\?"
    ):
        cluster.join({**NOBODY, **SECOND, "coordinator": "127.0.0.1:9"})


def test_the_shell_of_a_slurm_allocation_is_one_process(places, monkeypatch):
    for name, value in (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}).items():
        monkeypatch.setenv(name, value)
    cluster.join(NOBODY)
    assert places == []


def test_a_tpu_pod_is_detected(places, monkeypatch):
    for name, value in (GKE_TPU | {"MEGASCALE_COORDINATOR_ADDRESS": "localhost"}).items():
        monkeypatch.setenv(name, value)
    for name in ("MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", True)
    with pytest.raises(RunFailed, match="there is no group here"):
        cluster.join(NOBODY)
    assert places == [("localhost:8482", 1)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"process_id": None},
            r"--process_id \(or CONDENSER_JAX_PROCESS_ID\) missing; a group needs --coordinator, ",
        ),
        (
            {"coordinator": None, "process_id": None},
            r"--coordinator \(or CONDENSER_JAX_COORDINATOR\) and --process_id ",
        ),
        ({"process_id": 4}, "--process_id is 4; expected 0 to 3, as --num_processes is 4"),
        ({"num_processes": 0}, "--num_processes is 0; expected at least 1"),
        ({"num_processes": "two"}, r"--num_processes \(or .*\) is 'two'; expected a whole number"),
        ({"coordinator": "node07"}, "--coordinator is 'node07'; expected host:port, e.g. 10.0.0.1"),
        ({"coordinator": "node07:65536"}, "is 'node07:65536'; expected a port of 1 to 65535"),
        ({"heartbeat_seconds": 0}, "--heartbeat_seconds .* is 0; expected at least 1 second"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, text, calls):
    with pytest.raises(UserError, match=text):
        cluster.join({**NOBODY, **SECOND, **changes})
    assert calls == []


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_one_line():
    script = """
from condenser_jax import cluster
cluster.JOIN_SECONDS = 1
cluster.join(dict(coordinator="127.0.0.1:9", num_processes=2, process_id=1, heartbeat_seconds=None))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: 2 processes did not meet at 127.0.0.1:9 within 1 s; start every one of them with "
        "the same --coordinator, and see that its port is open\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_process_that_waits_for_its_group_leaves_when_told_to(number, status):
    script = """
import signal
from condenser_jax import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where our parent ignores Ctrl-C
command.flags.FLAGS.mark_as_parsed()
command.run(lambda: command.join_group("127.0.0.1:%d", 2, 0, None))
"""
    port = free_port()
    waiting = subprocess.Popen([sys.executable, "-c", script % port], cwd=ROOT)
    try:
        while waiting.poll() is None and not _listens(port):
            time.sleep(0.1)
        waiting.send_signal(number)
        assert waiting.wait(timeout=60) == status  # the group would be waited for 300 s
    finally:
        waiting.kill()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def three(monkeypatch):
    """Three processes, of which the last one says something else, if `gathered` is told so."""
    told = {}
    monkeypatch.setattr("jax.process_count", lambda: 3)

    def gather(value):
        others = [told.get(number, value) for number in (1, 2)]
        return np.stack([value, *others])

    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    return told


def test_processes_that_differ_are_named_to_all(three):
    cluster.check_same("the configuration", {"seed": 0}, "start them alike")
    three[2] = np.zeros(16, np.uint8)
    with pytest.raises(UserError) as error:
        cluster.check_same("the configuration", {"seed": 0}, "start them alike")
    assert str(error.value) == (
        "the configuration of process 2 is not that of process 0; start them alike"
    )
