"""The one loop, with a toy objective of two phases: schedules, counters, resuming in mid-cycle,
failures.
"""

import dataclasses
import time

import jax
import numpy as np
import pytest

from condenser_jax.errors import Preempted, RunFailed
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.loop import Loop, Run
from condenser_jax.training.memory import DoesNotFit
from condenser_jax.training.saved import Saved
from condenser_jax.training.signals import StopRequest
from tests.toy import toy_objective, toy_run

MAXIMISE, MINIMISE = ("maximise",), ("minimise",)
ONE_TO_ONE = (MAXIMISE, MINIMISE)
TWO_TO_THREE = (MAXIMISE,) * 2 + (MINIMISE,) * 3
JOINT = (("maximise", "minimise"),)


class StopAfter(StopRequest):
    """Asks the loop to stop after a step, as SIGTERM does."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step

    def agreed(self, step: int) -> bool:
        return step == self.step


class Recorder:
    """A hook that keeps what it hears."""

    def __init__(self) -> None:
        self.logs, self.ended = [], False

    def on_step(self, step): ...

    def on_log(self, step, metrics):
        self.logs.append((step, metrics))

    def on_eval(self, step, metrics): ...

    def on_end(self):
        self.ended = True


def go(run, directory, stop_after=None, hooks=()):
    """Starts or resumes the run, as run.train does; returns the loop."""
    with Checkpoints(directory) as checkpoints:
        restored = checkpoints.restore_latest(run.abstract_state())
        start, state, record = restored or (0, run.initial_state(), {})
        loop = Loop(
            run,
            state,
            checkpoints,
            list(hooks),
            StopAfter(stop_after),
            history=record.get("history"),
        )
        loop.train(start, time.time())
        checkpoints.wait()
    return loop


def assert_same_state(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "cycle, expected",
    [
        (ONE_TO_ONE, {"maximise": 5, "minimise": 5, "student": 5, "tutor": 10}),
        (TWO_TO_THREE, {"maximise": 4, "minimise": 6, "student": 6, "tutor": 10}),
        (JOINT, {"maximise": 10, "minimise": 10, "student": 10, "tutor": 10}),
    ],
)
def test_phases_and_groups_count_their_own_updates(cycle, expected, tmp_path):
    loop = go(toy_run(cycle, 10), tmp_path)
    assert {name: int(count) for name, count in loop.state.updates.items()} == expected


@pytest.mark.parametrize("cycle, compiled", [(ONE_TO_ONE, 2), (TWO_TO_THREE, 2), (JOINT, 1)])
def test_there_is_one_compilation_per_set_of_active_phases(cycle, compiled, tmp_path):
    assert len(go(toy_run(cycle, 10), tmp_path)._steps) == compiled


@pytest.mark.parametrize("cycle, stop", [(ONE_TO_ONE, 5), (TWO_TO_THREE, 4), (TWO_TO_THREE, 6)])
def test_a_run_resumed_in_mid_cycle_ends_bit_identical(cycle, stop, tmp_path):
    straight = go(toy_run(cycle, 12), tmp_path / "straight")
    with pytest.raises(Preempted, match=f"stopped as asked after step {stop}"):
        go(toy_run(cycle, 12), tmp_path / "resumed", stop_after=stop)
    resumed = go(toy_run(cycle, 12), tmp_path / "resumed")
    assert_same_state(straight.state, resumed.state)
    other = go(toy_run(cycle, 11), tmp_path / "shorter")  # negative control: one step less differs
    with pytest.raises(AssertionError):
        assert_same_state(straight.state.params, other.state.params)


def test_maximise_leaves_the_student_and_its_moments_unchanged(tmp_path):
    run = toy_run((MAXIMISE,), 3)
    before = jax.tree.map(np.asarray, run.initial_state())
    after = go(run, tmp_path).state
    assert_same_state(before.params["student"], after.params["student"])
    assert_same_state(before.opt_state["student"], after.opt_state["student"])
    with pytest.raises(AssertionError):
        assert_same_state(before.params["tutor"], after.params["tutor"])


def test_no_phase_leaks_into_a_group_that_it_does_not_train():
    objective = toy_objective(ONE_TO_ONE)
    params = objective.init(jax.random.key(0), {})
    batch = toy_run(ONE_TO_ONE, 1).batches.batch(0)

    def value(params, phase):
        return objective.losses(params, {}, batch, objective.counts(batch), None)[phase].value

    for phase in objective.phases:
        grads = jax.grad(value)(params, phase.name)
        for group, tree in grads.items():
            moved = any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
            assert moved == (group in phase.trains)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    run = toy_run(JOINT, 12, poisoned=5, save_every=4)
    with pytest.raises(RunFailed, match=r"not finite at step 5; .* last good checkpoint is step 4"):
        go(run, tmp_path)
    assert Saved(tmp_path).latest_step == 4


def test_a_step_that_a_gpu_has_no_room_for_is_explained(tmp_path, monkeypatch):
    def step(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to\nmore")

    monkeypatch.setattr(Run, "compile_step", lambda *_: step)
    with pytest.raises(DoesNotFit, match="does not fit the memory of a cpu; lower training.batch"):
        go(toy_run(JOINT, steps=2), tmp_path)


def test_an_evaluation_that_a_gpu_has_no_room_for_names_its_own_batch(tmp_path):
    def evaluate(params, frozen):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying")

    run = dataclasses.replace(toy_run(JOINT, steps=2), evaluate=evaluate)
    with pytest.raises(DoesNotFit, match="the evaluation does not fit .* evaluation.batch_size"):
        go(run, tmp_path)


class Late:
    """What a step without room leaves on a device: it is said when the value is waited for."""

    def block_until_ready(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def test_the_first_step_of_a_later_phase_is_waited_for_and_explained_too(tmp_path, monkeypatch):
    compile_step = Run.compile_step

    def compiled(run, active):
        step = compile_step(run, active)

        def fails(*given):
            state, metrics = step(*given)
            return dataclasses.replace(state, step=Late()), metrics

        return step if active == MAXIMISE else fails

    monkeypatch.setattr(Run, "compile_step", compiled)
    with pytest.raises(DoesNotFit, match="does not fit the memory"):
        go(toy_run(ONE_TO_ONE, steps=4), tmp_path)


def test_no_update_is_applied_once_a_loss_was_not_finite(tmp_path):
    good = go(toy_run(JOINT, 5), tmp_path / "good")
    run = toy_run(JOINT, 7, poisoned=5)
    step, state = run.compile_step(JOINT[0]), run.initial_state()
    for number in range(7):
        state, _ = step(state, {}, run.batches.batch(number), run.dials)
    assert not bool(state.finite) and int(state.step) == 5
    assert_same_state(good.state.params, state.params)
    assert_same_state(good.state.opt_state, state.opt_state)


def test_hooks_hear_means_of_their_window_and_the_end(tmp_path):
    recorder = Recorder()
    go(toy_run(ONE_TO_ONE, 6), tmp_path, hooks=[recorder])
    assert [step for step, _ in recorder.logs] == [2, 4, 6]
    assert {"maximise/loss", "minimise/loss"} <= set(recorder.logs[0][1])
    assert recorder.ended


def test_a_stop_at_the_last_step_is_no_reason_to_skip_the_last_evaluation(tmp_path):
    loop = go(toy_run(ONE_TO_ONE, 6), tmp_path, stop_after=6)
    assert loop.history["evaluated"] == 6


def test_an_evaluation_that_a_stop_left_out_is_made_up_for_on_resuming(tmp_path):
    class Evaluations(Recorder):
        def on_eval(self, step, metrics):
            self.logs.append(("evaluated", step))

    run = dataclasses.replace(toy_run(ONE_TO_ONE, 12), eval_every=4)
    recorder = Evaluations()
    with pytest.raises(Preempted):
        go(run, tmp_path, stop_after=run.eval_every, hooks=[recorder])
    go(run, tmp_path, hooks=[recorder])
    evaluated = [step for kind, step in recorder.logs if kind == "evaluated"]
    assert evaluated == list(range(0, 13, run.eval_every))


def test_a_run_without_patience_left_ends_saves_and_stays_ended(tmp_path):
    figures = iter([9.0, 3.0, 4.0, 2.0, 2.5, 2.0, 1.0])  # not better twice after the fourth
    run = dataclasses.replace(
        toy_run(ONE_TO_ONE, 60),
        eval_every=4,
        patience=2,
        evaluate=lambda params, frozen: {"heldout/loss": next(figures)},
    )
    loop = go(run, tmp_path)
    assert int(loop.state.step) == 20 and loop.history["best"] == {"step": 12, "value": 2.0}
    assert Saved(tmp_path).latest_step == 20
    again = go(run, tmp_path)
    assert int(again.state.step) == 20 and again.history == loop.history
    assert next(figures) == 1.0  # nobody asked for another evaluation


def test_the_best_is_kept_also_where_a_stop_left_no_time_to_measure_it(tmp_path):
    figures = iter([9.0, 1.0, 4.0, 3.0, 5.0])
    run = dataclasses.replace(
        toy_run(ONE_TO_ONE, 16),
        eval_every=4,
        save_every=4,
        evaluate=lambda params, frozen: {"heldout/loss": next(figures)},
    )
    with pytest.raises(Preempted):
        go(run, tmp_path, stop_after=4)
    loop = go(run, tmp_path)
    assert loop.history["best"] == {"step": 4, "value": 1.0}
    saved = Saved(tmp_path)
    assert saved.steps == [4, 12, 16] and saved.best_step == 4


def test_an_evaluation_that_is_better_than_all_before_is_saved(tmp_path):
    figures = iter([9.0, 3.0, 4.0, 5.0])
    run = dataclasses.replace(
        toy_run(ONE_TO_ONE, 12),
        eval_every=4,
        evaluate=lambda params, frozen: {"heldout/loss": next(figures)},
    )
    go(run, tmp_path)
    saved = Saved(tmp_path)
    assert saved.steps == [4, 12] and saved.best_step == 4
