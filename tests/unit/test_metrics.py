"""Means are sums divided once; the clock counts training alone; devices have peaks."""

import math

import jax.numpy as jnp
import pytest

from condenser_jax.training.metrics import Clock, Means, model_flops_utilisation, peak_flops
from condenser_jax.types import Mean


def mean(total, count):
    return Mean(jnp.float32(total), jnp.float32(count))


class FakeTime:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_mean_weighs_every_step_by_its_count():
    means = Means()
    means.add({"train/loss": mean(2, 1)})
    means.add({"train/loss": mean(6, 3)})
    assert means.read() == {"train/loss": 2.0}


def test_reading_starts_again():
    means = Means()
    means.add({"loss": mean(2, 1)})
    means.read()
    assert means.read() == {}
    means.add({"loss": mean(5, 1)})
    assert means.read("train/") == {"train/loss": 5.0}


def test_steps_of_different_phases_are_merged_by_name():
    means = Means()
    means.add({"maximise/reward": mean(1, 1), "shared": mean(1, 1)})
    means.add({"minimise/loss": mean(4, 2), "shared": mean(5, 1)})
    assert means.read() == {"maximise/reward": 1.0, "minimise/loss": 2.0, "shared": 3.0}


def test_a_metric_that_counted_nothing_is_nan():
    means = Means()
    means.add({"loss": mean(0, 0)})
    assert math.isnan(means.read()["loss"])


def test_the_clock_leaves_out_what_is_paused():
    now = FakeTime()
    clock = Clock(now)
    for _ in range(4):
        now.seconds += 0.5
        clock.count(tokens=100)
        with clock.paused():
            now.seconds += 10
    assert clock.read() == {"steps_per_second": 2.0, "tokens_per_second": 200.0}


def test_the_clock_starts_again_when_read():
    now = FakeTime()
    clock = Clock(now)
    clock.count(1)
    now.seconds += 9
    clock.read()
    assert clock.read() == {}
    clock.count(30)
    now.seconds += 3
    assert clock.read()["tokens_per_second"] == 10.0


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA L4", 121),
        ("TPU v2", 22.5),
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_the_peak_of_a_known_device(kind, tera):
    assert peak_flops(kind) == tera * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40S", "NVIDIA GeForce RTX 4090"])
def test_an_unknown_device_has_no_peak(kind):
    assert peak_flops(kind) is None
    assert model_flops_utilisation(1e6, 6e8, 1, kind) is None


def test_utilisation_is_needed_over_peak_of_all_devices():
    assert model_flops_utilisation(1e6, 3.12e8, 2, "NVIDIA A100") == pytest.approx(0.5)
