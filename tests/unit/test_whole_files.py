"""What takes a name is whole: files as they are written, folders as they are removed. A place that
cannot be written is told.
"""

import shutil

import pytest

from condenser_jax.errors import UserError
from condenser_jax.whole_files import check_file, check_folder, remove_whole, written_whole


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "file").touch()
    return path


def test_a_folder_is_removed(folder, tmp_path):
    remove_whole(folder)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_in_part_does_not_bear_its_name(folder, tmp_path, monkeypatch):
    def killed(path, **how):
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_whole(folder)
    assert not folder.exists() and (tmp_path / "run.removed" / "file").exists()
    folder.mkdir()
    remove_whole(folder)
    assert not list(tmp_path.iterdir())


def test_a_place_that_can_be_made_is_none_to_refuse(folder):
    check_file(folder / "file", "--output")
    check_folder(folder / "a" / "new" / "one", "it", "--output")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_refused(folder, monkeypatch):
    with pytest.raises(UserError, match="^--output=.*/run is a folder; name a file in it$"):
        check_file(folder, "--output")
    with pytest.raises(UserError, match="run/file/a/b cannot be made: .*file is a file; name ano"):
        check_file(folder / "file" / "a" / "b", "--output")
    with pytest.raises(UserError, match="^it cannot be made: .*/run/file is a file; name another"):
        check_folder(folder / "file", "it", "--output")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="a/b cannot be written: .*/run is read-only; name another"):
        check_file(folder / "a" / "b", "--output")


def test_a_tilde_is_the_home_for_what_is_written_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="--output=~/folder is a folder"):
        check_file("~/folder", "--output")
    with written_whole("~/file.txt") as half:
        half.write_text("whole")
    assert (tmp_path / "file.txt").read_text() == "whole"
