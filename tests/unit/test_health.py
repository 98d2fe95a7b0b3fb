"""The health of a run: at most one sentence, a picture of all evaluations, also of earlier ones."""

import errno
import json
import logging
import math

import pytest

from condenser_jax.errors import UserError
from condenser_jax.health.picture import FAMILIES, draw_health
from condenser_jax.health.sentence import PATIENCE, sentence
from condenser_jax.objectives.base import Goal
from condenser_jax.plotting import _apart
from condenser_jax.training.health import Health
from condenser_jax.training.hooks import MetricsFile

MRR = Goal("heldout/span_retrieval_mrr", lower_is_better=False)
HEAD = Goal("heldout/head_loss")


def curves(**values):
    """Evaluations every 100 steps, the first before training."""
    return {f"heldout/{name}": (list(range(0, 100 * len(v), 100)), v) for name, v in values.items()}


def test_a_run_that_is_well_gets_no_sentence():
    found = curves(
        head_loss=[6.5, 5.0, 4.9, 4.95, 4.8],
        late_loss=[6.6, 5.2, 5.3, 5.4, 5.1],
        effective_rank=[90.0, 60.0, 40.0, 45.0, 50.0],
        span_retrieval_mrr=[0.1, 0.09, 0.11, 0.12, 0.11],
    )
    assert sentence(found, HEAD) is None
    assert sentence(found, MRR) is None
    assert sentence({}, MRR) is None


def test_a_goal_that_stands_still_is_named_with_its_best():
    values = [0.08, 0.12, 0.17, 0.15, 0.184, 0.18, 0.17, 0.184, 0.1, 0.18]
    assert sentence(curves(span_retrieval_mrr=values), MRR) == (
        "span retrieval (MRR) has not improved for 5 evaluations (best 0.184 after step 400)"
    )
    assert sentence(curves(span_retrieval_mrr=values[:-1]), MRR) is None
    assert sentence(curves(span_retrieval_mrr=[*values, 0.19]), MRR) is None


def test_a_goal_that_training_only_harms_was_best_before_it():
    said = sentence(curves(span_retrieval_mrr=[0.2] + [0.1] * PATIENCE), MRR)
    assert said == (
        "span retrieval (MRR) has not improved for 5 evaluations (best 0.200 before training)"
    )


def test_span_retrieval_may_stand_still_where_the_method_trains_something_else():
    found = curves(span_retrieval_mrr=[0.2] + [0.1] * 9, head_loss=[6.0 - i for i in range(10)])
    assert sentence(found, MRR) is not None
    assert sentence(found, HEAD) is None


def test_a_loss_that_rises_three_times_is_named():
    values = [6.5, 5.2, 5.3, 5.35, 5.4]
    said = "late MLM loss is rising: 5.200 after step 100, 5.400 after step 400"
    assert sentence(curves(late_loss=values), HEAD) == said
    assert sentence(curves(late_loss=[*values[:-1], 5.35]), HEAD) is None
    assert sentence(curves(head_loss=values), HEAD) == said.replace("late", "head")


def test_collapse_comes_first():
    found = curves(late_loss=[5.0, 5.1, 5.2, 5.3], effective_rank=[90.0, 30.0, 4.0, 1.3])
    assert sentence(found, HEAD) == (
        "vectors collapse: effective rank 1.3, 90.0 at the first evaluation"
    )
    assert sentence(curves(effective_rank=[1.2]), HEAD) == "vectors collapse: effective rank 1.2"
    assert sentence(curves(effective_rank=[90.0, 8.0]), HEAD).startswith("vectors collapse")
    assert sentence(curves(effective_rank=[6.0, 2.5]), HEAD) is None


def test_what_is_not_finite_is_no_best():
    values = [math.nan, 0.2, *[math.nan] * PATIENCE]
    said = sentence(curves(span_retrieval_mrr=values), MRR)
    assert said.endswith("(best 0.200 after step 100)")
    assert sentence(curves(span_retrieval_mrr=[math.nan] * 9), MRR) is None


def test_labels_of_lines_do_not_hide_each_other_and_stay_in_the_panel():
    assert _apart([0.2, 0.6]) == [0.2, 0.6]
    moved = _apart([0.5, 0.5, 0.98, 1.0])
    assert all(b - a > 0.08 for a, b in zip(moved, moved[1:], strict=False))
    assert moved[0] == pytest.approx(0.5)
    assert moved[-1] <= 1


def size(picture):
    """(width, height) in pixels of a PNG."""
    header = picture.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:], "big")


def test_every_family_that_has_figures_has_a_panel(tmp_path):
    path = tmp_path / "health.png"
    everything = {figure: ([0, 9], [1.0, 2.0]) for f in FAMILIES for figure in f.lines.values()}
    layers = {f"heldout/cls_entropy_layer_{i}": ([0, 9], [3.0, 2.0]) for i in range(1, 13)}
    assert draw_health(everything | layers, path, "run") == len(FAMILIES) + 1
    large = size(path)
    few = curves(late_loss=[math.nan, 5.0], unigram=[6.0, 6.0], other=[1.0, 1.0])
    assert draw_health(few, path, "run", "late MLM loss is rising") == 2  # and one for `other`
    assert size(path) < large
    assert [file.name for file in tmp_path.iterdir()] == ["health.png"]


@pytest.fixture
def drawn(monkeypatch):
    """What the hook hands to the picture."""
    calls = []
    monkeypatch.setattr(
        "condenser_jax.training.health.draw_health", lambda *arguments: calls.append(arguments)
    )
    return calls


def test_a_resumed_run_shows_its_earlier_evaluations_and_judges_by_them(tmp_path, drawn, caplog):
    lines = [{"step": s, "heldout/head_loss": 5.0 + (s > 0)} for s in range(0, 500, 100)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    file, health = MetricsFile(tmp_path / "metrics.jsonl"), Health(tmp_path, HEAD)
    logger = logging.getLogger("condenser_jax")
    logger.addHandler(caplog.handler)
    for hook in (file, health):
        hook.on_eval(500, {"heldout/head_loss": 6.0})
        hook.on_end()
    logger.removeHandler(caplog.handler)
    (found, path, title, said) = drawn[0]
    assert found["heldout/head_loss"][0] == [0, 100, 200, 300, 400, 500]
    assert path == tmp_path / "health.png"
    assert title == f"{tmp_path.name}, after step 500"
    assert said == "head MLM loss has not improved for 5 evaluations (best 5.000 before training)"
    assert said in caplog.text


def test_a_run_that_is_well_is_drawn_without_a_word(tmp_path, drawn, caplog):
    file, health = MetricsFile(tmp_path / "metrics.jsonl"), Health(tmp_path, HEAD)
    for hook in (file, health):
        hook.on_eval(0, {"heldout/head_loss": 6.0})
        hook.on_end()
    assert drawn[0][-1] is None
    assert caplog.text == ""


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("condenser_jax.training.health.draw_health", fail)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "heldout/head_loss": 6.0}\n')
    with pytest.raises(UserError, match=r"disk full while writing .*health.png; free some space"):
        Health(tmp_path, HEAD).on_eval(0, {})
