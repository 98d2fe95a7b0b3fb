"""A command starts itself again once, with our defaults and without touching what the user set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from condenser_jax import environment

ROOT = Path(__file__).parents[2]


def test_defaults_fill_only_what_is_not_set():
    found = environment.tuned({"TF_CPP_MIN_LOG_LEVEL": "0", "HOME": "/home/a"})
    assert found["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert found["HOME"] == "/home/a"
    assert found["TOKENIZERS_PARALLELISM"] == "false"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
        ("glibc.malloc.check=3", "glibc.malloc.check=3:glibc.malloc.hugetlb=1"),
    ],
)
def test_tunables_of_the_user_stay(before, after):
    assert environment.tuned({"GLIBC_TUNABLES": before})["GLIBC_TUNABLES"] == after


@pytest.mark.parametrize(("vendor", "is_tpu"), [("0x1ae0", True), ("0x8086", False)])
def test_the_tpu_compiler_is_kept_from_asking_around_where_no_tpu_is(
    monkeypatch, tmp_path, vendor, is_tpu
):
    (tmp_path / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setattr(environment, "PCI_VENDORS", str(tmp_path / "*"))
    found = environment.tuned({"TPU_ACCELERATOR_TYPE": "mine"})
    assert found["TPU_ACCELERATOR_TYPE"] == "mine"
    assert ("TPU_WORKER_HOSTNAMES" in found) != is_tpu


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux is meant")
def test_a_command_starts_again_once_with_the_same_arguments(tmp_path):
    script = tmp_path / "tool.py"
    script.write_text(
        "import json, os, sys\n"
        "print('start')\n"
        "from condenser_jax import environment\n"
        "environment.tune_process()\n"
        "flags = [sys.flags.optimize, __debug__]\n"
        "print(json.dumps([sys.argv, flags, os.environ['GLIBC_TUNABLES']]))\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", environment.MARKER)}
    done = subprocess.run(
        [sys.executable, "-O", str(script), "--a=b c", ""],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, "PYTHONPATH": str(ROOT)},
    )
    first, second, last = done.stdout.splitlines()
    assert (first, second) == ("start", "start")
    assert json.loads(last) == [
        [str(script), "--a=b c", ""],
        [1, False],
        "glibc.malloc.hugetlb=1",
    ]


def test_another_c_library_is_left_running(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("", ""))
    environment.tune_process()
    assert os.environ[environment.MARKER] == "1"


@pytest.fixture
def jax_config():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    former = {name: jax.config.values[name] for name in names}
    yield jax.config
    for name, value in former.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_our_cache(tmp_path, monkeypatch, jax_config):
    jax_config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path))
    environment.enable_compilation_cache()
    assert jax_config.values["jax_compilation_cache_dir"] == str(tmp_path / "xla")
    assert (tmp_path / "xla").is_dir()


def test_a_cache_that_the_user_named_stays(tmp_path, jax_config):
    jax_config.update("jax_compilation_cache_dir", "/somewhere")
    environment.enable_compilation_cache(tmp_path)
    assert jax_config.values["jax_compilation_cache_dir"] == "/somewhere"


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, caplog, jax_config):
    jax_config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").write_text("")
    environment.enable_compilation_cache(tmp_path / "file" / "xla")
    assert jax_config.values["jax_compilation_cache_dir"] is None
    assert "compiled programs are not kept" in caplog.text
