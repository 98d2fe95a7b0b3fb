"""Agreement of student and teacher on held-out texts: its figures, and what they are made of."""

import jax
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.evaluation.agreement import Agreement, auc
from condenser_jax.health import picture
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives import kd, minilm, tinybert, tutor_kd
from condenser_jax.objectives.distillation import Pair, replace_masked
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig
from condenser_jax.training.sharding import make_mesh
from tests.distillation import (
    ROWS,
    STUDENT,
    TEACHER,
    dropout_of,
    frozen_teacher,
    small_batch,
)
from tests.helpers import compile_quickly, random_params


def test_the_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.3
    order = np.sign(scores[positive][:, None] - scores[~positive])  # ties are 0
    assert auc(scores, positive) == pytest.approx(((order + 1) / 2).mean())
    assert auc(positive.astype(float), positive) == 1.0
    assert np.isnan(auc(scores, np.ones(60, bool)))


def batches():
    """Two held-out batches; the last rows of the second only fill it up."""
    found = []
    for number in range(2):
        batch = small_batch()
        shape = batch["masked_ids"].shape
        batch["numbers"] = np.random.default_rng(number).random(shape, np.float32)
        found.append(batch)
    found[1]["masked_weights"][2:] = 0
    return found


def evaluation(objective, least=0.0, show=None, devices=1):
    mesh = make_mesh(devices=jax.devices()[:devices])
    return Agreement(objective.predict, batches(), least, mesh, show)


@pytest.fixture(scope="module")
def tutored():
    """(objective, params, figures, what was shown) of a random student, teacher and tutor."""
    objective = tutor_kd.build(STUDENT, ComputeConfig(), TutorKdConfig(), TEACHER)
    params, shown = random_params(objective), []
    evaluate = evaluation(objective, show=shown.append)
    return objective, params, evaluate(params, frozen_teacher()), evaluate, shown


def test_three_sets_of_replacements_have_figures_of_their_own(tutored):
    figures = tutored[2]
    for kind in ("teacher", "uniform", "tutor"):
        own = {name for name in figures if name.startswith(f"heldout_{kind}/")}
        names = ("auc", "cosine", "ratio_error", "ratio_error_of_one", "reward", "copies")
        assert {f"heldout_{kind}/{name}" for name in names} <= own
    assert {"heldout/loss", "heldout/logit_loss", "heldout/teacher_accuracy"} <= set(figures)
    for name in ("reward", "teacher_reward", "student_reward"):
        margin = figures[f"heldout_tutor/{name}"] - figures[f"heldout_teacher/{name}"]
        assert figures[f"heldout/{name}_margin"] == pytest.approx(margin) != 0
    assert figures["heldout_teacher/ratio"] == pytest.approx(
        1 - figures["heldout_teacher/ratio_error_of_one"], abs=1e-6
    )


def test_an_auc_is_of_used_slots_and_losses_are_of_the_teachers_words(tutored):
    _, params, figures, evaluate, _ = tutored
    used = np.concatenate([batch["masked_weights"] for batch in evaluate.batches]) > 0
    losses = {}
    for kind, drawn in evaluate.fixed.items():
        found = [
            evaluate.agreement(
                params, frozen_teacher(), {**batch, "replaced_ids": ids}, evaluate.counts
            )
            for batch, ids in zip(evaluate.placed, drawn, strict=True)
        ]
        theirs, ours = (
            np.concatenate([one["ratios"][side] for one in found])[used] for side in (0, 1)
        )
        assert figures[f"heldout_{kind}/auc"] == pytest.approx(auc(ours, theirs >= 0.5))
        total, count = np.sum([one["means"]["logit_loss"] for one in found], axis=0)
        losses[kind] = total / count
    assert figures["heldout/logit_loss"] == pytest.approx(losses["teacher"], rel=1e-5)
    assert abs(losses["teacher"] - losses["uniform"]) > 1e-3


def test_errors_and_cosine_are_those_of_ratios_and_last_states():
    objective = tutor_kd.build(STUDENT, ComputeConfig(), TutorKdConfig(), TEACHER)
    params, frozen, batch = random_params(objective), frozen_teacher(), small_batch()
    batch["replaced_ids"] = batch["masked_ids"][::-1]
    pair = Pair(TEACHER.config, STUDENT, ComputeConfig())

    def look(params):
        found = objective.predict["agreement"](params, frozen, batch, objective.counts(batch))
        ids = replace_masked(batch, batch["replaced_ids"])
        ours, _ = pair.read_student(params, batch, ids, None)
        theirs, _ = pair.read_teacher(frozen, batch, ids)
        return found, pair.fitted(params, ours), theirs

    found, ours, theirs = jax.device_get(compile_quickly(look, params)(params))
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    of_teacher, of_student = found["ratios"]
    for name, values, weights in (
        ("cosine", (ours * theirs).sum(-1) / lengths, batch["attention_mask"]),
        ("ratio_error", abs(of_teacher - of_student), batch["masked_weights"]),
        ("ratio_error_of_one", 1 - of_teacher, batch["masked_weights"]),
    ):
        total, count = found["means"][name]
        wanted = np.average(values, weights=weights)
        np.testing.assert_allclose(total / count, wanted, rtol=1e-5, err_msg=name)


def test_a_baselines_loss_is_of_its_own_texts_and_its_cosine_of_those_with_replacements():
    objective = tinybert.build(STUDENT, ComputeConfig(), tinybert.TinyBertConfig(), TEACHER)
    frozen, batch = frozen_teacher(), small_batch()
    counts, originals = objective.counts(batch), batch["masked_ids"]

    def look(params):
        agreement = objective.predict["agreement"]
        batches = [{**batch, "replaced_ids": ids} for ids in (originals, originals[::-1])]
        own = objective.predict["own"](params, frozen, batch, counts)
        trained = objective.losses(params, frozen, batch, counts, None)["train"].metrics
        return own, trained, [agreement(params, frozen, one, counts)["means"] for one in batches]

    params = random_params(objective)
    own, trained, (as_it_is, replaced) = jax.device_get(compile_quickly(look, params)(params))
    assert own["loss"].total == pytest.approx(trained["loss"].total)
    assert as_it_is.keys() == {"cosine"}
    assert abs(as_it_is["cosine"].total - replaced["cosine"].total) > 1e-4


def test_the_figures_of_a_methods_own_texts_stand_by_themselves():
    objective = kd.build(STUDENT, ComputeConfig(), kd.DistilBertConfig(), TEACHER)
    figures = evaluation(objective)(random_params(objective), frozen_teacher())
    own = {"loss", "kd_loss", "mlm_loss", "cosine_loss", "mlm_accuracy", "teacher_accuracy"}
    assert {name for name in figures if name.startswith("heldout/")} == {
        f"heldout/{name}" for name in own
    }
    assert {"heldout_teacher/cosine", "heldout_uniform/cosine"} == figures.keys() - {
        f"heldout/{name}" for name in own
    }


def drawn(figures, path, monkeypatch):
    """{title: (names at solid lines, how many are dotted)} of the panels of such figures."""
    panels = {}

    def draw_panel(panel, title, lines, scale):
        dotted = [line for line in lines if line.look.get("linestyle") == ":"]
        solid = [line.name for line in lines if line not in dotted]
        panels[title.strip()] = (solid, len(dotted))

    monkeypatch.setattr(picture, "draw_panel", draw_panel)
    curves = {name: ([0, 9], [1.0, 2.0]) for name in figures}
    assert picture.draw_health(curves, path, "run") == len(panels)
    return panels


EACH = ["teacher's", "uniform", "tutor's"]
PANELS = {
    "Distillation loss": ([""], 0),
    "What the loss is made of": (["ratios", "hidden", "attention"], 0),
    "Agreement on ratios": (EACH, 0),
    "Error of the student's ratios": (EACH, 3),
    "Cosine of hidden states": (EACH, 0),
    "Reward of what was put in": (EACH, 0),
    "Reward margin": (["all", "teacher", "student"], 0),
    "Parts of the reward": (["teacher", "student"], 2),
    "What is put in": (["copies", "mean ratio", "ratios of 1"], 3),
    "The tutor's policy": (["entropy", "KL to the teacher"], 0),
}


def test_the_picture_of_a_run_shows_all_that_it_measures(tutored, tmp_path, monkeypatch):
    training = {"maximise/entropy", "minimise/kl", "minimise/gradient_norm"}
    figures = training | tutored[2].keys()
    assert drawn(figures, tmp_path / "health.png", monkeypatch) == PANELS
    without = {name for name in figures if "tutor" not in name and name not in training}
    without = {name for name in without if "margin" not in name}
    panels = drawn(without, tmp_path / "health.png", monkeypatch)
    assert panels["Reward of what was put in"] == (EACH[:2], 0)
    assert panels["What is put in"] == ([], 3)
    assert len(panels) == len(PANELS) - 2


def test_replacements_of_the_teacher_do_not_move_with_the_tutor(tutored):
    _, params, figures, evaluate, _ = tutored
    other = params | {"tutor": {**params["tutor"], "bias": np.arange(128.0, dtype=np.float32)}}
    found = evaluate(other, frozen_teacher())
    for name, value in figures.items():
        if "tutor" not in name and "margin" not in name:
            assert found[name] == pytest.approx(value), name
    assert found["heldout_tutor/copies"] != figures["heldout_tutor/copies"] or (
        found["heldout_tutor/reward"] != figures["heldout_tutor/reward"]
    )


def test_the_first_batch_is_shown_with_its_replacements_and_ratios(tutored):
    arrays = tutored[4][0]
    shape = arrays["masked_ids"].shape
    assert shape[0] == ROWS
    for name in ("replaced_ids", "teacher_ratio", "student_ratio"):
        assert arrays[name].shape == shape
    assert ((0 <= arrays["student_ratio"]) & (arrays["student_ratio"] <= 1)).all()


def test_a_teacher_that_knows_too_little_is_refused():
    objective = kd.build(STUDENT, ComputeConfig(), kd.KdConfig(), TEACHER)
    evaluate = evaluation(objective, least=0.9)
    with pytest.raises(
        UserError, match=r"MLM head names \d+\.\d% .*, under the 90% of .*least_accuracy=0 to take"
    ):
        evaluate(random_params(objective), frozen_teacher())


def test_a_student_without_fit_of_another_width_has_no_cosine():
    objective = kd.build(STUDENT, ComputeConfig(), kd.KdConfig(), TEACHER)
    figures = evaluation(objective)(random_params(objective), frozen_teacher())
    assert "heldout/loss" in figures and "heldout_teacher/cosine" not in figures


@pytest.mark.parametrize("sampling", ["none", "teacher"])
def test_the_loss_of_a_student_is_read_on_masked_text_where_that_is_what_it_reads(sampling):
    options = TutorKdConfig(sampling=sampling)
    objective = tutor_kd.build(STUDENT, ComputeConfig(), options, TEACHER)
    reads_masked = sampling == "none"
    assert ("own" in objective.predict) == reads_masked
    frozen, batch, dropout = frozen_teacher(), small_batch(), dropout_of()
    counts = objective.counts(batch)

    def figures(params, replaced):
        batch_of = {**batch, "replaced_ids": replaced}
        found = objective.predict["agreement"](params, frozen, batch_of, counts)["means"]
        if reads_masked:
            assert "loss" not in found
            found |= objective.predict["own"](params, frozen, batch_of, counts)
        return {name: mean.total for name, mean in found.items()}

    def all_of(params):
        originals = batch["masked_ids"]
        trained = objective.losses(params, frozen, batch, counts, dropout)["minimise"].metrics
        return figures(params, originals), figures(params, originals[::-1]), trained["loss"].total

    params = random_params(objective)
    a, b, trained = jax.device_get(compile_quickly(all_of, params)(params))
    moved = {name for name in a if abs(a[name] - b[name]) > 1e-4}
    assert {"reward", "copies", "cosine"} <= moved
    assert ({"loss", "logit_loss", "hidden_loss"} & moved == set()) == reads_masked
    assert (a["loss"] == pytest.approx(trained, rel=1e-5)) == reads_masked  # STUDENT drops nothing


def cut(size, attended=1):
    """A sample of 5 texts in batches of `size` rows, the last one filled up with rows of so many
    attended positions.
    """
    first, second = batches()
    rows = -(-5 // size) * size
    filled = {}
    for name, values in first.items():
        filled[name] = np.zeros((rows, *values.shape[1:]), values.dtype)
        filled[name][:5] = np.concatenate([values, second[name]])[:5]
    filled["input_ids"][5:, 0] = 2
    filled["attention_mask"][5:, :attended] = 1
    return [{name: v[i : i + size] for name, v in filled.items()} for i in range(0, rows, size)]


@pytest.mark.parametrize(
    ("build", "options"),
    [
        pytest.param(kd.build, kd.DistilBertConfig(), marks=pytest.mark.slow),
        (minilm.build_v2, minilm.MiniLmV2Config(relation_heads=4)),
    ],
)
def test_how_texts_are_cut_into_batches_changes_no_figure(build, options):
    objective = build(STUDENT, ComputeConfig(), options, TEACHER)
    params, frozen = random_params(objective), frozen_teacher()

    def figures(*how):
        mesh = make_mesh(devices=jax.devices()[:1])
        return Agreement(objective.predict, cut(*how), 0.0, mesh)(params, frozen)

    found = figures(3)
    assert len(found) > 2
    assert figures(4) == pytest.approx(found, rel=1e-6, abs=1e-6)
    as_texts = figures(3, 2)["heldout/loss"]  # if the row that fills up were a text
    assert as_texts != pytest.approx(found["heldout/loss"], rel=1e-5)
