"""Every test runs on 8 virtual CPU devices, offline, with compiled programs kept between runs.

jax and the hub client read these when they are imported first, so they are set before any test is.
What the caller has set already stays.
"""

import os
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count=8"
CACHE = Path(os.environ.get("CONDENSER_JAX_CACHE", "~/.cache/condenser_jax")).expanduser() / "tests"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()
