"""What is said where a TPU slice that is not there cannot be compiled for, and of what is too large
for a device. (Compiling for one: tests/end_to_end/test_topology.py.)
"""

import importlib.util

import jax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training.memory import DoesNotFit, device_memory, explained_if_too_large
from condenser_jax.training.topology import topology_devices


def test_without_the_compiler_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match=r'not installed; run: pip install -e "\.\[tpu\]"'):
        topology_devices("v5e:4x4")


def test_a_step_that_its_compiler_finds_too_large_is_one_line():
    device = jax.devices()[0]
    with pytest.raises(DoesNotFit, match="does not fit the memory of a cpu; lower training.batch"):
        with explained_if_too_large(device):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with explained_if_too_large(device):
            raise jax.errors.JaxRuntimeError("INTERNAL: the compiler fell over")


def test_the_devices_of_a_cpu_share_what_is_free():
    assert 0 < device_memory(jax.devices()[0]) < 2**50
