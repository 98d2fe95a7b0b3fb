"""Curves are read as they were written, drawn into one picture, and what is missing is named."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from condenser_jax import environment, plotting
from condenser_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def write_run(path, lines):
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def run(tmp_path):
    lines = [json.dumps({"step": s, "time": 1.0, "train/loss": 9.0 - s}) for s in (1, 2, 3)]
    return write_run(tmp_path / "run", [*lines, json.dumps({"step": 3, "heldout/loss": None})])


def test_curves_are_read_by_metric(run):
    curves = plotting.read_curves(run)
    assert curves.keys() == {"train/loss", "heldout/loss"}
    assert curves["train/loss"] == ([1, 2, 3], [8.0, 7.0, 6.0])
    assert math.isnan(curves["heldout/loss"][1][0])


def test_a_line_that_is_being_written_is_left_out(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "train/lo')
    assert plotting.read_curves(run)["train/loss"][0] == [1, 2, 3]


def test_a_broken_line_is_named(tmp_path):
    run = write_run(tmp_path / "run", ['{"step": 1, "a": 2}', "oops"])
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is no line of metrics; remove it"):
        plotting.read_curves(run)


def test_a_directory_without_metrics_is_named(tmp_path):
    with pytest.raises(UserError, match="has no metrics.jsonl; name the work directory of a run"):
        plotting.read_curves(tmp_path)


def test_an_empty_file_of_metrics_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no metrics yet; wait for the run's first log step"):
        plotting.read_curves(write_run(tmp_path / "run", []))


def test_metrics_that_match_nothing_name_the_known_ones(run, tmp_path):
    runs = {"run": plotting.read_curves(run)}
    with pytest.raises(
        UserError, match=r"no metric matches --metrics='los\$'; known: heldout/loss, "
    ):
        plotting.draw_curves(runs, tmp_path / "a.png", "los$")
    with pytest.raises(UserError, match=r"--metrics='\(' is no regular expression: "):
        plotting.draw_curves(runs, tmp_path / "a.png", "(")
    with pytest.raises(
        UserError, match=r"--output=.*a.txt is no picture; name it \*.png or \*.pdf"
    ):
        plotting.draw_curves(runs, tmp_path / "a.txt", "loss")
    assert not (tmp_path / "a.png").exists()


def test_every_metric_that_matches_has_a_panel(run, tmp_path):
    runs = {"a": plotting.read_curves(run), "b": {"train/loss": ([1], [2e5])}}
    assert plotting.draw_curves(runs, tmp_path / "new" / "all.png", "") == 2
    assert plotting.draw_curves(runs, tmp_path / "one.png", "^train") == 1
    widths = []
    for picture in (tmp_path / "new" / "all.png", tmp_path / "one.png"):
        header = picture.read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        widths.append(int.from_bytes(header[16:20], "big"))
    assert widths[0] == 2 * widths[1]


@pytest.mark.slow
def test_the_command_draws_two_runs_and_says_where(run, tmp_path):
    output = tmp_path / "curves.png"
    script, workdir = str(ROOT / "launch" / "plot.py"), f"--workdir={run}"
    other = write_run(tmp_path / "other", ['{"step": 1, "train/loss": 5}'])
    environ = {**environment.tuned({}), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, workdir, f"--workdir={other}", f"--output={output}"],
        capture_output=True,
        text=True,
        env=environ,
    )
    assert (done.returncode, done.stdout) == (0, f"{output}: 2 metrics of run, other\n"), (
        done.stderr
    )
    assert output.stat().st_size > 10_000
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environ)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --workdir is missing; name the work directory of a run, or several\n"
    )
