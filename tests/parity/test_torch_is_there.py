"""Where torch is absent parity tests skip; CI says that they must run: then this test fails."""

import importlib.util
import os

import pytest

REQUIRED = "CONDENSER_JAX_REQUIRE_TORCH"


@pytest.mark.parametrize("package", ["torch", "sentence_transformers"])
def test_where_parity_is_required_its_reference_is_installed(package):
    if os.environ.get(REQUIRED) != "1":
        pytest.skip(f"{REQUIRED}=1 requires {package}; it is not set")
    assert importlib.util.find_spec(package), f"{package} is missing; pip install -e '.[test]'"
