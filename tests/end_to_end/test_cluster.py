"""One process or several, one device or eight: the same numbers. Slow: real processes."""

import numpy as np
import pytest

from tests.end_to_end.launching import launch, learned, local_cluster, smoke

pytestmark = pytest.mark.slow


def losses(workdir):
    """The losses of every line of metrics.jsonl, trained and held out.

    Not the ranks of span retrieval: a tie that rounding breaks the other way moves them.
    """
    lines = learned(workdir)
    return [{k: v for k, v in line.items() if k == "step" or "loss" in k} for line in lines]


def assert_same_losses(one, other, tolerance):
    """Every loss of every line agrees, relative to its size."""
    assert [line.keys() for line in one] == [line.keys() for line in other]
    for left, right in zip(one, other, strict=True):
        for name, value in left.items():
            np.testing.assert_allclose(right[name], value, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("method", ["condenser", "cocondenser"])
def test_one_device_is_eight_devices_is_two_processes_of_four(method, cache, tmp_path):
    one, eight, group = (tmp_path / name for name in ("one", "eight", "group"))
    for workdir, devices, launcher in (
        (one, 1, ()),
        (eight, 8, ()),
        (group, 4, local_cluster(2, 4)),
    ):
        flags = smoke(workdir, "--config.training.log_every=1", method=method)
        done = launch("train", *flags, cache=cache, devices=devices, launcher=launcher)
        assert done.returncode == 0, done.stderr
    assert "process 1 of 2: 4 of 8 devices" in done.stderr
    assert done.stderr.count("step 20/20") == 1, "one process speaks for all"
    for workdir in (eight, group):
        assert_same_losses(losses(workdir), losses(one), 1e-5)
    trained = [{"loss": line["train/loss"]} for line in losses(one) if "train/loss" in line]
    with pytest.raises(AssertionError):  # negative control: the losses of the next steps
        assert_same_losses(trained[:-1], trained[1:], 1e-5)


def test_processes_that_were_started_differently_are_told_so(cache, tmp_path):
    odd = ["sh", "-c", 'exec "$@" --config.seed=$CONDENSER_JAX_PROCESS_ID', "sh"]
    launcher = [*local_cluster(2), *odd]
    done = launch("train", *smoke(tmp_path / "run"), cache=cache, launcher=launcher)
    assert done.returncode == 2
    text = "error: the configuration of process 1 is not that of process 0; start every process"
    assert text in done.stderr and "Traceback" not in done.stderr


def test_a_work_directory_that_is_not_shared_is_refused(cache, tmp_path):
    own = ["sh", "-c", f'exec "$@" --workdir={tmp_path}/$CONDENSER_JAX_PROCESS_ID', "sh"]
    launcher = [*local_cluster(2), *own]
    done = launch("train", *smoke(tmp_path / "run"), cache=cache, launcher=launcher)
    assert done.returncode == 2
    assert "of process 1 is not that of process 0; put --workdir=" in done.stderr
