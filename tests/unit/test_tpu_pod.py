"""launch/tpu_pod.sh against a stand-in gcloud (tests/tpu_slice.py): what it asks for, and what it
does when a slice or a run ends.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tpu_slice import NEW, SCRIPT, SLICE, TRAIN, Pod

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hosts are Linux machines")


@pytest.fixture
def pod(tmp_path):
    pod = Pod(tmp_path)
    yield pod
    if (tmp_path / "slice").exists():
        pod("delete", *SLICE)  # ends what still runs on its hosts


def test_a_missing_slice_is_created_and_every_host_starts_the_command(pod):
    pod.script("0")
    done = pod.run()
    assert (done.returncode, done.stdout) == (0, "")
    assert (pod.verbs[0], pod.verbs.count("create"), pod.verbs.count("scp")) == ("create", 1, 1)
    assert pod.asked[0][2:] == [
        "pod",
        "--accelerator-type=v5litepod-8",
        "--version=v2-alpha-tpuv5-lite",
        "--zone=us-west4-a",
        "--quiet",
    ]
    assert [len(pod.starts(host)) for host in (0, 1)] == [1, 1]


def test_a_slice_that_is_ready_is_not_created_again(pod):
    pod.script("0", "0")
    pod.run()
    again = pod.run()
    assert again.returncode == 0
    assert pod.verbs.count("create") == 1
    assert len(pod.starts()) == 2


def test_arguments_arrive_unharmed(pod):
    words = ["--config.data.source=0.8 text:a b/*.txt", "it's", '"$HOME" `id`', "", "a\nb", "  ; &"]
    pod.script("0")
    pod.run(train=["python", *words])
    for host in (0, 1):
        (start,) = pod.starts(host)
        assert start[1:] == words


def test_hosts_get_the_working_tree_without_what_git_ignores(pod):
    pod.script("0")
    pod.run()
    (folder, *_), *_ = pod.starts(1)
    found = [str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()]
    assert sorted(found) == [".gitignore", "launch/new file.py", "launch/tpu_pod.sh"]
    assert (pod.root / "uv").read_text().splitlines()[-1] == (
        "pip install --quiet --python venv/bin/python -e ./code[tpu]"
    )


def test_hosts_get_the_revision_that_is_named(pod):
    pod.create()
    assert pod("install", *SLICE, "--revision=HEAD").returncode == 0
    code = pod.root / "hosts/0/condenser_jax/code"
    assert sorted(path.name for path in code.iterdir()) == [".gitignore", "launch"]
    assert [path.name for path in (code / "launch").iterdir()] == [SCRIPT.name]


def test_setup_runs_on_every_host_before_installing(pod):
    pod.script("0")
    pod.run("--setup=mkdir -p ~/'my share' && touch ~/'my share'/mounted")
    assert len(list(pod.root.glob("hosts/*/my share/mounted"))) == 2


def test_spot_and_queued_are_asked_for(pod):
    assert pod("create", *NEW, "--spot", "--queued").returncode == 0
    ((kind, verb, *flags),) = pod.asked
    assert (kind, verb) == ("queued-resources", "create")
    assert {"--spot", "--node-id=pod", "--runtime-version=v2-alpha-tpuv5-lite"} <= set(flags)
    assert pod("delete", *NEW, "--queued").returncode == 0
    assert pod.asked[-1][:4] == ["queued-resources", "delete", "pod", "--force"]


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_slice_that_is_taken_away_is_made_anew_and_the_run_goes_on(pod, state):
    pod.script("run", "0")
    pod.create("CREATING", "READY", "READY", state)
    done = pod.run("--retries=0")
    assert done.returncode == 0, done.stderr
    assert "pod was taken away" in done.stderr
    assert [verb for verb in pod.verbs if verb in ("create", "delete", "scp")] == [
        *("create", "scp", "delete", "create", "scp")
    ]
    assert [len(pod.starts(host)) for host in (0, 1)] == [2, 2]


def test_a_slice_taken_away_is_asked_for_until_there_is_room(pod):
    pod.script("run", "0")
    pod.create("READY", "READY", "PREEMPTED")
    (pod.root / "full").touch()
    assert pod.run().returncode == 0
    assert pod.verbs.count("create") == 3


def test_the_first_creation_must_succeed(pod):
    (pod.root / "full").touch()
    done = pod.run()
    assert done.returncode == 1
    assert "no more capacity" in done.stderr
    assert pod.verbs == ["create"]


def test_a_slice_is_never_deleted_because_gcloud_got_no_answer(pod):
    pod.script("0")
    pod.create("READY", "OFFLINE", "REPAIRING", "READY")
    assert pod.run().returncode == 0
    assert "delete" not in pod.verbs


def test_a_mistake_of_the_user_is_not_tried_again(pod):
    pod.script("2 run", "0")
    done = pod.run()
    assert done.returncode == 2
    assert "host 0 ends with 2" in done.stdout
    assert len(pod.starts()) == 1


def test_a_failure_is_tried_again_as_often_as_allowed_and_its_log_is_shown(pod):
    pod.script("0 1", "1 134", "1")
    done = pod.run("--retries=2")
    assert done.returncode == 1
    assert len(pod.starts()) == 3
    assert "host 1 ends with 1" in done.stdout
    assert "host 1 ends with 134" not in done.stdout.split("host 0 ends with 1\n")[1]
    assert "--retries=2 are used up" in done.stderr


def test_the_end_of_the_host_that_failed_is_waited_for_where_another_only_lost_it(pod):
    pod.script("1@4 134", "0")
    done = pod.run("--retries=1")
    assert done.returncode == 0
    assert "a host has lost another; waiting for the end of all" in done.stderr
    assert "host 0 ends with 1" in done.stdout and "the run failed (1, 134)" in done.stderr


def test_a_failure_that_passes_is_no_failure_of_the_run(pod):
    pod.script("1 run", "0")
    done = pod.run("--retries=1")
    assert done.returncode == 0, done.stderr
    assert len(pod.starts(1)) == 2


def test_a_host_that_restarted_is_no_failure_and_is_started_again(pod):
    pod.script("run", "0")
    pod.create("READY", "READY", "RESTART")
    done = pod.run("--retries=0")
    assert done.returncode == 0, done.stderr
    assert "a host has restarted" in done.stderr
    assert [len(pod.starts(host)) for host in (0, 1)] == [2, 2]
    assert "delete" not in pod.verbs


def test_stop_ends_the_run_with_75_and_run_attaches_to_what_runs(pod):
    pod.script("run")
    pod.create()
    pod("install", *SLICE)
    pod("start", *SLICE, "--", *TRAIN)
    wait_until(lambda: [len(pod.log(host)) for host in (0, 1)] == [1, 1])
    command = ["bash", pod.script_path, "run", *NEW, "--interval=0.1", "--", *TRAIN]
    run = subprocess.Popen(command, env=pod.environment, stderr=subprocess.PIPE, text=True)
    assert "it runs already; watching" in run.stderr.readline()
    assert pod("status", *SLICE).stdout == "READY\nhost: running\nhost: running\n"
    assert pod("stop", *SLICE).returncode == 0
    assert "stopped as asked" in run.communicate(timeout=60)[1]
    assert run.returncode == 75
    assert len(pod.starts()) == 1
    assert pod("status", *SLICE).stdout == "READY\nhost: stopped\nhost: stopped\n"


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_that_something_else_told_to_stop_goes_on(pod):
    pod.script("75", "0")
    assert pod.run("--retries=0").returncode == 0
    assert len(pod.starts()) == 2


def test_a_run_is_neither_started_nor_installed_over(pod):
    pod.script("run")
    pod.create()
    pod("install", *SLICE)
    assert pod("start", *SLICE, "--", *TRAIN).returncode == 0
    for words in (["start", *SLICE, "--", *TRAIN], ["install", *SLICE]):
        again = pod(*words)
        assert again.returncode == 1
        assert "a run is going on here; stop it first" in again.stderr


def test_a_dry_run_prints_commands_and_runs_none(pod):
    done = pod.run("--dry_run", "--spot")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:5] for line in lines] == [
        ["gcloud", "compute", "tpus", "tpu-vm", verb] for verb in ("create", "scp", "ssh", "ssh")
    ]
    assert not (pod.root / "asked").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--zone=z", "--", *TRAIN], "--name is missing: the name of the TPU slice"),
        (["run", "--name=n", "--", *TRAIN], "--zone is missing: where the TPU slice is"),
        (["run", *SLICE], "nothing to start; end with: -- python launch/train.py"),
        (["run", *SLICE, "--", *TRAIN], "--type is missing: the accelerator to create"),
        (["create", *SLICE, "--type=t"], "--runtime is missing: the TPU's software"),
        (["create", *SLICE, "--spto"], "unknown option '--spto'; the command to train"),
        (["crate", *SLICE], "unknown command 'crate'; known: run create"),
        (["run", *NEW, "--retries=many", "--", *TRAIN], "--retries=many; expected a whole number"),
        (["install", *SLICE, "--revision=nowhere"], "--revision=nowhere is no revision of"),
    ],
)
def test_a_mistake_is_one_line(pod, words, message):
    done = pod(*words)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("tpu_pod:")]
    assert len(errors) == 1 and errors[0].startswith(f"error: {message}")


def test_a_machine_without_gcloud_is_told_where_to_get_it(tmp_path):
    done = subprocess.run(
        [shutil.which("bash"), SCRIPT, "create", *NEW],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: gcloud is not installed; see https://")


def test_help_names_every_command(pod):
    text = pod("--help").stdout
    for command in ("run", "create", "install", "start", "status", "logs", "stop", "delete"):
        assert f"\n  {command} " in text


def test_the_script_is_bash():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
