"""A run with a teacher: where it comes from, that it is frozen, what its student starts from."""

import dataclasses
import functools
import json
import shutil
import time

import jax
import numpy as np
import pytest

from condenser_jax import teachers
from condenser_jax.build import build
from condenser_jax.errors import Preempted, UserError
from condenser_jax.feeds.distillation import examples
from condenser_jax.finished import read_run
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.export import export
from condenser_jax.hf.load import TOKENIZER_FILES, load_checkpoint
from condenser_jax.hf.model_card import Facts
from condenser_jax.run import train
from condenser_jax.tasks.models import read_weights
from condenser_jax.teachers import find_teacher, hash_of
from condenser_jax.training.loop import Run
from tests.distillation import documents, saved, small_run
from tests.helpers import QUICK, worst_difference
from tests.unit.test_loop import assert_same_state, go

WORDS = (
    "a tutor writes what its student reads and the teacher says how well it is understood".split()
)
CARD = EncoderCard(query_max_length=14, passage_max_length=14)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """(method, overrides of sections) -> a small run on 200 documents."""
    return functools.partial(small_run, documents(tmp_path_factory.mktemp("taught"), WORDS))


@pytest.fixture(scope="module")
def teacher(config, tmp_path_factory):
    """The work directory of a teacher: 2 layers x 16, random weights."""
    return saved(config("mlm"), tmp_path_factory.mktemp("runs") / "teacher")


@pytest.fixture(scope="module")
def student(config, teacher):
    """(overrides) -> a run of Tutor-KD with a factorised student of one layer x 12."""

    def make(method="tutor_kd", **sections):
        sizes = {"hidden_size": 12, "num_layers": 1, "intermediate_size": 20, "embedding_size": 8}
        objective = {"teacher": str(teacher), "least_accuracy": 0.0}
        changes = {"model": sizes, "objective": objective}
        for name, values in sections.items():
            changes[name] = changes.get(name, {}) | values
        return config(method, **changes)

    return make


@pytest.fixture(scope="module")
def built(student):
    return build(student())


def test_the_teacher_is_frozen_and_no_part_of_what_is_saved(built, teacher):
    read = read_run(teacher)
    assert_same_state(built.run.frozen["teacher"], read.params)
    assert set(built.run.abstract_state().params) == {"backbone", "fit", "ratio_head", "tutor"}
    assert built.teacher["where"] == str(teacher)


def test_the_teacher_has_the_compute_dtype_but_for_its_vectors(student):
    frozen = build(student(compute={"dtype": "bfloat16"})).run.frozen["teacher"]
    assert {str(x.dtype) for x in jax.tree.leaves(frozen) if x.ndim > 1} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(frozen) if x.ndim == 1} == {"float32"}


def test_a_teacher_is_divided_over_the_mesh_in_the_compute_dtype(student):
    run = build(student(mesh={"fsdp": 4}, compute={"dtype": "bfloat16"})).run
    divided = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(run.placed["teacher"]):
        name = jax.tree_util.keystr(path)
        assert len(leaf.addressable_shards) == 8
        if "kernel" in name or "word" in name:
            assert leaf.dtype == "bfloat16"
            sizes = {4 * shard.data.nbytes for shard in leaf.addressable_shards}
            assert sizes == {leaf.nbytes}, name
            divided += 1
    assert divided == 1 + 2 * 6 + 1  # the words, the kernels of two layers and of the head


def test_a_teacher_that_is_not_finite_is_refused(teacher, monkeypatch):
    checkpoint = teachers.initial_checkpoint(str(teacher))
    head = checkpoint.params["mlm_head"] | {"bias": checkpoint.params["mlm_head"]["bias"] * np.nan}
    broken = dataclasses.replace(checkpoint, params=checkpoint.params | {"mlm_head": head})
    monkeypatch.setattr(teachers, "initial_checkpoint", lambda where: broken)
    with pytest.raises(UserError, match=r"has weights that are not finite \(mlm_head/bias\); choo"):
        find_teacher(str(teacher))


def test_what_a_teacher_cannot_teach_is_told_before_any_text_is_prepared(student, monkeypatch):
    monkeypatch.setattr("condenser_jax.feeds.distillation.prepare_corpus", None)
    for model, message in (
        ({"num_heads": 3, "hidden_size": 12}, "3 attention heads, the teacher 2"),
        ({"num_layers": 5}, "number of layers, 5, does not divide the"),
        ({"hidden_size": 13}, "hidden_size 13 is not divisible by model.num_heads"),
        ({"model_type": "gpt"}, "unknown model.model_type 'gpt'"),
    ):
        with pytest.raises(UserError, match=message):
            build(student(model=model))


def test_another_teacher_is_another_hash(built, teacher):
    found = find_teacher(str(teacher))
    assert built.hashes["teacher"] == found.hash == hash_of(found.weights)
    head = found.weights["mlm_head"]
    other = {**found.weights, "mlm_head": {**head, "bias": head["bias"] + np.float32(1e-3)}}
    assert hash_of(other) != found.hash


def test_the_student_has_the_teachers_tokenizer_and_vocabulary(built, teacher):
    assert built.backbone.vocab_size == read_run(teacher).backbone.vocab_size
    assert (built.backbone.model_type, built.backbone.embedding_size) == ("electra", 8)


def test_rows_without_a_token_are_known_of_a_teacher(built, teacher):
    vocabulary, found = built.material.vocabulary, find_teacher(str(teacher))
    assert found.known_to(vocabulary).absent_ids == ()
    larger = dataclasses.replace(found.config, vocab_size=vocabulary.size + 2)
    absent = found._replace(config=larger).known_to(vocabulary).absent_ids
    assert absent == (vocabulary.size, vocabulary.size + 1)


@pytest.mark.slow
def test_the_size_of_an_evaluated_batch_changes_no_figure(student):
    def figures(size):
        run = build(student(evaluation={"spans": 20, "batch_size": size})).run
        return run.evaluate(run.initial_state().params, run.frozen)

    found = figures(8)
    assert {"heldout/loss", "heldout_tutor/reward", "heldout_uniform/auc"} <= found.keys()
    assert figures(16) == pytest.approx(found, rel=1e-6, abs=1e-6)


def test_a_run_resumed_in_mid_cycle_ends_bit_identical(built, tmp_path, monkeypatch):
    compiled = {}

    def compile_step(run, active):
        if active not in compiled:
            compiled[active] = run.lower_step(active).compile(QUICK)
        return compiled[active]

    monkeypatch.setattr(Run, "compile_step", compile_step)
    quick = dataclasses.replace(built.run, evaluate=lambda params, frozen: {"heldout/loss": 1.0})
    straight = go(quick, tmp_path / "straight")
    with pytest.raises(Preempted):
        go(quick, tmp_path / "resumed", stop_after=3)  # after maximise, before minimise
    assert_same_state(straight.state, go(quick, tmp_path / "resumed").state)
    assert int(straight.state.updates["tutor"]) == 4 and int(straight.state.updates["fit"]) == 2


@pytest.fixture(scope="module")
def left_by(student, tmp_path_factory):
    """(method, overrides of sections) -> a student, its Hugging Face directory."""

    def leave(method, **sections):
        folder = tmp_path_factory.mktemp(method)
        run = read_run(saved(student(method, **sections), folder / "run"))
        how = run.workdir.tokenizer, folder / "exported", run.card, Facts(method)
        return run, export(run.params, run.backbone, *how)

    return leave


@pytest.fixture(scope="module")
def exported(left_by):
    """A student of Tutor-KD, its Hugging Face directory."""
    return left_by("tutor_kd")


def test_a_student_is_shown_what_it_held_out_though_its_teacher_has_gone(exported, tmp_path):
    run, _ = exported
    workdir = shutil.copytree(run.workdir.root, tmp_path / "student")
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(text.replace(run.config.objective.teacher, "gone"))
    (prepared,) = read_weights(str(workdir), "student").prepared()
    assert prepared.directory.name in json.loads((workdir / "data_hashes.json").read_text())


def test_a_student_is_exported_as_an_encoder_with_its_ratio_head_beside(exported):
    run, directory = exported
    loaded = load_checkpoint(directory)
    assert loaded.config == run.backbone
    assert loaded.params.keys() == {"backbone", "ratio_head"}
    assert_same_encoder(loaded.params["backbone"], run.params["backbone"])
    assert_same_state(loaded.params["ratio_head"], run.params["ratio_head"])


def assert_same_encoder(a, b):
    """But for words that pad the vocabulary, which no export holds."""
    assert_same_state(a["layers"], b["layers"])
    assert_same_state(a["embeddings"]["projection"], b["embeddings"]["projection"])


@pytest.mark.parametrize("method", ["condenser", "mlm"])
def test_a_student_goes_on_to_pre_training_with_a_fresh_mlm_head(config, exported, method):
    run, directory = exported
    heads = {"objective": {"early_layer": 0}} if method == "condenser" else {}
    warm = build(config(method, model={"init": str(directory)}, **heads))
    params = warm.run.initial_state().params
    assert_same_encoder(params["backbone"], run.params["backbone"])
    assert params["mlm_head"]["transform"]["kernel"].shape == (12, 8)
    assert "weights: mlm_head random" in warm.notes


@pytest.mark.parametrize(
    ("method", "objective", "has_head"),
    [("minilmv2", {"relation_heads": 4}, False), ("kd", {}, True)],
)
def test_a_student_of_a_baseline_goes_on_with_the_mlm_head_that_it_has(
    config, left_by, method, objective, has_head
):
    run, directory = left_by(method, objective=objective)
    warm = build(config("condenser", model={"init": str(directory)}, objective={"early_layer": 0}))
    params = warm.run.initial_state().params
    assert_same_encoder(params["backbone"], run.params["backbone"])
    origin = f": from {directory / 'model.safetensors'}" if has_head else " random"
    assert f"weights: mlm_head{origin}" in warm.notes
    if has_head:
        ours, theirs = (x["mlm_head"]["transform"] for x in (params, run.params))
        assert_same_state(ours, theirs)


def test_a_student_may_start_from_layers_of_its_teacher(student, teacher):
    config = student("distilbert", objective={"student_layers": (2,)})
    warm = build(config)
    ours, theirs = warm.run.initial_state().params, read_run(teacher).params
    assert warm.backbone.num_layers == 1 and warm.backbone.hidden_size == 16
    layers = (x["backbone"]["layers"] for x in (ours, theirs))
    assert_same_state(next(layers)["layer_0"], next(layers)["layer_1"])
    assert_same_state(ours["mlm_head"], theirs["mlm_head"])
    (note,) = [note for note in warm.notes if note.startswith("weights: backbone: layers 2 of the")]
    assert f"teacher {teacher}, whose width it has" in note


def test_a_tutor_may_start_from_the_teachers_head(student, teacher):
    warm = build(student(objective={"tutor_init": "teacher"}))
    tutor, theirs = warm.run.initial_state().params["tutor"], read_run(teacher).params
    word = theirs["backbone"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(tutor["decoder"]["embedding"], word)
    np.testing.assert_array_equal(tutor["bias"], theirs["mlm_head"]["bias"])
    (note,) = [note for note in warm.notes if note.startswith("weights: tutor")]
    assert note == f"weights: tutor: the MLM head of the teacher {teacher}"


def test_a_checkpoint_without_mlm_head_gets_one_and_teaches_with_its_backbone_as_it_was(
    config, exported, tmp_path
):
    settings = config(
        "mlm",
        model={"init": str(exported[1])},
        objective={"frozen_backbone": True},
        training={"steps": 2},
    )
    warm = build(settings)
    assert set(warm.run.optimizers) == {"mlm_head"}
    start = jax.device_get(warm.run.initial_state().params)
    assert_same_encoder(start["backbone"], exported[0].params["backbone"])
    train(settings, tmp_path / "run", time.time())
    found = find_teacher(str(tmp_path / "run"))
    assert_same_state(found.weights["backbone"], start["backbone"])
    for name in ("transform", "layer_norm", "bias"):
        assert worst_difference(found.weights["mlm_head"][name], start["mlm_head"][name])[0] > 0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"teacher": ""}}, r"objective.teacher is empty: .*configs/mlm.py:teacher"),
        (
            {"objective": {"teacher": "runs/mlm-teacher"}},
            r"mlm-teacher is not there; train it first: .*=configs/mlm.py:teacher$",
        ),
        (
            {"objective": {"teacher": "runs/mlm-smoke"}},
            r"mlm-smoke is not there; train it first: .*=configs/mlm.py:smoke$",
        ),
        (
            {"objective": {"teacher": "runs/nobody"}},
            r"nobody is not there; train one .*mlm.py:teacher, then .*teacher=runs/mlm-teacher$",
        ),
        ({"objective": {"student_layers": (3,)}}, r"student_layers is \(3,\); expected layers 1 t"),
        (
            {"objective": {"student_layers": (1,)}, "model": {"init": "somewhere"}},
            r"student_layers is \(1,\) and model.init 'somewhere': a student starts from one",
        ),
        ({"compute": {"chunk_size": 4}}, r"chunk_size is 4, but distillation does not contrast"),
        ({"evaluation": {"examples": -1}}, r"evaluation.examples is -1; expected at least 0"),
        ({"data": {"mask_rate": 1.5}}, r"data.mask_rate is 1.5; expected a share"),
        (
            {"model": {"max_positions": 700}, "data": {"max_length": 600}},
            r"max_length 600 is longer than the 512 positions of the teacher; use 512 or less",
        ),
        (
            {"objective": {"maximise_steps": 6}},
            r"training.steps is 4, but the phase 'minimise' begins after 6 steps",
        ),
        (
            {"model": {"model_type": "roberta"}},
            r"embedding_size is 8 with model.model_type 'roberta'; expected at least 1, and 'bert'",
        ),
        ({"model": {"num_heads": 3}}, r"has 3 attention heads, the teacher 2"),
        (
            {"training": {"accumulate": 2}, "objective": {"reward_baseline": "batch_mean"}},
            r"accumulate is 2, but this objective reads its batch as a whole",
        ),
    ],
)
def test_what_does_not_fit_is_refused(student, sections, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        build(student(**sections), jax.devices()[:1])


def test_a_teacher_without_mlm_head_is_sent_to_get_one(student, exported):
    with pytest.raises(
        UserError, match=r"has no MLM head, by which it teaches; .*objective.frozen_backbone=True"
    ):
        build(student(objective={"teacher": str(exported[1])}))


def test_a_teacher_without_tokenizer_is_told_how_to_give_one(student, config, tmp_path):
    run = read_run(saved(config("mlm"), tmp_path / "mlm"))
    facts = Facts("mlm")
    where = export(run.params, run.backbone, run.workdir.tokenizer, tmp_path / "out", CARD, facts)
    for name in TOKENIZER_FILES:
        (where / name).unlink(missing_ok=True)
    message = r"objective.teacher \S+ has no tokenizer beside it; give the one .* data.tokenizer"
    with pytest.raises(UserError, match=message):
        build(student(objective={"teacher": str(where)}))


def test_a_plain_form_that_there_is_not_is_refused(student):
    message = "lean is False, but tutor_kd has no plain form; leave it at True .mlm, condenser, "
    with pytest.raises(UserError, match=message):
        build(student(compute={"lean": False}))


def test_another_tokenizer_than_the_teachers_is_refused(student, tmp_path):
    from condenser_jax.data.tokenization import train_wordpiece

    tmp_path.joinpath("tokenizer").mkdir()
    train_wordpiece(["other words than those"] * 9, 64, tmp_path / "tokenizer", 14)
    with pytest.raises(
        UserError, match=r"is not the tokenizer of the teacher .*its ids mean other"
    ):
        build(student(data={"tokenizer": str(tmp_path / "tokenizer")}))


def test_a_student_that_starts_from_weights_of_another_tokenizer_is_refused(
    student, config, tmp_path
):
    start = saved(config("mlm"), tmp_path / "start")
    assert build(student(model={"init": str(start)})).backbone.hidden_size == 16
    words = start / "tokenizer" / "tokenizer.json"
    described = json.loads(words.read_text())
    described["model"]["max_input_chars_per_word"] = 77  # another file of the same words
    words.write_text(json.dumps(described))
    assert build(student(model={"init": str(start)})).backbone.hidden_size == 16
    words.write_text(words.read_text().replace("##", "@@"))
    with pytest.raises(UserError, match=r"weights of another tokenizer \(.*\) than its teacher's"):
        build(student(model={"init": str(start)}))


@pytest.mark.parametrize(
    ("method", "objective", "has_one"),
    [
        ("tutor_kd", {}, False),
        ("tutor_kd", {"modified_logit": False}, False),  # it reads replaced words
        ("tutor_kd", {"modified_logit": False, "sampling": "none"}, True),
        ("kd", {}, True),
        ("minilm", {}, False),
        ("tinybert", {}, False),
    ],
)
def test_a_card_boasts_of_a_masked_lm_where_a_student_has_learned_one(
    student, method, objective, has_one
):
    assert build(student(method, objective=objective)).card.has_trained_mlm_head == has_one


def test_a_student_goes_on_with_the_ratio_head_it_had(student, exported):
    run, directory = exported
    for start in (run.workdir.root, directory):
        params = build(student(model={"init": str(start)})).run.initial_state().params
        assert_same_state(params["ratio_head"], run.params["ratio_head"])


def test_examples_show_in_words_what_was_put_in_and_how_it_was_judged(built):
    vocabulary, tokenizer = built.material.vocabulary, built.material.tokenizer
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("what its student reads"))
    row = [vocabulary.cls_id, *ids, vocabulary.sep_id, vocabulary.pad_id]
    place = row.index(ids[-1])
    arrays = {
        "input_ids": np.array([row]),
        "attention_mask": np.array([[1] * (len(row) - 1) + [0]]),
        "masked_positions": np.array([[place, 0]]),
        "masked_ids": np.array([[ids[-1], 0]]),
        "masked_weights": np.array([[1.0, 0.0]]),
        "replaced_ids": np.array([[ids[0], 7]]),
    }
    old, new = tokenizer.convert_ids_to_tokens([ids[-1], ids[0]])
    (line,) = examples(arrays, tokenizer, 3)
    start = tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids[:-1]))
    assert line == f"example: {start} ({old} > {new})"
    ratios = {f"{who}_ratio": np.array([[x, 0]]) for who, x in (("teacher", 0.25), ("student", 1))}
    (line,) = examples(arrays | ratios, tokenizer, 3)
    assert line.endswith(f"({old} > {new} [0.25 1.00])")
