"""Progress reads well on a terminal and in a log."""

import io
import re

import pytest

from condenser_jax.training.progress import CLEAR_LINE, Progress, duration, human


class Terminal(io.StringIO):
    def isatty(self):
        return True


class FakeTime:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_terminal_sees_one_line_that_updates():
    stream, now = Terminal(), FakeTime()
    progress = Progress(100, stream=stream, now=now)
    for step in (10, 20):
        now.seconds += 5
        progress.on_log(step, {"train/loss": 2.34567, "tokens_per_second": 12345.0})
    progress.on_end()
    lines = stream.getvalue().split(CLEAR_LINE)
    assert lines[2] == "step 20/100 (20%)  0:40 left  12.3k tokens/s  loss 2.346\n"
    assert "? left" in lines[1]


def test_a_log_sees_a_plain_line_now_and_then_and_the_last_one():
    stream, now = io.StringIO(), FakeTime()
    progress = Progress(100, every=10, stream=stream, now=now)
    for step in range(1, 101):
        now.seconds += 1
        progress.on_log(step, {"mfu": 0.5, "steps_per_second": 1.0})
    lines = stream.getvalue().splitlines()
    steps = [int(re.match(r"step (\d+)", line)[1]) for line in lines]
    assert steps == [*range(1, 101, 10), 100]
    assert lines[-1] == "step 100/100 (100%)  0:00 left  MFU 50.0%"
    assert "\x1b" not in stream.getvalue()


def test_a_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Progress(100, stream=stream).on_log(1, {"a_long_name": 1.0})
    assert len(stream.getvalue()) - len(CLEAR_LINE) == 19


def test_an_evaluation_has_lines_of_its_own():
    stream = io.StringIO()
    metrics = {f"heldout/accuracy_of_the_head_{i}": 0.5 for i in range(4)}
    Progress(100, stream=stream).on_eval(50, {**metrics, "heldout/loss": 1.25})
    title, first, second = stream.getvalue().splitlines()
    assert title == "evaluation at step 50"
    assert first.startswith("  heldout: loss 1.25, accuracy_of_the_head_0 0.5, ")
    assert second == "    accuracy_of_the_head_2 0.5, accuracy_of_the_head_3 0.5"


def test_an_evaluation_is_printed_by_groups_and_its_layers_in_one():
    stream = io.StringIO()
    layers = {f"heldout/entropy_layer_{i}": 1 / i for i in (1, 2, 4)}
    other = {"heldout_new/loss": 2.5, "heldout/pool_of_500": 0.25, "heldout/pool_of_9": 0.5}
    Progress(100, stream=stream).on_eval(50, {**layers, **other})
    assert stream.getvalue().splitlines()[1:] == [
        "  heldout: entropy_layer_1..3 1 0.5 0.25, pool_of_500 0.25, pool_of_9 0.5",
        "  heldout_new: loss 2.5",
    ]


def test_names_of_different_phases_are_told_apart():
    stream = io.StringIO()
    Progress(2, stream=stream).on_log(1, {"maximise/reward": 0.5, "minimise/loss": 2.0})
    assert stream.getvalue().strip().endswith("minimise/loss 2  maximise/reward 0.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "0:42"), (187, "3:07"), (7389, "2:03:09"), (102000, "1d 04:20"), (-1, "0:00")],
)
def test_durations_read_as_clocks(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (812, "812"), (12345, "12.3k"), (4.567e6, "4.57M")]
)
def test_large_numbers_have_units(number, text):
    assert human(number) == text
