"""What starts a run on SLURM (against stand-ins) and on Kubernetes (its manifests, read)."""

import math
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from condenser_jax.environment import CACHE_VARIABLE, GROUP_VARIABLES
from condenser_jax.errors import EXIT_PREEMPTED, EXIT_USER_ERROR
from tests.unit.test_documentation import flags_of, mistakes

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "launch" / "slurm.sbatch"
MANIFESTS = sorted((ROOT / "launch").glob("jobset-*.yaml"))
NAMES = [path.stem for path in MANIFESTS]
GROUP_ENDS_WITHIN = 30  # seconds in which a death must end the group where something watches it
SECONDS_TO_SAVE = 60  # BERT-base with its moments is 1.3 GB, and shared storage may be slow

# --- SLURM ---------------------------------------------------------------------------------------

SRUN = r"""#!/usr/bin/env bash
printf '%s\n' "$*" > "$STAND_IN/srun"
while [[ $1 == --* ]]; do shift; done
worst=0
for task in 0 1; do
  SLURM_PROCID=$task "$@" || { status=$?; [ "$status" -lt "$worst" ] || worst=$status; }
done
exit "$worst"
"""

PYTHON = r"""#!/usr/bin/env bash
printf '%s\n' "$@" > "$STAND_IN/arguments.$SLURM_PROCID"
[ -z "${SIGNALLED:-}" ] || kill -TERM "$PPID"   # SLURM signals the shell of a task as well
set -- $STATUSES_OF_TASKS
[ "$SLURM_PROCID" = 0 ] || shift
exit "$1"
"""


@pytest.fixture
def slurm(tmp_path):
    """A function that runs the batch script, whose two tasks end with the statuses given."""
    programs = {"srun": SRUN, "python": PYTHON}
    programs["scontrol"] = '#!/usr/bin/env bash\nprintf "%s\\n" "$*" > "$STAND_IN/scontrol"\n'
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def submit(statuses, *words, **environment):
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "STAND_IN": str(tmp_path),
            "STATUSES_OF_TASKS": statuses,
            "SLURM_JOB_ID": "17",
            **environment,
        }
        done = subprocess.run(
            ["bash", SBATCH, *words], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        requeued = (tmp_path / "scontrol").exists()
        if requeued:
            assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
        return done.returncode, requeued

    return submit


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [("0 0", (0, False)), ("75 75", (0, True)), ("1 1", (0, True)), ("134 1", (0, True))],
)
def test_a_job_that_is_not_done_is_requeued(slurm, statuses, outcome):
    assert slurm(statuses) == outcome


@pytest.mark.parametrize("statuses", ["2 2", "2 137", "137 2"])
def test_a_mistake_of_the_user_is_not_requeued(slurm, statuses):
    assert slurm(statuses) == (EXIT_USER_ERROR, False)


def test_failures_are_requeued_a_bounded_number_of_times(slurm):
    assert slurm("1 1", RETRIES="3", SLURM_RESTART_COUNT="2") == (0, True)


def test_the_last_failure_is_the_job_s(slurm):
    assert slurm("1 134", RETRIES="3", SLURM_RESTART_COUNT="3") == (134, False)


def test_a_job_that_was_stopped_is_requeued_however_often(slurm):
    assert slurm("75 75", RETRIES="3", SLURM_RESTART_COUNT="900") == (0, True)


def test_a_task_s_shell_outlives_the_signal_that_stops_the_task(slurm):
    assert slurm("75 75", SIGNALLED="yes", RETRIES="0") == (0, True)


def test_the_flags_reach_every_task_unharmed(slurm, tmp_path):
    words = ["--config=configs/mlm.py", "--config.data.source=0.8 text:a b/*.txt", "it's $HOME"]
    slurm("0 0", *words)
    for task in (0, 1):
        found = (tmp_path / f"arguments.{task}").read_text().splitlines()
        assert found == ["launch/train.py", *words]


def test_one_dead_task_ends_the_others(slurm, tmp_path):
    slurm("0 0")
    assert "--kill-on-bad-exit=1" in (tmp_path / "srun").read_text().split()


def test_nothing_is_left_behind(slurm, tmp_path):
    slurm("75 75")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"bin", "srun", "scontrol", "arguments.0", "arguments.1"}


def test_slurm_is_asked_to_signal_early_and_to_requeue():
    options = dict(
        (line.removeprefix("#SBATCH --") + "=").split("=")[:2]
        for line in SBATCH.read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    number, seconds = options["signal"].split("@")
    assert number == "TERM" and int(seconds) > SECONDS_TO_SAVE
    assert {"requeue", "open-mode"} <= options.keys()
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # jax: one task per GPU


# --- Kubernetes ----------------------------------------------------------------------------------


@pytest.fixture(params=MANIFESTS, ids=NAMES)
def jobset(request):
    return yaml.safe_load(request.param.read_text())


def parts(jobset):
    """(replicated job, its job's spec, its pod's spec, its container)."""
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    return replicated, job, pod, container


def settings(container):
    """{variable: value}; a value that Kubernetes fills in is None."""
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_both_kinds_of_nodes_have_a_manifest():
    assert NAMES == ["jobset-gpu", "jobset-tpu"]


def test_a_manifest_is_of_the_api_of_jobset(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


def test_the_command_has_flags_of_train_py(jobset):
    *_, container = parts(jobset)
    words = [*container["command"], *container["args"]]
    assert words[0] == "python"
    assert mistakes(words) == []
    assert "workdir" in flags_of(ROOT / words[1])


def test_what_must_be_shared_lies_on_the_shared_volume(jobset):
    *_, pod, container = parts(jobset)
    (claim,) = [volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    (place,) = [v["mountPath"] for v in container["volumeMounts"] if v["name"] == claim]
    (workdir,) = [word for word in container["args"] if word.startswith("--workdir=")]
    assert workdir.startswith(f"--workdir={place}/")
    assert settings(container)[CACHE_VARIABLE].startswith(f"{place}/")


def test_variables_are_those_that_are_read(jobset):
    *_, container = parts(jobset)
    assert settings(container).keys() <= {CACHE_VARIABLE, *GROUP_VARIABLES.values()}


def test_one_pod_that_fails_fails_all_and_all_start_again(jobset):
    _, job, pod, _ = parts(jobset)
    assert job["backoffLimit"] == 0
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it so
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


def outcome(jobset, status=None, condition=None):
    """What becomes of the JobSet after a pod ended so, by the rules of Job and JobSet."""
    _, job, _, container = parts(jobset)
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", [])
        by_code = (
            codes and codes["containerName"] == container["name"] and status in codes["values"]
        )
        if by_code or condition in [one["type"] for one in conditions]:
            assert rule["action"] == "FailJob"
            reason, message = "PodFailurePolicy", f"... matching FailJob rule at index {index}"
            break
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_a_jobset_is_restarted_but_after_a_mistake_of_the_user(jobset):
    assert outcome(jobset, status=EXIT_USER_ERROR) == "FailJobSet"
    assert outcome(jobset, status=1) == "RestartJobSet"
    assert outcome(jobset, status=137) == "RestartJobSet"


def test_being_stopped_does_not_count_as_a_failure(jobset):
    free = "RestartJobSetAndIgnoreMaxRestarts"
    assert outcome(jobset, status=EXIT_PREEMPTED) == free
    assert outcome(jobset, condition="DisruptionTarget") == free


def test_there_is_time_to_save_and_the_old_processes_are_gone_before_new_ones_start(jobset):
    _, _, pod, container = parts(jobset)
    heartbeat = int(settings(container)[GROUP_VARIABLES["heartbeat_seconds"]])
    assert SECONDS_TO_SAVE < pod["terminationGracePeriodSeconds"]
    assert heartbeat < GROUP_ENDS_WITHIN
    assert jobset["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


@pytest.fixture
def on_gpus():
    return yaml.safe_load((ROOT / "launch" / "jobset-gpu.yaml").read_text())


def test_on_gpus_the_processes_are_as_many_as_the_pods(on_gpus):
    replicated, job, _, container = parts(on_gpus)
    total = int(settings(container)[GROUP_VARIABLES["num_processes"]])
    assert total == job["parallelism"] * replicated["replicas"]


def test_on_gpus_the_coordinator_is_the_first_pod_by_the_name_that_jobset_gives(on_gpus):
    replicated, _, _, container = parts(on_gpus)
    name = on_gpus["metadata"]["name"]
    host, port = settings(container)[GROUP_VARIABLES["coordinator"]].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert 1024 < int(port) < 65536


def test_on_gpus_a_process_has_the_number_of_its_pod(on_gpus):
    replicated, _, _, container = parts(on_gpus)
    (entry,) = [e for e in container["env"] if e["name"] == GROUP_VARIABLES["process_id"]]
    field = entry["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert replicated["replicas"] == 1  # the number is unique within a job only


def test_on_tpus_the_pods_are_as_many_as_the_hosts_of_the_slice():
    tpu = yaml.safe_load((ROOT / "launch" / "jobset-tpu.yaml").read_text())
    _, job, pod, container = parts(tpu)
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    assert job["parallelism"] == chips // container["resources"]["limits"]["google.com/tpu"]


def test_on_tpus_jax_finds_its_place_by_itself():
    tpu = yaml.safe_load((ROOT / "launch" / "jobset-tpu.yaml").read_text())
    *_, container = parts(tpu)
    place = {GROUP_VARIABLES[name] for name in ("coordinator", "num_processes", "process_id")}
    assert not place & settings(container).keys()
