"""A TPU slice that is a folder, for tests of launch/tpu_pod.sh: two folders in it are its hosts.

A stand-in gcloud notes what it is asked, runs remote commands in bash with a host's folder as home,
and loses the slice when it is told to. `uv` and `python` on the hosts are stand-ins too: python
notes its arguments and ends with the status that a test has written for that start.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "launch" / "tpu_pod.sh"
TRAIN = ["python", "launch/train.py", "--config=configs/condenser.py"]
SLICE = ["--name=pod", "--zone=us-west4-a"]
NEW = [*SLICE, "--type=v5litepod-8", "--runtime=v2-alpha-tpuv5-lite"]

GCLOUD = (
    rf"#!{sys.executable} -IS"
    r"""
import json, os, pathlib, shutil, subprocess, sys

root, words = pathlib.Path(os.environ["STAND_IN"]), sys.argv[1:]
with open(root / "asked", "a") as file:
    print(json.dumps(words), file=file)
kind, verb, name = words[2:5]
flags = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
slice_, hosts = root / "slice", [root / "hosts" / "0", root / "hosts" / "1"]

def answer(state):
    if state is None:
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource 'pod' was not found.")
    print(state)

def kill(host):
    try:
        os.killpg(os.getpgid(int((host / "condenser_jax/pid").read_text())), 9)
    except (FileNotFoundError, ProcessLookupError):
        pass

def lose():
    for host in hosts:
        kill(host)
    shutil.rmtree(root / "hosts", ignore_errors=True)

def describe():
    events = root / "events"
    pending = events.read_text().splitlines() if events.exists() else []
    if pending:
        events.write_text("".join(line + "\n" for line in pending[1:]))
        if pending[0] == "OFFLINE":
            sys.exit("ERROR: (gcloud) There was a problem refreshing your current auth tokens")
        if pending[0] == "RESTART":
            kill(hosts[0])
        slice_.write_text("READY" if pending[0] == "RESTART" else pending[0])
        if pending[0] in ("PREEMPTED", "TERMINATED"):
            lose()
    answer(slice_.read_text() if slice_.exists() else None)

def create():
    if (root / "full").exists():
        (root / "full").unlink()
        sys.exit("ERROR: (gcloud) There is no more capacity in the zone")
    slice_.write_text("READY")
    for host in hosts:
        host.mkdir(parents=True)

if (kind, verb) == ("queued-resources", "describe"):
    answer(None)
elif verb == "describe":
    describe()
elif verb == "create":
    create()
elif verb == "delete":
    lose()
    slice_.unlink()
elif verb == "scp":
    for host in hosts:
        shutil.copy(name, host)
elif verb == "ssh":
    chosen = hosts if flags["--worker"] == "all" else [hosts[int(flags["--worker"])]]
    environment = [os.environ | {"HOME": str(host), "HOST": host.name} for host in chosen]
    command = ["bash", "-c", flags["--command"]]
    sys.exit(max(subprocess.run(command, env=env).returncode for env in environment))
"""
)

UV = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >> "$STAND_IN/uv"
[ "$1" != venv ] || { mkdir -p venv/bin; cp "$STAND_IN/python" venv/bin/python; }
"""

PYTHON = (
    rf"#!{sys.executable} -IS"
    r"""
import json, os, pathlib, signal, sys, time

root, host = pathlib.Path(os.environ["STAND_IN"]), int(os.environ["HOST"])
starts = root / f"starts.{host}"
number = len(starts.read_text().splitlines()) if starts.exists() else 0
with open(starts, "a") as file:
    print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=file)
line = (root / "statuses").read_text().splitlines()[number].split()
status, _, seconds = line[min(host, len(line) - 1)].partition("@")
if status == "run":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
print(f"host {host} ends with {status}", flush=True)
if status == "run":
    time.sleep(60)
time.sleep(float(seconds or 0))
sys.exit(int(status))
"""
)


def make_checkout(checkout):
    """A small repository with the script in it: one commit, a newer file, and one ignored."""
    git = ["git", "-C", checkout, "-c", "user.name=somebody", "-c", "user.email=@"]
    (checkout / "launch").mkdir(parents=True)
    shutil.copy(SCRIPT, checkout / "launch")
    (checkout / ".gitignore").write_text("/runs/\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    (checkout / "launch" / "new file.py").touch()
    (checkout / "runs").mkdir()
    (checkout / "runs" / "large").touch()
    return checkout


class Pod:
    """A user with the script, a stand-in gcloud, and what became of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in (("gcloud", GCLOUD), ("uv", UV), ("python", PYTHON)):
            folder = root if name == "python" else root / "bin"
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.environment = os.environ | {
            "STAND_IN": str(root),
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        }
        self.script_path = make_checkout(root / "checkout") / "launch" / SCRIPT.name

    def script(self, *statuses):
        """What each start ends with: one status, or one of each host."""
        (self.root / "statuses").write_text("".join(f"{status}\n" for status in statuses))

    def create(self, *events):
        """Creates the slice, and says what describe will find in it from now on."""
        assert self("create", *NEW).returncode == 0
        (self.root / "events").write_text("".join(f"{event}\n" for event in events))

    def __call__(self, *words):
        command = ["bash", self.script_path, *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def run(self, *options, train=TRAIN):
        return self("run", *NEW, "--interval=0.1", *options, "--", *train)

    @property
    def asked(self):
        """[kind, verb, name, flags...] of every call of gcloud but describe."""
        lines = (self.root / "asked").read_text().splitlines()
        return [
            words
            for words in ([*json.loads(line)][2:] for line in lines)
            if "describe" not in words
        ]

    @property
    def verbs(self):
        return [words[1] for words in self.asked]

    def starts(self, host=0):
        """[folder, argument...] of every start on a host."""
        path = self.root / f"starts.{host}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self, host):
        """Lines that the command has printed on a host."""
        path = self.root / f"hosts/{host}/condenser_jax/log"
        return path.read_text().splitlines() if path.exists() else []
