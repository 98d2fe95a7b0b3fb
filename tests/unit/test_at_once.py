"""Parts of an experiment run several at once, each after what it reads; one that fails ends all."""

import json
import shutil
import signal
import textwrap

import pytest

from condenser_jax.errors import Preempted, RunFailed, UserError
from condenser_jax.pipeline.steps import Pipeline, Step
from tests.helpers import benchmark_module

at_once = benchmark_module("at_once")

SCRIPT = """
    import json, sys, time
    from pathlib import Path

    root, steps = Path(sys.argv[1]), json.loads(sys.argv[2])
    name = sys.argv[3].removeprefix("--part=")
    with open(root / "times", "a") as file:
        file.write(json.dumps([name, "begin", time.time()]) + "\\n")
    time.sleep(0.2)
    if name.startswith("bad"):
        print("error: no room for bad", flush=True)
        sys.exit(int(name.removeprefix("bad")))
    folder = root / steps[name]
    folder.mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps({"facts": {}, "seconds": 0.1, "settings": {}}))
    with open(root / "times", "a") as file:
        file.write(json.dumps([name, "end", time.time()]) + "\\n")
"""


def never(directory, earlier):
    raise AssertionError("done in this process")


def step(name, *after, run=never):
    return Step(name, run, {}, after)


@pytest.fixture
def do(tmp_path):
    """(steps, jobs, ...) -> [(name, "begin" or "end")] in their order."""
    script = tmp_path / "part.py"
    script.write_text(textwrap.dedent(SCRIPT))
    pipeline = Pipeline(tmp_path / "parts")

    def run(steps, jobs, **how):
        found = {one.name: one for top in steps for one in (*top.after, top)}
        places = {name: pipeline.directory(one).name for name, one in found.items()}
        command = [str(script), str(pipeline.root), json.dumps(places)]
        at_once.do_at_once(pipeline, steps, jobs, command, **how)
        lines = (pipeline.root / "times").read_text().splitlines()
        return [tuple(json.loads(line)[:2]) for line in lines]

    return pipeline, run


def test_a_part_begins_when_what_it_reads_is_done_and_others_at_the_same_time(do):
    teacher = step("teacher")
    pipeline, run = do
    steps = [step("one", teacher), step("two", teacher), step("three", teacher)]
    events = run(steps, 2)
    assert events[:2] == [("teacher", "begin"), ("teacher", "end")]
    assert set(events[2:4]) == {("one", "begin"), ("two", "begin")}
    assert events[-2:] == [("three", "begin"), ("three", "end")]
    assert all(pipeline.is_done(one) for one in steps)


def test_what_is_done_is_not_done_again(do):
    _, run = do
    steps = [step("one"), step("two")]
    assert len(run(steps[:1], 1)) == 2
    assert run(steps, 1)[2:] == [("two", "begin"), ("two", "end")]


def test_quick_parts_are_done_here(do):
    _, run = do
    events = run([step("mine", step("theirs"), run=lambda *_: {"x": 1})], 1, quick={"mine"})
    assert events == [("theirs", "begin"), ("theirs", "end")]


def test_what_is_done_is_done_though_what_it_read_is_gone(do):
    pipeline, run = do
    steps = [step("late", step("early"))]
    run(steps, 1)
    shutil.rmtree(pipeline.directory(step("early")))
    assert run(steps, 1)[4:] == [("early", "begin"), ("early", "end")]


@pytest.mark.parametrize(("status", "error"), [(1, RunFailed), (2, UserError), (75, Preempted)])
def test_a_part_that_fails_is_told_with_its_last_line_and_ends_the_others(do, status, error):
    pipeline, run = do
    bad = step(f"bad{status}")
    told = rf"^bad{status} failed: no room for bad \(all that it said: .*log"
    with pytest.raises(error, match=told):
        run([bad, step("good"), step("never", bad)], 2)
    assert not pipeline.is_done(step("never", bad))


def test_sigterm_is_no_failure(do):
    def stop(directory, earlier):
        signal.raise_signal(signal.SIGTERM)

    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="start the same command again"):
        do[1]([step("mine", run=stop)], 1, quick={"mine"})
    assert signal.getsignal(signal.SIGTERM) == former
