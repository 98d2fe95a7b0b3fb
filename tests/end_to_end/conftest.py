"""One cache for all end-to-end tests of a session: data are prepared and steps compiled once."""

import signal

import pytest

from tests.end_to_end.launching import Started, launch, smoke


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    for run in list(Started.running):
        run.send(signal.SIGKILL)  # the members of a group die with it


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(cache, tmp_path_factory):
    """The work directory of a smoke run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = launch("train", *smoke(workdir), cache=cache)
    assert done.returncode == 0, done.stderr
    return workdir
