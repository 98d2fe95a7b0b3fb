"""Distillation by its commands: a teacher, its student by Tutor-KD, the student exported, and gone
on with up to a search; one baseline. Everything in smoke size.
"""

import json

import pytest

from condenser_jax.retrieval.trec import read_run
from condenser_jax.vectors import open_vectors
from tests.end_to_end.launching import launch, smoke

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def teacher(cache, tmp_path_factory):
    """The work directory of a teacher."""
    workdir = tmp_path_factory.mktemp("runs") / "teacher"
    done = launch("train", *smoke(workdir, method="mlm"), cache=cache)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def student(teacher, cache, tmp_path_factory):
    """The work directory of a student with factorised embeddings, its log and its last words."""
    workdir = tmp_path_factory.mktemp("runs") / "student"
    flags = [f"--config.objective.teacher={teacher}", "--config.model.embedding_size=8"]
    done = launch("train", *smoke(workdir, *flags, method="tutor_kd"), cache=cache)
    assert done.returncode == 0, done.stderr
    return workdir, done.stderr, done.stdout


def test_the_log_says_who_teaches_and_shows_what_the_tutor_wrote(student, teacher):
    assert f"teacher: {teacher}, 2 layers, frozen" in student[1]
    assert student[1].count("example: ") == 3 * 3  # at steps 0, 10 and 20
    for metric in ("maximise/reward", "maximise/entropy", "minimise/kl", "minimise/ratio_ones"):
        assert metric in student[1]
    assert "AUC of the student's ratios by the teacher's" in student[2]


def test_it_agrees_more_with_its_teacher_in_the_end(student):
    result = json.loads((student[0] / "result.json").read_text())
    first, last = result["first"], result["last"]
    assert last["heldout/loss"] < first["heldout/loss"]
    assert last["heldout_teacher/cosine"] > first["heldout_teacher/cosine"] + 0.1


def test_what_is_prepared_is_what_training_reads(student, teacher, cache):
    flags = [f"--config.objective.teacher={teacher}"]
    done = launch("prepare", "--config=configs/tutor_kd.py:smoke", *flags, cache=cache)
    assert done.returncode == 0, done.stderr
    prepared = done.stdout.strip().rsplit("/", 1)[1]
    assert prepared in json.loads((student[0] / "data_hashes.json").read_text())


@pytest.fixture(scope="module")
def exported(student, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports") / "student"
    done = launch("export", f"--workdir={student[0]}", f"--output={output}", cache=cache)
    assert done.returncode == 0, done.stderr
    return output


def test_the_student_is_exported_as_an_electra_with_its_ratio_head_beside(exported):
    config = json.loads((exported / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("electra", ["ElectraModel"])
    assert (exported / "ratio_head.safetensors").is_file()


def test_a_student_goes_on_to_condenser_to_retriever_to_search(exported, cache, tmp_path):
    condenser, retriever = tmp_path / "condenser", tmp_path / "retriever"
    flags = [f"--config.model.init={exported}", "--config.training.steps=4"]
    done = launch("train", *smoke(condenser, *flags), cache=cache)
    assert done.returncode == 0, done.stderr
    assert f"backbone: from {exported}" in done.stderr
    assert "weights: mlm_head random" in done.stderr

    flags = [f"--config.model.init={condenser}", "--config.training.steps=4"]
    done = launch("train", *smoke(retriever, *flags, method="retrieval"), cache=cache)
    assert done.returncode == 0, done.stderr
    assert f"backbone: from {condenser} after step 4" in done.stderr
    backbone = json.loads((retriever / "facts.json").read_text())["backbone"]
    assert (backbone["model_type"], backbone["embedding_size"]) == ("electra", 8)

    model, texts = f"--model={retriever}", "docstrings:jax"
    vectors, found = tmp_path / "vectors", tmp_path / "run.trec"
    done = launch("encode", model, f"--corpus={texts}", f"--output={vectors}", cache=cache)
    assert done.returncode == 0, done.stderr
    flags = [f"--vectors={vectors}", f"--queries={texts}", "--k=5", f"--output={found}"]
    done = launch("search", model, *flags, cache=cache)
    assert done.returncode == 0, done.stderr
    run = read_run(found)
    assert len(run) > 10 and {len(passages) for passages in run.values()} == {5}
    assert open_vectors(vectors).card.width == backbone["hidden_size"] == 16


def test_a_baseline_trains_by_its_configuration(teacher, cache, tmp_path):
    flags = [f"--config.objective.teacher={teacher}", f"--workdir={tmp_path / 'kd'}"]
    done = launch("train", "--config=configs/distill.py:smoke", *flags, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "heldout/kd_loss" in done.stdout
