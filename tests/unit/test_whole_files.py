"""What takes a name is whole: files as they are written, folders as they are removed."""

import shutil

import pytest

from condenser_jax.whole_files import remove_whole


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
