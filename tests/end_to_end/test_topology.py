"""A pod without a pod: the real step is compiled for a TPU slice that is not there."""

import importlib.util
import re

import pytest

from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='the TPU compiler is not installed: pip install -e ".[tpu]"',
)
SMOKE = ("--config=configs/condenser.py:smoke", "--dry_run")


def dry_run(cache, *flags, devices=1):
    done = launch("train", *SMOKE, *flags, cache=cache, devices=devices)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bytes_of(kind, text):
    """Bytes per step of a kind of collective, as a dry run prints them; 0 if there is none."""
    found = re.search(rf"\b{kind} of ([\d.]+)([kMG]?)B", text)
    return float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]] if found else 0.0


def parameters_in(text):
    """Parameters of all groups, as a dry run prints them."""
    found = re.findall(r"parameters: \w+ ([\d.]+)k", text)
    return sum(float(number) * 1e3 for number in found)


def test_a_dry_run_tells_memory_operations_and_what_devices_exchange(cache):
    text = dry_run(cache, devices=8)
    assert re.search(r"step train: compiled in .* of each device \(.*B state and batch, ", text)
    assert re.search(r"FLOP per token on paper, .*FLOP by the compiler", text)
    gradient = 4 * parameters_in(text)
    assert gradient < bytes_of("all-reduce", text) < 2 * gradient
    assert "tokens/s" in text


@needs_compiler
@pytest.mark.parametrize(
    ("axes", "kind"), [((), "all-reduce"), (("--config.mesh.fsdp=-1",), "all-gather")]
)
def test_the_step_is_compiled_for_a_tpu_slice_that_is_not_there(cache, axes, kind):
    data = ("--config.mesh.data=1",) if axes else ()
    text = dry_run(cache, "--topology=v5e:4x4", *axes, *data)
    assert "16 x TPU v5 lite, 4 process(es)" in text
    assert "of the 17.2GB of each device" in text
    assert bytes_of(kind, text) > 0.5 * 2 * parameters_in(text)
    assert "tokens/s" not in text


@needs_compiler
def test_an_unknown_slice_is_one_line(cache):
    done = launch("train", *SMOKE, "--topology=v5e:3x5", cache=cache)
    assert done.returncode == 2
    assert "unknown topology 'v5e:3x5'; expected generation:shape, for example v4" in done.stderr


def test_a_slice_that_is_not_there_cannot_be_trained_on(cache):
    done = launch("train", SMOKE[0], "--topology=v5e:4x4", cache=cache)
    assert done.returncode == 2
    assert "--topology=v5e:4x4 can only be compiled for; add --dry_run" in done.stderr
