"""Every outcome of a command has its exit status; a user's mistake is one line.

One process tries all cases, each in a fork of its own, since flags can be parsed only once.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from condenser_jax import command, environment

ROOT = Path(__file__).parents[2]

SCRIPT = """
import errno, json, os, shutil, signal, sys, threading, time
from absl import flags
from condenser_jax import command
from condenser_jax.errors import Preempted, RunFailed, UserError

def fail(error):
    raise error

def chatter():
    while True:
        os.write(2, b"chatter of a thread" + os.linesep.encode())

def fail_beside_a_talker():
    threading.Thread(target=chatter, daemon=True).start()
    time.sleep(0.01)
    fail(UserError("batch_size 3 is odd; use 4."))

OUTCOMES = {
    "fine": lambda: print("lr", CONFIG.value.optimizer.lr),
    "mistake": lambda: fail(UserError("batch_size 3 is odd; use 4.")),
    "failed": lambda: fail(RunFailed("the loss was not finite at step 7")),
    "preempted": lambda: fail(Preempted("saved at step 7")),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupted": lambda: fail(KeyboardInterrupt()),
    "disk": lambda: fail(OSError(errno.ENOSPC, "No space left on device", "ids.bin")),
    "disk of a copy": lambda: fail(shutil.Error([("a", "b", "[Errno 28] No space left")])),
    "read-only": lambda: fail(OSError(errno.EROFS, "Read-only file system", "a.png")),
    "workdir": lambda: print(command.default_workdir()),
    "talker": fail_beside_a_talker,
    "bug": lambda: fail(RuntimeError("nobody foresaw this")),
}
WITHOUT_FLAGS = {"done": lambda: print("done"), "argparse": lambda: sys.exit(2)} | OUTCOMES
OUTCOME = flags.DEFINE_string("outcome", "fine", "how main ends")
CONFIG = command.config_flag()

def in_a_fork(call, arguments=()):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writer, 1), os.dup2(writer, 2), os.close(writer), os.close(reader)
        sys.argv = [sys.argv[0], *arguments]
        call()
    os.close(writer)
    with os.fdopen(reader) as output:
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text

run = lambda: command.run(lambda: OUTCOMES[OUTCOME.value]())
results = {name: in_a_fork(run, words) for name, words in json.loads(sys.argv[1]).items()}
for name in sys.argv[2:]:
    results[f"{name}, no flags"] = in_a_fork(lambda: command.finish(WITHOUT_FLAGS[name]))
print(json.dumps(results))
"""

CONFIG = """
from ml_collections import ConfigDict
from condenser_jax.errors import choose
def get_config(variant=""):
    choose("variant", variant, ("", "smoke"))
    return ConfigDict({"seed": 0, "optimizer": {"lr": 0.1, "name": "adamw"}})
"""

# name of the case -> (arguments, exit status, the whole output; {} stands for the directory)
CASES = {
    "default": ([], 0, "lr 0.1"),
    "override": (["--config.optimizer.lr=1"], 0, "lr 1.0"),
    "mistake": (["--outcome=mistake"], 2, "error: batch_size 3 is odd; use 4."),
    "failed": (["--outcome=failed"], 1, "error: the loss was not finite at step 7"),
    "workdir": (["--outcome=workdir", "--config={}/good.py:smoke"], 0, "runs/good-smoke"),
    "workdir, no variant": (["--outcome=workdir"], 0, "runs/good"),
    "preempted": (["--outcome=preempted"], 75, "saved at step 7"),
    "interrupted": (["--outcome=interrupted"], 130, "interrupted"),
    "disk": (
        ["--outcome=disk"],
        2,
        "error: disk full while writing ids.bin; free some space and start again",
    ),
    "disk of a copy": (
        ["--outcome=disk of a copy"],
        2,
        "error: disk full; free some space and start again",
    ),
    "read-only": (
        ["--outcome=read-only"],
        2,
        "error: a.png cannot be used: Read-only file system; name another place",
    ),
    "key": (
        ["--config.optimizer.lrr=1"],
        2,
        "error: unknown configuration key 'optimizer.lrr'; did you mean 'optimizer.lr'? "
        "known: optimizer.lr, optimizer.name",
    ),
    "section": (
        ["--config.optimiser.lr=1"],
        2,
        "error: unknown configuration key 'optimiser'; did you mean 'optimizer'? "
        "known: optimizer, seed",
    ),
    "below a value": (
        ["--config.seed.lr=1"],
        2,
        "error: there is no key 'seed.lr': 'seed' is a value, not a section",
    ),
    "value": (
        ["--config.optimizer.lr=abc"],
        2,
        "error: flag --config.optimizer.lr=abc: could not convert string to float: 'abc'",
    ),
    "flag": (
        ["--outcom=fine"],
        2,
        "error: Unknown command line flag 'outcom'. Did you mean: outcome ?",
    ),
    "positional": (
        ["runs/a"],
        2,
        "error: unexpected argument 'runs/a'; flags are written --name=value",
    ),
    "variant": (
        ["--config={}/good.py:smoek"],
        2,
        "error: unknown variant 'smoek'; did you mean 'smoke'? known: smoke",
    ),
    "file": (
        ["--config={}/godo.py"],
        2,
        "error: config file {}/godo.py does not exist; did you mean {}/good.py?",
    ),
    "file and override": (
        ["--config", "{}/godo.py", "--config.seed=1"],
        2,
        "error: config file {}/godo.py does not exist; did you mean {}/good.py?",
    ),
    "directory": (
        ["--config={}/elsewhere/x.py"],
        2,
        "error: config file {}/elsewhere/x.py does not exist; "
        "name a Python file with get_config(variant)",
    ),
    "no config": (
        ["--config="],
        2,
        "error: --config is missing; for example --config=configs/condenser.py",
    ),
}
WITHOUT_FLAGS = {  # outcome -> (exit status, the whole output)
    "mistake": (2, "error: batch_size 3 is odd; use 4.\n"),
    "failed": (1, "error: the loss was not finite at step 7\n"),
    "preempted": (75, "saved at step 7\n"),
    "terminated": (75, "stopped as asked; nothing is lost: start the same command again\n"),
    "interrupted": (130, "interrupted\n"),
    "argparse": (2, ""),
    "done": (0, "done\n"),
}
LONG = {
    "talker": ["--outcome=talker"],
    "bug": ["--outcome=bug"],
    "broken config": ["--config={}/broken.py"],
    "help": ["--help", "--config="],
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{case: (exit status, output)}."""
    directory = tmp_path_factory.mktemp("command")
    (directory / "good.py").write_text(CONFIG)
    (directory / "broken.py").write_text("def get_config(variant=''):\n    return int('x')\n")
    cases = {name: arguments for name, (arguments, _, _) in CASES.items()} | LONG
    for name, arguments in cases.items():
        arguments = [argument.replace("{}", str(directory)) for argument in arguments]
        given = any(argument.split("=")[0] == "--config" for argument in arguments)
        cases[name] = arguments if given else [f"--config={directory}/good.py", *arguments]
    (directory / "tool.py").write_text(SCRIPT)
    command = [sys.executable, str(directory / "tool.py"), json.dumps(cases), *WITHOUT_FLAGS, "bug"]
    environ = {**environment.tuned({}), "PATH": "", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    return {
        name: (status, text.replace(str(directory), "{}"))
        for name, (status, text) in results.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_an_outcome_has_its_status_and_one_line(outcomes, name):
    _, status, text = CASES[name]
    assert outcomes[name] == (status, text + "\n")


@pytest.mark.parametrize("name", WITHOUT_FLAGS)
def test_a_script_with_other_flags_has_the_same_outcomes(outcomes, name):
    assert outcomes[f"{name}, no flags"] == WITHOUT_FLAGS[name]


@pytest.mark.parametrize(
    ("script", "flag", "message"),
    [
        ("distillation", "--methods=kd,tinibert", "unknown method 'tinibert'; did you mean"),
        ("claims", "--collection=beir:nowhere", "nowhere"),
    ],
)
def test_an_experiment_tells_a_mistake_in_a_line(script, flag, message):
    file = ROOT / "benchmarks" / f"{script}.py"
    found = subprocess.run([sys.executable, file, flag], capture_output=True, text=True)
    assert found.returncode == 2, found.stderr
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1
    assert message in found.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bug", "RuntimeError: nobody foresaw this"),
        ("bug, no flags", "RuntimeError: nobody foresaw this"),
        ("broken config", "int('x')"),
    ],
)
def test_what_nobody_foresaw_shows_its_stack_trace(outcomes, name, text):
    status, output = outcomes[name]
    assert status == 1
    assert "Traceback" in output and text in output


def test_the_last_word_is_the_message_whatever_threads_go_on_to_print(outcomes):
    status, output = outcomes["talker"]
    assert status == 2 and "chatter of a thread" in output
    assert output.splitlines()[-1] == "error: batch_size 3 is odd; use 4."


def test_help_names_the_flags_and_needs_no_config(outcomes):
    status, text = outcomes["help"]
    assert status == 0
    assert "--outcome: how main ends" in text and "--config:" in text


def test_messages_are_plain_lines_and_other_packages_are_silent():
    script = """
import logging
from absl import logging as absl_logging
from condenser_jax import command
command.set_up_logging()
logging.getLogger("condenser_jax.training").info("mesh %s", "data=8")
logging.getLogger("condenser_jax.data").warning("3 broken lines")
absl_logging.warning("chatter")
logging.getLogger("asyncio").error("a future whose exception nobody fetched")
absl_logging.error("what an exception will say")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr == "mesh data=8\nwarning: 3 broken lines\n"


def test_the_home_directory_is_found_where_a_shell_leaves_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    words = [
        "x.py",
        "--output=~/a.jsonl",
        "--workdir=~",
        "--data=beir:~/x",
        "--tag=~b",
        "--n=a=~/c",
    ]
    found = command.with_home(words)
    assert found[:3] == ["x.py", "--output=/home/me/a.jsonl", "--workdir=/home/me"]
    assert found[3:] == ["--data=beir:~/x", "--tag=~b", "--n=a=~/c"]


@pytest.mark.parametrize(
    ("script", "flag", "message"),
    [
        ("glue", "--config.taks=cola", "unknown configuration key 'taks'; did you mean 'tasks'"),
        ("pipeline", "--task=cola", "Unknown command line flag 'task'"),
    ],
)
def test_a_command_with_a_usual_configuration_tells_a_mistake_in_a_line(script, flag, message):
    """ml_collections reads a default, and what overrides it, when the flag is declared."""
    launch = Path(command.__file__).parents[1] / "launch" / f"{script}.py"
    found = subprocess.run([sys.executable, launch, flag], capture_output=True, text=True)
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert found.stderr.startswith(f"error: {message}")
