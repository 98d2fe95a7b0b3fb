"""A work directory is of one run: another configuration, other data and other files are refused."""

import json
import types

import pytest

from condenser_jax.errors import UserError
from condenser_jax.finished import read_run
from condenser_jax.run import _shared_workdir
from condenser_jax.training import workdir

CONFIG = {
    "seed": 0,
    "model": {"num_layers": 6, "init": ""},
    "training": {"steps": 100, "log_every": 50, "profile": (3, 5)},
    "mesh": {"data": -1},
}
HASHES = {"train/ids.bin": "abc"}


def changed(**sections):
    return {**CONFIG, **{name: {**CONFIG[name], **values} for name, values in sections.items()}}


@pytest.fixture
def run(tmp_path):
    """A run that has saved a checkpoint."""
    opened = workdir.open_workdir(tmp_path / "run", CONFIG, HASHES)
    (opened.checkpoints / "10").mkdir(parents=True)
    return opened


def test_a_run_that_saved_nothing_does_not_bind_its_directory(tmp_path):
    workdir.open_workdir(tmp_path, CONFIG, HASHES)
    other = changed(model={"num_layers": 12})
    opened = workdir.open_workdir(tmp_path, other, {"train/ids.bin": "xyz"})
    assert workdir.read_config_json(opened)["model"]["num_layers"] == 12
    assert "xyz" in opened.data_hashes.read_text()


def test_a_run_that_is_finished_and_keeps_no_checkpoint_is_not_written_over(tmp_path):
    run = workdir.open_workdir(tmp_path / "run", CONFIG, HASHES)
    workdir.write_json(run.result, {})
    with pytest.raises(UserError, match="another configuration: model.num_layers 6 -> 12"):
        workdir.open_workdir(run.root, changed(model={"num_layers": 12}), HASHES)
    with pytest.raises(UserError, match="is finished and keeps no checkpoint.*config.keep=True"):
        read_run(run.root)


def test_a_new_directory_says_its_configuration(run):
    assert workdir.read_config_json(run)["training"]["profile"] == [3, 5]
    assert workdir.existing_workdir(run.root) == run


def test_a_tilde_is_the_home_also_where_no_shell_has_read_it(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.root.parent))
    assert workdir.is_workdir("~/run") and workdir.existing_workdir("~/run").root == run.root


def test_the_same_run_may_go_on(run):
    assert workdir.open_workdir(run.root, CONFIG, HASHES) == run


def test_another_configuration_is_refused_and_the_keys_are_named(run):
    other = changed(model={"num_layers": 12, "init": "bert"}, training={"steps": 9})
    with pytest.raises(UserError) as error:
        workdir.open_workdir(run.root, other, HASHES)
    assert str(error.value) == (
        f"work directory {run.root} holds a run of another configuration: model.init  -> bert, "
        "model.num_layers 6 -> 12, training.steps 100 -> 9; restore these values or name another "
        "--workdir"
    )
    assert workdir.read_config_json(run)["model"]["num_layers"] == 6


def test_a_key_that_came_or_went_is_named(run):
    with pytest.raises(UserError, match="model.extra absent -> 1, seed 0 -> absent;"):
        other = changed(model={"extra": 1})
        del other["seed"]
        workdir.open_workdir(run.root, other, HASHES)


def test_keys_that_change_nothing_learned_may_differ(run):
    other = changed(mesh={"data": 8}, training={"log_every": 1, "profile": ()})
    workdir.open_workdir(run.root, other, HASHES)
    assert workdir.read_config_json(run)["mesh"]["data"] == 8


def test_data_and_a_teacher_that_changed_are_refused_and_all_named(run):
    text = (
        r"not as when the run in .* started: teacher \(hash absent -> b\), "
        r"train/ids.bin \(hash abc -> xyz\); restore it or name another --workdir"
    )
    with pytest.raises(UserError, match=text):
        workdir.open_workdir(run.root, CONFIG, {"train/ids.bin": "xyz", "teacher": "b"})


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(
        UserError, match=r"holds other files \(thesis.tex, ...\) and no run of ours"
    ):
        workdir.open_workdir(tmp_path, CONFIG, HASHES)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_cut_off_can_be_repeated(tmp_path):
    run = workdir.open_workdir(tmp_path, CONFIG, HASHES)
    run.config.rename(run.config.with_name("config.json.half"))
    assert workdir.open_workdir(run.root, CONFIG, {"train/ids.bin": "new"}) == run


def test_a_file_is_no_work_directory(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="run is a file; name another --workdir"):
        workdir.open_workdir(tmp_path / "run", CONFIG, HASHES)


def test_a_directory_without_a_run_is_no_work_directory(tmp_path):
    with pytest.raises(UserError, match="is not a work directory: it has no config.json"):
        workdir.existing_workdir(tmp_path)


def test_a_damaged_configuration_is_named(run):
    run.config.write_text('{"seed": ')
    with pytest.raises(UserError, match=r"config.json cannot be read \(.*\); name another"):
        workdir.open_workdir(run.root, CONFIG, HASHES)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = json.dumps({"step": 1}) + "\n"
    path.write_text(kept + '{"step": 2}\n{"ste')
    workdir.cut_metrics(path, len(kept))
    assert path.read_text() == kept


def test_a_half_line_that_a_power_cut_left_goes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    workdir.cut_metrics(path, 40)
    assert path.read_text() == '{"step": 1}\n'


def test_metrics_that_are_shorter_are_left(tmp_path):
    path = tmp_path / "metrics.jsonl"
    workdir.cut_metrics(path, 10)
    assert not path.exists()
    path.write_text("{}\n")
    workdir.cut_metrics(path, 10)
    assert path.read_text() == "{}\n"


def test_a_work_directory_takes_one_run_at_a_time(run):
    with workdir.held(run):
        with pytest.raises(UserError, match="is in use by another process; wait for its end or"):
            with workdir.held(run):
                pass
    with workdir.held(run):
        workdir.open_workdir(run.root, CONFIG, HASHES)


def test_a_second_start_that_is_refused_leaves_what_the_first_one_wrote(tmp_path):
    run = workdir.open_workdir(tmp_path / "young", CONFIG, HASHES)
    before = run.config.read_text(), run.data_hashes.read_text()
    other = types.SimpleNamespace(hashes={"data": "another"})
    with workdir.held(run):
        with pytest.raises(UserError, match="is in use by another process"):
            with _shared_workdir(run.root, CONFIG | {"seed": 9}, other):
                pass
    assert (run.config.read_text(), run.data_hashes.read_text()) == before


def test_the_lock_has_another_name_in_it_at_each_start(run):
    with workdir.held(run):
        first = run.lock.read_text()
    with workdir.held(run):
        assert run.lock.read_text() not in ("", first)


def test_a_place_that_cannot_be_written_is_refused_at_the_door(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made: .*file is a file; name another"):
        workdir.check_workdir(tmp_path / "file" / "run", CONFIG)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written: .* is read-only; name another"):
        workdir.check_workdir(tmp_path / "deep" / "run", CONFIG)
