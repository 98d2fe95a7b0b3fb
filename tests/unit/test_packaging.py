"""setup.py, the embedded corpus and CI say the same of what is needed."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from condenser_jax.data.docstrings import REQUIREMENTS, installed_requirements

ROOT = Path(__file__).parents[2]
MISSION = (
    "jax flax optax orbax-checkpoint transformers datasets tensorflow-datasets ml_collections"
).split()
# Imported by us, and required by others of our requirements: the corpus has them either way.
IMPLIED = {"huggingface-hub", "ml-dtypes", "packaging", "pyarrow", "regex", "scipy"}
# Not in the corpus: prepared data would change, and they have hardly any prose.
OUTSIDE = {"bm25s", "pytrec-eval-terrier"}
NEVER_IMPORTED = {"importlib-resources"}  # catalogues of tensorflow-datasets need it
OPTIONAL = {
    "Stemmer",
    "faiss",
    "onnxruntime",
    "sentence_transformers",
    "torch",
    "wandb",
    "zstandard",
}  # where they are missing: refused with the remedy, or a check is left out
MODULES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "pytrec-eval-terrier": "pytrec_eval",
    "tensorboardx": "tensorboardX",
    "tensorflow-datasets": "tensorflow_datasets",
}


def canonical(requirement):
    """ "Name[extra]>=1" -> "name"."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def declared(name):
    """A constant of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def required():
    return {canonical(requirement) for requirement in declared("REQUIRED")}


def third_party_imports():
    """Top-level modules that the package imports, but for the standard library and itself."""
    files = (ROOT / "condenser_jax").rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"condenser_jax"}


def test_the_corpus_is_made_of_what_setup_requires():
    assert required() == set(map(canonical, REQUIREMENTS)) | IMPLIED | OUTSIDE


def test_what_is_implied_belongs_to_the_corpus_anyway():
    assert set(installed_requirements()) >= IMPLIED


def test_what_is_outside_does_not_change_the_corpus():
    assert not OUTSIDE & set(installed_requirements())


def test_the_packages_of_the_mission_are_required():
    assert set(map(canonical, MISSION)) <= required()


def test_everything_imported_is_required_and_the_other_way_round():
    modules = {MODULES.get(name, name.replace("-", "_")) for name in required() - NEVER_IMPORTED}
    assert third_party_imports() - OPTIONAL == modules


def test_installed_versions_are_those_that_setup_allows():
    from packaging.requirements import Requirement

    for requirement in map(Requirement, declared("REQUIRED")):
        version = metadata.version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_every_extra_is_there():
    assert set(declared("EXTRAS")) == {"cuda", "faiss", "onnx", "tpu", "wandb", "test", "dev"}


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_commits_are_checked_by_the_commands_of_ci(command):
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()
    assert f"entry: {command}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_the_workflow_runs_ci_and_nothing_else():
    steps = re.findall(r"- run: (.+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert steps == [".ci/run"]


def test_torch_is_pinned_where_parity_is_required():
    script = (ROOT / ".ci" / "run").read_text()
    assert "PIP_CONSTRAINT=" in script and "CONDENSER_JAX_REQUIRE_TORCH=1" in script
    assert re.search(r"^torch==\d", (ROOT / "constraints" / "ci.txt").read_text(), re.MULTILINE)
